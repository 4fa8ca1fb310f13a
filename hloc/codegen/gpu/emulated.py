"""The dialect of the emulator: kernels as functions of the CPU, in which every access to memory is looked at.

A kernel is an internal function of its parameters, and of the bytes behind each of its pointers. What the runtime
calls is `<kernel>.entry(words)`; `<kernel>.traits` says how. See `emulator_code.py` for what it runs on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from hloc.codegen.gpu.emulator_code import i32
from hloc.codegen.gpu.emulator_code_global import ATOMIC, LOOK, READ, WRITE
from hloc.codegen.gpu.emulator_code_matrix import OUTPUTS, EmulatedMatrices
from hloc.codegen.gpu.intrinsics import WARP, Dialect, Intrinsics
from hloc.codegen.llvm import Block, Builder, Callee, Function, Module, Value, bit_width, lane_count
from hloc.codegen.routines import i64
from hloc.codegen.targets.target import Target
from hloc.errors import HloError

_MEETS = '"hloc.meets"'
"""Attribute of functions whose threads wait for each other, or know of each other through shared memory."""

_ORDERS = '"hloc.orders"'
"""Attribute of functions that order what blocks do to global memory."""

MEETS, FLUSHES, ORDERS = 1, 2, 4
"""Bits of a kernel's traits: to be run by fibers; with denormals flushed; with blocks in an order of its own."""

STACK_ROOM = 32 << 10
"""The most bytes of local arrays of one function. A thread's stack is twice as large."""

_VERBS = {READ: "reads", WRITE: "writes", ATOMIC: "updates", LOOK: "looks at"}

_OWN, _SHARED = "own", "shared"
"""Where a pointer leads: to the thread's own memory or constants, or to shared memory."""


class Kernel(Function):
    """A kernel's function. `bounds` are, by the text of its pointers, the bytes behind them and what they are."""

    __slots__ = ("bounds",)

    bounds: dict[str, tuple[Value, str]]


class Emulated(Dialect):
    """Kernels that `machine`, a CPU, runs."""

    pointer = "ptr"
    shared_pointer = "ptr"

    def __init__(self, machine: Target):
        self.machine = machine

    def kernel(self, module: Module, name: str, params: list[tuple], threads: int, attributes: str) -> Function:
        pointers = [param[1] for param in params if param[0] == "ptr"]
        # Nothing is promised to LLVM of memory: what it may touch beside the accesses as written is no more than those.
        own = [(type, at, *_alignment(rest)) for type, at, *rest in params]
        sizes = [("i64", f"{at}.bytes") for at in pointers]
        function = Kernel(module, name, "void", [*own, *sizes], attributes, "internal")
        function.args, sizes = function.args[: len(params)], function.args[len(params) :]
        starts = [value for value in function.args if value.type == "ptr"]
        function.bounds = {
            value.text: (size, f"argument {number} ({at})")
            for number, (value, size, at) in enumerate(zip(starts, sizes, pointers, strict=True))
        }
        module.functions[name] = function
        _write_entry(module, function, [param[0] for param in params], len(pointers), attributes)
        _set_traits(function)
        EmulatedMatrices(module, self.machine).launches(meets=False)
        return function

    def builder(self, function: Function, instruction: str) -> Builder:
        b = EmulatedBuilder(function, EmulatedMatrices(function.module, self.machine))
        if instruction:
            b.comment(f"%{instruction}")
        return b

    def intrinsics(self, b: Builder, shared_bytes: int) -> Intrinsics:
        assert isinstance(b, EmulatedBuilder)
        return EmulatedIntrinsics(b)


def _alignment(attributes: Sequence[str]) -> list[str]:
    return re.findall(r"align \d+", " ".join(attributes))


def _write_entry(module: Module, kernel: Function, types: list[str], pointers: int, attributes: str) -> None:
    """`<kernel>.entry(words)` calls the kernel with its pointers, scalars, and the sizes of the pointers."""
    name = f"{kernel.name}.entry"
    entry = module.functions[name] = Function(module, name, "void", [("ptr", "words")], attributes)
    b = Builder(entry)

    def word(type: str, number: int) -> Value:
        return b.load(type, b.gep("i64", entry.args[0], i64(number)))

    places = {"ptr": iter(range(pointers)), "i64": iter(range(pointers, len(types)))}
    arguments = [word(type, next(places[type])) for type in types]
    sizes = [word("i64", len(types) + number) for number in range(pointers)]
    b.call(kernel, [*arguments, *sizes])
    b.ret()


def _set_traits(kernel: Function) -> None:
    attributes = kernel.attributes + kernel.module.attributes
    signs = ((MEETS, _MEETS), (FLUSHES, "preserve-sign"), (ORDERS, _ORDERS))
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

    def __init__(self, function: Function, code: EmulatedMatrices, block: Block | None = None):
        super().__init__(function, block)
        self.code = code
        self._origins: dict[str, str] = {}
        self._bounds = function.bounds if isinstance(function, Kernel) else {}
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
            _set_traits(self.function)

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


class EmulatedIntrinsics(Intrinsics):
    """See Intrinsics."""

    def __init__(self, b: EmulatedBuilder):
        super().__init__(b)
        self.b: EmulatedBuilder = b
        self.code = b.code

    def _coordinate(self, name: str, axis: str) -> Value:
        place = self.code.variable(name, "<4 x i32>")
        return self.b.load("i32", self.b.gep("i32", place, i64("xyz".index(axis))), invariant=True)

    def _number(self) -> Value:
        return self.b.load("i32", self.code.variable("thread", "i32"), invariant=True)

    def thread(self, axis: str = "x") -> Value:
        return self._coordinate("coordinates", axis)

    def block(self, axis: str = "x") -> Value:
        return self._coordinate("block", axis)

    def barrier(self) -> None:
        self.b.call(self.code.barrier(), [self.b.site("a barrier"), i64(0)])

    def any(self, condition: Value) -> Value:
        vote = self.b.zext(condition, "i64")
        found = self.b.call(self.code.barrier(), [self.b.site("a vote of the block"), vote])
        return self.b.icmp_signed("!=", found, i64(0))

    def warp_barrier(self) -> None:
        self.b.call(self.code.warp_barrier(), [self.b.site("a barrier of the warp")])

    def fence(self) -> None:
        """Threads take turns: what one has written is there for the next."""
        self.b.orders()

    def shuffle32(self, mode: str, value: Value, lane: Value) -> Value:
        b = self.b
        this, bits = b.and_(self._number(), i32(WARP - 1)), b.and_(lane, i32(WARP - 1))
        if mode == "idx":
            source = bits
        elif mode == "xor":
            source = b.xor(this, bits)
        else:
            source = b.sub(this, bits) if mode == "up" else b.add(this, bits)
            source = b.select(b.icmp_unsigned("<", source, i32(WARP)), source, this)
        return b.call(self.code.shuffle(), [b.site("a shuffle"), value, source])

    def ballot(self, condition: Value) -> Value:
        return self.b.call(self.code.ballot(), [self.b.site("a vote of the warp"), self.b.zext(condition, "i32")])

    def shared(self, offset: int = 0) -> Value:
        self.b.meets()
        return self.b.gep("i8", self.code.shared(), i64(offset))

    def atomic(self, op: str, pointer: Value, value: Value) -> Value:
        return self.b.atomicrmw(op, pointer, value)

    def compare_exchange(self, pointer: Value, expected: Value, new: Value) -> Value:
        return self.b.cmpxchg(pointer, expected, new, "monotonic")[0]

    def load_volatile(self, type: str, pointer: Value) -> Value:
        b = self.b
        b.meets()
        b.orders()
        b.call(self.code.look(), [self.code.text(f"looks at memory, in {b.function.name},")])
        return b.load(type, pointer, volatile=True)

    def store_volatile(self, value: Value, pointer: Value) -> None:
        self.b.store(value, pointer, volatile=True)

    def copy_async(self, target: Value, source: Value, size: int, live: Value | None = None) -> None:
        b = self.b
        b.meets()
        if live is None:
            b.check(READ, source, size, size)
        else:
            b.check_range(READ, source, live, size)
        bytes = i64(size) if live is None else b.zext(live, "i64")
        site = self.code.text(f"begins to copy {size} bytes to shared memory")
        b.call(self.code.copy(), [target, source, i64(size), bytes, i64(size - 1), site])

    def commit_copies(self) -> None:
        self.b.meets()
        self.b.call(self.code.commit(), [])

    def wait_copies(self, groups: int) -> None:
        self.b.meets()
        self.b.call(self.code.wait_copies(), [i64(groups)])

    def load_matrices(self, pointer: Value, count: int, transposed: bool = False) -> list[Value]:
        b = self.b
        b.store(pointer, self._slot(0))
        b.call(self.code.load_matrices(count, transposed), [b.site("a load of matrices")])
        return [b.load("i32", self._slot(OUTPUTS + number)) for number in range(count)]

    def mma(self, shape: str, types: str, a: Sequence[Value], b: Sequence[Value], c: Sequence[Value]) -> list[Value]:
        for number, value in enumerate((*a, *b, *c)):
            self.b.store(value, self._slot(number))
        code = self.code.mma(shape, types, (len(a), len(b), len(c)))
        self.b.call(code, [self.b.site("a product of matrices")])
        return [self.b.load(value.type, self._slot(OUTPUTS + number)) for number, value in enumerate(c)]

    def _slot(self, number: int) -> Value:
        """Where the thread leaves a register for others of its warp, and finds what they have made."""
        thread = self.b.zext(self._number(), "i64")
        return self.b.gep("i64", self.code.slots(self.b, thread), i64(number))
