"""reduce of values and their places, as argmax and argmin have it: exactly what folding in order gives."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from emitter_cases import NONE, program

import hloc
from hloc.codegen.choices import Choice, choice_of

DTYPES = {"f32": np.float32, "bf16": ml_dtypes.bfloat16, "f64": np.float64, "s32": np.int32, "s8": np.int8}


def chooser(direction: str, dtype: str = "f32", place: str = "s32", *, keeps_nan: bool = True) -> str:
    """The computation that JAX makes; without `keeps_nan` as it makes it of integers."""
    return f"""f {{
  a = {dtype}[] parameter(0)
  i = {place}[] parameter(1)
  b = {dtype}[] parameter(2)
  j = {place}[] parameter(3)
  better = pred[] compare(a, b), direction={direction}
  nan = pred[] compare(a, a), direction={"NE" if keeps_nan else "LT"}
  first = pred[] or(better, nan)
  value = {dtype}[] select(first, a, b)
  equal = pred[] compare(a, b), direction=EQ
  before = pred[] compare(i, j), direction=LT
  tie = pred[] and(equal, before)
  is_i = pred[] or(first, tie)
  index = {place}[] select(is_i, i, j)
  ROOT r = ({dtype}[], {place}[]) tuple(value, index)
}}

"""


GREATER_OR_EQUAL = """f {
  a = f32[] parameter(0)
  i = s32[] parameter(1)
  b = f32[] parameter(2)
  j = s32[] parameter(3)
  first = pred[] compare(a, b), direction=GE
  value = f32[] select(first, a, b)
  index = s32[] select(first, i, j)
  ROOT r = (f32[], s32[]) tuple(value, index)
}

"""


def folded(row: np.ndarray, start: object, direction: str) -> tuple[object, int]:
    """What JAX's computation gives for a row, in order."""
    value, place = row.dtype.type(start), 0
    for j, other in enumerate(row):
        first = (value > other if direction == "GT" else value < other) or value != value
        keeps_place = first or (value == other and place < j)
        value, place = (value if first else other), (place if keeps_place else j)
    return value, place


def run(rows: np.ndarray, start: object, body: str, dtype: str = "f32", place: str = "s32") -> list[np.ndarray]:
    count, size = rows.shape
    shape = f"{dtype}[{count},{size}]"
    ops = [
        f"{place}[{count},{size}] iota(), iota_dimension=1",
        f"{place}[] constant(0)",
        f"({dtype}[{count}], {place}[{count}]) reduce(p0, r0, p1, r1), dimensions={{1}}, to_apply=f",
    ]
    fusion = program([shape, f"{dtype}[]"], ops, body)
    return hloc.compile(fusion, options=hloc.options.Options()).execute(rows, np.asarray(start, rows.dtype))[2:]


def check(rows: np.ndarray, start: object, direction: str, dtype: str = "f32") -> None:
    body = chooser(direction, dtype, keeps_nan=dtype not in ("s32", "s8"))
    values, places = run(rows, start, body, dtype)
    wanted = [folded(row, start, direction) for row in rows]
    assert np.array_equal(places, [place for _, place in wanted])
    expected = np.array([value for value, _ in wanted], rows.dtype)
    numbers = expected == expected
    assert np.array_equal(np.isnan(values.astype(np.float64)), ~numbers)
    assert values[numbers].tobytes() == expected[numbers].tobytes()


@pytest.mark.parametrize("size", [255, 256, 257, 319, 320, 321, 640, 1000])
def test_lengths(size: int) -> None:
    rows = np.random.default_rng(size).standard_normal((3, size)).astype(np.float32)
    check(rows, -np.inf, "GT")


@pytest.mark.parametrize("direction", ["GT", "LT"])
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_element_types_and_ties(dtype: str, direction: str) -> None:
    rows = np.random.default_rng(1).integers(-9, 9, (6, 700)).astype(DTYPES[dtype])
    check(rows, 3 if direction == "LT" else -3, direction, dtype)


@pytest.mark.parametrize("direction", ["GT", "LT"])
def test_nans_zeros_and_infinities(direction: str) -> None:
    """The first NaN, and of zeros the first place, but the sign of the last."""
    generator = np.random.default_rng(2)
    rows = -np.abs(generator.standard_normal((40, 600))).astype(np.float32)
    for row in rows:
        special = generator.choice([0.0, -0.0, np.nan, -np.inf], 5, p=[0.45, 0.45, 0.05, 0.05])
        row[generator.integers(0, 600, 5)] = special
    start = -np.inf if direction == "GT" else np.inf
    check(rows if direction == "GT" else -rows, start, direction)
    check(np.full((2, 300), start, np.float32), start, direction)


def test_the_initial_value_counts() -> None:
    rows = np.random.default_rng(3).standard_normal((3, 400)).astype(np.float32)
    for start in (100.0, np.nan, float(rows.max())):
        check(rows, start, "GT")


def test_places_that_wrap_around_do_not_grow() -> None:
    rows = np.zeros((2, 500), np.float32)
    rows[:, 300] = rows[:, 20] = 1
    values, places = run(rows, -np.inf, chooser("GT", place="u8"), place="u8")
    assert places.tolist() == [20, 20] and values.tolist() == [1, 1]
    rows[:, 20] = 0
    assert run(rows, -np.inf, chooser("GT", place="u8"), place="u8")[1].tolist() == [300 - 256] * 2


def test_places_of_any_order() -> None:
    """Given as an operand, the lesser one of equals is taken wherever it is."""
    values, places = np.ones((2, 500), np.float32), np.arange(500, dtype=np.int32)[::-1].copy()
    ops = [
        "s32[2,500] broadcast(p1), dimensions={1}",
        "f32[] constant(-inf)",
        "s32[] constant(0)",
        "(f32[2], s32[2]) reduce(p0, r0, r1, r2), dimensions={1}, to_apply=f",
    ]
    text = program(["f32[2,500]", "s32[500]"], ops, chooser("GT"))
    assert hloc.compile(text, options=NONE).execute(values, places)[-1].tolist() == [0, 0]


def test_beside_what_else_is_done_with_the_rows() -> None:
    rows = np.random.default_rng(4).standard_normal((4, 800)).astype(np.float32)
    ops = [
        "f32[4,800] exponential(p0)",
        "s32[4,800] iota(), iota_dimension=1",
        "f32[] constant(-inf)",
        "s32[] constant(0)",
        "(f32[4], s32[4]) reduce(r0, r1, r2, r3), dimensions={1}, to_apply=f",
        "s32[4] get-tuple-element(r4), index=1",
        "f32[4] get-tuple-element(r4), index=0",
        "f32[4,800] broadcast(r6), dimensions={0}",
        "f32[4,800] divide(r0, r7)",
    ]
    results = hloc.compile(program(["f32[4,800]"], ops, chooser("GT"))).execute(rows)
    assert np.array_equal(results[-4], rows.argmax(1))
    assert np.allclose(results[-1], np.exp(rows - rows.max(1, keepdims=True)), rtol=1e-5)


@pytest.mark.parametrize(
    ("places", "grow"),
    [
        ("s32[2,500] iota(), iota_dimension=1", True),
        ("s32[2,500] iota(), iota_dimension=0", False),
        ("s32[2,500] broadcast(r0), dimensions={1}", True),
        ("s32[2,500] broadcast(p0), dimensions={1}", False),
        ("u8[2,500] iota(), iota_dimension=1", False),
    ],
)
def test_which_places_grow(places: str, grow: bool) -> None:
    dtype = places.split("[")[0]
    ops = [
        "s32[500] iota(), iota_dimension=0",
        places,
        f"{dtype}[] constant(0)",
        f"(f32[2], {dtype}[2]) reduce(p1, r1, p2, r2), dimensions={{1}}, to_apply=f",
    ]
    module = hloc.parse(program(["s32[500]", "f32[2,500]", "f32[]"], ops, chooser("GT", place=dtype)))
    (reduce,) = [i for i in module.computations["main"] if i.opcode == "reduce"]
    assert (Choice.of(reduce) is not None) == grow


def test_which_computations_are_choices() -> None:
    def of(body: str) -> object:
        text = program(["f32[]"], ["f32[] negate(p0)"], body)
        return choice_of(hloc.parse(text).computations["f"])

    assert of(chooser("GT")).ties_apart and of(chooser("LT")).ties_apart
    assert of(GREATER_OR_EQUAL) is None  # of a NaN it takes what is on the right
    assert not of(GREATER_OR_EQUAL.replace("f32", "s32")).ties_apart
    assert of(chooser("GT").replace("select(first, a, b)", "select(first, b, a)")) is None
    assert of(chooser("GT").replace("direction=GT", "direction=GT, type=TOTALORDER")) is None
    assert of(chooser("EQ")) is None
    assert of(LAST) == Choice("maximum", first=False, first_nan=False, ties_apart=False)
    assert of(LAST.replace("GT", "LT")).operation == "minimum"
    assert of(chooser("LT")) == Choice("minimum", first=True, first_nan=True, ties_apart=True)


LAST = """f {
  a = f32[] parameter(0)
  i = s32[] parameter(1)
  b = f32[] parameter(2)
  j = s32[] parameter(3)
  greater = pred[] compare(a, b), direction=GT
  nan = pred[] compare(a, a), direction=NE
  number = pred[] compare(b, b), direction=EQ
  alone = pred[] and(nan, number)
  first = pred[] or(greater, alone)
  value = f32[] select(first, a, b)
  index = s32[] select(first, i, j)
  ROOT r = (f32[], s32[]) tuple(value, index)
}

"""


@pytest.mark.parametrize("size", [64, 511, 512, 1025, 1500])
def test_the_last_of_equals(size: int) -> None:
    rows = np.random.default_rng(5).integers(-3, 4, (5, size)).astype(np.float32)
    rows[3, [7, size - 9]] = np.nan
    rows[4] = -np.inf
    values, places = run(rows, -np.inf, LAST)
    wanted = [size - 1 - (row[::-1] == np.nanmax(row)).argmax() for row in rows]
    wanted[3] = size - 9
    assert places.tolist() == wanted
    assert np.array_equal(values, rows[range(5), wanted], equal_nan=True)


@pytest.mark.parametrize(("direction", "count"), [("GT", 36), ("LT", 35)])
def test_several_rows_at_once(direction: str, count: int) -> None:
    """Of a large array, rows far from each other, if there are even numbers of them."""
    generator = np.random.default_rng(6)
    rows = generator.standard_normal((count, 1 << 16)).astype(np.float32)
    rows[2, [9, 700]] = np.nan
    rows[3] = 0
    rows[20, [40000, 65000]] = rows[20].max() if direction == "GT" else rows[20].min()
    values, places = run(rows, -np.inf if direction == "GT" else np.inf, chooser(direction))
    wanted = (np.argmax if direction == "GT" else np.argmin)(rows, 1)
    assert np.array_equal(places, wanted)
    assert np.array_equal(values, rows[range(count), wanted], equal_nan=True)
