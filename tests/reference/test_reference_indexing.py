"""dynamic-slice, dynamic-update-slice, gather, scatter, sort, topk: rows X18, X19, X21 and X22."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from evaluating import INF, NAN, f32, leaves, one, s32, same

GRID = np.arange(30, dtype=np.int32).reshape(5, 6)
ADD = "f { a = s32[] parameter(0)\n b = s32[] parameter(1)\n ROOT c = s32[] add(a, b) }"
SECOND = "f { a = s32[] parameter(0)\n ROOT b = s32[] parameter(1) }"
SHIFT = """f { a = s32[] parameter(0)
 b = s32[] parameter(1)
 two = s32[] constant(2)
 c = s32[] multiply(a, two)
 ROOT d = s32[] add(c, b) }"""


@pytest.mark.parametrize("i, j, at", [(1, 2, (1, 2)), (-3, 100, (0, 3)), (4, -1, (3, 0))])
def test_dynamic_slices_clamp(i: int, j: int, at: tuple[int, int]) -> None:
    starts = [np.int64(i), np.int64(j)]
    window = (slice(at[0], at[0] + 2), slice(at[1], at[1] + 3))
    same(one("s32[2,3] dynamic-slice(p0, p1, p2), dynamic_slice_sizes={2,3}", GRID, *starts), GRID[window])
    update = np.full((2, 3), -7, np.int32)
    expected = GRID.copy()
    expected[window] = update
    same(one("s32[5,6] dynamic-update-slice(p0, p1, p2, p3)", GRID, update, *starts), expected)


def test_starts_of_any_integer_type_and_as_one_vector() -> None:
    big = np.array(2**64 - 1, np.uint64)
    same(one("s32[1,6] dynamic-slice(p0, p1, p1), dynamic_slice_sizes={1,6}", GRID, big), GRID[4:])
    same(one("s32[1,2] dynamic-slice(p0, p1), dynamic_slice_sizes={1,2}", GRID, s32(2, 9)), GRID[2:3, 4:])


def test_gather_clamps_and_places_offsets() -> None:
    indices = s32(0, 1, -4, 3, 2, 99).reshape(3, 2)
    line = (
        "s32[2,3] gather(p0, p1), offset_dims={0}, collapsed_slice_dims={0}, start_index_map={0,1}, "
        "index_vector_dim=1, slice_sizes={1,2}"
    )
    same(one(line, GRID, indices), np.array([GRID[0, 1:3], GRID[0, 3:5], GRID[2, 4:6]]).T)


def test_gather_of_whole_rows_and_with_a_swapped_start_map() -> None:
    line = (
        "s32[4,6] gather(p0, p1), offset_dims={1}, collapsed_slice_dims={0}, start_index_map={0}, "
        "index_vector_dim=1, slice_sizes={1,6}"
    )
    same(one(line, GRID, s32(4, 0, 2, 2)), GRID[[4, 0, 2, 2]])
    line = (
        "s32[2] gather(p0, p1), offset_dims={}, collapsed_slice_dims={0,1}, start_index_map={1,0}, "
        "index_vector_dim=0, slice_sizes={1,1}"
    )
    same(one(line, GRID, s32(5, 2, 1, 3).reshape(2, 2)), [GRID[1, 5], GRID[3, 2]])


def test_gather_and_scatter_with_batching_dimensions() -> None:
    x = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    indices = s32(2, 0, 1, 1).reshape(2, 2, 1)
    line = (
        "s32[2,2,4] gather(p0, p1), offset_dims={2}, collapsed_slice_dims={1}, start_index_map={1}, "
        "operand_batching_dims={0}, start_indices_batching_dims={0}, index_vector_dim=2, slice_sizes={1,1,4}"
    )
    same(one(line, x, indices), [x[0, [2, 0]], x[1, [1, 1]]])
    updates = np.ones((2, 2, 4), np.int32)
    line = (
        "s32[2,3,4] scatter(p0, p1, p2), update_window_dims={2}, inserted_window_dims={1}, "
        "scatter_dims_to_operand_dims={1}, input_batching_dims={0}, scatter_indices_batching_dims={0}, "
        "index_vector_dim=2, to_apply=f"
    )
    expected = x.copy()
    expected[0, [0, 2]] += 1
    expected[1, 1] += 2
    same(one(line, x, indices, updates, computations=ADD), expected)


def scatter_line(count: int) -> str:
    return (
        f"s32[{count}] scatter(p0, p1, p2), update_window_dims={{}}, inserted_window_dims={{0}}, "
        "scatter_dims_to_operand_dims={0}, index_vector_dim=1, to_apply=f"
    )


@pytest.mark.parametrize(
    "computation, expected",
    [(ADD, [10, 23, 30, 44, 50]), (SECOND, [10, 2, 30, 4, 50]), (SHIFT, [10, 84, 30, 84, 50])],
)
def test_scatter_takes_updates_in_order_and_drops_those_out_of_range(
    computation: str, expected: list
) -> None:
    x, indices, updates = s32(10, 20, 30, 40, 50), s32(1, -2, 1, 9, 3), s32(1, 100, 2, 100, 4)
    same(one(scatter_line(5), x, indices.reshape(-1, 1), updates, computations=computation), expected)


def test_windows_that_overlap_in_part_are_folded_in_order() -> None:
    line = (
        "s32[5] scatter(p0, p1, p2), update_window_dims={1}, inserted_window_dims={}, "
        "scatter_dims_to_operand_dims={0}, index_vector_dim=1, to_apply=f"
    )
    x, starts = s32(1, 1, 1, 1, 1), s32(0, 1, 3).reshape(-1, 1)
    updates = np.arange(1, 10, dtype=np.int32).reshape(3, 3)
    # The third window doesn't fit and is dropped whole.
    same(one(line, x, starts, updates, computations=SHIFT), [3, 2 * 4 + 4, 2 * 5 + 5, 8, 1])


def test_scatter_of_two_operands() -> None:
    computation = """f { a = f32[] parameter(0)
 b = s32[] parameter(1)
 c = f32[] parameter(2)
 d = s32[] parameter(3)
 e = f32[] subtract(a, c)
 g = s32[] maximum(b, d)
 ROOT t = (f32[], s32[]) tuple(e, g) }"""
    line = (
        "(f32[3], s32[3]) scatter(p0, p1, p2, p3, p4), update_window_dims={}, inserted_window_dims={0}, "
        "scatter_dims_to_operand_dims={0}, index_vector_dim=1, to_apply=f"
    )
    floats, integers = leaves(
        line,
        f32(1, 2, 3),
        s32(5, 5, 5),
        s32(2, 2, 0).reshape(-1, 1),
        f32(1, 2, 4),
        s32(7, 6, 1),
        computations=computation,
    )
    same(floats, [-3, 2, 0])
    same(integers, [5, 5, 7])


def test_scatter_add_of_bf16_rounds_every_time() -> None:
    computation = "f { a = bf16[] parameter(0)\n b = bf16[] parameter(1)\n ROOT c = bf16[] add(a, b) }"
    ones = np.ones(300, ml_dtypes.bfloat16)
    line = scatter_line(1).replace("s32[1]", "bf16[1]")
    zero = np.zeros(1, ml_dtypes.bfloat16)
    got = one(line, zero, np.zeros((300, 1), np.int32), ones, computations=computation)
    same(got, [256])


TOTAL = """f { a = f32[] parameter(0)
 b = f32[] parameter(1)
 ROOT c = pred[] compare(a, b), direction=LT, type=TOTALORDER }"""


def test_sort_in_total_order() -> None:
    x = f32(NAN, 1, -0.0, INF, 0.0, -INF)
    same(
        one("f32[6] sort(p0), dimensions={0}, to_apply=f", x, computations=TOTAL),
        [-INF, -0.0, 0.0, 1, INF, NAN],
    )


def test_sort_is_stable_in_both_directions_along_any_dimension() -> None:
    x = np.array([[2, 1], [1, 1], [2, 0], [1, 2]], np.int32)
    i = np.broadcast_to(np.arange(4, dtype=np.int32)[:, None], x.shape)
    for direction, order in (
        ("LT", np.argsort(x, axis=0, kind="stable")),
        ("GT", np.argsort(-x, axis=0, kind="stable")),
    ):
        comparator = f"""f {{ a = s32[] parameter(0)
 b = s32[] parameter(1)
 c = s32[] parameter(2)
 d = s32[] parameter(3)
 ROOT p = pred[] compare(a, b), direction={direction} }}"""
        line = "(s32[4,2], s32[4,2]) sort(p0, p1), dimensions={0}, is_stable=true, to_apply=f"
        keys, where = leaves(line, x, i, computations=comparator)
        same(where, order)
        same(keys, np.take_along_axis(x, order, axis=0))


def test_sort_by_a_function_of_the_keys() -> None:
    comparator = """f { a = f32[] parameter(0)
 b = f32[] parameter(1)
 c = f32[] abs(a)
 d = f32[] abs(b)
 ROOT p = pred[] compare(c, d), direction=GT }"""
    same(
        one("f32[4] sort(p0), dimensions={0}, to_apply=f", f32(1, -3, 2, -2), computations=comparator),
        [-3, 2, -2, 1],
    )


@pytest.mark.parametrize("count", [1, 2, 3, 17, 64, 100])
def test_sort_by_two_keys_merges_runs(count: int) -> None:
    comparator = """f { a = s32[] parameter(0)
 b = s32[] parameter(1)
 c = f32[] parameter(2)
 d = f32[] parameter(3)
 e = s32[] parameter(4)
 g = s32[] parameter(5)
 less = pred[] compare(a, b), direction=LT
 equal = pred[] compare(a, b), direction=EQ
 more = pred[] compare(c, d), direction=GT
 both = pred[] and(equal, more)
 ROOT p = pred[] or(less, both) }"""
    rng = np.random.default_rng(count)
    x = rng.integers(0, 4, (2, count)).astype(np.int32)
    y = rng.integers(0, 3, (2, count)).astype(np.float32)
    i = np.broadcast_to(np.arange(count, dtype=np.int32), x.shape)
    shape = f"[2,{count}]"
    line = (
        f"(s32{shape}, f32{shape}, s32{shape}) sort(p0, p1, p2), dimensions={{1}}, is_stable=true, to_apply=f"
    )
    got = leaves(line, x, y, i, computations=comparator)
    for row in range(2):
        order = np.lexsort((np.arange(count), -y[row], x[row]))
        same(got[2][row], order)
        same(got[0][row], x[row][order])
        same(got[1][row], y[row][order])


def test_topk_puts_nan_first_and_breaks_ties_by_index() -> None:
    x = f32(1, NAN, 3, 3, -0.0, 0.0)
    values, where = leaves("(f32[4], s32[4]) topk(p0), k=4, largest=true", x)
    same(values, [NAN, 3, 3, 1])
    same(where, [1, 2, 3, 0])
    values, where = leaves("(f32[3], s32[3]) topk(p0), k=3, largest=false", x)
    same(values, [-0.0, 0.0, 1])
    same(where, [4, 5, 0])


@pytest.mark.parametrize("root", ["compare(c, d), direction=LT", "or(less, no)"])
def test_sort_by_a_comparator_that_branches(root: str) -> None:
    computations = f"""
neg {{ a = f32[] parameter(0)
 ROOT b = f32[] negate(a) }}
same {{ ROOT a = f32[] parameter(0) }}
f {{ a = f32[] parameter(0)
 b = f32[] parameter(1)
 zero = f32[] constant(0)
 p = pred[] compare(a, zero), direction=LT
 q = pred[] compare(b, zero), direction=LT
 c = f32[] conditional(p, a, a), true_computation=neg, false_computation=same
 d = f32[] conditional(q, b, b), true_computation=neg, false_computation=same
 less = pred[] compare(c, d), direction=LT
 no = pred[] constant(false)
 ROOT r = pred[] {root} }}"""
    line = "f32[5] sort(p0), dimensions={0}, is_stable=true, to_apply=f"
    same(one(line, f32(3, -1, 2, -3, 0.5), computations=computations), [0.5, -1, 2, 3, -3])
