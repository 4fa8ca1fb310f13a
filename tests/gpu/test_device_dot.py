"""dot on devices: every kernel, on the emulator; and what ptxas says of the large ones."""

from __future__ import annotations

import re

import numpy as np
import pytest
from against_evaluator import agree, laid_out, ptx, random
from device_cases import ptxas_for

import hloc
from hloc import api
from hloc.codegen.gpu import gemm_plan
from hloc.codegen.gpu.gemm_staged import StagedTile
from hloc.codegen.gpu.gemm_units import ROW_BYTES
from hloc.codegen.llvm import Builder, Module
from hloc.codegen.llvm.values import Constant
from hloc.codegen.routines import i64
from hloc.codegen.targets.ptxas import assemble
from hloc.ir.dtypes import dtype_named
from hloc.options import Options

DIRECTIONS = {"nn": (1, 0), "nt": (1, 1), "tn": (0, 0), "tt": (0, 1)}


def program(lhs: str, rhs: str, out: str, numbers: str) -> str:
    return f"""
HloModule products
ENTRY main {{
  x = {lhs} parameter(0)
  y = {rhs} parameter(1)
  ROOT z = {out} dot(x, y), {numbers}
}}
"""


def product(types: str, m: int, n: int, k: int, direction: str = "nn", more: str = "") -> tuple[str, str, str]:
    """A program that multiplies matrices of some types ("lhs rhs out"), and the shapes of its parameters."""
    lhs, rhs, out = types.split()
    left, right = DIRECTIONS[direction]
    x = f"{lhs}[{m},{k}]" if left else f"{lhs}[{k},{m}]"
    y = f"{rhs}[{n},{k}]" if right else f"{rhs}[{k},{n}]"
    numbers = f"lhs_contracting_dims={{{left}}}, rhs_contracting_dims={{{right}}}{more}"
    return program(x, y, f"{out}[{m},{n}]", numbers), x, y


def check(types: str, m: int, n: int, k: int, direction: str = "nn", target: str = "cuda-emulated") -> None:
    text, x, y = product(types, m, n, k, direction)
    out = types.split()[2]
    tolerance = {"bf16": 1e-2, "f16": 2e-3, "f64": 1e-12, "c128": 1e-12}.get(out, 2e-5)
    agree(text, random(x, 1), random(y, 2), target=target, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("m", "n", "k"),
    [
        (1, 1, 1000),
        (3, 5, 7),
        (33, 17, 65),
        (130, 70, 40),
        (1, 300, 129),
        (300, 1, 64),
        (5, 257, 300),
        (40, 40, 2),
        (40, 50, 0),
        (1, 40, 3000),
    ],
)
def test_threads_multiply_in_all_directions(m: int, n: int, k: int, direction: str) -> None:
    check("f32 f32 f32", m, n, k, direction)


@pytest.mark.parametrize(
    "types",
    [
        "f64 f64 f64", "c64 c64 c64", "c128 c128 c128", "bf16 bf16 bf16", "f16 f16 f32", "f16 f16 f16", "s8 s8 s32",
        "s8 s8 s8", "u8 s8 s32", "u16 u16 u16", "s64 s64 s64", "pred pred pred", "s4 s4 s4", "u8 u4 u8",
        "f8e4m3fn f8e4m3fn f32", "f8e5m2 f8e4m3fn bf16", "bf16 f16 f32", "bf16 s8 bf16", "f32 bf16 f32",
    ],
)
def test_types(types: str) -> None:
    check(types, 40, 36, 50)


@pytest.mark.parametrize("types", ["c64 c64 c64", "bf16 bf16 bf16", "s8 s8 s8", "pred pred pred", "f64 f64 f64"])
@pytest.mark.parametrize(("m", "n", "k"), [(5, 7, 9), (2, 100, 70)])
def test_types_of_small_and_thin_products(types: str, m: int, n: int, k: int) -> None:
    check(types, m, n, k)


@pytest.mark.parametrize("types", ["f32 f32 f32", "bf16 bf16 bf16", "s8 s8 s32", "f64 f64 f64"])
@pytest.mark.parametrize(("m", "n", "k"), [(20, 40, 700), (3, 40, 1500)])
def test_sums_are_split(types: str, m: int, n: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a second launch took no time."""
    monkeypatch.setattr(gemm_plan, "_LAUNCH", 0)
    made = ptx(product(types, m, n, k)[0], "sm_80")
    assert re.findall(r"\.entry (\w+)", made) == ["k_z", "k_z_sums"]
    check(types, m, n, k)


@pytest.mark.parametrize("types", ["s8 s8 s32", "f64 f64 f64", "c64 c64 c64", "bf16 bf16 f32"])
def test_threads_multiply_where_there_are_no_matrix_units(types: str) -> None:
    check(types, 40, 36, 50, target="cuda-emulated:sm_70")


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("types", "m", "n", "k"),
    [
        ("bf16 bf16 f32", 33, 20, 65),
        ("bf16 bf16 f32", 40, 72, 160),
        ("f64 f64 f64", 33, 20, 65),
        ("s8 u8 s32", 33, 20, 65),
        ("s8 u8 s32", 40, 72, 160),
        ("f16 f8e4m3fn f16", 40, 72, 160),
    ],
)
def test_matrix_units_multiply_in_all_directions(types: str, m: int, n: int, k: int, direction: str) -> None:
    check(types, m, n, k, direction)


@pytest.mark.parametrize(
    ("types", "m", "n", "k", "direction"),
    [
        ("f32 f32 f32", 120, 128, 20, "nn"),
        ("f32 f32 f32", 128, 128, 24, "tt"),
        ("bf16 bf16 bf16", 120, 250, 136, "nn"),
        ("bf16 bf16 bf16", 256, 256, 136, "tt"),
        ("f16 f16 f32", 256, 100, 300, "nt"),
        ("f16 f16 f32", 256, 100, 300, "tn"),
        ("s8 s8 s32", 128, 120, 272, "nt"),
        ("s8 s8 s32", 128, 120, 272, "nn"),
        ("f64 f64 f64", 120, 60, 42, "nn"),
    ],
)
def test_large_tiles(
    types: str, m: int, n: int, k: int, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a device so small that they fill it."""
    monkeypatch.setattr(gemm_plan, "BLOCKS", 1)
    check(types, m, n, k, direction, "cuda-emulated:sm_90")


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("size", [2, 33])
def test_batches_layouts_and_several_contracting_dimensions(dtype: str, size: int) -> None:
    several = (
        f"{dtype}[4,{size},30,3]", f"{dtype}[4,3,30,25]", f"{dtype}[4,{size},25]",
        "lhs_batch_dims={0}, rhs_batch_dims={0}, lhs_contracting_dims={2,3}, rhs_contracting_dims={2,1}",
    )
    turned = (
        f"{dtype}[{size},4,30]{{0,1,2}}", f"{dtype}[25,30,4]{{2,0,1}}", f"{dtype}[4,{size},25]{{1,2,0}}",
        "lhs_batch_dims={1}, rhs_batch_dims={2}, lhs_contracting_dims={2}, rhs_contracting_dims={1}",
    )
    for case in (several, turned):
        x, y = (random(shape.split("{")[0], seed) for seed, shape in enumerate(case[:2]))
        agree(program(*case), x, y, rtol=1e-2 if dtype == "bf16" else 2e-5, atol=1e-2 if dtype == "bf16" else 2e-5)


FUSED = """
HloModule fused
body {
  x = f32[M,K] parameter(0)
  w = bf16[K,N] parameter(1)
  bias = f32[N] parameter(2)
  rest = f32[M,N] parameter(3)
  activated = OPERAND
  wide = f32[K,N] convert(w)
  product = f32[M,N] dot(activated, wide), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  biased = f32[M,N] broadcast(bias), dimensions={1}
  sum = f32[M,N] add(product, biased)
  added = f32[M,N] add(sum, rest)
  turned = f32[N,M] transpose(added), dimensions={1,0}
  flat = f32[F] reshape(turned)
  half = bf16[M,N] convert(added)
  ROOT both = (f32[F], bf16[M,N]) tuple(flat, half)
}
ENTRY main {
  x = f32[M,K] parameter(0)
  w = bf16[K,N] parameter(1)
  bias = f32[N] parameter(2)
  rest = f32[M,N] parameter(3)
  ROOT results = (f32[F], bf16[M,N]) fusion(x, w, bias, rest), kind=kOutput, calls=body
}
"""

ROUNDED = "f32[M,K] convert(halves)"


@pytest.mark.parametrize(("m", "n", "k"), [(40, 36, 70), (3, 36, 70), (40, 20, 1100), (2, 40, 2000), (9, 8, 5)])
@pytest.mark.parametrize("rounds", [False, True])
def test_producers_and_epilogues_are_fused(m: int, n: int, k: int, rounds: bool) -> None:
    operand = "f32[M,K] tanh(x)"
    if rounds:
        operand = "bf16[M,K] convert(x)\n  wider = f32[M,K] convert(activated)"
    text = FUSED.replace("OPERAND", operand)
    text = text.replace("dot(activated", "dot(wider") if rounds else text
    for letter, size in (("M", m), ("N", n), ("K", k), ("F", m * n)):
        text = re.sub(rf"(?<=[\[,]){letter}(?=[\],])", str(size), text)
    shapes = f"f32[{m},{k}]", f"bf16[{k},{n}]", f"f32[{n}]", f"f32[{m},{n}]"
    arguments = [random(shape, seed) for seed, shape in enumerate(shapes)]
    agree(text, *arguments, rtol=1e-2, atol=2e-2)


def largest_error(more: str = "", **options: bool) -> float:
    text, x, y = product("f32 f32 f32", 40, 36, 100, "nn", more)
    arguments = random(x, 1), random(y, 2)
    executable = hloc.compile(text, "cuda-emulated", Options(cache=False, **options))
    leaves = [leaf.shape for leaf in executable.program.parameters]
    (found,) = executable.execute(*map(laid_out, arguments, leaves))
    (expected,) = api.evaluate_leaves(text, list(arguments))
    return float(np.max(np.abs(np.asarray(found) - expected)))


def test_f32_is_rounded_only_where_that_is_allowed() -> None:
    assert largest_error() < 1e-5
    assert 1e-5 < largest_error(allow_tf32=True) < 1e-2
    assert 1e-5 < largest_error(", algorithm=dot_tf32_tf32_f32") < 1e-2
    assert 1e-4 < largest_error(", algorithm=dot_bf16_bf16_f32") < 1e-1
    assert largest_error(", operand_precision={highest,default}", allow_tf32=True) < 1e-5


@pytest.mark.parametrize(
    ("algorithm", "most"),
    [("bf16_bf16_f32_x3", 2e-4), ("bf16_bf16_f32_x6", 1e-5), ("bf16_bf16_f32_x9", 1e-5), ("tf32_tf32_f32_x3", 1e-5)],
)
def test_f32_as_sums_of_smaller_numbers(algorithm: str, most: float) -> None:
    assert largest_error(f", algorithm=dot_{algorithm}") < most


def test_what_is_infinite_has_one_part() -> None:
    text, x, y = product("f32 f32 f32", 20, 40, 70, "nn", ", algorithm=dot_bf16_bf16_f32_x3")
    left, right = np.abs(random(x, 1)), np.abs(random(y, 2))
    left[3, 5] = right[69, 7] = np.inf
    agree(text, left, right, rtol=1e-3)


def spills(text: str, arch: str, most: int = 0, **options: bool) -> str:
    """A program's PTX; fails if ptxas does not take it, or spills more bytes."""
    tool = ptxas_for(arch)
    made = ptx(text, arch, **options)
    for use in assemble(made, arch, tool).kernels:
        assert max(use.spill_stores, use.spill_loads) <= most, use
    return made


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_120"])
@pytest.mark.parametrize(
    ("types", "direction", "mma"),
    [
        ("f32 f32 f32", "nn", ""),
        ("bf16 bf16 bf16", "nn", "m16n8k16.row.col.f32.bf16.bf16.f32"),
        ("f16 f16 f32", "tt", "m16n8k16.row.col.f32.f16.f16.f32"),
        ("s8 s8 s32", "nt", "m16n8k32.row.col.s32.s8.s8.s32"),
        ("f64 f64 f64", "nn", "m8n8k4.row.col.f64.f64.f64.f64"),
    ],
)
def test_large_products_do_not_spill(types: str, direction: str, mma: str, arch: str) -> None:
    # ptxas before 13.0 finds no place for a few bytes of the f32 product, of which sm_120 is to hold two blocks.
    most = 40 if (types[:3], arch) == ("f32", "sm_120") else 0
    made = spills(product(types, 4096, 4096, 4096, direction)[0], arch, most)
    count = made.count(mma) if mma else 0
    if mma:
        assert count >= 64 and "cp.async.cg.shared.global" in made
        assert ("ldmatrix" in made) == (types[0] != "f" or types[1:3] == "16")
    else:
        assert "mma" not in made and len(re.findall(r"fma\.rn\S*\.f32", made)) == 512
        assert "ld.shared.v4" in made and re.search(r"ld\.global\S*\.v4", made)
    assert not re.search(r"\b(div|rem)\.", made)


def test_tensor_float_products_do_not_spill() -> None:
    made = spills(product("f32 f32 f32", 4096, 4096, 4096)[0], "sm_80", allow_tf32=True)
    assert made.count("m16n8k8.row.col.f32.tf32.tf32.f32") >= 64


@pytest.mark.parametrize("direction", ["nn", "nt"])
def test_matrices_are_read_by_16_bytes_for_few_rows(direction: str) -> None:
    made = spills(product("f32 f32 f32", 1, 4096, 4096, direction)[0], "sm_90a")
    assert len(re.findall(r"ld\.global\S*\.v4", made)) >= 4


def places(dtype: str, by_steps: bool, lines: int) -> StagedTile:
    """A tile of which only the offsets of elements are asked for."""
    tile = object.__new__(StagedTile)
    tile.b = Builder(Module("offsets").function("f"))
    tile.dtype, tile.lines, tile.by_steps = dtype_named(dtype), lines, by_steps
    tile.itemsize = tile.dtype.itemsize
    tile.steps = ROW_BYTES // tile.itemsize
    return tile


def offset(tile: StagedTile, line: int, step: int) -> int:
    found = tile.offset(i64(line), i64(step))
    assert isinstance(found, Constant)
    return found.number


TILES = [
    ("bf16", True, 64),
    ("bf16", False, 128),
    ("bf16", False, 32),
    ("s8", True, 64),
    ("f32", True, 64),
    ("f64", True, 32),
]


@pytest.mark.parametrize(("dtype", "by_steps", "lines"), TILES)
def test_each_element_of_a_tile_has_a_place_of_its_own(dtype: str, by_steps: bool, lines: int) -> None:
    tile = places(dtype, by_steps, lines)
    found = {offset(tile, line, step) for line in range(lines) for step in range(tile.steps)}
    assert found == set(range(0, lines * ROW_BYTES, tile.itemsize))


@pytest.mark.parametrize(("dtype", "by_steps", "lines"), TILES)
def test_what_is_accessed_together_lies_in_banks_of_its_own(dtype: str, by_steps: bool, lines: int) -> None:
    """Accesses of 16 bytes by eight threads at a time, as matrices are loaded and pieces are copied."""
    tile = places(dtype, by_steps, lines)
    chunk = 16 // tile.itemsize
    if dtype == "f64":
        loads = [[(8 * n + row, 2 * (lane + 4 * half)) for row in (r, r + 1) for lane in range(4)]
                 for n in range(lines // 8) for r in range(0, 8, 2) for half in range(2)]
    elif by_steps:
        loads = [[(first + row, step) for row in range(8)]
                 for first in range(0, lines, 8) for step in range(0, tile.steps, chunk)]
    else:
        loads = [[(line, first + row) for row in range(8)]
                 for line in range(0, lines, 8) for first in range(0, tile.steps, 8)]
    fast = tile.steps if by_steps else lines
    pieces = [divmod(number, fast // chunk) for number in range(lines * tile.steps // chunk)]
    pieces = [(slow, place * chunk) if by_steps else (place * chunk, slow) for slow, place in pieces]
    copies = [pieces[start : start + 8] for start in range(0, len(pieces), 8)]
    for together in (*loads, *copies):
        banks = {offset(tile, line, step) // 16 % 8 for line, step in together}
        assert len(banks) == 8, together
