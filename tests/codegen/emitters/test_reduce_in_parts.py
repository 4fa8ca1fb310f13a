"""reduce to few results of many elements: folded in parts, which are the same for any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from emitter_cases import check, computation
from test_reduce_places import chooser

import hloc
from hloc.codegen.parts import Parts
from hloc.options import Options

FEW = 1 << 17
"""Elements of two parts."""


@pytest.mark.parametrize(
    ("sizes", "each", "least"),
    [((FEW,), 1, 1), ((FEW + 4099,), 1, 1), ((3, 200_001), 1, 1), ((5, 7, 9, 4000), 1, 1), ((4001,), 300, 16)],
)
def test_parts_are_all_of_a_space(sizes: tuple[int, ...], each: int, least: int) -> None:
    parts = Parts.of(sizes, each, least)
    blocks, rest = divmod(parts.size, parts.block)
    groups = int(np.prod(parts.before, dtype=int))
    assert parts.size == sizes[parts.dimension]
    assert parts.before == sizes[: parts.dimension]
    assert 2 <= parts.count == groups * (blocks + (rest > 0)) <= 128


def test_short_folds_have_no_parts() -> None:
    assert Parts.of((FEW - 1,), 1) is None
    assert Parts.of((20,), FEW, 16) is None


@pytest.mark.parametrize(
    ("shape", "dims", "result"),
    [
        (f"f64[{FEW}]", "0", "f64[]"),
        (f"f64[{FEW + 4099}]", "0", "f64[]"),
        ("f64[3,70001]", "0,1", "f64[]"),
        ("f64[3,140001]", "1", "f64[3]"),
        ("f64[31,7,900]{0,2,1}", "0,1,2", "f64[]"),
        ("f64[50000,5]", "0", "f64[5]"),
        ("f64[70001,5]", "0", "f64[5]"),
        ("f64[1501,100]", "0", "f64[100]"),
        ("f64[97,3000]", "0", "f64[3000]"),
        ("f64[40,30,2,70]", "0,1", "f64[2,70]"),
        ("f64[2,1000,100]", "1", "f64[2,100]"),
        ("f64[30,2,50,100]", "0,2", "f64[2,100]"),
    ],
)
def test_sums(shape: str, dims: str, result: str) -> None:
    reduce = f"{result} reduce(p0, p1), dimensions={{{dims}}}, to_apply=f"
    check([shape, "f64[]"], [reduce], computation("f", "add", "f64"))


@pytest.mark.parametrize(
    ("dtype", "opcode"),
    [("s32", "add"), ("u8", "maximum"), ("pred", "and"), ("c64", "add"), ("f16", "minimum"), ("s64", "xor")],
)
def test_element_types(dtype: str, opcode: str) -> None:
    ops = [
        f"{dtype}[] reduce(p0, p1), dimensions={{0,1}}, to_apply=f",
        f"{dtype}[90] reduce(p0, p1), dimensions={{0}}, to_apply=f",
    ]
    check([f"{dtype}[1500,90]", f"{dtype}[]"], ops, computation("f", opcode, dtype))


def test_operands_made_on_the_way() -> None:
    ops = [
        f"f64[{FEW}] reshape(p0)",
        f"f64[{FEW}] multiply(r0, r0)",
        "f64[] reduce(r1, p1), dimensions={0}, to_apply=f",
        "f64[] sqrt(r2)",
    ]
    check([f"f64[512,{FEW // 512}]", "f64[]"], ops, computation("f", "add", "f64"))


ARGMAX = chooser("GT") + """ENTRY e {
  x = f32[SIZE] parameter(0)
  n = s32[SIZE] iota(), iota_dimension=0
  low = f32[] constant(-inf)
  zero = s32[] constant(0)
  ROOT r = (f32[], s32[]) reduce(x, n, low, zero), dimensions={0}, to_apply=f
}"""


@pytest.mark.parametrize("size", [FEW, FEW + 100, FEW + 4096 + 700])
@pytest.mark.parametrize("threads", [1, 2])
def test_places_of_the_greatest(size: int, threads: int) -> None:
    text = "HloModule argmax\n\n" + ARGMAX.replace("SIZE", str(size))
    executable = hloc.compile(text, options=Options(num_threads=threads, cache=False))
    x = np.random.default_rng(1).integers(0, 50, size).astype(np.float32)
    for first in (None, size - 1, size - 50, size // 2, 0):
        if first is not None:
            x[:] = np.minimum(x, 40)
            x[first:] = np.maximum(x[first:], 60)
        value, place = executable(x)
        assert (value, place) == (x.max(), x.argmax())
    x[[size // 3, size - 20]] = np.nan
    value, place = executable(x)
    assert np.isnan(value)
    assert place == size // 3
