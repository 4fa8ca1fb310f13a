"""dot by warpgroups, whose tiles are fetched whole (sm_90a): on the emulator, and as ptxas sees it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from against_evaluator import agree, laid_out, ptx, random
from device_cases import ptxas_for
from test_device_dot import DIRECTIONS, product, program

import hloc
from hloc.codegen.gpu import gemm_plan
from hloc.codegen.gpu.gemm_shapes import GROUP_TILES, GroupTile
from hloc.codegen.targets.ptxas import assemble
from hloc.options import Options

ARCH, EMULATED = "sm_90a", "cuda-emulated:sm_90a"

SMALL = GroupTile(1, 64, 64)

TOLERANCES = {"bf16": 1e-2, "f16": 2e-3}


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch):
    """Lets warpgroups make all products, in tiles of one size, on a GPU of so many multiprocessors."""

    def only_(tile: GroupTile = SMALL, blocks: int = 2) -> None:
        monkeypatch.setattr(gemm_plan, "GROUP_TILES", (tile,))
        monkeypatch.setattr(gemm_plan, "_UNITS_RATES", dict.fromkeys((1, 2, 4, 8), 1e-3))
        monkeypatch.setattr(gemm_plan, "BLOCKS", blocks)

    return only_


def by_groups(text: str, *others: str, **options: bool) -> bool:
    """Whether the product of a program is made by warpgroups; fails if it has other kernels beside that than these."""
    made = ptx(text, ARCH, **options)
    names = re.findall(r"\.entry (\w+)", made)
    own = min(names, key=len)
    assert [name.removeprefix(own) for name in names if name != own] == list(others)
    return "wgmma.mma_async" in made


def check(text: str, *shapes: str, others: tuple[str, ...] = (), out: str = "f32") -> None:
    """Fails unless warpgroups make the product, with other kernels before and behind, as the evaluator does."""
    assert by_groups(text, *others)
    tolerance = TOLERANCES.get(out, 2e-5)
    arguments = [random(shape, seed) for seed, shape in enumerate(shapes, 1)]
    agree(text, *arguments, target=EMULATED, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_all_directions(only, direction: str) -> None:
    only()
    text, *shapes = product("bf16 bf16 f32", 72, 136, 200, direction)
    check(text, *shapes)


@pytest.mark.parametrize("types", ["s8 s8 s32", "u8 u8 s32", "s8 s8 s8", "bf16 bf16 bf16", "f16 f16 f16"])
def test_types(only, types: str) -> None:
    only()
    text, *shapes = product(types, 70, 33, 144, "nt")
    check(text, *shapes, out=types.split()[2])


@pytest.mark.parametrize("number", range(len(GROUP_TILES)))
def test_tiles(only, number: int) -> None:
    """Two multiprocessors make three tiles or more, the last ones ragged."""
    tile = GROUP_TILES[number]
    only(tile)
    direction = ("nt", "tn", "nn", "tt")[number % 4]
    text, *shapes = product("bf16 bf16 f32", tile.m + 8, tile.n + 8, 136, direction)
    check(text, *shapes)


def test_sums_are_split(only, monkeypatch: pytest.MonkeyPatch) -> None:
    only(blocks=8)
    monkeypatch.setattr(gemm_plan, "_LAUNCH", 0)
    text, *shapes = product("bf16 bf16 f32", 64, 120, 1000, "nt")
    check(text, *shapes, others=("_sums",))


def test_more_tiles_than_stages(only) -> None:
    """The ring is gone round several times, and parts of the result end anywhere in it."""
    only(blocks=1)
    text, *shapes = product("f16 f16 f32", 136, 136, 1096, "nn")
    check(text, *shapes)


@pytest.mark.parametrize("layout", ["{2,1,0}", "{2,0,1}", "{1,2,0}", "{1,0,2}"])
def test_batches(only, layout: str) -> None:
    only()
    numbers = "lhs_batch_dims={0}, rhs_batch_dims={1}, lhs_contracting_dims={2}, rhs_contracting_dims={2}"
    check(program(f"bf16[3,72,80]{layout}", "bf16[24,3,80]", "f32[3,72,24]", numbers), "bf16[3,72,80]", "bf16[24,3,80]")


def test_batches_of_two_dimensions(only) -> None:
    only()
    numbers = "lhs_batch_dims={0,1}, rhs_batch_dims={0,1}, lhs_contracting_dims={3}, rhs_contracting_dims={2}"
    shapes = "bf16[2,3,40,16]", "bf16[2,3,16,24]"
    check(program(*shapes, "f32[2,3,40,24]", numbers), *shapes)


def fused(body: str, *shapes: str) -> str:
    """A program whose parameters are p0, p1 and so on, that becomes one kernel."""
    parameters = "\n".join(f"  p{number} = {shape} parameter({number})" for number, shape in enumerate(shapes))
    return f"HloModule fused\nENTRY main {{\n{parameters}\n{body}\n}}"


@pytest.mark.parametrize("at", [0, 2, 9])
def test_operands_are_parts_of_larger_arrays(only, at: int) -> None:
    """One of the layers of all weights, and some columns of what comes before."""
    only()
    body = """
  zero = s32[] constant(0)
  layer = bf16[1,72,56] dynamic-slice(p1, p2, zero, zero), dynamic_slice_sizes={1,72,56}
  w = bf16[72,56] reshape(layer)
  x = bf16[80,72] slice(p0), slice={[0:80], [16:88]}
  ROOT z = f32[80,56] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}"""
    text = fused(body, "bf16[80,96]", "bf16[5,72,56]", "s32[]")
    assert by_groups(text)
    x, w = random("bf16[80,96]", 1), random("bf16[5,72,56]", 2)
    agree(text, x, w, np.int32(at), target=EMULATED)


def test_one_matrix_for_all_batches(only) -> None:
    only()
    body = """
  w = bf16[4,56,40] broadcast(p1), dimensions={1,2}
  ROOT z = f32[4,72,40] dot(p0, w), lhs_batch_dims={0}, rhs_batch_dims={0}, lhs_contracting_dims={2},
    rhs_contracting_dims={1}"""
    text = fused(body, "bf16[4,72,56]", "bf16[56,40]")
    assert by_groups(text)
    agree(text, random("bf16[4,72,56]", 1), random("bf16[56,40]", 2), target=EMULATED)


EPILOGUES = {
    "bias and relu": """
  wide = f32[136,72] broadcast(p2), dimensions={1}
  sum = f32[136,72] add(z, wide)
  zero = f32[] constant(0)
  zeros = f32[136,72] broadcast(zero), dimensions={}
  top = f32[136,72] maximum(sum, zeros)
  ROOT half = bf16[136,72] convert(top)""",
    "turned": """
  wide = f32[136,72] broadcast(p2), dimensions={1}
  sum = f32[136,72] add(z, wide)
  ROOT turned = f32[72,136] transpose(sum), dimensions={1,0}""",
    "two results": """
  wide = f32[136,72] broadcast(p2), dimensions={1}
  sum = f32[136,72] add(z, wide)
  ROOT both = (f32[136,72], f32[136,72]) tuple(sum, z)""",
}


@pytest.mark.parametrize("name", EPILOGUES)
def test_epilogues(only, name: str) -> None:
    only()
    body = "  z = f32[136,72] dot(p0, p1), lhs_contracting_dims={1}, rhs_contracting_dims={1}" + EPILOGUES[name]
    shapes = "bf16[136,96]", "bf16[72,96]", "f32[72]"
    text = fused(body, *shapes)
    assert by_groups(text)
    arguments = [random(shape, seed) for seed, shape in enumerate(shapes)]
    agree(text, *arguments, target=EMULATED, rtol=1e-2, atol=1e-2)


def test_convolutions_of_single_elements(only) -> None:
    """They are products when kernels are chosen."""
    only()
    window = "window={size=1x1}, dim_labels=b01f_01io->b01f"
    shapes = "bf16[2,5,7,40]", "bf16[1,1,40,72]"
    check(fused(f"  ROOT c = f32[2,5,7,72] convolution(p0, p1), {window}", *shapes), *shapes)


def test_tf32_is_rounded_as_it_is_fetched(only) -> None:
    only()
    text, *shapes = product("f32 f32 f32", 72, 64, 120, "nt")
    assert by_groups(text, allow_tf32=True) and not by_groups(text)
    x, y = (random(shape, seed) for seed, shape in enumerate(shapes))
    executable = hloc.compile(text, EMULATED, Options(cache=False, allow_tf32=True))
    leaves = [leaf.shape for leaf in executable.program.parameters]
    (found,) = executable.execute(*map(laid_out, (x, y), leaves))
    expected = rounded(x).astype(np.float64) @ rounded(y).astype(np.float64).T
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5, atol=1e-5)


def rounded(values: np.ndarray) -> np.ndarray:
    """To 10 bits behind the point, halves away from zero."""
    return ((values.view(np.int32) + 0x1000) & ~0x1FFF).view(np.float32)


@pytest.mark.parametrize(
    ("types", "m", "n", "k", "direction", "others"),
    [
        ("bf16 bf16 f32", 72, 64, 101, "nt", ("_lhs", "_rhs")),  # rows of 202 bytes
        ("bf16 bf16 f32", 72, 67, 96, "nn", ("_rhs",)),  # rows of 134
        ("s8 s8 s32", 70, 80, 80, "nn", ("_rhs",)),  # bytes that lie together along columns
        ("f8e4m3fn bf16 bf16", 72, 64, 80, "nt", ("_lhs",)),
    ],
)
def test_operands_that_lie_otherwise_are_packed(
    only, types: str, m: int, n: int, k: int, direction: str, others: tuple[str, ...]
) -> None:
    only()
    text, *shapes = product(types, m, n, k, direction)
    check(text, *shapes, others=others, out=types.split()[2])


def test_operands_that_are_computed_are_packed(only, monkeypatch: pytest.MonkeyPatch) -> None:
    """With batches, of dimensions in any order, and behind the parts of split sums."""
    only(blocks=16)
    monkeypatch.setattr(gemm_plan, "_LAUNCH", 0)
    body = """
  t = bf16[2,33,600,2] negate(p0)
  s = bf16[2,600,50] abs(p1)
  ROOT z = f32[2,33,2,50] dot(t, s), lhs_batch_dims={0}, rhs_batch_dims={0}, lhs_contracting_dims={2},
    rhs_contracting_dims={1}"""
    shapes = "bf16[2,33,600,2]", "bf16[2,600,50]"
    check(fused(body, *shapes), *shapes, others=("_lhs", "_rhs", "_sums"))


def test_packing_must_pay() -> None:
    for size, others in ((512, ()), (4096, ("_lhs",))):
        body = f"""
  t = bf16[{size},{size}] negate(p0)
  ROOT z = bf16[{size},{size}] dot(t, p1), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}"""
        assert by_groups(fused(body, *[f"bf16[{size},{size}]"] * 2), *others) == bool(others)


@pytest.mark.parametrize("types", ["s8 u8 s32", "f64 f64 f64", "f32 f32 f32", "bf16 f16 f32"])
def test_types_that_warpgroups_do_not_multiply(only, types: str) -> None:
    only()
    assert not by_groups(product(types, 64, 64, 64, "nt")[0])


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100a", "sm_120"])
def test_other_architectures_have_none(only, arch: str) -> None:
    only()
    text = product("bf16 bf16 f32", 256, 256, 256)[0]
    assert "mma.sync" in ptx(text, arch) and "wgmma" not in ptx(text, arch)


@pytest.mark.parametrize("tile", GROUP_TILES, ids=lambda tile: f"{tile.m}x{tile.n}")
@pytest.mark.parametrize(("types", "direction"), [("bf16 bf16 bf16", "nn"), ("s8 s8 s32", "nt")])
def test_ptxas_keeps_sums_in_registers(only, tile: GroupTile, types: str, direction: str) -> None:
    """No spills, no products that wait for each other, and registers moved to those who multiply where they need it."""
    only(tile, 132)
    text = ptx(product(types, 4096, 4096, 4096, direction)[0], ARCH)
    made = assemble(text, ARCH, ptxas_for(ARCH))
    (use,) = made.kernels
    assert (use.spill_stores, use.spill_loads, made.warnings) == (0, 0, ())
    assert len(re.findall(rf"wgmma\.mma_async\.sync\.aligned\.m64n{tile.n}k", text)) == 4
    assert ("setmaxnreg" in text) == (tile.groups * tile.n == 512)
    assert use.registers <= (168 if tile.groups == 2 else 255)
    assert not re.search(r"\b(div|rem)\.", text)


def test_large_products_go_by_large_tiles() -> None:
    for size in (2048, 4096, 8192):
        text = ptx(product("bf16 bf16 bf16", size, size, size)[0], ARCH)
        assert "m64n256k16" in text and ".maxntid 384" in text
