"""Builders of the emulator's kernels: every access to memory is looked at before it is made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from hloc.codegen.device_program import EMULATED_FLUSHES, EMULATED_MEETS, EMULATED_ORDERS
from hloc.codegen.gpu.emulator_code_global import ATOMIC, LOOK, READ, WRITE
from hloc.codegen.gpu.emulator_code_groups import EmulatedGroups
from hloc.codegen.llvm import Block, Builder, Callee, Function, Value, bit_width, lane_count
from hloc.codegen.routines import i64
from hloc.errors import HloError

_MEETS = '"hloc.meets"'
"""Attribute of functions whose threads wait for each other, or know of each other through shared memory."""

_ORDERS = '"hloc.orders"'
"""Attribute of functions that order what blocks do to global memory."""

STACK_ROOM = 32 << 10
"""The most bytes of local arrays of one function. A thread's stack is twice as large."""

_VERBS = {READ: "reads", WRITE: "writes", ATOMIC: "updates", LOOK: "looks at"}

_OWN, _SHARED = "own", "shared"
"""Where a pointer leads: to the thread's own memory or constants, or to shared memory."""


class Kernel(Function):
    """A kernel's function. `bounds` are, by the text of its pointers, the bytes behind them and what they are.

    Through `constants`, some of these, nothing is written.
    """

    __slots__ = ("bounds", "constants")

    bounds: dict[str, tuple[Value, str]]
    constants: set[str]


def set_traits(kernel: Function) -> None:
    """`<kernel>.traits` says how a kernel is to be run."""
    attributes = kernel.attributes + kernel.module.attributes
    signs = ((EMULATED_MEETS, _MEETS), (EMULATED_FLUSHES, "preserve-sign"), (EMULATED_ORDERS, _ORDERS))
    traits = sum(trait for trait, sign in signs if sign in attributes)
    name = f"{kernel.name}.traits"
    kernel.module.globals[name] = f"@{name} = hidden constant i64 {traits}"


def _bytes_of(type: str) -> int:
    array = re.fullmatch(r"\[(\d+) x (.*)\]", type)
    if array:
        return int(array[1]) * _bytes_of(array[2])
    return -(-bit_width(type) * max(lane_count(type), 1) // 8)


def _natural(bytes: int) -> int:
    """The alignment that an access has by nature; device memory gives 16 bytes at most at once."""
    return min(1 << (bytes - 1).bit_length(), 16)


class EmulatedBuilder(Builder):
    """Looks at every access to memory before it is made.

    Knows of most pointers what they were made from. Addresses beyond an array are no error by themselves.
    """

    def __init__(self, function: Function, code: EmulatedGroups, block: Block | None = None):
        super().__init__(function, block)
        self.code = code
        self._origins: dict[str, str] = {}
        self._bounds, self._constants = (
            (function.bounds, function.constants) if isinstance(function, Kernel) else ({}, set())
        )
        self._sites = 0
        self._stack = 0

    # Threads that meet

    def meets(self) -> None:
        """Says that threads that run the function depend on each other."""
        if _MEETS not in self.function.attributes:
            self.code.launches(meets=True)
            self._add(_MEETS)

    def orders(self) -> None:
        """Says that the function orders what blocks do."""
        if _ORDERS not in self.function.attributes:
            self._add(_ORDERS)

    def _add(self, attribute: str) -> None:
        self.function.attributes += f" {attribute}"
        if isinstance(self.function, Kernel):
            set_traits(self.function)

    def site(self, what: str) -> Value:
        """The text of a place where threads wait for others."""
        self.meets()
        self._sites += 1
        return self.code.text(f"wait at {what}, meeting {self._sites} in {self.function.name}")

    def call(
        self, callee: Callee | Value, args: Iterable[Value], return_type: str | None = None, **more: Any
    ) -> Value | None:
        if isinstance(callee, Function):
            if _MEETS in callee.attributes:
                self.meets()
            if _ORDERS in callee.attributes:
                self.orders()
        return super().call(callee, args, return_type, **more)

    # Where pointers lead

    def origin(self, pointer: Value) -> str | None:
        """_OWN, _SHARED, or the parameter that a pointer was made from; None if that is not known."""
        text = pointer.text
        if text in self._bounds:
            return text
        if text[0] == "@":
            return _SHARED if text == "@emulated.shared" else _OWN
        return self._origins.get(text)

    def _derived(self, value: Value, *sources: Value) -> Value:
        origins = {self.origin(source) for source in sources}
        origin = origins.pop()
        if not origins and origin is not None and value.type == "ptr":
            self._origins[value.text] = origin
        return value

    def gep(
        self,
        element_type: str,
        pointer: Value,
        index: Value | Sequence[Value],
        inbounds: bool = True,
        result_type: str = "",
    ) -> Value:
        return self._derived(super().gep(element_type, pointer, index, False, result_type), pointer)

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        value = super().select(condition, a, b)
        return self._derived(value, a, b) if value.type == "ptr" else value

    def alloca(self, type: str, count: int | Value = 1, align: int = 0) -> Value:
        value = super().alloca(type, count, align)
        self._origins[value.text] = _OWN
        number = count if isinstance(count, int) else getattr(count, "number", STACK_ROOM + 1)
        self._stack += number * _bytes_of(type)
        if self._stack > STACK_ROOM:
            raise HloError(f"a thread of {self.function.name} takes {self._stack} bytes or more of its stack")
        return value

    # Accesses

    def check(self, kind: str, pointer: Value, bytes: int, align: int) -> None:
        """Code that fails unless so many bytes at an address may be touched."""
        origin = self.origin(pointer)
        if origin == _OWN:
            return
        if kind in (WRITE, ATOMIC) and origin in self._constants:
            what = self._bounds[origin][1]
            raise HloError(f"{self.function.name} {_VERBS[kind]} {what}, which it said that it only reads")
        mask = i64(align - 1)
        name = "shared memory" if origin == _SHARED else self._bounds[origin][1] if origin else "memory"
        site = self.code.text(f"{_VERBS[kind]} {bytes} byte{'s' * (bytes != 1)} of {name}")
        if origin == _SHARED:
            super().call(self.code.shared_access(kind, bytes), [pointer, mask, site])
        elif origin is None:
            super().call(self.code.access(kind), [pointer, i64(bytes), mask, site])
        else:
            size = self._bounds[origin][0]
            super().call(self.code.check(kind, bytes), [pointer, Value("ptr", origin), size, mask, site])

    def check_range(self, kind: str, pointer: Value, bytes: Value, align: int = 1) -> None:
        """The same for a number of bytes that is not known now, and may be 0."""
        if self.origin(pointer) == _OWN:
            return
        site = self.code.text(f"{_VERBS[kind]} several bytes of memory")
        super().call(self.code.access(kind), [pointer, self.zext(bytes, "i64"), i64(align - 1), site])

    def _checked(self, kind: str, pointer: Value, type: str, align: int = 0) -> int:
        bytes = _bytes_of(type)
        align = min(align or _natural(bytes), 16)
        self.check(kind, pointer, bytes, align)
        return align

    def load(
        self, type: str, pointer: Value, *, align: int = 0, invariant: bool = False, volatile: bool = False, **_: Any
    ) -> Value:
        align = self._checked(LOOK if volatile else READ, pointer, type, align)
        return super().load(type, pointer, align=align, invariant=invariant, volatile=volatile)

    def store(self, value: Value, pointer: Value, *, align: int = 0, volatile: bool = False, **_: Any) -> None:
        align = self._checked(ATOMIC if volatile else WRITE, pointer, value.type, align)
        super().store(value, pointer, align=align, volatile=volatile)

    def load_atomic(self, type: str, pointer: Value, ordering: str = "acquire") -> Value:
        self._checked(LOOK, pointer, type)
        return super().load_atomic(type, pointer, ordering)

    def store_atomic(self, value: Value, pointer: Value, ordering: str = "release") -> None:
        self._checked(ATOMIC, pointer, value.type)
        super().store_atomic(value, pointer, ordering)

    def atomicrmw(self, op: str, pointer: Value, value: Value, ordering: str = "monotonic") -> Value:
        self._checked(ATOMIC, pointer, value.type)
        return super().atomicrmw(op, pointer, value, ordering)

    def cmpxchg(
        self,
        pointer: Value,
        expected: Value,
        new: Value,
        ordering: str = "seq_cst",
        failure: str = "monotonic",
    ) -> tuple[Value, Value]:
        self._checked(ATOMIC, pointer, new.type)
        return super().cmpxchg(pointer, expected, new, ordering, failure)

    def memcpy(self, target: Value, source: Value, size: Value) -> None:
        self.check_range(READ, source, size)
        self.check_range(WRITE, target, size)
        super().memcpy(target, source, size)

    def memset(self, target: Value, byte: Value, size: Value) -> None:
        self.check_range(WRITE, target, size)
        super().memset(target, byte, size)
