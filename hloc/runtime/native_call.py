"""Calls of executables without Python, and the pool of memory that arrays come from and go back to.

The native functions of `codegen.call_layout` are the same for all programs. A process loads them once; a program needs
but a table for them to read. `callable_type` says where Python finds them.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from struct import pack
from typing import Any

import numpy as np

from hloc.codegen import call_layout as layout
from hloc.codegen.program import Program
from hloc.ir.dtypes import U8
from hloc.ir.shapes import ArrayShape, Shape, array
from hloc.lazy import lazy
from hloc.runtime import elf, memory
from hloc.runtime.callable_type import python_function, set_function, text_address
from hloc.runtime.memory import address

mcjit = lazy("hloc.runtime.mcjit")

_C_CONTIGUOUS, _F_CONTIGUOUS, _ALIGNED, _WRITEABLE = 0x1, 0x2, 0x100, 0x400
"""Flags of NumPy's arrays."""

_NEW_FROM_DESCR = 94
"""The number of PyArray_NewFromDescr in NumPy's table of functions."""

_MOST_LEAVES = 16384
"""More pointers are too much for a thread's stack."""

_MOST_ON_STACK = 8192
"""Bytes of an arena that lies on the stack."""

_LONG_SECONDS = 20e-6
"""How long a run takes at least for which Python's lock is given up."""

_MOST_IDLE_BYTES = 4 << 30
"""What the pool may keep; also, at most an eighth of this process's memory."""

PythonCall = Callable[..., Any]


class Host:
    """The native functions in this process, and the pool. It lives as long as the process: arrays refer to it.

    `slow(executable, arguments, names)` does a call that the native function leaves to Python, the last arguments being
    those of the `names`, if not None; `failed(executable, status)` raises for a program's status.
    """

    def __init__(self, code: Sequence[bytes], slow: PythonCall, failed: PythonCall):
        load = elf.Loaded if elf.is_loadable(code[0]) else mcjit.Loaded
        self._loaded = load(*code)
        self._functions = (slow, failed)
        self.pool = _new_pool()
        self._handler_table, self._handler = self._new_handler()
        fields = {
            "array_type": id(np.ndarray),
            "new_array": _numpy_function(_NEW_FROM_DESCR),
            "handler": id(self._handler),
            "none": id(None),
            "slow": id(slow),
            "failed": id(failed),
            "pool": address(self.pool),
        }
        self.table = _table(layout.HOST, fields)
        find = self._loaded.address
        self.call_address = find(layout.CALL_FUNCTION)
        self._new_array = ctypes.PYFUNCTYPE(ctypes.py_object, *[ctypes.c_void_p] * 2)(find(layout.ARRAY_FUNCTION))
        self._give_back = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(find(layout.GIVE_BACK_FUNCTION))
        self.size_class = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(find(layout.CLASS_FUNCTION))
        python_function("Py_IncRef", None, ctypes.py_object)(self)

    def block(self, size: int) -> np.ndarray | None:
        """Uninitialized bytes from the pool, at a 64-byte boundary; None if there is no memory."""
        rows = Rows()
        row = rows.result(self, array(U8, size))
        try:
            return self._new_array(address(self.table), rows.address(row))
        except MemoryError:
            return None

    @property
    def idle_bytes(self) -> int:
        """What the pool keeps that nobody uses."""
        return int(self.pool[layout.POOL.index("idle_bytes")])

    def give_back(self, most: int = 0) -> None:
        """Gives idle memory back to the system, until the pool keeps no more than `most` bytes."""
        self._give_back(address(self.pool), most)

    def _new_handler(self) -> tuple[Any, Any]:
        """NumPy's record of functions for memory (NEP 49), and the capsule that arrays have of it."""
        functions = map(self._loaded.address, layout.HANDLER_FUNCTIONS)
        table = ctypes.create_string_buffer(pack("127sB5Q", b"hloc", 1, address(self.pool), *functions))
        new = python_function("PyCapsule_New", ctypes.py_object, *[ctypes.c_void_p] * 3)
        return table, new(ctypes.addressof(table), text_address(b"mem_handler"), None)


_host: Host | None = None
_lock = threading.Lock()


def host(code: Callable[[], Sequence[bytes]], slow: PythonCall, failed: PythonCall) -> Host:
    """The Host of this process, made of the object files that `code` gives if there is none yet."""
    global _host
    with _lock:
        if _host is None:
            _host = Host(code(), slow, failed)
            memory.draw_from(_host.block)
        return _host


def current() -> Host | None:
    """The Host of this process, if there is one yet."""
    return _host


class Rows:
    """Tables of native calls, and what they refer to."""

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def address(self, numbers: Sequence[Any]) -> int:
        """The address of numbers, or of rows of them, which lie there as long as this object lives."""
        self._kept.append(np.array(numbers, np.int64).reshape(-1))
        return address(self._kept[-1])

    def parameter(self, shape: ArrayShape, is_donor: bool) -> list[int]:
        """A row of PARAMETER."""
        order = _order_flag(shape)
        strides = 0 if order else self.address(_strides(shape))
        flags = _ALIGNED | order | (_WRITEABLE if is_donor else 0)
        places = self.address(shape.dims), strides
        return [self._object(shape.dtype.numpy), flags, shape.rank, *places, shape.byte_size, int(is_donor)]

    def result(self, host: Host, shape: ArrayShape, donor: int | None = None) -> list[int]:
        """A row of RESULT."""
        strides = 0 if _order_flag(shape) == _C_CONTIGUOUS else self.address(_strides(shape))
        places = self.address(shape.dims), strides
        dtype, size = self._object(shape.dtype.numpy), host.size_class(shape.byte_size)
        return [dtype, shape.rank, *places, size, -1 if donor is None else donor]

    def _object(self, kept: object) -> int:
        self._kept.append(kept)
        return id(kept)


class NativeCall:
    """The tables of one program, which must live as long as what is called through them.

    `entry`, `constants` and `context` are addresses.
    """

    def __init__(self, host: Host, program: Program, entry: int, constants: int, context: int):
        self._host = host
        self._rows = rows = Rows()
        structure = _structure(program.result_shape)
        donors = program.donors
        parameters = [rows.parameter(leaf.shape, number in donors) for number, leaf in enumerate(program.parameters)]
        results = [
            rows.result(host, leaf.shape, donor)
            for leaf, donor in zip(program.results, donors or (None,) * len(program.results), strict=True)
        ]
        room = arena_room(program)
        fields = {
            "host": address(host.table),
            "entry": entry,
            "constants": constants,
            "context": context,
            "arena_class": -1 if room is not None else host.size_class(program.arena_bytes),
            "releases": int(is_long(program)),
            "parameters": rows.address(parameters),
            "parameter_count": len(parameters),
            "results": rows.address(results),
            "result_count": len(results),
            "structure": rows.address(structure),
            "structure_count": len(structure),
            "words": len(parameters) + 2 * len(results) + len(structure) + ((room or 0) + layout.UNIT) // 8,
            "arena_room": room or 0,
            "donates": int(any(donor is not None for donor in donors)),
        }
        self._table = _table(layout.CALL, fields)

    def enter(self, executable: object) -> None:
        """From now on calls of an executable go through these tables."""
        set_function(executable, self._host.call_address, address(self._table))


def arena_room(program: Program) -> int | None:
    """The bytes of an arena that lies on the stack; None for those that are too large."""
    small = program.arena_bytes <= _MOST_ON_STACK
    return -(-program.arena_bytes // layout.UNIT) * layout.UNIT if small else None


def fits(program: Program) -> bool:
    """Whether calls of a program may be native: all is known before the call, and there is memory for it."""
    shapes = [leaf.shape for leaf in (*program.parameters, *program.results)]
    sizes = [program.arena_bytes, *(shape.byte_size for shape in shapes)]
    return (
        program.replica_count * program.num_partitions == 1
        and program.guards is None
        and not any(shape.is_dynamic for shape in shapes)
        and len(shapes) <= _MOST_LEAVES
        and max(sizes) <= memory.physical_bytes()
    )


def _table(names: Sequence[str], fields: dict[str, int]) -> np.ndarray:
    return np.array([fields[name] for name in names], np.int64)


def _new_pool() -> np.ndarray:
    """POOL and the rings of all classes, each of them empty."""
    head = len(layout.POOL)
    pool = np.zeros(head + 2 * layout.CLASS_COUNT, np.int64)
    start = address(pool)
    for ring in (layout.POOL.index("newest"), *range(head, len(pool), 2)):
        pool[ring : ring + 2] = start + 8 * ring
    pool[layout.POOL.index("most_bytes")] = min(memory.available_bytes() // 8, _MOST_IDLE_BYTES)
    return pool


def _numpy_function(number: int) -> int:
    """The address of a function of NumPy's binary interface."""
    pointer = python_function("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    table = pointer(np._core._multiarray_umath._ARRAY_API, None)
    return ctypes.c_int64.from_address(table + 8 * number).value


def _strides(shape: ArrayShape) -> list[int]:
    return [stride * shape.dtype.itemsize for stride in shape.strides]


def _order_flag(shape: ArrayShape) -> int:
    """The flag of arrays that lie as the layout says; 0 if there is none for that order."""
    if shape.minor_to_major == tuple(reversed(range(shape.rank))):
        return _C_CONTIGUOUS
    return _F_CONTIGUOUS if shape.minor_to_major == tuple(range(shape.rank)) else 0


def _structure(shape: Shape) -> list[int]:
    """The steps that make a value of its leaves."""
    if shape.is_tuple:
        return [step for element in shape.elements for step in _structure(element)] + [len(shape.elements)]
    return [layout.LEAF if shape.is_array else layout.TOKEN]


def is_long(program: Program) -> bool:
    """Whether a run takes so long that others should go on meanwhile, at a speed that most programs reach."""
    cost = program.cost
    operations = cost.flops + cost.integer_ops + 10 * cost.transcendentals + cost.bytes_accessed / 4
    seconds = operations / 4e9 + cost.kernels * 50e-9
    return bool(cost.unknown_loops or cost.opaque_calls) or seconds > _LONG_SECONDS
