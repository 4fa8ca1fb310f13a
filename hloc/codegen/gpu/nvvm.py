"""The dialect of NVIDIA's GPUs: LLVM's NVVM intrinsics, and PTX where LLVM has none."""

from __future__ import annotations

from collections.abc import Sequence

from hloc.codegen.gpu.group_products import check_registers, group_product
from hloc.codegen.gpu.intrinsics import ALL_LANES, Dialect, Intrinsics
from hloc.codegen.llvm import Builder, Constant, Function, Module, Value, integer, poison
from hloc.ir.dtypes import BF16, DType

_GLOBAL, _SHARED = "ptr addrspace(1)", "ptr addrspace(3)"

_BF16_SM = 80
"""The first architecture that rounds to bf16."""

_MODES = {"idx": ("idx", 31), "xor": ("bfly", 31), "up": ("up", 0), "down": ("down", 31)}
"""PTX's name of a shuffle, and the bounds that go with it."""

_CODES = {"i32": "r", "i64": "l", "float": "f", "double": "d"}
"""LLVM's letters for registers of a type; pointers are in those of an i64."""


class Nvvm(Dialect):
    """Kernels become PTX entries, named by the functions."""

    pointer = _GLOBAL
    shared_pointer = _SHARED

    def __init__(self, sm: int):
        self.rounds_bf16 = sm >= _BF16_SM

    def map_parameter(self, name: str) -> tuple:
        return ("ptr", name, 'byval([128 x i8]) align 128 "nvvm.grid_constant"')

    def kernel(self, module: Module, name: str, params: list[tuple], threads: int, attributes: str) -> Function:
        attributes = f'{attributes} "nvvm.maxntid"="{threads}"'.strip()
        return module.function(name, "void", params, attributes, "ptx_kernel")

    def keep_resident(self, kernel: Function, blocks: int) -> None:
        kernel.attributes += f' "nvvm.minctasm"="{blocks}"'

    def builder(self, function: Function, instruction: str) -> Builder:
        b = Builder(function)
        b.rounds_bf16 = self.rounds_bf16
        return b

    def intrinsics(self, b: Builder, shared_bytes: int) -> Intrinsics:
        return NvvmIntrinsics(b)


class NvvmIntrinsics(Intrinsics):
    """See Intrinsics."""

    def _register(self, name: str) -> Value:
        return self.b.intrinsic(f"llvm.nvvm.read.ptx.sreg.{name}", "i32", [], overloads=())

    def _effect(self, name: str, args: Sequence[Value] = ()) -> None:
        self.b.intrinsic(f"llvm.nvvm.{name}", "void", list(args), overloads=(), pure=False)

    def thread(self, axis: str = "x") -> Value:
        return self._register(f"tid.{axis}")

    def block(self, axis: str = "x") -> Value:
        return self._register(f"ctaid.{axis}")

    def barrier(self) -> None:
        self._effect("barrier.cta.sync.aligned.all", [integer("i32", 0)])

    def warp_barrier(self) -> None:
        self._effect("bar.warp.sync", [integer("i32", ALL_LANES)])

    def fence(self) -> None:
        self._effect("membar.gl")

    def shuffle32(self, mode: str, value: Value, lane: Value) -> Value:
        name, bound = _MODES[mode]
        args = [integer("i32", ALL_LANES), value, lane, integer("i32", bound)]
        return self.b.intrinsic(f"llvm.nvvm.shfl.sync.{name}.i32", "i32", args, overloads=(), pure=False)

    def ballot(self, condition: Value) -> Value:
        args = [integer("i32", ALL_LANES), condition]
        return self.b.intrinsic("llvm.nvvm.vote.ballot.sync", "i32", args, overloads=(), pure=False)

    def any(self, condition: Value) -> Value:
        args = [integer("i32", 0), condition]
        return self.b.intrinsic("llvm.nvvm.barrier.cta.red.or.aligned.all", "i1", args, overloads=(), pure=False)

    def shared(self, offset: int = 0) -> Value:
        if "shared" not in self.b.module.globals:
            self.b.module.globals["shared"] = "@shared = external addrspace(3) global [0 x i8], align 1024"
        return self.b.gep("i8", Value(_SHARED, "@shared"), integer("i64", offset))

    def atomic(self, op: str, pointer: Value, value: Value) -> Value:
        return self.b.atomicrmw(op, pointer, value)

    def compare_exchange(self, pointer: Value, expected: Value, new: Value) -> Value:
        return self.b.cmpxchg(pointer, expected, new, "monotonic")[0]

    def load_volatile(self, type: str, pointer: Value) -> Value:
        return self.b.load(type, pointer, volatile=True)

    def store_volatile(self, value: Value, pointer: Value) -> None:
        self.b.store(value, pointer, volatile=True)

    def copy_async(self, target: Value, source: Value, size: int, live: Value | None = None) -> None:
        kind = "cg" if size == 16 else "ca"
        args = [target, source] + ([] if live is None else [live])
        self._effect(f"cp.async.{kind}.shared.global.{size}{'' if live is None else '.s'}", args)

    def commit_copies(self) -> None:
        self._effect("cp.async.commit.group")

    def wait_copies(self, groups: int) -> None:
        self._effect("cp.async.wait.group", [integer("i32", groups)])

    def load_matrices(self, pointer: Value, count: int, transposed: bool = False) -> list[Value]:
        kind = f"x{count}{'.trans' if transposed else ''}"
        result = "i32" if count == 1 else f"{{ {', '.join(['i32'] * count)} }}"
        name = f"llvm.nvvm.ldmatrix.sync.aligned.m8n8.{kind}.b16.p3"
        found = self.b.intrinsic(name, result, [pointer], overloads=(), pure=False)
        return [found] if count == 1 else [self.b.extractvalue(found, i, "i32") for i in range(count)]

    def mma(self, shape: str, types: str, a: Sequence[Value], b: Sequence[Value], c: Sequence[Value]) -> list[Value]:
        """By PTX text: LLVM's intrinsics have a name and argument types of their own for every combination."""
        kind, count = c[0].type, len(c)
        outs = [f"${i}" for i in range(count)]
        ins = [*a, *b, *c]
        places = [f"${count + i}" for i in range(len(ins))]
        parts = (outs, places[: len(a)], places[len(a) : len(a) + len(b)], places[len(a) + len(b) :])
        operands = ", ".join("{" + ", ".join(part) + "}" for part in parts)
        constraints = ",".join([f"={_CODES[kind]}"] * count + [_CODES[value.type] for value in ins])
        result = kind if count == 1 else f"{{ {', '.join([kind] * count)} }}"
        text = f"mma.sync.aligned.{shape}.row.col.{types} {operands};"
        found = self.b.inline_asm(result, text, constraints, ins)
        return [found] if count == 1 else [self.b.extractvalue(found, i, kind) for i in range(count)]

    # By PTX text: LLVM's intrinsics for these change from version to version, or are not there.

    def _text(self, text: str, args: Sequence[Value] = ()) -> None:
        """Code for all threads alike, before and after which memory is as it is written."""
        codes = [_CODES.get(value.type, "l") for value in args]
        self.b.inline_asm("void", text, ",".join([*codes, "~{memory}"]), args, attributes="convergent")

    def barrier_make(self, place: Value, arrivals: int) -> None:
        self._text("mbarrier.init.shared.b64 [$0], $1;", [place, integer("i32", arrivals)])

    def barriers_made(self) -> None:
        self._text("fence.mbarrier_init.release.cluster;")
        self.fence_shared()

    def barrier_expect(self, place: Value, bytes: Value | int) -> None:
        bytes = integer("i32", bytes) if isinstance(bytes, int) else bytes
        self._text("mbarrier.arrive.expect_tx.shared.b64 _, [$0], $1;", [place, bytes])

    def barrier_arrive(self, place: Value) -> None:
        self._text("mbarrier.arrive.shared.b64 _, [$0];", [place])

    def barrier_wait(self, place: Value, parity: Value) -> None:
        look = "mbarrier.try_wait.parity.shared.b64 %done, [$0], $1;"
        text = f"{{ .reg .pred %done; LOOK: {look} @!%done bra LOOK; }}"
        self._text(text, [place, self.b.zext(parity, "i32")])

    def copy_tile(self, target: Value, map: Value, at: Sequence[Value], place: Value) -> None:
        name = f"cp.async.bulk.tensor.{len(at)}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        numbers = ", ".join(f"${3 + i}" for i in range(len(at)))
        self._text(f"{name} [$0], [$1, {{{numbers}}}], [$2];", [target, map, place, *at])

    def fence_shared(self) -> None:
        self._text("fence.proxy.async.shared::cta;")

    def group_begin(self, sums: Sequence[Value]) -> list[Value]:
        return self._on_sums("wgmma.fence.sync.aligned;", sums)

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
        product, count = group_product(n, names, lhs_by_lines, rhs_by_lines), len(sums)
        head = f"wgmma.mma_async.sync.aligned.m64n{n}k{product.k}.{names}"
        registers = ", ".join(f"${i}" for i in range(product.registers))
        signs = "" if product.kind == "i32" else ", 1, 1"
        turned = f", {int(lhs_by_lines)}, {int(rhs_by_lines)}" if product.bits == 16 else ""
        operands = f"{{{registers}}}, ${2 * count}, ${2 * count + 1}"
        if fresh is None or isinstance(fresh, Constant):
            adds = int(fresh is None or not fresh.number)
            return self._on_sums(f"{head} {operands}, {adds}{signs}{turned};", sums, [lhs, rhs])
        test = f".reg .pred %adds; setp.eq.u32 %adds, ${2 * count + 2}, 0;"
        text = f"{{ {test} {head} {operands}, %adds{signs}{turned}; }}"
        return self._on_sums(text, sums, [lhs, rhs, self.b.zext(fresh, "i32")])

    def group_commit(self) -> None:
        self._text("wgmma.commit_group.sync.aligned;")

    def group_wait(self, groups: int, sums: Sequence[Value]) -> list[Value]:
        return self._on_sums(f"wgmma.wait_group.sync.aligned {groups};", sums)

    def _on_sums(self, text: str, sums: Sequence[Value], more: Sequence[Value] = ()) -> list[Value]:
        """Code that changes sums where they are; `more` are operands behind those for the sums, twice as many."""
        kind, count = sums[0].type, len(sums)
        codes = [f"={_CODES[kind]}"] * count + [str(i) for i in range(count)] + [_CODES[value.type] for value in more]
        result = f"{{ {', '.join([kind] * count)} }}"
        constraints = ",".join([*codes, "~{memory}"])
        found = self.b.inline_asm(result, text, constraints, [*sums, *more], attributes="convergent")
        return [self.b.extractvalue(found, i, kind) for i in range(count)]

    def _shared_number(self, pointer: Value) -> Value:
        return self.b.ptrtoint(pointer, "i64")

    def set_registers(self, count: int, increase: bool) -> None:
        check_registers(count)
        self._text(f"setmaxnreg.{'inc' if increase else 'dec'}.sync.aligned.u32 {count};")

    def part_barrier(self, number: int, threads: int) -> None:
        self._text(f"barrier.cta.sync.aligned {number}, {threads};")

    def exp2(self, value: Value) -> Value:
        return self.b.intrinsic("llvm.nvvm.ex2.approx.ftz.f", "float", [value], overloads=())

    def packed(self, dtype: DType, low: Value, high: Value) -> Value:
        """PTX has the high one first; LLVM finds its instruction for f16 by itself."""
        b = self.b
        if dtype is BF16:
            pair = b.intrinsic("llvm.nvvm.ff2bf16x2.rn", "<2 x bfloat>", [high, low], overloads=())
        else:
            pair = b.insertelement(poison("<2 x half>"), b.fptrunc(low, "half"), 0)
            pair = b.insertelement(pair, b.fptrunc(high, "half"), 1)
        return b.bitcast(pair, "i32")
