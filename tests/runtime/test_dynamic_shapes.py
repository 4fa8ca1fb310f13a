"""Bounded dynamic dimensions, natively: live elements only, whatever lies behind them.

Each case works on %b, f32[<=6,4], which is cut from an array whose dead rows are NaN, on %c, s32[<=6], and on
the live size %n; the evaluator, whose arrays hold live elements only, says what is right.
"""

from __future__ import annotations

import numpy as np
import pytest

import hloc
from hloc.arrays import compare
from hloc.errors import ArgumentError, HloError
from hloc.options import Options
from hloc.reference.evaluate import evaluate

PIPELINES = ("cpu", "none")

COMPUTATIONS = """
add { a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT r = f32[] add(a, b) }
add_s32 { a = s32[] parameter(0)  b = s32[] parameter(1)  ROOT r = s32[] add(a, b) }
least { a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT r = f32[] minimum(a, b) }
less { a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT r = pred[] compare(a, b), direction=LT }
sum_of_squares {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  aa = f32[] multiply(a, a)
  bb = f32[] multiply(b, b)
  s = f32[] add(aa, bb)
  ROOT r = f32[] sqrt(s)
}
greatest_and_where {
  a = f32[] parameter(0)  i = s32[] parameter(1)  b = f32[] parameter(2)  j = s32[] parameter(3)
  first = pred[] compare(a, b), direction=GE
  value = f32[] select(first, a, b)
  place = s32[] select(first, i, j)
  ROOT r = (f32[], s32[]) tuple(value, place)
}
less_pair {
  a = f32[] parameter(0)  b = f32[] parameter(1)  i = s32[] parameter(2)  j = s32[] parameter(3)
  ROOT r = pred[] compare(a, b), direction=LT
}
go_on {
  s = (s32[], f32[<=6,4]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  three = s32[] constant(3)
  ROOT r = pred[] compare(i, three), direction=LT
}
shrink {
  s = (s32[], f32[<=6,4]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  x = f32[<=6,4] get-tuple-element(s), index=1
  one = s32[] constant(1)
  j = s32[] add(i, one)
  y = f32[<=6,4] add(x, x)
  size = s32[] get-dimension-size(y), dimensions={0}
  zero = s32[] constant(0)
  fewer = s32[] subtract(size, one)
  left = s32[] maximum(fewer, zero)
  z = f32[<=6,4] set-dimension-size(y, left), dimensions={0}
  ROOT r = (s32[], f32[<=6,4]) tuple(j, z)
}
doubled { x = f32[<=6,4] parameter(0)  ROOT r = f32[<=6,4] add(x, x) }
whole { x = f32[6,4] parameter(0)  ROOT r = f32[6,4] negate(x) }
"""

HEAD = """
  x = f32[6,4] parameter(0)
  k = s32[6] parameter(1)
  n = s32[] parameter(2)
  m = s32[] parameter(3)
  w = f32[6,4] parameter(4)
  b = f32[<=6,4] set-dimension-size(x, n), dimensions={0}
  c = s32[<=6] set-dimension-size(k, n), dimensions={0}
  zero = f32[] constant(0)
  five = f32[] constant(5)
  zero_s32 = s32[] constant(0)
  two = s32[] constant(2)
"""

CASES = {
    "get_dimension_size": ["ROOT r = s32[] get-dimension-size(b), dimensions={0}"],
    "of_a_static_array": ["ROOT r = s32[] get-dimension-size(x), dimensions={1}"],
    "grow_again": ["ROOT r = f32[<=6,4] set-dimension-size(b, m), dimensions={0}"],
    "elementwise": ["e = f32[<=6,4] exponential(b)", "ROOT r = f32[<=6,4] multiply(e, b)"],
    "lesser_size_counts": [
        "o = f32[<=6,4] set-dimension-size(w, m), dimensions={0}",
        "ROOT r = f32[<=6,4] subtract(b, o)",
    ],
    "with_a_static_operand": ["ROOT r = f32[<=6,4] subtract(w, b)"],
    "made_static": ["ROOT r = f32[6,4] add(b, b)"],
    "select_and_compare": [
        "p = pred[<=6,4] compare(b, w), direction=LT",
        "ROOT r = f32[<=6,4] select(p, b, w)",
    ],
    "both_dimensions": [
        "o = f32[<=6,<=4] set-dimension-size(b, m), dimensions={1}",
        "ROOT r = f32[<=4,<=6] transpose(o), dimensions={1,0}",
    ],
    "convert_and_bits": [
        "h = f16[<=6,4] convert(b)",
        "ROOT r = u16[<=6,4] bitcast-convert(h)",
    ],
    "bits_into_bytes": ["ROOT r = u8[<=6,4,4] bitcast-convert(b)"],
    "broadcast": ["ROOT r = s32[3,<=6] broadcast(c), dimensions={1}"],
    "iota_of_full_size": ["i = s32[<=6] iota(), iota_dimension=0", "ROOT r = s32[<=6] add(i, c)"],
    "reduce_known": [
        "ROOT r = f32[4] reduce(b, five), dimensions={0}, to_apply=add",
    ],
    "reduce_to_a_scalar": ["ROOT r = f32[] reduce(b, zero), dimensions={0,1}, to_apply=least"],
    "reduce_other_dimension": ["ROOT r = f32[<=6] reduce(b, zero), dimensions={1}, to_apply=add"],
    "reduce_by_any_computation": [
        "ROOT r = f32[4] reduce(b, five), dimensions={0}, to_apply=sum_of_squares",
    ],
    "reduce_several": [
        "i = s32[<=6,4] iota(), iota_dimension=0",
        "ROOT r = (f32[4], s32[4]) reduce(b, i, zero, zero_s32), dimensions={0}, to_apply=greatest_and_where",
    ],
    "reduce_integers": ["ROOT r = s32[] reduce(c, two), dimensions={0}, to_apply=add_s32"],
    "reduce_window": [
        "ROOT r = f32[<=4,4] reduce-window(b, five), window={size=3x1 stride=2x1 pad=1_2x0_0}, to_apply=add",
    ],
    "reduce_window_dilated": [
        "ROOT r = f32[<=9,4] reduce-window(b, zero), "
        "window={size=2x1 stride=1x1 pad=0_0x0_0 lhs_dilate=2x1 rhs_dilate=2x1}, to_apply=least",
    ],
    "reduce_window_by_any_computation": [
        "ROOT r = f32[<=5,4] reduce-window(b, five), window={size=2x1}, to_apply=sum_of_squares",
    ],
    "dot_over_live_rows": [
        "o = f32[<=6,4] set-dimension-size(w, m), dimensions={0}",
        "ROOT r = f32[4,4] dot(b, o), lhs_contracting_dims={0}, rhs_contracting_dims={0}",
    ],
    "dot_of_rows": [
        "o = f32[<=6,4] set-dimension-size(w, m), dimensions={0}",
        "ROOT r = f32[<=6,<=6] dot(b, o), lhs_contracting_dims={1}, rhs_contracting_dims={1}",
    ],
    "dot_of_a_batch": [
        "ROOT r = f32[<=6] dot(b, w), lhs_batch_dims={0}, rhs_batch_dims={0}, "
        "lhs_contracting_dims={1}, rhs_contracting_dims={1}",
    ],
    "convolution_over_live_rows": [
        "i = f32[1,<=6,4] reshape(b)",
        "f = f32[3,4,2] slice(v), slice={[0:3],[0:4],[0:2]}",
        "ROOT r = f32[1,<=6,2] convolution(i, f), window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f",
    ],
    "convolution_of_a_batch": [
        "i = f32[<=6,4,1] reshape(b)",
        "f = f32[3,1,1] slice(v), slice={[0:3],[0:1],[0:1]}",
        "ROOT r = f32[<=6,4,1] convolution(i, f), window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f",
    ],
    "concatenate": [
        "o = f32[<=6,4] set-dimension-size(w, m), dimensions={0}",
        "ROOT r = f32[<=18,4] concatenate(b, w, o), dimensions={0}",
    ],
    "concatenate_beside": ["ROOT r = f32[<=6,8] concatenate(b, b), dimensions={1}"],
    "slice": ["ROOT r = f32[<=2,2] slice(b), slice={[1:5:2],[1:3]}"],
    "pad": ["ROOT r = f32[<=15,4] pad(b, five), padding=3_1_1x0_0"],
    "pad_cuts": ["ROOT r = f32[<=3,4] pad(b, five), padding=-2_-1x0_0"],
    "reverse": ["ROOT r = f32[<=6,4] reverse(b), dimensions={0,1}"],
    "reshape_outer": ["ROOT r = f32[<=6,2,2] reshape(b)"],
    "reshape_joined": ["ROOT r = f32[<=24] reshape(b)"],
    "reshape_not_in_place": [
        "t = f32[4,<=6] transpose(b), dimensions={1,0}",
        "ROOT r = f32[<=24] reshape(t)",
    ],
    "reshape_inferred": [
        "t = f32[4,<=6] transpose(b), dimensions={1,0}",
        "ROOT r = f32[<=12,<=2] reshape(t), inferred_dimension=0",
    ],
    "dynamic_reshape": [
        "four = s32[] constant(4)",
        "t = f32[4,<=6] transpose(b), dimensions={1,0}",
        "ROOT r = f32[<=6,<=4] dynamic-reshape(t, n, four)",
    ],
    "sort": ["ROOT r = f32[<=6,4] sort(b), dimensions={0}, to_apply=less"],
    "sort_rows": ["ROOT r = f32[<=6,4] sort(b), dimensions={1}, to_apply=less"],
    "sort_pairs": [
        "i = s32[<=6,4] iota(), iota_dimension=0",
        "s = (f32[<=6,4], s32[<=6,4]) sort(b, i), dimensions={0}, is_stable=true, to_apply=less_pair",
        "ROOT r = s32[<=6,4] get-tuple-element(s), index=1",
    ],
    "topk_of_rows": [
        "t = (f32[<=6,2], s32[<=6,2]) topk(b), k=2, largest=true",
        "ROOT r = f32[<=6,2] get-tuple-element(t), index=0",
    ],
    "dynamic_slice": ["ROOT r = f32[2,3] dynamic-slice(b, m, two), dynamic_slice_sizes={2,3}"],
    "dynamic_slice_vector": [
        "i = s32[2] slice(k), slice={[0:2]}",
        "ROOT r = f32[1,4] dynamic-slice(b, i), dynamic_slice_sizes={1,4}",
    ],
    "dynamic_update_slice": [
        "u = f32[1,2] slice(w), slice={[0:1],[0:2]}",
        "ROOT r = f32[<=6,4] dynamic-update-slice(b, u, m, two)",
    ],
    "dynamic_update_slice_of_live_rows": ["ROOT r = f32[<=6,4] dynamic-update-slice(w, b, m, zero_s32)"],
    "gather_live_rows": [
        "ROOT r = f32[<=6,4] gather(w, c), offset_dims={1}, collapsed_slice_dims={0}, start_index_map={0}, "
        "index_vector_dim=1, slice_sizes={1,4}",
    ],
    "gather_from_live_rows": [
        "ROOT r = f32[6,3] gather(b, k), offset_dims={1}, collapsed_slice_dims={0}, start_index_map={0}, "
        "index_vector_dim=1, slice_sizes={1,3}",
    ],
    "gather_whole_columns": [
        "ROOT r = f32[6,<=6] gather(b, k), offset_dims={1}, collapsed_slice_dims={1}, start_index_map={1}, "
        "index_vector_dim=1, slice_sizes={6,1}",
    ],
    "scatter_into_live_rows": [
        "ROOT r = f32[<=6,4] scatter(b, k, w), update_window_dims={1}, inserted_window_dims={0}, "
        "scatter_dims_to_operand_dims={0}, index_vector_dim=1, to_apply=add",
    ],
    "scatter_live_rows": [
        "ROOT r = f32[6,4] scatter(w, c, b), update_window_dims={1}, inserted_window_dims={0}, "
        "scatter_dims_to_operand_dims={0}, index_vector_dim=1, to_apply=add",
    ],
    "scatter_windows": [
        "u = f32[3,2,4] slice(u3), slice={[0:3],[0:2],[0:4]}",
        "i = s32[3] slice(k), slice={[0:3]}",
        "ROOT r = f32[<=6,4] scatter(b, i, u), update_window_dims={1,2}, inserted_window_dims={}, "
        "scatter_dims_to_operand_dims={0}, index_vector_dim=1, to_apply=add",
    ],
    "select_and_scatter_beside": [
        "s = f32[<=6,2] slice(b), slice={[0:6],[0:2]}",
        "ROOT r = f32[<=6,4] select-and-scatter(b, s, zero), window={size=1x2 stride=1x2}, "
        "select=less, scatter=add",
    ],
    "while": [
        "s = (s32[], f32[<=6,4]) tuple(zero_s32, b)",
        "l = (s32[], f32[<=6,4]) while(s), condition=go_on, body=shrink",
        "ROOT r = f32[<=6,4] get-tuple-element(l), index=1",
    ],
    "while_from_a_static_array": [
        "s = (s32[], f32[6,4]) tuple(zero_s32, w)",
        "ROOT l = (s32[], f32[<=6,4]) while(s), condition=go_on, body=shrink",
    ],
    "conditional": [
        "p = pred[] compare(n, m), direction=LT",
        "ROOT r = f32[<=6,4] conditional(p, b, w), true_computation=doubled, false_computation=whole",
    ],
    "call": ["d = f32[<=6,4] call(b), to_apply=doubled", "ROOT r = (f32[<=6,4], f32[<=6,4]) tuple(d, b)"],
    "nested_tuples": [
        "t = (f32[<=6,4], s32[<=6]) tuple(b, c)",
        "o = ((f32[<=6,4], s32[<=6]), s32[]) tuple(t, n)",
        "h = ((f32[<=6,4], s32[<=6]), s32[]) opt-barrier(o)",
        "ROOT g = (f32[<=6,4], s32[<=6]) get-tuple-element(h), index=0",
    ],
    "fft_of_rows": [
        "z = f32[<=6,4] multiply(b, b)",
        "q = c64[<=6,4] complex(b, z)",
        "ROOT r = c64[<=6,4] fft(q), fft_type=FFT, fft_length={4}",
    ],
    "cumulative": [
        "p = f32[<=6,4] power(b, w)",
        "a = f32[<=6,4] abs(b)",
        "ROOT r = f32[<=6,4] clamp(zero, a, five)",
    ],
}


def program(lines: list[str]) -> str:
    head = HEAD
    if any("(v)" in line for line in lines):
        head += "  v = f32[6,4,2] broadcast(w), dimensions={0,1}\n"
    if any("(u3)" in line for line in lines):
        head += "  u3 = f32[3,6,4] broadcast(w), dimensions={1,2}\n"
    return f"HloModule cut\n{COMPUTATIONS}\nENTRY main {{{head}  " + "\n  ".join(lines) + "\n}\n"


def arguments(live: int, other: int) -> list[np.ndarray]:
    rng = np.random.default_rng(live * 7 + other)
    x = rng.integers(-8, 9, (6, 4)).astype(np.float32)
    x[live:] = np.nan
    k = rng.integers(-1, 7, 6).astype(np.int32)
    w = rng.integers(-8, 9, (6, 4)).astype(np.float32)
    return [x, k, np.int32(live), np.int32(other), w]


def assert_same(got: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    assert [array.shape for array in got] == [array.shape for array in wanted]
    for result, expected in zip(got, wanted, strict=True):
        difference = compare(result, expected)
        assert difference.equal, difference


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("case", CASES)
def test_live_elements_are_the_evaluators(case: str, pipeline: str) -> None:
    module = hloc.parse(program(CASES[case]))
    executable = hloc.compile(module, options=Options(pipeline=pipeline))
    for live, other in ((0, 3), (1, 1), (3, 2), (4, 4), (6, 0)):
        given = arguments(live, other)
        assert_same(executable.execute(*given), evaluate(module, given))


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_arguments_and_results_of_any_size(pipeline: str) -> None:
    text = """HloModule entry
    ENTRY main {
      p = (f32[<=5,3]{0,1}, s32[]) parameter(0)
      q = u8[2,<=4] parameter(1)
      x = f32[<=5,3] get-tuple-element(p), index=0
      y = f32[3,<=5] transpose(x), dimensions={1,0}
      o = u8[<=4,2] transpose(q), dimensions={1,0}
      ROOT r = (f32[3,<=5], (u8[<=4,2], u8[2,<=4])) tuple(y, o2)
    }""".replace("ROOT r", "o2 = (u8[<=4,2], u8[2,<=4]) tuple(o, q)\n ROOT r")
    executable = hloc.compile(text, options=Options(pipeline=pipeline))
    for rows, columns in ((0, 4), (2, 3), (5, 0)):
        x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
        q = np.arange(2 * columns, dtype=np.uint8).reshape(2, columns)
        y, (o, same) = executable((x, 7), q)
        assert_same([y, o, same], [x.T, q.T, q])
        assert executable.program.parameters[0].shape.dynamic == (True, False)


def test_an_argument_beyond_its_bound_is_refused() -> None:
    executable = hloc.compile("HloModule m\nENTRY e { ROOT p = f32[<=4,2] parameter(0) }")
    for shape in ((5, 2), (4, 1), (4,)):
        with pytest.raises(ArgumentError, match=r"expected f32\[<=4,2\]"):
            executable(np.zeros(shape, np.float32))


@pytest.mark.parametrize(("size", "fits"), [(-1, False), (0, True), (4, True), (5, False)])
def test_a_size_out_of_its_bounds_fails(size: int, fits: bool) -> None:
    text = """HloModule m
    ENTRY e {
      x = f32[4] parameter(0)
      n = s32[] parameter(1)
      ROOT r = f32[<=4] set-dimension-size(x, n), dimensions={0}
    }"""
    given = [np.ones(4, np.float32), np.int32(size)]
    executable = hloc.compile(text)
    if fits:
        assert executable(*given).shape == (size,)
        return
    with pytest.raises(HloError, match="out of its bounds"):
        executable(*given)
    with pytest.raises(HloError):
        hloc.evaluate(text, *given)


def test_sizes_that_do_not_fit_the_live_elements_fail() -> None:
    text = """HloModule m
    ENTRY e {
      x = f32[<=6] parameter(0)
      n = s32[] parameter(1)
      two = s32[] constant(2)
      ROOT r = f32[<=3,2] dynamic-reshape(x, n, two)
    }"""
    executable = hloc.compile(text)
    x = np.arange(4, dtype=np.float32)
    assert_same([executable(x, 2)], [x.reshape(2, 2)])
    with pytest.raises(HloError, match="does not fit the live elements"):
        executable(x, 3)


@pytest.mark.parametrize(
    ("shape", "op", "message"),
    [
        ("f32[?]", "f32[?] negate(x)", "without bound"),
        ("f32[<=4]", "c64[3] fft(x), fft_type=RFFT, fft_length={4}", "transformed or factored"),
        ("f32[<=4]", 'f32[<=4] custom-call(x), custom_call_target="Sharding_"', "custom-call of a dynamic"),
        ("f32[<=4]", "f32[2,2] reshape(x)", "no one dimension follows"),
    ],
)
def test_what_is_not_defined_is_refused_at_its_place(shape: str, op: str, message: str) -> None:
    text = f"HloModule m\nENTRY e {{\n  x = {shape} parameter(0)\n  ROOT r = {op}\n}}"
    with pytest.raises(HloError, match=message) as caught:
        hloc.compile(text)
    assert caught.value.span is not None
