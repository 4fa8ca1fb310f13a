"""Products of few rows and columns with long sums, whose operands are read in place, in parts that threads share."""

import numpy as np
import pytest

import hloc
from hloc.codegen.dot_plan import DotPlan
from hloc.options import Options

_TYPES = {"f32": np.float32, "f64": np.float64, "s32": np.int32}
_SIZES = [(16, 16, 1100), (5, 5, 2000), (6, 5, 600), (7, 31, 1024), (32, 24, 513), (13, 9, 5000), (64, 16, 777)]
_THIN = [(1, 1, 70000), (1, 16, 9000), (4, 4, 20000), (3, 40, 4097), (2, 9, 30001), (7, 3, 20000), (40, 1, 4000)]
_LYING = ["nn", "nt", "tn", "tt"]


def _dot(dtype: str, sizes: tuple[int, int, int], lying: str, batch: int = 1) -> str:
    m, n, k = sizes
    lhs = (k, m) if lying[0] == "t" else (m, k)
    rhs = (n, k) if lying[1] == "t" else (k, n)
    lc, rc = 2 - (lying[0] == "t"), 1 + (lying[1] == "t")
    return f"""HloModule m
ENTRY e {{
  a = {dtype}[{batch},{lhs[0]},{lhs[1]}] parameter(0)
  b = {dtype}[{batch},{rhs[0]},{rhs[1]}] parameter(1)
  ROOT d = {dtype}[{batch},{m},{n}] dot(a, b), lhs_batch_dims={{0}}, rhs_batch_dims={{0}},
    lhs_contracting_dims={{{lc}}}, rhs_contracting_dims={{{rc}}}
}}"""


def _inputs(dtype: str, sizes: tuple[int, int, int], lying: str, batch: int) -> list[np.ndarray]:
    m, n, k = sizes
    random = np.random.default_rng(m * n * k)
    a, b = ((random.standard_normal((batch, *dims)) * 10).astype(_TYPES[dtype]) for dims in ((m, k), (k, n)))
    turned = [x.swapaxes(1, 2) if way == "t" else x for x, way in zip((a, b), lying, strict=True)]
    return [a, b, *map(np.ascontiguousarray, turned)]


def _results(text: str, *inputs: np.ndarray) -> np.ndarray:
    """Of one thread; those of several must have the same bits."""
    one, several = (hloc.compile(text, options=Options(num_threads=count))(*inputs) for count in (1, 3))
    assert one.tobytes() == several.tobytes()
    return one


@pytest.mark.parametrize("dtype", _TYPES)
@pytest.mark.parametrize("lying", _LYING)
@pytest.mark.parametrize("sizes", _SIZES + _THIN)
def test_products(dtype, lying, sizes):
    batch = 1 + (sizes[0] == 5)
    text = _dot(dtype, sizes, lying, batch)
    assert DotPlan(hloc.parse(text).entry.root).has_long_sums
    a, b, *inputs = _inputs(dtype, sizes, lying, batch)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(_results(text, *inputs), exact, rtol=1e-5, atol=0.15 if dtype == "f32" else 1e-6)


_OTHERS = [(16, 16, 512), (4, 16, 5000), (16, 3, 5000), (65, 8, 5000), (40, 40, 5000), (4, 200, 900), (1, 400, 9000)]


@pytest.mark.parametrize("sizes", _OTHERS)
def test_left_to_others(sizes):
    assert not DotPlan(hloc.parse(_dot("f32", sizes, "nn")).entry.root).has_long_sums


def test_what_is_beyond_a_row_does_not_count():
    """Vectors reach into a row's neighbour: infinities there, and at the end of the last row, stay where they are."""
    a, b = np.ones((1, 5, 600), np.float32), np.ones((1, 600, 5), np.float32)
    b[0, 7, 0] = b[0, 599, 4] = np.inf
    result = _results(_dot("f32", (5, 5, 600), "nn"), a, b)
    assert result[0].tolist() == [[np.inf, 600, 600, 600, np.inf]] * 5


@pytest.mark.parametrize("lying", _LYING)
@pytest.mark.parametrize("sizes", [(5, 6, 600), (17, 9, 600), (11, 20, 513), (2, 9, 30001), (30, 30, 515)])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_nothing_beyond_the_operands_is_read(dtype, sizes, lying):
    a, b, *inputs = _inputs(dtype, sizes, lying, 1)
    executable = hloc.compile(_dot(dtype, sizes, lying), options=Options(cache=False, guard_pages="end"))
    np.testing.assert_allclose(executable(*inputs), a.astype(np.float64) @ b, rtol=1e-4, atol=0.15)


def test_terms_that_are_all_the_same():
    text = """HloModule m
ENTRY e {
  a = f32[16,600] parameter(0)
  b = f32[9] parameter(1)
  c = f32[600,9] broadcast(b), dimensions={1}
  ROOT d = f32[16,9] dot(a, c), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}"""
    random = np.random.default_rng(0)
    a, b = (random.standard_normal(dims).astype(np.float32) for dims in ((16, 600), 9))
    np.testing.assert_allclose(_results(text, a, b), a.sum(1)[:, None] * b, rtol=1e-4, atol=1e-3)


def test_epilogues_and_operands_seen_through_other_ops():
    """The last columns of a wider matrix, and what is made of the sums in the same kernel."""
    text = """HloModule m
ENTRY e {
  a = f32[9,1500] parameter(0)
  b = f32[1500,40] parameter(1)
  c = f32[9] parameter(2)
  s = f32[1500,7] slice(b), slice={[0:1500], [33:40]}
  d = f32[9,7] dot(a, s), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  e = f32[9,7] broadcast(c), dimensions={0}
  f = f32[9,7] add(d, e)
  ROOT g = f32[9,7] maximum(f, e)
}"""
    random = np.random.default_rng(0)
    a, b, c = (random.standard_normal(dims).astype(np.float32) for dims in ((9, 1500), (1500, 40), 9))
    exact = np.maximum(a.astype(np.float64) @ b[:, 33:] + c[:, None], c[:, None])
    np.testing.assert_allclose(_results(text, a, b, c), exact, rtol=1e-5, atol=1e-4)
    assert len(hloc.compile(text).program.kernels) == 1
