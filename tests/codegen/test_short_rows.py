"""Arrays with short rows: loops along a row are written out, those along rows are vectorized; and what is shared."""

import numpy as np
import pytest

import hloc
from hloc.codegen.compile import emit_stage
from hloc.options import Options
from hloc.reference.evaluate import evaluate

OUT = '"llvm.loop.unroll.enable"'

ARGMAX = """
  greater = pred[] compare(x, y), direction=GT
  same = pred[] compare(x, y), direction=EQ
  earlier = pred[] compare(i, j), direction=LT
  tie = pred[] and(same, earlier)
  first = pred[] or(greater, tie)
  value = f32[] select(first, x, y)
  place = s32[] select(first, i, j)
  ROOT both = (f32[], s32[]) tuple(value, place)
"""


def _rows(dtype: str, width: int) -> str:
    return f"""HloModule m
ENTRY e {{
  x = {dtype}[500,{width}] parameter(0)
  a = {dtype}[{width}] parameter(1)
  b = {dtype}[500] parameter(2)
  along = {dtype}[500,{width}] broadcast(a), dimensions={{1}}
  across = {dtype}[500,{width}] broadcast(b), dimensions={{0}}
  y = {dtype}[500,{width}] multiply(x, along)
  ROOT r = {dtype}[500,{width}] add(y, across)
}}"""


def _places(width: int) -> str:
    return f"""HloModule m
pick {{
  x = f32[] parameter(0)
  i = s32[] parameter(1)
  y = f32[] parameter(2)
  j = s32[] parameter(3)
{ARGMAX}}}
ENTRY e {{
  x = f32[500,{width}] parameter(0)
  i = s32[500,{width}] iota(), iota_dimension=1
  least = f32[] constant(-inf)
  none = s32[] constant(0)
  found = (f32[500], s32[500]) reduce(x, i, least, none), dimensions={{1}}, to_apply=pick
  ROOT r = s32[500] get-tuple-element(found), index=1
}}"""


def _check(text: str, *arguments: np.ndarray) -> None:
    got = hloc.compile(text, options=Options(cache=False)).execute(*arguments)
    for result, wanted in zip(got, evaluate(hloc.parse(text), arguments), strict=True):
        np.testing.assert_array_equal(result, np.asarray(wanted))


@pytest.mark.parametrize(
    ("dtype", "width", "written_out"),
    [("f32", 3, True), ("f32", 7, True), ("f32", 8, False), ("u8", 8, True), ("u8", 9, False)],
)
def test_rows_that_fill_no_vector(dtype: str, width: int, written_out: bool) -> None:
    text = _rows(dtype, width)
    rng = np.random.default_rng(width)
    shapes, of = [(500, width), (width,), (500,)], {"f32": np.float32, "u8": np.uint8}[dtype]
    _check(text, *[rng.integers(0, 9, shape).astype(of) for shape in shapes])
    assert (OUT in emit_stage(hloc.parse(text), "llvm", "cpu", Options(num_threads=1))) == written_out


@pytest.mark.parametrize(("width", "written_out"), [(2, True), (12, True), (40, False)])
def test_short_folds(width: int, written_out: bool) -> None:
    text = _places(width)
    _check(text, np.random.default_rng(width).integers(0, 9, (500, width)).astype(np.float32))
    assert (OUT in emit_stage(hloc.parse(text), "llvm", "cpu", Options(num_threads=1))) == written_out


@pytest.mark.parametrize(("width", "written_out"), [(2, True), (16, True), (17, False)])
def test_short_running_folds(width: int, written_out: bool) -> None:
    text = f"""HloModule m
add {{
  a = s32[] parameter(0)
  b = s32[] parameter(1)
  ROOT c = s32[] add(a, b)
}}
ENTRY e {{
  x = s32[500,{width}] parameter(0)
  zero = s32[] constant(0)
  ROOT r = s32[500,{width}] reduce-window(x, zero), window={{size=1x{width} pad=0_0x{width - 1}_0}}, to_apply=add
}}"""
    _check(text, np.random.default_rng(width).integers(0, 9, (500, width)).astype(np.int32))
    assert (OUT in emit_stage(hloc.parse(text), "llvm", "cpu", Options(num_threads=1))) == written_out


@pytest.mark.parametrize(("rows", "shared"), [(1, False), (1000, True)])
def test_what_is_sliced_counts_as_far_as_it_is_read(rows: int, shared: bool) -> None:
    """Threads share no kernel for the size of an array of which it reads a row."""
    text = f"""HloModule m
ENTRY e {{
  x = f32[1000,1000] parameter(0)
  i = s32[] parameter(1)
  zero = s32[] constant(0)
  part = f32[{rows},1000] dynamic-slice(x, i, zero), dynamic_slice_sizes={{{rows},1000}}
  ROOT r = f32[{rows},1000] negate(part)
}}"""
    _check(text, np.arange(1e6, dtype=np.float32).reshape(1000, 1000), np.array(7, np.int32))
    assert ("@hloc.parallel" in emit_stage(hloc.parse(text), "llvm", "cpu", Options(num_threads=2))) == shared


def _merged(dims: str, merged: str, axis: int) -> str:
    """Bits of bytes along an axis, seen in an array of fewer dimensions."""
    return f"""HloModule m
ENTRY e {{
  x = u8[{dims.replace(',8', '', 1)}] parameter(0)
  bit = u8[8] iota(), iota_dimension=0
  bytes = u8[{dims}] broadcast(x), dimensions={{{",".join(str(d) for d in range(3) if d != axis)}}}
  bits = u8[{dims}] broadcast(bit), dimensions={{{axis}}}
  moved = u8[{dims}] shift-right-logical(bytes, bits)
  all = u8[{merged}] reshape(moved)
  one = u8[] constant(1)
  ones = u8[{merged}] broadcast(one), dimensions={{}}
  lowest = u8[{merged}] and(all, ones)
  ROOT r = f32[{merged}] convert(lowest)
}}"""


@pytest.mark.parametrize(
    ("dims", "merged", "axis"),
    [
        ("30,7,8", "1680", 2),
        ("30,7,8", "30,56", 2),
        ("30,7,8", "210,8", 2),
        ("30,8,7", "240,7", 1),
        ("30,8,1", "1,240", 1),
    ],
)
def test_loops_have_the_dimensions_that_a_reshape_merges(dims: str, merged: str, axis: int) -> None:
    text = _merged(dims, merged, axis)
    sizes = [size for d, size in enumerate(map(int, dims.split(","))) if d != axis]
    _check(text, np.random.default_rng(3).integers(0, 256, sizes).astype(np.uint8))
    assert "udiv" not in _kernels(emit_stage(hloc.parse(text), "llvm", "cpu", Options(num_threads=1)))


def _kernels(llvm: str) -> str:
    return "".join(part for part in llvm.split("define ") if "@kernel." in part.split("(")[0])
