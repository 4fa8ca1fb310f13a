"""exp, expm1 and logistic.

x = k ln 2 + r with |r| <= ln 2 / 2, ln 2 in two parts so that r is good to more than a rounding; then
exp(r) = 1 + r + r^2 p(r) with a minimax p (tools/minimax.py, `exp`), and a scaling by 2^k in two steps,
since k reaches beyond the exponents of normal numbers at both ends. What the operand's sign alone decides
is picked beside the polynomial, so that nothing waits for k.
"""

from __future__ import annotations

from .double_double import Pair, divide, fast_two_sum
from .expression import EXPONENT_BIAS, MANTISSA_BITS, Num, by_halves, horner, power_of_two, round_to_integer, scalar
from .functions import function

LOG2_E = 1.4426950408889634
# ln 2: the leading bits, then the rest. k times the leading part is exact for the k that occur.
LN2 = {
    "float": (0.693145751953125, 1.428606765330187e-06),
    "double": (0.6931471803691238, 1.9082149292705877e-10),
}
EXP_TAIL = {
    "float": (
        0.5,
        0.1666666716337204,
        0.041666265577077866,
        0.008333263918757439,
        0.001394641469232738,
        0.00019918836187571287,
    ),
    "double": (
        0.5,
        0.16666666666666685,
        0.04166666666666673,
        0.008333333333316338,
        0.0013888888888857805,
        0.00019841269898064338,
        2.4801587374871715e-05,
        2.7557233218563384e-06,
        2.7557232462492533e-07,
        2.511259911901636e-08,
        2.0927205512389093e-09,
    ),
}
# exp(r) = 1 + r + r^2 p(r) where exp(r) - 1 is to be good to 26 bits (`expm1_single`).
EXPM1_TAIL_SINGLE = (0.5, 0.16666541993618011, 0.04166627675294876, 0.00836678221821785, 0.0013946803519502282)
# Beyond these exp is infinite, or 0 also among the subnormals: the clamp keeps k small, NaN passes it.
EXP_RANGE = {"float": (-104.5, 89.0), "double": (-746.0, 710.0)}
# The exponential has k = -127 (-1023) here, of which `power_of_two` makes 0, and is less than any normal number.
FLUSHED_FROM = {"float": -87.9, "double": -709.0}
# A power of two below 2**-k for all k of results above the subnormals: subnormal ones come from it in one rounding.
LIFT = {"float": 63, "double": 511}
EXPM1_RANGE = {"float": (-20.0, 89.0), "double": (-40.0, 710.0)}


def reduce_by_ln2(x: Num) -> tuple[Num, Num, Num]:
    """k as a float, k in the low bits of an integer, and r = x - k ln 2."""
    high, low = LN2[scalar(x)]
    k, k_bits = round_to_integer(x, LOG2_E)
    return k, k_bits, k.fma(-low, k.fma(-high, x))


def scale_by_power(x: Num, k: Num) -> Num:
    """x * 2**k, k an integral float of at most twice the exponent range, rounded or flushed at most once."""
    half, half_bits = round_to_integer(k * 0.5)
    _, rest_bits = round_to_integer(k - half)
    return x * power_of_two(half_bits, x.type) * power_of_two(rest_bits, x.type)


def exp_reduced(r: Num) -> Num:
    """exp(r) for |r| <= ln 2 / 2."""
    return by_halves(r, EXP_TAIL[scalar(r)]).fma(r * r, r) + 1.0


def lifted(x: Num, k_bits: Num, lift: Num | int) -> Num:
    """x * 2**(k + lift), the bits of a power of two `lift` on top of k's, which is in the low bits of an integer."""
    return x * ((k_bits << MANTISSA_BITS[scalar(x)]) + lift).as_float(x.type)


def power_bits(exponent: int, kind: str) -> int:
    """The encoding of 2**exponent."""
    return (EXPONENT_BIAS[kind] + exponent) << MANTISSA_BITS[kind]


@function("exp")
def exp(x: Num) -> Num:
    """e to the x: 2^(k - 1) exp(r) 2, or of a negative x a normal number times a power of two."""
    kind = scalar(x)
    is_negative, (low, high), lift = x.bits() < 0, EXP_RANGE[kind], LIFT[kind]
    _, k, r = reduce_by_ln2(x.min_with(high).max_with(low))
    scale = is_negative.select(k.of(power_bits(lift, kind)), power_bits(-1, kind))
    return lifted(exp_reduced(r), k, scale) * is_negative.select(x.of(2.0**-lift), 2.0)


@function("exp_of_negative")
def exp_of_negative(x: Num) -> Num:
    """e to the x for x <= 0. Where subnormal results are zeros, they come of a zero in place of their power of two."""
    kind = scalar(x)
    if x.b.module.flushes_denormals:
        _, k, r = reduce_by_ln2(x.max_with(FLUSHED_FROM[kind]))
        return exp_reduced(r) * power_of_two(k, x.type)
    _, k, r = reduce_by_ln2(x.max_with(EXP_RANGE[kind][0]))
    return lifted(exp_reduced(r), k, power_bits(LIFT[kind], kind)) * 2.0 ** -LIFT[kind]


@function("expm1")
def expm1(x: Num) -> Num:
    """e to the x, less one: 2^k ((exp(r) - 1) + (1 - 2^-k)), at half size so that 2^k stays finite."""
    low, high = EXPM1_RANGE[scalar(x)]
    k, _, r = reduce_by_ln2(x.min_with(high).max_with(low))
    tail = horner(r, EXP_TAIL[scalar(x)]).fma(r * r, r)
    _, exponent = round_to_integer(k - 1.0)
    half_scale = power_of_two(exponent, x.type)
    half = half_scale.fma(tail, half_scale - 0.5)
    # For tiny x the result is x: this also keeps the sign of zero.
    tiny = {"float": 2.0**-26, "double": 2.0**-55}[scalar(x)]
    return (x.abs() < tiny).select(x, half + half)


def expm1_single(x: Num, factor: float = 1.0) -> Num:
    """(e to the factor x, less one) / factor, for floats of up to 2**6 or so whose results matter to 24 bits at most.

    The factor, a power of two, goes into the constants.
    """
    k, bits = round_to_integer(x, factor * LOG2_E)
    r = k.fma(-sum(LN2["double"]) / factor, x)
    tail = [coefficient * factor ** (degree + 1) for degree, coefficient in enumerate(EXPM1_TAIL_SINGLE)]
    power = power_of_two(bits, x.type)
    return power.fma(horner(r, tail).fma(r * r, r), power.fma(1.0 / factor, -1.0 / factor))


@function("logistic")
def logistic(x: Num) -> Num:
    """1 / (1 + exp(-x)), by an exponential that never overflows."""
    e = exp_of_negative(-x.abs())
    below = fast_two_sum(x.of(1.0), e)
    above = (x < 0.0).select(e, 1.0)
    return divide(Pair.of(above), below).value()
