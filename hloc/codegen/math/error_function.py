"""erf: x + x q(x^2) below 1, 1 - exp(-p(x)) above, both minimax (tools/minimax.py, `erf` and `erfc`)."""

from __future__ import annotations

from .double_double import Pair, scale, two_product, two_sum
from .exponential import exp_reduced, reduce_by_ln2
from .expression import Num, horner, power_of_two, scalar
from .functions import function

ERF_TAIL = {
    "float": (
        0.12837916612625122,
        -0.3761262595653534,
        0.11283599585294724,
        -0.02685440145432949,
        0.005189444404095411,
        -0.0008019947563298047,
        7.885860395617783e-05,
    ),
    "double": (
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
    ),
}
# -log(erfc(x)) from 1 to where erf rounds to 1.
ERFC_EXPONENT = {
    "float": (
        0.00035372457932680845,
        1.1270400285720825,
        0.6382257342338562,
        0.10303732752799988,
        -0.0218052975833416,
        0.0029396014288067818,
        -0.00018557332805357873,
    ),
    "double": (
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
    ),
}
ONE_FROM = {"float": 4.0, "double": 6.0}


def _erfc_exponent(x: Num) -> Pair:
    """-log(erfc(x)) of a double, in two parts: one rounding of it would show in erf."""
    coefficients = ERFC_EXPONENT["double"]
    rest = two_product(x, horner(x, coefficients[2:]))
    slope = two_sum(rest.high, x.of(coefficients[1]))
    exponent = scale(Pair(slope.high, slope.low + rest.low), x)
    return Pair(exponent.high, exponent.low + coefficients[0])


@function("erf")
def erf(x: Num) -> Num:
    """The error function."""
    kind = scalar(x)
    size = x.abs()
    near = size.fma(horner(size * size, ERF_TAIL[kind]), size)
    bounded = size.min_with(ONE_FROM[kind])
    if kind == "double":
        exponent = _erfc_exponent(bounded)
    else:
        exponent = Pair.of(horner(bounded, ERFC_EXPONENT[kind]))
    _, k, r = reduce_by_ln2(-exponent.high)
    far = 1.0 - exp_reduced(r - exponent.low) * power_of_two(k, x.type)
    return (size < 1.0).select(near, far).copysign(x)
