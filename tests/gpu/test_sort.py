"""sort on a device: lengths around tiles and their merges, layouts, types, comparators that contradict themselves."""

from __future__ import annotations

import numpy as np
import pytest
from device_cases import EMULATED, NONE, assembles, check_device, computation, program, value

import hloc
from hloc.codegen.gpu.emitters import sort as emitter

TOTAL = computation("f", "compare direction=LT, type=TOTALORDER", "f32")
LESS = computation("f", "compare direction=LT", "f32")
BY_KEY = """f {
  a = s32[] parameter(0)
  b = s32[] parameter(1)
  c = s32[] parameter(2)
  d = s32[] parameter(3)
  ROOT r = pred[] compare(a, b), direction=LT
}

"""
BY_BOTH = """f {
  a = s32[] parameter(0)
  b = s32[] parameter(1)
  c = f64[] parameter(2)
  d = f64[] parameter(3)
  less = pred[] compare(a, b), direction=LT
  same = pred[] compare(a, b), direction=EQ
  later = pred[] compare(c, d), direction=GT, type=TOTALORDER
  both = pred[] and(same, later)
  ROOT r = pred[] or(less, both)
}

"""


def test_lengths_of_a_tile() -> None:
    sizes = [0, 1, 3, 9, 100, 2048]
    ops = [f"f32[{size}] sort(p{n}), dimensions={{0}}, to_apply=f" for n, size in enumerate(sizes)]
    check_device([f"f32[{size}]" for size in sizes], ops, TOTAL)


@pytest.mark.parametrize("size", [2049, 9001])
def test_lengths_of_several_tiles(size: int) -> None:
    check_device([f"f32[2,{size}]"], [f"f32[2,{size}] sort(p0), dimensions={{1}}, to_apply=f"], TOTAL)


@pytest.mark.parametrize("size", [700, 5000])
def test_equal_keys_keep_their_order(size: int) -> None:
    keys = np.random.default_rng(1).integers(0, 20, size).astype(np.int32)
    places = np.arange(size, dtype=np.int32)
    op = f"(s32[{size}], s32[{size}]) sort(p0, p1), dimensions={{0}}, to_apply=f"
    _, got = check_device([f"s32[{size}]"] * 2, [op], BY_KEY, [keys, places])
    assert np.array_equal(got, np.argsort(keys, kind="stable"))


def test_several_keys() -> None:
    op = "(s32[1500], f64[1500]) sort(p0, p1), dimensions={0}, to_apply=f"
    check_device(["s32[1500]", "f64[1500]"], [op], BY_BOTH)


@pytest.mark.parametrize("layout", ["2,1,0", "0,1,2", "1,2,0"])
def test_dimensions_and_layouts(layout: str) -> None:
    shape = f"f32[5,19,6]{{{layout}}}"
    check_device([shape], [f"{shape} sort(p0), dimensions={{{d}}}, to_apply=f" for d in range(3)], TOTAL)


@pytest.mark.parametrize(("direction", "size"), [("LT", 1003), ("LE", 1003), ("NE", 1003), ("NE", 5003)])
def test_a_contradictory_comparator_still_gives_a_permutation(direction: str, size: int) -> None:
    body = computation("f", f"compare direction={direction}", "f32")
    text = program([f"f32[{size}]"], [f"f32[{size}] sort(p0), dimensions={{0}}, to_apply=f"], body)
    numbers = value(f"f32[{size}]")
    numbers[::7] = np.nan
    (got,) = hloc.compile(text, EMULATED, NONE).execute(numbers)
    assert np.array_equal(np.sort(got.view(np.int32)), np.sort(numbers.view(np.int32)))


def test_bits_are_kept() -> None:
    """Denormals, which arithmetic flushes, and payloads of NaNs."""
    bits = np.array([0x7FC00001, 0x00000001, 0x80000001, 0x7F800001, 0x3F800000, 0xFFC12345] * 5, np.uint32)
    text = program(["f32[30]"], ["f32[30] sort(p0), dimensions={0}, to_apply=f"], LESS)
    (got,) = hloc.compile(text, EMULATED, NONE).execute(bits.view(np.float32))
    assert np.array_equal(np.sort(got.view(np.uint32)), np.sort(bits))


@pytest.mark.parametrize("dtype", ["f64", "bf16", "s64", "u8", "pred", "s4"])
def test_element_types(dtype: str) -> None:
    order = ", type=TOTALORDER" if dtype[0] in "fb" else ""
    body = computation("f", f"compare direction=GT{order}", dtype)
    check_device([f"{dtype}[100]"], [f"{dtype}[100] sort(p0), dimensions={{0}}, to_apply=f"], body)


def test_operands_are_fused_in() -> None:
    text = program(
        ["f32[3,50]"], ["f32[3,50] negate(p0)", "f32[3,50] sort(r0), dimensions={1}, to_apply=f"], TOTAL
    )
    numbers = value("f32[3,50]")
    compiled = hloc.compile(text, EMULATED)
    assert len(compiled.program.kernels) <= 2
    assert np.array_equal(compiled.execute(numbers)[1], np.sort(-numbers, axis=1))


@pytest.fixture
def by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorts short lines as long ones are."""
    monkeypatch.setattr(emitter, "RADIX_LEAST", 1)


@pytest.mark.parametrize(
    ("dtype", "direction", "order"),
    [("f32", "LT", ""), ("bf16", "GT", ", type=TOTALORDER"), ("s64", "LT", ""), ("u8", "GT", "")],
)
def test_by_bytes_of_keys(by_bytes: None, dtype: str, direction: str, order: str) -> None:
    """Several tiles, many equal keys, zeros of both signs, which are equal but in the total order."""
    size = 4500
    body = computation("f", f"compare direction={direction}{order}", dtype)
    body = body.replace("ROOT", "c = s32[] parameter(2)\n  d = s32[] parameter(3)\n  ROOT")
    keys = np.round(value(f"{dtype}[2,{size}]").astype(np.float64) * 3).astype(value(f"{dtype}[1]").dtype)
    if dtype == "f32":
        keys[0, ::5] = -0.0
    places = np.tile(np.arange(size, dtype=np.int32), (2, 1))
    op = f"({dtype}[2,{size}], s32[2,{size}]) sort(p0, p1), dimensions={{1}}, to_apply=f"
    check_device([f"{dtype}[2,{size}]", f"s32[2,{size}]"], [op], body, [keys, places])


def test_by_bytes_of_a_function(by_bytes: None) -> None:
    """The comparator compares absolute values, the greater parameter first; a layout that is not the default."""
    body = """f {
  a = f64[] parameter(0)
  b = f64[] parameter(1)
  x = f64[] abs(a)
  y = f64[] abs(b)
  ROOT r = pred[] compare(y, x), direction=GT, type=TOTALORDER
}

"""
    check_device(["f64[600,3]"], ["f64[600,3]{0,1} sort(p0), dimensions={0}, to_apply=f"], body)


def test_keys_that_are_not_numbers(by_bytes: None) -> None:
    text = program(["f32[500]"], ["f32[500] sort(p0), dimensions={0}, to_apply=f"], LESS)
    numbers = value("f32[500]")
    numbers[::7], numbers[3::7] = np.nan, -np.nan
    (got,) = hloc.compile(text, EMULATED, NONE).execute(numbers)
    assert np.array_equal(np.sort(got.view(np.int32)), np.sort(numbers.view(np.int32)))
    assert np.array_equal(got[~np.isnan(got)], np.sort(numbers[~np.isnan(numbers)]))


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_120"])
def test_kernels_assemble_without_spills(arch: str) -> None:
    shape = "(s32[4,9000], f64[4,9000])"
    op = f"{shape} sort(p0, p1), dimensions={{1}}, to_apply=f"
    assembles(program(["s32[4,9000]", "f64[4,9000]"], [op], BY_BOTH), arch)
    assembles(program(["f32[2,90000]"], ["f32[2,90000] sort(p0), dimensions={1}, to_apply=f"], LESS), arch)
