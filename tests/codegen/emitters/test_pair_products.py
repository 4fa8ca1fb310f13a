"""Products of narrow integers, two terms a lane: exact for all values, and by the instruction that a machine has."""

from __future__ import annotations

import re

import llvmlite.binding as llvm
import numpy as np
import pytest
from emitter_cases import check, program

import hloc
from hloc.codegen.gemm_block import block_routine
from hloc.codegen.llvm import Module
from hloc.codegen.pair_packing import pack_pairs_routine
from hloc.codegen.routines import Routines
from hloc.codegen.targets.target import target_named
from hloc.codegen.tiles import Tile
from hloc.ir.dtypes import S8, S32, U8, dtype_named
from hloc.options import Options
from hloc.records import replace
from hloc.reference.evaluate import evaluate
from hloc.text.parser import parse_shape

LIMITS = {"s8": (-128, 127), "u8": (0, 255), "s16": (-32768, 32767), "s4": (-8, 7), "u4": (0, 15), "s2": (-2, 1)}


def values(shape: str, seed: int) -> np.ndarray:
    """Numbers from the whole range of a type, a third of them the least ones."""
    parsed = parse_shape(shape)
    low, high = LIMITS[parsed.dtype.name]
    random = np.random.default_rng([seed, *parsed.dims])
    numbers = random.integers(low, high + 1, parsed.dims)
    numbers[random.integers(0, 3, parsed.dims) == 0] = low
    order = parsed.minor_to_major[::-1]
    dense = np.ascontiguousarray(numbers.transpose(order)).astype(dtype_named(parsed.dtype.name).numpy)
    return dense.transpose(np.argsort(order))


def dot(lhs: str, rhs: str, out: str, steps: str, batch: str = "") -> str:
    """`steps` are the contracting dimensions, `batch` the batch dimensions of both operands."""
    names = ("lhs_batch_dims", "rhs_batch_dims") if batch else ()
    dims = [*zip(names, batch.split(), strict=True)]
    dims += zip(("lhs_contracting_dims", "rhs_contracting_dims"), steps.split(), strict=True)
    return f"{out} dot({lhs}, {rhs}), " + ", ".join(f"{name}={{{number}}}" for name, number in dims)


def check_whole_range(shapes: list[str], ops: list[str]) -> None:
    check(shapes, ops, "", [values(shape, number) for number, shape in enumerate(shapes)])


@pytest.mark.parametrize("types", ["s8 s8", "u8 u8", "s8 u8", "s16 s16", "u8 s16", "s4 s8", "u4 s4", "s2 u4"])
@pytest.mark.parametrize(("m", "n", "k"), [(13, 40, 33), (70, 17, 802)])
def test_every_direction(types: str, m: int, n: int, k: int) -> None:
    """Whole and partial panels, whole and partial vectors of steps, odd numbers of steps, several blocks of them."""
    left, right = types.split()
    check_whole_range(
        [f"{left}[{m},{k}]", f"{left}[{k},{m}]", f"{right}[{k},{n}]", f"{right}[{n},{k}]"],
        [
            dot(lhs, rhs, f"s32[{m},{n}]", f"{lc} {rc}")
            for lhs, lc in (("p0", 1), ("p1", 0))
            for rhs, rc in (("p2", 0), ("p3", 1))
        ],
    )


def test_the_greatest_products_wrap() -> None:
    least = np.full((16, 2000), -32768, np.int16)
    (got,) = check(["s16[16,2000]"], [dot("p0", "p0", "s32[16,16]", "1 1")], "", [least])
    assert (got == np.int64(2000 << 30).astype(np.int32)).all()


@pytest.mark.parametrize("result", ["s8", "s16", "u8", "u32"])
def test_other_results(result: str) -> None:
    check_whole_range(["s8[40,901]", "u8[901,50]"], [dot("p0", "p1", f"{result}[40,50]", "1 0")])


def test_batches_and_strides() -> None:
    check_whole_range(
        ["s8[3,20,31]", "s8[3,31,40]", "s8[20,3,31]{0,2,1}", "u8[31,2,40,3]"],
        [
            dot("p0", "p1", "s32[3,20,40]", "2 1", "0 0"),
            dot("p2", "p1", "s32[3,20,40]", "2 1", "1 0"),
            dot("p0", "p3", "s32[3,20,2,40]", "2 0", "0 3"),
            dot("p0", "p3", "s32[3,20,2,40]{1,3,2,0}", "2 0", "0 3"),
        ],
    )


@pytest.mark.parametrize("k", [64, 801])
def test_operands_and_results_in_a_fusion(k: int) -> None:
    """Computed and widened operands, and an epilogue."""
    shapes = [f"s8[30,{k}]", f"s8[{k},100]", "f32[100]"]
    ops = [
        f"s8[30,{k}] add(p0, p0)",
        f"s8[{k},100] multiply(p1, p1)",
        dot("r0", "r1", "s32[30,100]", "1 0"),
        "f32[30,100] convert(r2)",
        "f32[30,100] broadcast(p2), dimensions={1}",
        "f32[30,100] multiply(r3, r4)",
        f"s32[30,{k}] convert(p0)",
        f"s32[{k},100] convert(p1)",
        dot("r6", "r7", "s32[30,100]", "1 0"),
        "s32[30,100] negate(r8)",
    ]
    text = program(shapes, ops).replace("tuple(r0, r1, r2, r3, r4, r5, r6, r7, r8, r9)", "tuple(r5, r9)")
    head, root = text.split("  ROOT results = ")
    text = head + "  ROOT results = (f32[30,100], s32[30,100]) " + root[root.index("tuple(") :]
    arguments = [values(shapes[0], 0), values(shapes[1], 1), np.linspace(-1, 1, 100, dtype=np.float32)]
    executable = hloc.compile(text, options=Options(cache=False))
    symbols = set(re.findall(rb"hloc\.gemm_block\.[\w.]+", b"".join(executable.program.routines)))
    assert symbols and all(symbol.endswith(b".pairs") for symbol in symbols)
    for got, wanted in zip(executable(*arguments), evaluate(hloc.parse(text), arguments), strict=True):
        assert np.array_equal(got, wanted)


def assembly(triple: str, cpu: str, features: tuple[str, ...], vector_bytes: int) -> str:
    """A block of products of pairs for a machine, with what packs its operands."""
    machine = replace(
        target_named("cpu"),
        triple=triple,
        features=frozenset(features),
        vector_bytes=vector_bytes,
        function_attributes=f'nounwind "target-cpu"="{cpu}" "prefer-vector-width"="{vector_bytes * 8}"',
    )
    routines, lanes = Routines(Module("m", triple), machine), vector_bytes // 4
    block_routine(routines, Tile(S32, 6, 2, lanes, 2))
    for source, width, order in ((S8, 6, "steps"), (U8, 2 * lanes, "lines"), (S8, 6, "")):
        pack_pairs_routine(routines, source, width, lanes, order)
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = llvm.parse_assembly(str(routines.module))
    module.verify()
    return llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=1).emit_assembly(module)


@pytest.mark.parametrize(
    ("triple", "cpu", "features", "vector_bytes", "wanted"),
    [
        ("x86_64-unknown-linux-gnu", "x86-64", ("sse2",), 16, "pmaddwd\t%xmm"),
        ("x86_64-unknown-linux-gnu", "haswell", ("sse2", "avx2"), 32, "vpmaddwd\t%ymm"),
        ("x86_64-unknown-linux-gnu", "skylake-avx512", ("avx2", "avx512f", "avx512bw"), 64, "vpmaddwd\t%zmm"),
        ("x86_64-unknown-linux-gnu", "cascadelake", ("avx2", "avx512f", "avx512bw"), 64, "vpdpwssd\t%zmm"),
        ("x86_64-unknown-linux-gnu", "sandybridge", ("sse2", "avx"), 32, "pmull"),
        ("aarch64-unknown-linux-gnu", "neoverse-n1", ("neon",), 16, "smlal"),
    ],
)
def test_instructions(triple: str, cpu: str, features: tuple[str, ...], vector_bytes: int, wanted: str) -> None:
    text = assembly(triple, cpu, features, vector_bytes)
    assert text.count(wanted) >= 12, text
