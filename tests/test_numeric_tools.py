"""The tools behind the elementary functions: the table of errors and the search for coefficients."""

import numpy as np
import pytest

from hloc.codegen.math.error_function import FOURTH_OF_ERF, LOG2_PART
from hloc.codegen.math.exponential import EXPM1_TAIL_SINGLE
from hloc.codegen.math.hyperbolic import SINH_TAIL
from hloc.codegen.math.logarithm import LOG_REST
from hloc.codegen.math.power import EXP2_SINGLE, LOG2_SINGLE
from hloc.codegen.math.trigonometric import SIN_HALF
from tools import minimax, ulp


@pytest.mark.parametrize("name, type, known", [
    ("log", "f32", LOG_REST),
    ("sinh", "f64", SINH_TAIL["double"]),
    ("erf_single", "f32", FOURTH_OF_ERF),
    ("expm1_single", "f32", EXPM1_TAIL_SINGLE),
    ("sin_half", "f64", SIN_HALF),
    ("exp2_single", "f64", EXP2_SINGLE),
    ("log2_single", "f64", LOG2_SINGLE),
    ("log2_part", "f32", LOG2_PART),
])  # fmt: skip
def test_coefficients_are_found_again(name, type, known):
    problem = minimax.PROBLEMS[name]
    found = minimax.minimax(problem, problem.degrees[type == "f64"])
    assert [float(minimax.rounded(coefficient, type)) for coefficient in found] == list(known)


@pytest.mark.parametrize(
    "name, dtype", [("tanh", "f32"), ("exponential", "f64"), ("power", "f16"), ("log", "c64")]
)
def test_errors_are_small(name, dtype):
    function, type, count, worst, mean, _place = ulp.row(name, dtype, 300, with_xla=False)
    assert (function, type) == (name, dtype) and int(count) > 100
    assert 0 < float(mean) < float(worst) < 2.5


def test_errors_are_counted_in_units_of_the_exact_result():
    want = np.array([1.0, 1.5, 2.0])
    got = np.array([1 + 2**-23, 1.5 - 2**-22, 2.0], np.float32)
    assert ulp.errors(got, want, got.dtype).tolist() == [1, 2, 0]


def test_corners_differ_where_one_side_is_special():
    a, b = np.array([1, np.nan, np.inf, -np.inf]), np.array([2, np.nan, np.inf, np.inf])
    assert ulp.differing_corners(a, b) == 1
