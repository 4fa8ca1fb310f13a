"""sort: lengths around the runs and merges, several operands, layouts, comparators that contradict
themselves.
"""

from __future__ import annotations

import numpy as np
import pytest
from emitter_cases import NONE, check, computation, program, value

import hloc

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


@pytest.mark.parametrize("size", [0, 1, 2, 7, 8, 9, 16, 17, 31, 33, 64, 100, 1000])
def test_lengths(size: int) -> None:
    check([f"f32[{size}]"], [f"f32[{size}] sort(p0), dimensions={{0}}, to_apply=f"], TOTAL)


def test_equal_keys_keep_their_order() -> None:
    keys = np.random.default_rng(1).integers(0, 20, 777).astype(np.int32)
    places = np.arange(777, dtype=np.int32)
    op = "(s32[777], s32[777]) sort(p0, p1), dimensions={0}, is_stable=true, to_apply=f"
    got_keys, got_places = check(["s32[777]", "s32[777]"], [op], BY_KEY, [keys, places])
    assert np.array_equal(got_places, np.argsort(keys, kind="stable")) and (np.diff(got_keys) >= 0).all()


@pytest.mark.parametrize("layout", ["2,1,0", "0,1,2", "1,2,0"])
def test_dimensions_and_layouts(layout: str) -> None:
    shape = f"f32[5,19,6]{{{layout}}}"
    check([shape], [f"{shape} sort(p0), dimensions={{{d}}}, to_apply=f" for d in range(3)], TOTAL)


@pytest.mark.parametrize("direction", ["LT", "LE", "NE"])
def test_a_contradictory_comparator_still_gives_a_permutation(direction: str) -> None:
    text = program(
        ["f32[1003]"],
        ["f32[1003] sort(p0), dimensions={0}, to_apply=f"],
        computation("f", f"compare direction={direction}", "f32"),
    )
    numbers = value("f32[1003]")
    numbers[::7] = np.nan
    (got,) = hloc.compile(text, options=NONE).execute(numbers)
    assert np.array_equal(np.sort(got.view(np.int32)), np.sort(numbers.view(np.int32)))


def test_bits_are_kept() -> None:
    """Denormals, which arithmetic flushes, and payloads of NaNs."""
    bits = np.array([0x7FC00001, 0x00000001, 0x80000001, 0x7F800001, 0x3F800000, 0xFFC12345] * 5, np.uint32)
    text = program(["f32[30]"], ["f32[30] sort(p0), dimensions={0}, to_apply=f"], LESS)
    (got,) = hloc.compile(text, options=NONE).execute(bits.view(np.float32))
    assert np.array_equal(np.sort(got.view(np.uint32)), np.sort(bits))


@pytest.mark.parametrize("dtype", ["f64", "bf16", "f16", "s64", "u8", "pred", "s4"])
def test_element_types(dtype: str) -> None:
    order = ", type=TOTALORDER" if dtype[0] in "fb" else ""
    check(
        [f"{dtype}[100]"],
        [f"{dtype}[100] sort(p0), dimensions={{0}}, to_apply=f"],
        computation("f", f"compare direction=GT{order}", dtype),
    )


def test_complex_by_a_key() -> None:
    body = """f {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  c = c64[] parameter(2)
  d = c64[] parameter(3)
  ROOT r = pred[] compare(a, b), direction=LT
}

"""
    check(["f32[50]", "c64[50]"], ["(f32[50], c64[50]) sort(p0, p1), dimensions={0}, to_apply=f"], body)
