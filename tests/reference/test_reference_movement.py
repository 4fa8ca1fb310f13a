"""Data movement, layouts and bounded dynamic dimensions."""

from __future__ import annotations

import numpy as np
import pytest
from evaluating import ADD, f32, leaves, one, same

from hloc.errors import HloError
from hloc.reference.evaluate import evaluate
from hloc.text.parser import parse

GRID = np.arange(24, dtype=np.int32).reshape(2, 3, 4)


def padded_by_hand(array: np.ndarray, value: int, dims: list[tuple[int, int, int]]) -> np.ndarray:
    """Every element placed on its own."""
    sizes = [max(n - 1, 0) * i + n + low + high for n, (low, high, i) in zip(array.shape, dims)]
    result = np.full(sizes, value, array.dtype)
    for index in np.ndindex(array.shape):
        place = tuple(low + i * (interior + 1) for i, (low, _, interior) in zip(index, dims))
        if all(0 <= p < size for p, size in zip(place, sizes)):
            result[place] = array[index]
    return result


@pytest.mark.parametrize(
    "dims",
    [
        [(0, 0, 0), (1, 2, 0), (0, 0, 3)],
        [(-1, 1, 0), (0, -2, 0), (-2, -3, 2)],
        [(2, -2, 1), (-3, 0, 2), (-5, 4, 1)],
        [(-1, 0, 0), (-3, 0, 0), (0, 0, 0)],
    ],
)
def test_pad(dims: list[tuple[int, int, int]]) -> None:
    expected = padded_by_hand(GRID, -9, dims)
    sizes = ",".join(map(str, expected.shape))
    text = "x".join(f"{low}_{high}_{interior}" for low, high, interior in dims)
    same(one(f"s32[{sizes}] pad(p0, p1), padding={text}", GRID, np.int32(-9)), expected)


def test_broadcast_places_operand_dimensions() -> None:
    got = one("s32[4,2,3] broadcast(p0), dimensions={1,2}", GRID[:, :, 0])
    same(got, np.broadcast_to(GRID[:, :, 0], (4, 2, 3)))


def test_concatenate_slice_reverse_transpose() -> None:
    same(one("s32[2,6,4] concatenate(p0, p0), dimensions={1}", GRID), np.concatenate([GRID, GRID], 1))
    same(one("s32[1,2,2] slice(p0), slice={[1:2], [0:3:2], [1:4:2]}", GRID), GRID[1:2, 0:3:2, 1:4:2])
    same(one("s32[2,3,4] reverse(p0), dimensions={0,2}", GRID), GRID[::-1, :, ::-1])
    same(one("s32[4,2,3] transpose(p0), dimensions={2,0,1}", GRID), GRID.transpose(2, 0, 1))


def test_iota_wraps_in_narrow_types() -> None:
    same(one("u8[300] iota(), iota_dimension=0"), np.arange(300) % 256)
    assert one("s4[2,10] iota(), iota_dimension=1").astype(int)[1].tolist() == [*range(8), -8, -7]


def test_shuffle_rotates_and_permutes() -> None:
    same(one("s32[2,3,4] shuffle(p0), dimensions={2}, mode=rotate, shifts={1}", GRID), np.roll(GRID, 1, 2))
    line = "s32[2,3,4] shuffle(p0), dimensions={1}, mode=permute, indices=s32[3,1] {{2}, {0}, {1}}"
    same(one(line, GRID), GRID[:, [2, 0, 1]])


def test_bitcast_reads_memory_in_the_order_of_the_result() -> None:
    text = """HloModule m
ENTRY e {
  x = f32[2,3]{0,1} parameter(0)
  a = f32[3,2]{1,0} bitcast(x)
  b = f32[6]{0} bitcast(x)
  c = s32[3,2]{0,1} bitcast(x)
  ROOT t = (f32[3,2]{1,0}, f32[6]{0}, s32[3,2]{0,1}) tuple(a, b, c)
}"""
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    a, b, c = evaluate(parse(text), [x])
    same(a, x.T)
    same(b, x.T.reshape(-1))
    same(c.view(np.float32), x.T.reshape(-1).reshape(2, 3).T)


def test_bitcast_follows_tiles() -> None:
    text = """HloModule m
ENTRY e {
  x = s32[4,4]{1,0:T(2,2)} parameter(0)
  ROOT b = s32[16]{0} bitcast(x)
}"""
    x = np.arange(16, dtype=np.int32).reshape(4, 4)
    (flat,) = evaluate(parse(text), [x])
    assert flat.tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]


def test_only_live_elements_are_reduced() -> None:
    text = f"""HloModule m
{ADD}
ENTRY e {{
  x = f32[4,2] parameter(0)
  n = s32[] parameter(1)
  b = f32[<=4,2] set-dimension-size(x, n), dimensions={{0}}
  d = f32[<=4,2] add(b, b)
  z = f32[] constant(0)
  s = f32[2] reduce(d, z), dimensions={{0}}, to_apply=add
  k = s32[] get-dimension-size(d), dimensions={{0}}
  f = f32[<=8] reshape(b)
  g = s32[] get-dimension-size(f), dimensions={{0}}
  h = f32[4,2] set-dimension-size(b, q), dimensions={{0}}
  ROOT t = (f32[2], s32[], s32[], f32[<=4,2], f32[4,2]) tuple(s, k, g, b, h)
}}""".replace("  h =", "  q = s32[] constant(4)\n  h =")
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    total, count, flat, bounded, grown = evaluate(parse(text), [x, np.int32(3)])
    same(total, 2 * x[:3].sum(axis=0))
    assert (int(count), int(flat)) == (3, 6)
    same(bounded, x[:3])
    same(grown, np.concatenate([x[:3], np.zeros((1, 2))]))


def test_dynamic_reshape_keeps_the_live_elements() -> None:
    text = """HloModule m
ENTRY e {
  x = f32[<=6] parameter(0)
  n = s32[] parameter(1)
  two = s32[] constant(2)
  ROOT y = f32[<=3,2] dynamic-reshape(x, n, two)
}"""
    x = f32(1, 2, 3, 4)
    (got,) = evaluate(parse(text), [x, np.int32(2)])
    same(got, x.reshape(2, 2))
    with pytest.raises(HloError, match="4 live elements do not fill"):
        evaluate(parse(text), [x, np.int32(3)])


def test_a_size_beyond_the_bound_is_refused() -> None:
    with pytest.raises(HloError, match="size 5 is not within the bound 4"):
        leaves("f32[<=4] set-dimension-size(p0, p1), dimensions={0}", f32(1, 2, 3, 4), np.int32(5))
