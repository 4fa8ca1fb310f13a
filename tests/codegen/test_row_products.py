"""Products of few rows with a matrix that is read once, in order, shared by columns."""

import numpy as np
import pytest

import hloc
from hloc.codegen.dot_plan import DotPlan
from hloc.codegen.dot_units import Units
from hloc.options import Options

_TYPES = {"f32": np.float32, "f64": np.float64, "bf16": None}


def _text(m: int, k: int, n: int, dtype: str = "f32") -> str:
    return f"""HloModule m
ENTRY e {{
  a = {dtype}[{m},{k}] parameter(0)
  b = {dtype}[{k},{n}] parameter(1)
  ROOT d = {dtype}[{m},{n}] dot(a, b), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
}}"""


def _units(m: int, k: int, n: int, dtype: str = "f32", workers: int = 2) -> Units:
    return Units.of(DotPlan(hloc.parse(_text(m, k, n, dtype)).entry.root), workers, 32)


@pytest.mark.parametrize("dtype", _TYPES)
@pytest.mark.parametrize("m", [1, 4, 8])
@pytest.mark.parametrize("n", [1024, 4096, 5120])
def test_parts_begin_with_cache_lines(m: int, n: int, dtype: str) -> None:
    columns = _units(m, 1024, n, dtype).columns
    assert columns.count >= 2
    if m <= 4 or dtype != "bf16":
        assert columns.unit * {"f32": 4, "f64": 8, "bf16": 2}[dtype] == 256


def test_one_row_has_more_parts_only_where_these_are_long() -> None:
    assert [_units(1, 512, n).columns.count for n in (40, 1024, 4096, 8192)] == [1, 2, 2, 4]
    assert _units(8, 1024, 4096).columns.count == 4


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("m", [1, 3, 7])
@pytest.mark.parametrize("n", [2056, 4112, 2049])
def test_columns_left_of_a_block(m: int, n: int, dtype: str) -> None:
    """Blocks are as even as may be; every number of threads gives the same bits."""
    random = np.random.default_rng(n)
    a, b = (random.standard_normal(dims).astype(_TYPES[dtype]) for dims in ((m, 301), (301, n)))
    text = _text(m, 301, n, dtype)
    one, two, three = (hloc.compile(text, options=Options(num_threads=count))(a, b) for count in (1, 2, 3))
    np.testing.assert_allclose(one, a.astype(np.float64) @ b.astype(np.float64), rtol=1e-4, atol=1e-4)
    assert one.tobytes() == two.tobytes() == three.tobytes()
