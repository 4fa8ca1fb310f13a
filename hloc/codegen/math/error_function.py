"""erf: x + x q(x^2) below 1, 1 - exp(-p(x)) above, both minimax (tools/minimax.py, `erf` and `erfc`).

In single precision 1 - (1 - v / 4)^4 all along, v a polynomial, which takes a third of the time (`erf_single`).

Its inverse is x times a polynomial in L = -log2(1 - x^2), or, where that is large, in its root: as M. Giles has it in
"Approximating the erfinv function" (2010), which is where programs get theirs from, but by base 2. (`erf_inv_near` and
`erf_inv_far`; no digits of L matter but those behind its point, `log2_part`.)
"""

from __future__ import annotations

from .double_double import Pair, scale, two_product, two_sum
from .exponential import exp_reduced, reduce_by_ln2
from .expression import Num, by_halves, horner, power_of_two, scalar
from .functions import function, usual
from .logarithm import INFINITY, NAN, exponent_of

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
# erf_inv(x) / x in L below 7.2; of larger L, in sqrt(L) - 3.7.
ERF_INV_NEAR = (
    0.8862268328666687,
    0.16082170605659485,
    0.005540607497096062,
    -0.0007651892956346273,
    -3.863692472805269e-05,
    1.1001790880982298e-05,
    -5.06968376612349e-07,
    -1.7230050275429676e-08,
    1.512143854576209e-09,
)
ERF_INV_NEAR_BELOW = 7.2
ERF_INV_FAR = (
    2.913620948791504,
    0.8350989818572998,
    0.005409879609942436,
    -0.0034619499929249287,
    0.0021076907869428396,
    -0.0012059268774464726,
    0.00046149868285283446,
    -7.476740393030923e-06,
    -4.873648504144512e-05,
)
ERF_INV_FAR_CENTRE = 3.7
# log2(1 + f) / f, to 24 bits behind the point.
LOG2_PART = (
    1.442694067955017,
    -0.7213439345359802,
    0.4810192883014679,
    -0.36092713475227356,
    0.28459465503692627,
    -0.23468643426895142,
    0.2519944906234741,
    -0.23195494711399078,
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


def _log2_of_rest(x: Num) -> Num:
    """-log2(1 - x^2) of floats within -1 and 1; 127 and more of others that are not NaN."""
    rest = (-x).fma(x, 1.0)
    exponent, bits = exponent_of(rest.bits())
    f = (rest.bits() - bits).as_float(x.type) - 1.0
    return (-f).fma(by_halves(f, LOG2_PART), -exponent.to_float(x.type))


@usual("erf_inv", "float", 2)
def erf_inv_usual(x: Num) -> tuple[Num, Num]:
    """The inverse of erf where |x| is less than 0.996 or so; NaN of NaN."""
    size = _log2_of_rest(x)
    return x * by_halves(size, ERF_INV_NEAR), size < ERF_INV_NEAR_BELOW


@function("erf_inv")
def erf_inv(x: Num) -> Num:
    """The inverse of erf, of floats: infinite at -1 and 1, NaN beyond."""
    size = _log2_of_rest(x)
    near = by_halves(size, ERF_INV_NEAR)
    far = by_halves(size.sqrt() - ERF_INV_FAR_CENTRE, ERF_INV_FAR)
    result = x * (size < ERF_INV_NEAR_BELOW).select(near, far)
    inside = x.abs() < 1.0
    return inside.select(result, x.abs().equals(1.0).select(x * INFINITY, NAN))
