"""Softmaxes along rows: exponentials that are never above 1, one division a row, and NaNs told by the powers."""

import re

import numpy as np
import pytest

import hloc
from hloc.codegen.compile import emit_stage
from hloc.options import Options

SOFTMAX = """
HloModule m

most {{
  a = {type}[] parameter(0)
  b = {type}[] parameter(1)
  ROOT r = {type}[] maximum(a, b)
}}

sum {{
  a = {type}[] parameter(0)
  b = {type}[] parameter(1)
  ROOT r = {type}[] add(a, b)
}}

ENTRY e {{
  x = {type}[9,70] parameter(0)
  low = {type}[] constant(-inf)
  start = {type}[] constant({start})
  most = {type}[9] reduce(x, low), dimensions={{1}}, to_apply=most
  spread = {type}[9,70] broadcast(most), dimensions={{0}}
  less = {type}[9,70] subtract(x, spread)
  power = {type}[9,70] exponential(less)
  total = {type}[9] reduce(power, start), dimensions={{1}}, to_apply=sum
  below = {type}[9,70] broadcast(total), dimensions={{0}}
  weight = {type}[9,70] divide(power, below)
  {root}
}}
"""
WEIGHT = "ROOT r = {type}[9,70] copy(weight)"
BOTH = "ROOT r = ({type}[9,70], {type}[9,70]) tuple(weight, power)"
ONE = "0x3FF0000000000000"
TYPES = {"f32": np.float32, "f64": np.float64}


def program(type="f32", start=0, root=WEIGHT):
    return SOFTMAX.format(type=type, start=start, root=root.format(type=type))


def rows(numpy=np.float32):
    """Rows with every kind of special number, and far apart ones."""
    x = np.random.default_rng(1).normal(0, 5, (9, 70)).astype(numpy)
    x[1, 69] = np.nan
    x[2, 0], x[2, 1] = np.nan, np.inf
    x[3, 3] = np.inf
    x[4, 5] = -np.inf
    x[5] = -np.inf
    x[6, 7], x[6, 8] = 300, -1e30
    x[7] = 0.0
    x[7, 1] = -0.0
    x[8] = np.linspace(-95, 0, 70)
    return x


def exact(x):
    """Powers and weights, exact but for the differences, which are rounded."""
    with np.errstate(invalid="ignore", over="ignore"):
        power = np.exp((x - x.max(1, keepdims=True)).astype(np.longdouble))
        return power, power / power.sum(1, keepdims=True)


def check(got, want, ulps):
    got, want = np.asarray(got), want.astype(np.longdouble)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    normal = want >= np.finfo(got.dtype).tiny
    error = np.abs(got[normal] - want[normal]) / np.spacing(want[normal].astype(got.dtype))
    assert error.max() <= ulps
    assert (got[~normal & ~np.isnan(want)] == 0).all()


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("threads", [1, 2])
def test_special_numbers(type, threads):
    x = rows(TYPES[type])
    got = hloc.compile(program(type), options=Options(num_threads=threads))(x)
    check(got, exact(x)[1], 4.5)


def test_powers_that_others_see_have_their_nans():
    """A row with a NaN has no other powers than NaN."""
    x = rows()
    weight, power = hloc.compile(program(root=BOTH))(x)
    check(power, exact(x)[0], 1.5)
    check(weight, exact(x)[1], 4.5)


def divisions(text):
    code = emit_stage(hloc.optimize(hloc.parse(text)), "llvm", "cpu", Options())
    return re.findall(r"fdiv \S+ (\S+),", code)


def test_a_total_that_is_at_least_one_is_inverted():
    assert divisions(program()) == [ONE]


def test_a_total_that_begins_elsewhere_is_not():
    x = rows()[[0, 8] * 4 + [0]]
    got = hloc.compile(program(start=2))(x)
    power = exact(x)[0]
    check(got, power / (power.sum(1, keepdims=True) + 2), 4.5)
    assert divisions(program(start=2)) != [ONE]
