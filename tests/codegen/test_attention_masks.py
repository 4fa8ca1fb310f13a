"""Attention whose mask is known when it is compiled: columns that count nowhere in a block of rows are left out."""

from __future__ import annotations

import numpy as np
import pytest

import hloc
from hloc.arrays import compare, random_inputs
from hloc.codegen.compile import emit_stage
from hloc.options import Options

BATCH, ROWS, COLUMNS, DEPTH, WIDTH = 3, 200, 328, 16, 32


def program(mask: str, fill: str = "-1e9", inverse: bool = False, dtype: str = "f32", rows: int = ROWS) -> str:
    """A softmax of masked scores times values. `mask` makes `seen` of the iotas `r` and `c` over rows and columns."""
    scores, row = f"{dtype}[{BATCH},{rows},{COLUMNS}]", f"{dtype}[{BATCH},{rows}]"
    branches = "filled, s" if inverse else "s, filled"
    batch = "lhs_batch_dims={0}, rhs_batch_dims={0}, lhs_contracting_dims={2}"
    return f"""HloModule m
most {{
  a = {dtype}[] parameter(0)
  b = {dtype}[] parameter(1)
  ROOT r = {dtype}[] maximum(a, b)
}}
sum {{
  a = {dtype}[] parameter(0)
  b = {dtype}[] parameter(1)
  ROOT r = {dtype}[] add(a, b)
}}
ENTRY e {{
  q = {dtype}[{BATCH},{rows},{DEPTH}] parameter(0)
  k = {dtype}[{BATCH},{COLUMNS},{DEPTH}] parameter(1)
  v = {dtype}[{BATCH},{COLUMNS},{WIDTH}] parameter(2)
  s = {scores} dot(q, k), {batch}, rhs_contracting_dims={{2}}
  r = s32[{rows},{COLUMNS}] iota(), iota_dimension=0
  c = s32[{rows},{COLUMNS}] iota(), iota_dimension=1
  {mask}
  mask = pred[{BATCH},{rows},{COLUMNS}] broadcast(seen), dimensions={{1,2}}
  fill = {dtype}[] constant({fill})
  filled = {scores} broadcast(fill), dimensions={{}}
  given = {scores} select(mask, {branches})
  low = {dtype}[] constant(-inf)
  zero = {dtype}[] constant(0)
  m = {row} reduce(given, low), dimensions={{2}}, to_apply=most
  mm = {scores} broadcast(m), dimensions={{0,1}}
  less = {scores} subtract(given, mm)
  p = {scores} exponential(less)
  t = {row} reduce(p, zero), dimensions={{2}}, to_apply=sum
  tt = {scores} broadcast(t), dimensions={{0,1}}
  w = {scores} divide(p, tt)
  ROOT o = {dtype}[{BATCH},{rows},{WIDTH}] dot(w, v), {batch}, rhs_contracting_dims={{1}}
}}
"""


CAUSAL = f"seen = pred[{ROWS},{COLUMNS}] compare(r, c), direction=GE"
STRICT = CAUSAL.replace("GE", "GT")
LATER = CAUSAL.replace("GE", "LT")


def leaves_out(text: str) -> bool:
    """Whether the kernel looks for values that are not finite, which forbid to leave out what is multiplied by them."""
    return "llvm.vector.reduce.fadd" in emit_stage(hloc.parse(text), "llvm", "cpu", Options(num_threads=1))


def check(text: str, given: list[np.ndarray] | None = None) -> None:
    module = hloc.parse(text)
    given = random_inputs(module) if given is None else given
    executable = hloc.compile(text, options=Options(cache=False, num_threads=1))
    assert len(executable.program.kernels) == 1
    with np.errstate(all="ignore"):
        expected = hloc.evaluate(module, *given)
    difference = compare(executable(*given), expected)
    assert difference.equal, difference


@pytest.mark.parametrize("dtype", ["f32", "f64", "bf16"])
@pytest.mark.parametrize("mask", [CAUSAL, STRICT])
@pytest.mark.parametrize("fill", ["-1e9", "-inf", "-1e30", "0"])
def test_causal(mask: str, fill: str, dtype: str) -> None:
    """Powers of 0 are none; of a row that is wholly masked all count the same, or there is no result."""
    text = program(mask, fill, dtype=dtype)
    assert leaves_out(text)
    check(text)


def test_what_is_seen_where_the_mask_is_not() -> None:
    text = program(LATER, inverse=True)
    assert leaves_out(text)
    check(text)


def test_few_rows_of_many_columns() -> None:
    check(program(CAUSAL.replace(str(ROWS), "40"), rows=40))


def test_scores_below_those_that_are_masked() -> None:
    given = random_inputs(hloc.parse(program(CAUSAL)))
    given[0][:, 3:9] *= -1e11
    check(program(CAUSAL), given)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_masked_values_that_are_not_finite(value: float) -> None:
    """Zero times those is no number."""
    given = random_inputs(hloc.parse(program(CAUSAL)))
    given[2][1, 150, 3] = value
    check(program(CAUSAL), given)


def test_scores_that_are_not_finite() -> None:
    given = random_inputs(hloc.parse(program(CAUSAL)))
    given[0][0, 5, 1], given[0][1, 7], given[1][2, 9] = np.nan, np.inf, -np.inf
    check(program(CAUSAL), given)


def test_masks_that_hide_little_or_are_not_known() -> None:
    first = f"last = s32[] constant(320)\n  lasts = s32[{ROWS},{COLUMNS}] broadcast(last), dimensions={{}}"
    assert not leaves_out(program(f"{first}\n  seen = pred[{ROWS},{COLUMNS}] compare(c, lasts), direction=LT"))
    assert not leaves_out(program(f"seen = pred[{ROWS},{COLUMNS}] parameter(3)"))


def test_threads() -> None:
    given = random_inputs(hloc.parse(program(CAUSAL)))
    results = [hloc.compile(program(CAUSAL), options=Options(cache=False, num_threads=n))(*given) for n in (1, 2, 5)]
    assert all(np.array_equal(results[0], result) for result in results[1:])


@pytest.mark.parametrize("inverse", [False, True])
def test_batches_that_see_different_columns(inverse: bool) -> None:
    """What some batch sees counts in all, whether the mask says what is seen or what is not."""
    full = f"{BATCH},{ROWS},{COLUMNS}"
    lines = [
        f"b = s32[{full}] iota(), iota_dimension=0",
        f"rr = s32[{full}] broadcast(r), dimensions={{1,2}}",
        f"cc = s32[{full}] broadcast(c), dimensions={{1,2}}",
        "step = s32[] constant(30)",
        f"steps = s32[{full}] broadcast(step), dimensions={{}}",
        f"more = s32[{full}] multiply(b, steps)",
        f"last = s32[{full}] add(rr, more)",
        f"mask = pred[{full}] compare(cc, last), direction={'GT' if inverse else 'LE'}",
    ]
    text = program("", inverse=inverse).replace(
        f"mask = pred[{full}] broadcast(seen), dimensions={{1,2}}", "\n  ".join(lines)
    )
    assert leaves_out(text)
    check(text)
