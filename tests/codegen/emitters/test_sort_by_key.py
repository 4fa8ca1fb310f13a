"""sort: long lines whose comparator orders by a key, which are sorted by the key's digits."""

from __future__ import annotations

import numpy as np
import pytest
from emitter_cases import NONE, check, computation, program, value

import hloc
from hloc.ir.dtypes import dtype_of_numpy
from hloc.options import Options

TOTAL = computation("f", "compare direction=LT, type=TOTALORDER", "f32")
LESS = computation("f", "compare direction=LT", "f32")

CANONICAL = """f {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  c = s32[] parameter(2)
  d = s32[] parameter(3)
  nan = f32[] constant(nan)
  zero = f32[] constant(0)
  a_nan = pred[] compare(a, a), direction=NE
  a_zero = pred[] compare(a, zero), direction=EQ
  a_one = f32[] select(a_zero, zero, a)
  a_key = f32[] select(a_nan, nan, a_one)
  b_nan = pred[] compare(b, b), direction=NE
  b_zero = pred[] compare(b, zero), direction=EQ
  b_one = f32[] select(b_zero, zero, b)
  b_key = f32[] select(b_nan, nan, b_one)
  ROOT r = pred[] compare(a_key, b_key), direction=LT, type=TOTALORDER
}

"""
"""As jax.numpy.sort has it: zeros are equal, and so are NaNs, which come last."""


def comparator(dtypes: list[str], key: int, direction: str = "LT", prepare: str = "") -> str:
    """Compares operand `key`, or what the op `prepare` makes of it."""
    lines = []
    for number, dtype in enumerate(dtypes):
        lines += [f"  p{number}{side} = {dtype}[] parameter({2 * number + n})" for n, side in enumerate("ab")]
    names = [f"p{key}a", f"p{key}b"]
    if prepare:
        lines += [f"  k{name} = {dtypes[key]}[] {prepare}({name})" for name in names]
        names = [f"k{name}" for name in names]
    body = "\n".join(lines)
    return f"f {{\n{body}\n  ROOT r = pred[] compare({', '.join(names)}), direction={direction}\n}}\n\n"


def run(op: str, comparator: str, *arguments: np.ndarray, options: Options = NONE) -> list[np.ndarray]:
    shapes = [f"{dtype_of_numpy(a.dtype).name}[{','.join(map(str, a.shape))}]" for a in arguments]
    return hloc.compile(program(shapes, [op], comparator), options=options).execute(*arguments)


@pytest.mark.parametrize("size", [255, 256, 257, 1000, 5003])
def test_lengths(size: int) -> None:
    check([f"f32[{size}]"], [f"f32[{size}] sort(p0), dimensions={{0}}, to_apply=f"], TOTAL)


@pytest.mark.parametrize("direction", ["LT", "GT"])
@pytest.mark.parametrize("dtype", ["f64", "bf16", "f16", "f8e4m3fn", "s64", "u64", "s16", "u8", "s8", "pred", "s4"])
def test_element_types(dtype: str, direction: str) -> None:
    order = ", type=TOTALORDER" if dtype[0] in "fb" else ""
    body = computation("f", f"compare direction={direction}{order}", dtype)
    check([f"{dtype}[700]"], [f"{dtype}[700] sort(p0), dimensions={{0}}, to_apply=f"], body)


def test_all_digits_count() -> None:
    keys = np.random.default_rng(3).integers(0, 1 << 64, 3000, np.uint64)
    op = "u64[3000] sort(p0), dimensions={0}, to_apply=f"
    (got,) = check(["u64[3000]"], [op], computation("f", "compare direction=LT", "u64"), [keys])
    assert np.array_equal(got, np.sort(keys))


@pytest.mark.parametrize("layout", ["1,0", "0,1"])
def test_dimensions_and_layouts(layout: str) -> None:
    shape = f"f32[300,270]{{{layout}}}"
    check([shape], [f"{shape} sort(p0), dimensions={{{d}}}, to_apply=f" for d in range(2)], TOTAL)


@pytest.mark.parametrize("direction", ["LT", "GT"])
@pytest.mark.parametrize(
    "dtypes", [["s32", "s32"], ["s32", "s32", "c64"], ["s32", "c128"], ["s32", "s32", "f16", "pred", "f64"]]
)
def test_operands_go_along_in_order(dtypes: list[str], direction: str) -> None:
    """Two that move with the digits, or more or wide ones that are fetched by their positions."""
    arguments = [value(f"{dtype}[900]", n) for n, dtype in enumerate(dtypes)]
    arguments[0] = np.random.default_rng(1).integers(-9, 9, 900).astype(np.int32)
    shapes = [f"{dtype}[900]" for dtype in dtypes]
    op = f"({', '.join(shapes)}) sort({', '.join(f'p{n}' for n in range(len(dtypes)))}), dimensions={{0}}, to_apply=f"
    got = check(shapes, [op], comparator(dtypes, 0, direction), arguments)
    order = np.argsort(arguments[0] if direction == "LT" else -arguments[0], kind="stable")
    for result, argument in zip(got, arguments, strict=True):
        assert np.array_equal(result, argument[order])


@pytest.mark.parametrize("prepare", ["negate", "exponential"])
def test_keys_that_are_computed(prepare: str) -> None:
    """One made again in each pass, and one that is too much work for that."""
    op = "(f32[600], s32[600]) sort(p0, p1), dimensions={0}, to_apply=f"
    check(["f32[600]", "s32[600]"], [op], comparator(["f32", "s32"], 0, "LT", prepare))


def test_the_key_may_be_any_operand() -> None:
    op = "(f32[600], s32[600]) sort(p0, p1), dimensions={0}, to_apply=f"
    check(["f32[600]", "s32[600]"], [op], comparator(["f32", "s32"], 1, "GT"))


@pytest.mark.parametrize("special", [[], [0.0, -0.0, -0.0, 0.0], [np.nan, -np.nan, 0.0, -0.0, np.inf, -np.inf, 1e-40]])
def test_zeros_and_nans_that_are_equal_keep_their_order(special: list[float]) -> None:
    numbers = np.random.default_rng(4).standard_normal(2000).astype(np.float32)
    numbers[100 : 100 + len(special)] = special
    numbers[1500 : 1500 + len(special)] = special[::-1]
    places = np.arange(2000, dtype=np.int32)
    op = "(f32[2000], s32[2000]) sort(p0, p1), dimensions={0}, to_apply=f"
    got, order = run(op, CANONICAL, numbers, places)
    keys = np.where(np.abs(numbers) < 1e-38, 0, numbers)
    assert np.array_equal(order, np.argsort(keys, kind="stable"))
    assert np.array_equal(got.view(np.int32), numbers[order].view(np.int32))


def test_plain_less_takes_zeros_for_equal() -> None:
    numbers = np.random.default_rng(5).integers(-2, 3, 800).astype(np.float32)
    numbers[::3] *= -1
    (got,) = run("f32[800] sort(p0), dimensions={0}, to_apply=f", LESS, numbers)
    order = np.argsort(numbers, kind="stable")
    assert np.array_equal(got.view(np.int32), numbers[order].view(np.int32))


@pytest.mark.parametrize("count", [1, 3])
def test_lines_with_nans_that_plain_less_does_not_order_are_permutations(count: int) -> None:
    """Beside lines without, which are sorted."""
    numbers = np.random.default_rng(6).standard_normal((4, 500)).astype(np.float32)
    numbers[1, ::9] = np.nan
    places = np.arange(2000, dtype=np.int32).reshape(4, 500)
    shapes, names = ", ".join(["f32[4,500]", *["s32[4,500]"] * count]), ", ".join(f"p{n}" for n in range(count + 1))
    body = comparator(["f32", *["s32"] * count], 0)
    got, order, *_ = run(f"({shapes}) sort({names}), dimensions={{1}}, to_apply=f", body, numbers, *[places] * count)
    assert np.array_equal(got, numbers.reshape(-1)[order], equal_nan=True)
    assert np.array_equal(np.sort(order, axis=1), places)
    for line in (0, 2, 3):
        assert np.array_equal(got[line], np.sort(numbers[line]))


LONG = 40_001


def _long_line(case: str) -> np.ndarray:
    random = np.random.default_rng(7)
    numbers = random.standard_normal(LONG).astype(np.float32)
    if case == "special":
        numbers[random.integers(0, LONG, 500)] = random.choice(np.float32([0, -0.0, np.nan, np.inf, -np.inf]), 500)
    if case == "same":
        numbers[:] = 3
    if case == "one differs":
        numbers[:-1] = numbers[0]
    return numbers


@pytest.mark.parametrize("threads", [1, 2, 3, 11])
@pytest.mark.parametrize("case", ["plain", "special", "same", "one differs"])
def test_long_lines_are_the_same_for_any_number_of_threads(case: str, threads: int) -> None:
    numbers, places = _long_line(case), np.arange(LONG, dtype=np.int32)
    op = f"(f32[{LONG}], s32[{LONG}]) sort(p0, p1), dimensions={{0}}, to_apply=f"
    got, order = run(op, CANONICAL, numbers, places, options=Options(num_threads=threads))
    keys = np.where(numbers == 0, np.float32(0), numbers)
    assert np.array_equal(order, np.argsort(keys, kind="stable"))
    assert np.array_equal(got.view(np.int32), numbers[order].view(np.int32))


@pytest.mark.parametrize("threads", [1, 3])
def test_long_lines_with_nans_are_merged(threads: int) -> None:
    numbers = _long_line("special")
    op = f"f32[{LONG}] sort(p0), dimensions={{0}}, to_apply=f"
    (got,) = run(op, LESS, numbers, options=Options(num_threads=threads))
    assert np.array_equal(np.sort(got), np.sort(numbers), equal_nan=True)


@pytest.mark.parametrize("dtypes", [["u8"], ["s16", "s32"], ["f64"], ["s64", "s32"], ["s32", "f32", "c64"]])
def test_long_lines_of_other_types(dtypes: list[str]) -> None:
    arguments = [value(f"{dtype}[{LONG}]", n) for n, dtype in enumerate(dtypes)]
    shapes = [f"{dtype}[{LONG}]" for dtype in dtypes]
    result = shapes[0] if len(shapes) == 1 else f"({', '.join(shapes)})"
    op = f"{result} sort({', '.join(f'p{n}' for n in range(len(dtypes)))}), dimensions={{0}}, to_apply=f"
    got = run(op, comparator(dtypes, 0), *arguments, options=Options(num_threads=3))
    order = np.argsort(arguments[0], kind="stable")
    for sorted_, argument in zip(got, arguments, strict=True):
        assert np.array_equal(sorted_, argument[order])


def test_several_long_lines() -> None:
    numbers = np.random.default_rng(9).integers(-99, 99, (LONG, 2)).astype(np.int32)
    op = f"s32[{LONG},2] sort(p0), dimensions={{0}}, to_apply=f"
    (got,) = run(op, comparator(["s32"], 0), numbers, options=Options(num_threads=2))
    assert np.array_equal(got, np.sort(numbers, axis=0))
