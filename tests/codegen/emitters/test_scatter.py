"""scatter and select-and-scatter."""

from __future__ import annotations

import numpy as np
import pytest
from emitter_cases import NONE, check, computation, program, value

import hloc
from hloc.records import replace


def integers(low: int, high: int, shape: tuple[int, ...], dtype: type = np.int32) -> np.ndarray:
    return np.random.default_rng(2).integers(low, high, shape).astype(dtype)


@pytest.mark.parametrize("opcode", ["add", "multiply", "maximum"])
def test_rows_and_those_out_of_range(opcode: str) -> None:
    op = (
        "f32[10,4] scatter(p0, p1, p2), update_window_dims={1}, inserted_window_dims={0}, "
        "scatter_dims_to_operand_dims={0}, index_vector_dim=1, to_apply=f"
    )
    arguments = [value("f32[10,4]"), integers(-2, 12, (9, 1)), value("f32[9,4]", 1)]
    check(["f32[10,4]", "s32[9,1]", "f32[9,4]"], [op], computation("f", opcode, "f32"), arguments)


def test_windows_that_reach_over_the_edge_are_dropped() -> None:
    op = (
        "f32[10,6] scatter(p0, p1, p2), update_window_dims={1,2}, inserted_window_dims={}, "
        "scatter_dims_to_operand_dims={1,0}, index_vector_dim=1, to_apply=f"
    )
    arguments = [value("f32[10,6]"), integers(-1, 9, (8, 2)), value("f32[8,3,2]", 1)]
    check(["f32[10,6]", "s32[8,2]", "f32[8,3,2]"], [op], computation("f", "add", "f32"), arguments)


def test_batching_dimensions_and_unsigned_indices() -> None:
    op = (
        "f32[3,10,6]{0,2,1} scatter(p0, p1, p2), update_window_dims={2}, inserted_window_dims={1}, "
        "scatter_dims_to_operand_dims={1}, input_batching_dims={0}, scatter_indices_batching_dims={1}, "
        "index_vector_dim=2, to_apply=f"
    )
    arguments = [value("f32[3,10,6]{0,2,1}"), integers(0, 12, (4, 3, 1), np.uint8), value("f32[4,3,2]", 1)]
    check(["f32[3,10,6]{0,2,1}", "u8[4,3,1]", "f32[4,3,2]"], [op], computation("f", "add", "f32"), arguments)


def test_implicit_index_vector() -> None:
    op = (
        "s32[20] scatter(p0, p1, p2), update_window_dims={}, inserted_window_dims={0}, "
        "scatter_dims_to_operand_dims={0}, index_vector_dim=2, to_apply=f"
    )
    arguments = [value("s32[20]"), integers(-3, 23, (4, 5), np.int64), value("s32[4,5]", 1)]
    check(["s32[20]", "s64[4,5]", "s32[4,5]"], [op], computation("f", "add", "s32"), arguments)


MANY = 1 << 17

FOLDS = {"add": np.add, "multiply": np.multiply, "maximum": np.maximum, "and": np.bitwise_and}


def by_number(opcode: str, dtype: str, shape: str, windows: str = "", updates: int = MANY + 5) -> str:
    """A program that folds updates into the rows of an array, which windows are as long as."""
    window = ("{1}" if windows else "{}", f"{dtype}[{updates}{windows}]")
    op = (
        f"{dtype}[{shape}] scatter(p0, p1, p2), update_window_dims={window[0]}, inserted_window_dims={{0}}, "
        "scatter_dims_to_operand_dims={0}, index_vector_dim=1, to_apply=f"
    )
    return program([f"{dtype}[{shape}]", f"s32[{updates}]", window[1]], [op], computation("f", opcode, dtype))


def folded(opcode: str, base: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
    inside = (indices >= 0) & (indices < len(base))
    FOLDS[opcode].at(result := base.copy(), indices[inside], updates[inside])
    return result


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("opcode", FOLDS)
def test_many_updates_of_few_elements(opcode: str, threads: int) -> None:
    base, indices = integers(-99, 99, (1000,)), integers(-5, 1007, (MANY + 5,))
    updates = integers(-9, 9, (MANY + 5,)) | 1
    compiled = hloc.compile(by_number(opcode, "s32", "1000"), options=replace(NONE, num_threads=threads))
    for _ in range(2):
        (result,) = compiled.execute(base, indices, updates)
        assert np.array_equal(result, folded(opcode, base, indices, updates))


def test_many_windows_are_the_same_bits_for_any_number_of_threads() -> None:
    text = by_number("add", "f32", "300,3", ",3")
    base, updates = value("f32[300,3]"), value(f"f32[{MANY + 5},3]", 1)
    indices = integers(-5, 307, (MANY + 5,))
    results = [
        hloc.compile(text, options=replace(NONE, num_threads=threads)).execute(base, indices, updates)[0]
        for threads in (1, 2, 5)
    ]
    wanted = folded("add", base.astype(np.float64), indices, updates.astype(np.float64))
    np.testing.assert_allclose(results[0], wanted, rtol=1e-3, atol=1e-3)
    assert all(np.array_equal(result, results[0]) for result in results)


def test_elements_without_updates_stay_as_they_are() -> None:
    """Denormals, NaNs with all that they carry, and zeros of either sign."""
    base = np.array([1, 1 << 31, 0x7F812345, 0xFFC00001, 0x80000001, 0], np.uint32).view(np.float32)
    updates = np.ones(MANY + 5, np.float32)
    (result,) = hloc.compile(by_number("add", "f32", "6")).execute(base, np.full(MANY + 5, 5, np.int32), updates)
    assert np.array_equal(result[:5].view(np.uint32), base[:5].view(np.uint32))
    assert result[5] == MANY + 5


def test_several_operands() -> None:
    body = """f {
  a = f32[] parameter(0)
  i = s32[] parameter(1)
  b = f32[] parameter(2)
  j = s32[] parameter(3)
  s = f32[] add(a, b)
  t = s32[] multiply(i, j)
  ROOT r = (f32[], s32[]) tuple(s, t)
}

"""
    op = (
        "(f32[9], s32[9]) scatter(p0, p1, p2, p3, p4), update_window_dims={}, inserted_window_dims={0}, "
        "scatter_dims_to_operand_dims={0}, index_vector_dim=1, to_apply=f"
    )
    arguments = [
        value("f32[9]"),
        value("s32[9]"),
        integers(0, 10, (12, 1)),
        value("f32[12]", 1),
        value("s32[12]", 2),
    ]
    check(["f32[9]", "s32[9]", "s32[12,1]", "f32[12]", "s32[12]"], [op], body, arguments)


def test_the_last_of_equal_places_wins() -> None:
    body = "f {\n  a = f32[] parameter(0)\n  ROOT b = f32[] parameter(1)\n}\n\n"
    op = (
        "f32[4] scatter(p0, p1, p2), update_window_dims={}, inserted_window_dims={0}, "
        "scatter_dims_to_operand_dims={0}, index_vector_dim=1, to_apply=f"
    )
    text = program(["f32[4]", "s32[3,1]", "f32[3]"], [op], body)
    arguments = [
        np.zeros(4, np.float32),
        np.array([[1], [1], [3]], np.int32),
        np.array([5, 6, 7], np.float32),
    ]
    (got,) = hloc.compile(text, options=NONE).execute(*arguments)
    assert got.tolist() == [0, 6, 0, 7] and arguments[0].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("shape", "source", "window"),
    [
        ("7,9", "4,4", "size=3x3 stride=2x2 pad=1_1x0_0"),
        ("2,10,10,3", "2,5,5,3", "size=1x2x2x1 stride=1x2x2x1"),
        ("6", "2", "size=2 stride=3"),
        ("6,6", "6,6", "size=3x3 pad=1_1x1_1"),
        ("5", "7", "size=1 pad=1_1"),
    ],
)
def test_select_and_scatter(shape: str, source: str, window: str) -> None:
    computations = computation("ge", "compare direction=GE", "f32") + computation("f", "add", "f32")
    op = f"f32[{shape}] select-and-scatter(p0, p1, p2), window={{{window}}}, select=ge, scatter=f"
    check([f"f32[{shape}]", f"f32[{source}]", "f32[]"], [op], computations)
