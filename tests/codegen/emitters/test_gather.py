"""gather: places of every integer type, in and out of range."""

from __future__ import annotations

import numpy as np
import pytest
from emitter_cases import check, value

import hloc
from hloc.options import Options


@pytest.mark.parametrize("dtype", ["s8", "u8", "s16", "u32", "s32", "s64", "u64"])
@pytest.mark.parametrize("size", [3, 100, 127, 128, 300, 40000])
def test_places_are_bounded(dtype: str, size: int) -> None:
    kind = value(f"{dtype}[1]").dtype
    limits = np.iinfo(kind)
    numbers = [limits.min, limits.min + 1, 0, 1, size - 2, size - 1, size, size + 1, limits.max - 1, limits.max]
    places = np.array([n for n in numbers * 8 if limits.min <= n <= limits.max], kind)
    count = places.size
    rows = f"f32[{count}] gather(p0, r0), offset_dims={{}}, collapsed_slice_dims={{0}}, start_index_map={{0}}, "
    ops = [
        f"{dtype}[{count},1] reshape(p1)",
        rows + "index_vector_dim=1, slice_sizes={1}",
        f"f32[{count},2] gather(p0, r0), offset_dims={{1}}, collapsed_slice_dims={{}}, start_index_map={{0}}, "
        "index_vector_dim=1, slice_sizes={2}",
    ]
    check([f"f32[{size}]", f"{dtype}[{count}]"], ops, "", [value(f"f32[{size}]"), places])


@pytest.mark.parametrize("threads", [1, 2])
def test_many_places(threads: int) -> None:
    text = """HloModule places
ENTRY e {
  x = f32[5000] parameter(0)
  i = s32[200007,1] parameter(1)
  ROOT r = f32[200007] gather(x, i), offset_dims={}, collapsed_slice_dims={0}, start_index_map={0},
    index_vector_dim=1, slice_sizes={1}
}"""
    generator = np.random.default_rng(0)
    x = generator.standard_normal(5000).astype(np.float32)
    places = generator.integers(-100, 5100, (200007, 1)).astype(np.int32)
    got = hloc.compile(text, options=Options(num_threads=threads, cache=False))(x, places)
    assert np.array_equal(got, x[np.clip(places[:, 0], 0, 4999)])
