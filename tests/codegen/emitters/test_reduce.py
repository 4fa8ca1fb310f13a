"""reduce: every dimension, layout and kind of computation."""

from __future__ import annotations

from itertools import combinations

import ml_dtypes
import numpy as np
import pytest
from emitter_cases import NONE, check, computation, program, value

import hloc
from hloc.options import Options

ADD = computation("f", "add", "f32")


def reduces(shape: tuple[int, ...], dtype: str = "f32") -> list[str]:
    """Reductions of p0 over every set of its dimensions, from p1."""
    ops = []
    for count in range(len(shape) + 1):
        for dims in combinations(range(len(shape)), count):
            kept = ",".join(str(size) for d, size in enumerate(shape) if d not in dims)
            listed = ",".join(map(str, dims))
            ops.append(f"{dtype}[{kept}] reduce(p0, p1), dimensions={{{listed}}}, to_apply=f")
    return ops


@pytest.mark.parametrize(
    "shape",
    [(5,), (7, 33), (40, 5, 18), (2, 3, 5, 7), (3, 0, 4), (1, 5, 1), (3, 2500), (2, 1, 9000), (5000, 3)],
)
def test_every_set_of_dimensions(shape: tuple[int, ...]) -> None:
    dims = ",".join(map(str, shape))
    check([f"f32[{dims}]", "f32[]"], reduces(shape), ADD)


@pytest.mark.parametrize("layout", ["0,1,2", "1,2,0", "1,0,2"])
def test_every_set_of_dimensions_in_another_layout(layout: str) -> None:
    check([f"f32[6,20,35]{{{layout}}}", "f32[]"], reduces((6, 20, 35)), ADD)


@pytest.mark.parametrize(
    ("opcode", "dtype"),
    [
        ("maximum", "f32"),
        ("minimum", "f32"),
        ("multiply", "f64"),
        ("add", "bf16"),
        ("add", "f16"),
        ("maximum", "bf16"),
        ("add", "s32"),
        ("minimum", "s8"),
        ("maximum", "u8"),
        ("xor", "u16"),
        ("and", "pred"),
        ("or", "pred"),
        ("add", "pred"),
        ("add", "c64"),
        ("multiply", "c64"),
        ("and", "s64"),
    ],
)
def test_known_operations(opcode: str, dtype: str) -> None:
    check([f"{dtype}[5,41]", f"{dtype}[]"], reduces((5, 41), dtype), computation("f", opcode, dtype))


def test_a_computation_that_is_not_known_is_applied_in_order() -> None:
    body = """f {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  two = f32[] constant(2)
  half = f32[] divide(a, two)
  ROOT r = f32[] subtract(half, b)
}

"""
    check(["f32[4,9,20]", "f32[]"], reduces((4, 9, 20)), body)


VARIADIC = """f {
  a = f32[] parameter(0)
  i = s32[] parameter(1)
  b = f32[] parameter(2)
  j = s32[] parameter(3)
  first = pred[] compare(a, b), direction=GE
  value = f32[] select(first, a, b)
  place = s32[] select(first, i, j)
  ROOT r = (f32[], s32[]) tuple(value, place)
}

"""


@pytest.mark.parametrize(
    ("dims", "kept"), [("0", "21,30"), ("2", "7,21"), ("0,2", "21"), ("0,1,2", ""), ("1", "7,30")]
)
def test_two_operands_at_once(dims: str, kept: str) -> None:
    check(
        ["f32[7,21,30]", "s32[7,21,30]", "f32[]", "s32[]"],
        [f"(f32[{kept}], s32[{kept}]) reduce(p0, p1, p2, p3), dimensions={{{dims}}}, to_apply=f"],
        VARIADIC,
    )


def test_sums_of_narrow_floats_are_rounded_once() -> None:
    text = program(
        ["bf16[4096]", "bf16[4096,20]"],
        [
            "bf16[] constant(0)",
            "bf16[] reduce(p0, r0), dimensions={0}, to_apply=f",
            "bf16[20] reduce(p1, r0), dimensions={0}, to_apply=f",
        ],
        computation("f", "add", "bf16"),
    )
    ones = [np.ones(shape, ml_dtypes.bfloat16) for shape in ((4096,), (4096, 20))]
    _, row, columns = hloc.compile(text, options=NONE).execute(*ones)
    assert float(row) == 4096 and (columns.astype(np.float32) == 4096).all()


def test_long_sums_are_accurate() -> None:
    text = program(["f32[1000003]", "f32[]"], ["f32[] reduce(p0, p1), dimensions={0}, to_apply=f"], ADD)
    numbers = np.abs(value("f32[1000003]"))
    (total,) = hloc.compile(text, options=NONE).execute(numbers, np.float32(0))
    assert abs(float(total) / numbers.astype(np.float64).sum() - 1) < 1e-6


def test_nan_and_signed_zeros() -> None:
    numbers = np.array([[np.nan, 1, 2], [0.0, -0.0, -0.0], [-np.inf, 3, np.inf]], np.float32)
    ops = [
        "f32[3] reduce(p0, p1), dimensions={1}, to_apply=f",
        "f32[3] reduce(p0, p1), dimensions={0}, to_apply=f",
    ]
    start = np.float32(-np.inf)
    for result in check(["f32[3,3]", "f32[]"], ops, computation("f", "maximum", "f32"), [numbers, start]):
        assert np.isnan(result[0])


def test_operands_are_fused_in() -> None:
    text = """HloModule m

f {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT r = f32[] add(a, b)
}

fused {
  x = f32[30,50] parameter(0)
  t = f32[50,30] transpose(x), dimensions={1,0}
  e = f32[50,30] exponential(t)
  zero = f32[] constant(0)
  ROOT s = f32[50] reduce(e, zero), dimensions={1}, to_apply=f
}

ENTRY main {
  x = f32[30,50] parameter(0)
  ROOT r = f32[50] fusion(x), kind=kInput, calls=fused
}
"""
    x = value("f32[30,50]")
    (got,) = hloc.compile(text, options=NONE).execute(x)
    assert np.allclose(got, np.exp(x).sum(0), rtol=1e-5)


@pytest.mark.parametrize("shape", ["36,65536", "35,65536", "6,17,32768", "4,16,33000"])
@pytest.mark.parametrize(("opcode", "initial"), [("add", 0.5), ("maximum", -1.0)])
def test_several_long_folds_at_once(shape: str, opcode: str, initial: float) -> None:
    """Of a large array: rows far from each other, by one thread and by several, with the same bits."""
    kept = shape.rpartition(",")[0]
    dimension = kept.count(",") + 1
    ops = [f"f32[{kept}] reduce(p0, p1), dimensions={{{dimension}}}, to_apply=f", f"f32[{kept}] negate(r0)"]
    text = program([f"f32[{shape}]", "f32[]"], ops, computation("f", opcode, "f32"))
    x = value(f"f32[{shape}]")
    expected = (np.sum if opcode == "add" else np.max)(x.astype(np.float64), -1) + initial * (opcode == "add")
    results = []
    for threads in (1, 2, 3):
        results += hloc.compile(text, options=Options(num_threads=threads)).execute(x, np.float32(initial))
    np.testing.assert_allclose(results[0], expected, atol=1e-3)
    for result in results[2::2]:
        assert np.array_equal(result, results[0])
    assert np.array_equal(results[1], -results[0])
