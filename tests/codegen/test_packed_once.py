"""Products shared by blocks of rows, for which each thread packs the columns once and finds them packed later."""

import numpy as np
import pytest

import hloc
from hloc.codegen.dot_plan import DotPlan
from hloc.codegen.dot_units import Units
from hloc.options import Options

_TYPES = {"f32": np.float32, "f64": np.float64, "s32": np.int32}
_SIZES = [(1, 1000, 64, 256), (1, 600, 700, 300), (3, 700, 40, 70), (1, 260, 1100, 512)]


def _text(dtype: str, batch: int, m: int, n: int, k: int) -> str:
    """The left operand's rows lie side by side, so that they are packed."""
    return f"""HloModule m
ENTRY e {{
  a = {dtype}[{batch},{k},{m}] parameter(0)
  b = {dtype}[{batch},{k},{n}] parameter(1)
  ROOT d = {dtype}[{batch},{m},{n}] dot(a, b), lhs_batch_dims={{0}}, rhs_batch_dims={{0}},
    lhs_contracting_dims={{1}}, rhs_contracting_dims={{1}}
}}"""


@pytest.mark.parametrize("dtype", _TYPES)
@pytest.mark.parametrize("sizes", _SIZES)
def test_products(dtype, sizes):
    text = _text(dtype, *sizes)
    plan = DotPlan(hloc.parse(text).entry.root)
    assert plan.packs_once
    batch, m, n, k = sizes
    random = np.random.default_rng(m)
    a, b = ((random.standard_normal((batch, k, size)) * 10).astype(_TYPES[dtype]) for size in (m, n))
    one, two, three = (hloc.compile(text, options=Options(num_threads=count))(a, b) for count in (1, 2, 3))
    exact = np.swapaxes(a, 1, 2).astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(one, exact, rtol=1e-5, atol=0.02 if dtype == "f32" else 1e-6)
    assert one.tobytes() == two.tobytes() == three.tobytes()


@pytest.mark.parametrize("sizes", _SIZES)
@pytest.mark.parametrize("workers", [2, 8])
def test_parts(sizes, workers):
    """No part has more columns than are packed at a time, or others would be taken for them."""
    plan = DotPlan(hloc.parse(_text("f32", *sizes)).entry.root)
    units = Units.of(plan, workers, 32)
    if units.by_columns:
        assert units.count >= 2 * workers
        assert units.columns.most <= plan.gemm(32).n_block


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("sizes", [(515, 600, 300), (480, 420, 400), (384, 200, 512)])
def test_last_columns_by_rows(dtype, sizes):
    """Rows are read in place: parts are columns, but the last ones are parted along rows, too."""
    m, n, k = sizes
    text = f"""HloModule m
ENTRY e {{
  a = {dtype}[{m},{k}] parameter(0)
  b = {dtype}[{k},{n}] parameter(1)
  ROOT d = {dtype}[{m},{n}] dot(a, b), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
}}"""
    units = Units.of(DotPlan(hloc.parse(text).entry.root), 2, 32)
    assert 0 < units.whole < units.columns.count
    assert units.count == units.whole + (units.columns.count - units.whole) * units.rows.count
    random = np.random.default_rng(m)
    a, b = (random.standard_normal(dims).astype(_TYPES[dtype]) for dims in ((m, k), (k, n)))
    one, two, three = (hloc.compile(text, options=Options(num_threads=count))(a, b) for count in (1, 2, 3))
    np.testing.assert_allclose(one, a.astype(np.float64) @ b.astype(np.float64), rtol=1e-4, atol=1e-3)
    assert one.tobytes() == two.tobytes() == three.tobytes()


def test_results_finished_by_other_ops():
    text = """HloModule m
ENTRY e {
  a = f32[1200,90] parameter(0)
  b = f32[90,130] parameter(1)
  c = f32[130] parameter(2)
  x = f32[1200,90] exponential(a)
  d = f32[1200,130] dot(x, b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  e = f32[1200,130] broadcast(c), dimensions={1}
  f = f32[1200,130] add(d, e)
  ROOT g = f32[1200,130] maximum(f, e)
}"""
    random = np.random.default_rng(0)
    a, b, c = (random.standard_normal(dims).astype(np.float32) for dims in ((1200, 90), (90, 130), 130))
    one, two = (hloc.compile(text, options=Options(num_threads=count))(a, b, c) for count in (1, 2))
    assert one.tobytes() == two.tobytes()
    np.testing.assert_allclose(one, np.maximum(np.exp(a.astype(np.float64)) @ b + c, c), rtol=1e-4, atol=1e-3)
