"""Small products, written in place, at sizes that end within a vector."""

import numpy as np
import pytest

import hloc
from hloc.codegen.dot_plan import DotPlan

_TYPES = {"f32": np.float32, "f64": np.float64, "s32": np.int32}
_SIZES = [(1, 8, 8), (1, 5, 4), (1, 16, 5), (3, 7, 9), (4, 16, 32), (1, 9, 13), (2, 32, 6), (8, 1, 8), (1, 97, 50)]


def _module(dtype: str, m: int, n: int, k: int) -> str:
    return f"""HloModule m
ENTRY e {{
  a = {dtype}[{m},{k}] parameter(0)
  b = {dtype}[{n},{k}] parameter(1)
  ROOT d = {dtype}[{m},{n}] dot(a, b), lhs_contracting_dims={{1}}, rhs_contracting_dims={{1}}
}}"""


@pytest.mark.parametrize("dtype", _TYPES)
@pytest.mark.parametrize("sizes", _SIZES)
def test_sums(dtype, sizes):
    m, n, k = sizes
    random = np.random.default_rng(m * n * k)
    a, b = ((random.standard_normal((rows, k)) * 10).astype(_TYPES[dtype]) for rows in (m, n))
    assert DotPlan(hloc.parse(_module(dtype, m, n, k)).entry.root).is_inline_dots
    result = hloc.compile(_module(dtype, m, n, k))(a, b)
    np.testing.assert_allclose(result, a @ b.T, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("sizes", [(5, 5, 8), (1, 200, 64), (1, 8, 3), (1, 2, 8)])
def test_left_to_others(sizes):
    assert not DotPlan(hloc.parse(_module("f32", *sizes)).entry.root).is_inline_dots


def test_what_is_beyond_a_line_does_not_count():
    a = np.full((1, 5), 1, np.float32)
    b = np.full((4, 5), np.inf, np.float32)
    b[1] = 2
    assert hloc.compile(_module("f32", 1, 4, 5))(a, b).tolist() == [[np.inf, 10, np.inf, np.inf]]


_WIDE = [(1, 32, 32), (1, 100, 20), (3, 67, 9), (4, 25, 20), (7, 50, 5), (9, 24, 9), (2, 8, 3), (5, 130, 3), (6, 7, 1)]


@pytest.mark.parametrize("dtype", _TYPES)
@pytest.mark.parametrize("sizes", _WIDE)
def test_sums_of_columns_side_by_side(dtype, sizes):
    m, n, k = sizes
    random = np.random.default_rng(m * n * k)
    a, b = ((random.standard_normal(shape) * 10).astype(_TYPES[dtype]) for shape in ((m, k), (k, n)))
    text = f"""HloModule m
ENTRY e {{
  a = {dtype}[{m},{k}] parameter(0)
  b = {dtype}[{k},{n}] parameter(1)
  ROOT d = {dtype}[{m},{n}] dot(a, b), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
}}"""
    assert DotPlan(hloc.parse(text).entry.root).is_inline
    np.testing.assert_allclose(hloc.compile(text)(a, b), a @ b, rtol=1e-5, atol=1e-4)
