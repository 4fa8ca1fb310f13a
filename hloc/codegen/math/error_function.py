"""erf: x + x q(x^2) below 1, 1 - exp(-p(x)) above, both minimax (tools/minimax.py, `erf` and `erfc`).

In single precision 1 - (1 - v / 4)^4 all along, v a polynomial, which takes a third of the time (`erf_single`).
"""

from __future__ import annotations

from .double_double import Pair, scale, two_product, two_sum
from .exponential import exp_reduced, reduce_by_ln2
from .expression import Num, by_halves, horner, power_of_two, scalar
from .functions import function

ERF_TAIL = (
    0.1283791670955126,
    -0.3761263890318375,
    0.11283791670954882,
    -0.02686617064507736,
    0.005223977624823154,
    -0.0008548326981106241,
    0.00012055331120754248,
    -1.4925595466262048e-05,
    1.6461003376288504e-06,
    -1.6350340180567313e-07,
    1.4659939232624163e-08,
    -1.1373404067814567e-09,
    5.957986180417568e-11,
)
# -log(erfc(x)) from 1 to where erf rounds to 1.
ERFC_EXPONENT = (
    -2.667042873327273e-08,
    1.1283795076256624,
    0.6366177165839103,
    0.10278041095025824,
    -0.019149383112123608,
    -0.00016703287087246795,
    0.0016300061052459541,
    -0.000507115714346806,
    -5.851404171237515e-05,
    0.0001346292413603375,
    -7.743843258750802e-05,
    2.977503331336397e-05,
    -8.722316081342622e-06,
    2.0230131999671495e-06,
    -3.747305318893881e-07,
    5.5049074628341305e-08,
    -6.2877221808446665e-09,
    5.390543792277412e-10,
    -3.264722602607325e-11,
    1.2452672063365508e-12,
    -2.2488199266071957e-14,
)
# 4 (1 - erfc(x)^(1/4)) / x - 1, up to where erf rounds to 1.
FOURTH_OF_ERF = (
    0.12837915122509003,
    0.47746652364730835,
    -0.06186968460679054,
    -0.07441367954015732,
    0.004698392003774643,
    0.007976735942065716,
    -0.0009464941103942692,
    -0.0004983354010619223,
    0.00013998452050145715,
    -1.068741585186217e-05,
)
ONE_FROM = {"float": 4.0, "double": 6.0}


def _erfc_exponent(x: Num) -> Pair:
    """-log(erfc(x)) of a double, in two parts: one rounding of it would show in erf."""
    coefficients = ERFC_EXPONENT
    rest = two_product(x, horner(x, coefficients[2:]))
    slope = two_sum(rest.high, x.of(coefficients[1]))
    exponent = scale(Pair(slope.high, slope.low + rest.low), x)
    return Pair(exponent.high, exponent.low + coefficients[0])


def _erf_single(size: Num) -> Num:
    """1 - (1 - v / 4)^4, by two steps of 1 - (1 - w / 2)^2 = w - w^2 / 4: none cancels or passes 1."""
    size = size.min_with(ONE_FROM["float"])
    v = size.fma(by_halves(size, FOURTH_OF_ERF), size)
    w = (v * -0.125).fma(v, v)
    return (w * -0.25).fma(w, w)


@function("erf")
def erf(x: Num) -> Num:
    """The error function."""
    size = x.abs()
    if scalar(x) == "float":
        return _erf_single(size).with_sign_of(x)
    near = size.fma(horner(size * size, ERF_TAIL), size)
    exponent = _erfc_exponent(size.min_with(ONE_FROM["double"]))
    _, k, r = reduce_by_ln2(-exponent.high)
    far = 1.0 - exp_reduced(r - exponent.low) * power_of_two(k, x.type)
    return (size < 1.0).select(near, far).copysign(x)
