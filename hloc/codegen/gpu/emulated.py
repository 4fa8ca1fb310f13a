"""The dialect of the emulator: kernels as functions of the CPU, in which every access to memory is looked at.

A kernel is an internal function of its parameters, and of the bytes behind each of its pointers. What the runtime
calls is `<kernel>.entry(words)`; `<kernel>.traits` says how. See `emulator_code.py` for what it runs on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hloc.codegen.gpu.emulated_builder import EmulatedBuilder, Kernel, set_traits
from hloc.codegen.gpu.emulator_code import i32
from hloc.codegen.gpu.emulator_code_global import READ
from hloc.codegen.gpu.emulator_code_groups import FRESH, LHS, RHS, EmulatedGroups
from hloc.codegen.gpu.emulator_code_matrix import OUTPUTS
from hloc.codegen.gpu.group_products import ATOM_BYTES, check_registers, group_product
from hloc.codegen.gpu.intrinsics import WARP, Dialect, Intrinsics
from hloc.codegen.llvm import Builder, Function, Module, Value
from hloc.codegen.routines import i64
from hloc.codegen.targets.target import Target
from hloc.errors import HloError


class Emulated(Dialect):
    """Kernels that `machine`, a CPU, runs."""

    pointer = "ptr"
    shared_pointer = "ptr"

    def __init__(self, machine: Target):
        self.machine = machine

    def map_parameter(self, name: str) -> tuple:
        """The address of its record: see `EMULATED_MAP_FIELDS`."""
        return ("i64", name)

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
        function.constants = {
            value.text for value, param in zip(function.args, params, strict=True) if "readonly" in " ".join(param[2:])
        }
        module.functions[name] = function
        _write_entry(module, function, [param[0] for param in params], len(pointers), attributes)
        set_traits(function)
        EmulatedGroups(module, self.machine).launches(meets=False)
        return function

    def builder(self, function: Function, instruction: str) -> Builder:
        b = EmulatedBuilder(function, EmulatedGroups(function.module, self.machine))
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

    # Barriers in shared memory, copies of tiles, products of warpgroups

    def _at_barrier(self, function: Function, place: Value, value: Value, what: str) -> None:
        self.b.meets()
        self.b.call(function, [place, value, i64(7), self.code.text(f"{what} in shared memory")])

    def barrier_make(self, place: Value, arrivals: int) -> None:
        self._at_barrier(self.code.barrier_make(), place, i64(arrivals), "makes a barrier")

    def barriers_made(self) -> None:
        self.b.meets()
        self.b.call(self.code.barriers_made(), [])
        self.fence_shared()

    def barrier_expect(self, place: Value, bytes: Value | int) -> None:
        number = i64(bytes) if isinstance(bytes, int) else self.b.zext(bytes, "i64")
        self._at_barrier(self.code.barrier_arrive(), place, number, "comes, with bytes to wait for, to a barrier")

    def barrier_arrive(self, place: Value) -> None:
        self._at_barrier(self.code.barrier_arrive(), place, i64(0), "comes to a barrier")

    def barrier_wait(self, place: Value, parity: Value) -> None:
        site = self.b.site("a barrier in shared memory")
        self.b.call(self.code.barrier_wait(), [place, self.b.zext(parity, "i64"), i64(7), site])

    def copy_tile(self, target: Value, map: Value, at: Sequence[Value], place: Value) -> None:
        b, code = self.b, self.code
        b.meets()
        for dim, value in enumerate(at):
            b.store(b.sext(value, "i64"), code.tile_place(b, dim))
        site = code.text("begins to copy a tile to shared memory")
        arguments = [target, b.inttoptr(map), place, i64(len(at)), i64(ATOM_BYTES - 1), site]
        b.call(code.copy_tile(), arguments)

    def fence_shared(self) -> None:
        self.b.meets()
        self.b.call(self.code.fence_shared(), [])

    def group_begin(self, sums: Sequence[Value]) -> list[Value]:
        self.b.call(self.code.group_begin(), [self.b.site("the begin of products of its warpgroup")])
        return list(sums)

    def group_multiply(
        self,
        n: int,
        names: str,
        lhs: Value,
        rhs: Value,
        sums: Sequence[Value],
        lhs_by_lines: bool = False,
        rhs_by_lines: bool = False,
        fresh: Value | None = None,
    ) -> list[Value]:
        product = group_product(n, names, lhs_by_lines, rhs_by_lines)
        if (len(sums), sums[0].type) != (product.registers, product.kind):
            raise HloError(f"wgmma m64n{n} of {names} takes {product.registers} sums, {product.kind}")
        fresh = i64(0) if fresh is None else self.b.zext(fresh, "i64")
        slots = [*enumerate(sums), (LHS, lhs), (RHS, rhs), (FRESH, fresh)]
        for number, value in slots:
            self.b.store(value, self._slot(number))
        code = self.code.group_multiply(product, lhs_by_lines, rhs_by_lines)
        self.b.call(code, [self.b.site("a product of its warpgroup")])
        return [self.b.load(value.type, self._slot(OUTPUTS + number)) for number, value in enumerate(sums)]

    def group_commit(self) -> None:
        self.b.call(self.code.group_commit(), [self.b.site("the end of a group of products of its warpgroup")])

    def group_wait(self, groups: int, sums: Sequence[Value]) -> list[Value]:
        site = self.b.site("the wait for products of its warpgroup")
        self.b.call(self.code.group_wait(), [i64(groups), site])
        found: list[Value] = []
        for first in range(0, len(sums), OUTPUTS):
            part = sums[first : first + OUTPUTS]
            for number, value in enumerate(part):
                self.b.store(value, self._slot(number))
            self.b.call(self.code.claim(), [i64(len(part))])
            found += [self.b.load(value.type, self._slot(OUTPUTS + number)) for number, value in enumerate(part)]
        return found

    def _shared_number(self, pointer: Value) -> Value:
        b = self.b
        return b.sub(b.ptrtoint(pointer, "i64"), b.ptrtoint(self.code.shared(), "i64"))

    def set_registers(self, count: int, increase: bool) -> None:
        check_registers(count)
        self.b.meets()
        self.b.call(self.code.set_registers(), [i64(count)])

    def part_barrier(self, number: int, threads: int) -> None:
        site = self.b.site(f"barrier {number} of {threads} threads")
        self.b.call(self.code.part_barrier(), [i64(number), i64(threads), site])

    def _slot(self, number: int) -> Value:
        """Where the thread leaves a register for others of its warp, and finds what they have made."""
        thread = self.b.zext(self._number(), "i64")
        return self.b.gep("i64", self.code.slots(self.b, thread), i64(number))
