"""tanh, sinh, cosh and their inverses.

Near 0 sinh and tanh are odd minimax polynomials (tools/minimax.py, `tanh` and `sinh`), elsewhere they come
from exp; tanh in single precision is all of exp(2 x) - 1, in half the time and a little less accurate.
The inverses are logarithms of 1 + v with v in two parts.
"""

from __future__ import annotations

from .double_double import Pair, divide, fast_two_sum, two_product
from .exponential import exp, exp_reduced, expm1_single, reduce_by_ln2, scale_by_power
from .expression import Num, horner, scalar
from .functions import function
from .logarithm import INFINITY, NAN, TINY, log_one_plus

TANH_NEAR = 0.5625
TANH_TAIL = (
    -0.3333333333333328,
    0.1333333333332347,
    -0.053968253961902996,
    0.02186948833197378,
    -0.00886323170818659,
    0.0035920829137638575,
    -0.0014554836076896777,
    0.0005881988242942578,
    -0.00023275220382296187,
    8.240908139817428e-05,
    -1.8931758226001816e-05,
)
# From here on tanh is 1 in single precision.
TANH_ONE_FROM = 9.02
SINH_TAIL = {
    "float": (0.1666666716337204, 0.008333351463079453, 0.00019835961575154215, 2.818063194354181e-06),
    "double": (
        0.16666666666666669,
        0.008333333333333127,
        0.00019841269841446263,
        2.7557319152541387e-06,
        2.5052123855098657e-08,
        1.6057203919147477e-10,
        7.760441604839986e-13,
    ),
}
# Where sinh and cosh are infinite, and where 1 no longer changes a sum with x squared.
OVERFLOW = {"float": 90.0, "double": 711.0}
HUGE = {"float": 2.0**30, "double": 2.0**60}
LN2_PAIR = {
    "float": (0.6931471824645996, -1.9046542121259336e-09),
    "double": (0.6931471805599453, 2.3190468138462996e-17),
}


def odd(x: Num, tail: tuple[float, ...]) -> Num:
    """x + x^3 p(x^2)."""
    z = x * x
    return (x * z).fma(horner(z, tail), x)


@function("tanh")
def tanh(x: Num) -> Num:
    """Hyperbolic tangent: 1 - 2 / (exp(2 |x|) + 1) away from 0."""
    size = x.abs()
    if scalar(x) == "float":
        return _tanh_single(size).with_sign_of(x)
    far = 1.0 - 2.0 / (exp(size + size) + 1.0)
    return (size < TANH_NEAR).select(odd(size, TANH_TAIL), far).copysign(x)


def _tanh_single(size: Num) -> Num:
    """e / (e + 1) with e = (exp(2 size) - 1) / 2: no step cancels, near 0 either."""
    e = expm1_single(size.min_with(TANH_ONE_FROM), 2.0)
    return e / (e + 1.0)


def half_exp(size: Num) -> tuple[Num, Num]:
    """exp(size) / 2 and exp(-size) / 2 for size >= 0, the former finite as long as sinh and cosh are."""
    k, _, r = reduce_by_ln2(size.min_with(OVERFLOW[scalar(size)]))
    half = scale_by_power(exp_reduced(r), k - 1.0)
    return half, 0.25 / half


@function("sinh")
def sinh(x: Num) -> Num:
    """Hyperbolic sine."""
    size = x.abs()
    up, down = half_exp(size)
    return (size < 1.0).select(odd(size, SINH_TAIL[scalar(x)]), up - down).copysign(x)


@function("cosh")
def cosh(x: Num) -> Num:
    """Hyperbolic cosine."""
    up, down = half_exp(x.abs())
    return up + down


@function("asinh")
def asinh(x: Num) -> Num:
    """log(1 + v), v = t + t^2 / (1 + sqrt(1 + t^2)), t = |x|; of huge t, log t + log 2."""
    size = x.abs()
    huge = size > HUGE[scalar(x)]
    t = huge.select(1.0, size)
    rest = t * t / (t.fma(t, 1.0).sqrt() + 1.0)
    v = fast_two_sum(t, rest)
    result = log_one_plus(Pair(huge.select(size, v.high), huge.select(-0.0, v.low)))
    result = (size < INFINITY).select(plus_log_two(huge, result), size)
    return (size < TINY[scalar(x)]).select(x, result.copysign(x))


def plus_log_two(huge: Num, result: Pair) -> Num:
    """The result, with ln 2 added where the argument was huge."""
    high, low = LN2_PAIR[scalar(result.high)]
    with_ln2 = (result.high + high) + (result.low + low)
    return huge.select(with_ln2, result.value())


@function("acosh")
def acosh(x: Num) -> Num:
    """log(1 + v), v = d + sqrt(2 d + d^2), d = x - 1; of huge x, log x + log 2. NaN below 1."""
    huge = x > HUGE[scalar(x)]
    t = huge.select(2.0, x)
    d = t - 1.0
    square = two_product(d, t + 1.0)
    root = square.high.sqrt()
    rest = ((-root).fma(root, square.high) + square.low) / root * 0.5
    sum = fast_two_sum(root, d)
    v_low = d.equals(0.0).select(-0.0, sum.low + rest)
    result = log_one_plus(Pair(huge.select(x, sum.high), huge.select(-0.0, v_low)))
    result = plus_log_two(huge, result)
    return (x < 1.0).select(NAN, (x < INFINITY).select(result, x))


@function("atanh")
def atanh(x: Num) -> Num:
    """log(1 + 2 |x| / (1 - |x|)) / 2; infinite at 1, NaN beyond."""
    size = x.abs()
    v = divide(Pair.of(size + size), fast_two_sum(x.of(1.0), -size))
    result = log_one_plus(v).value() * 0.5
    result = size.equals(1.0).select(INFINITY, (size > 1.0).select(NAN, result))
    return (size < TINY[scalar(x)]).select(x, result.copysign(x))
