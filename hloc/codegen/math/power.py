"""power, cbrt, sqrt and rsqrt."""

from __future__ import annotations

from .double_double import Pair, fast_two_sum, scale, two_product
from .exponential import EXP_RANGE, EXP_TAIL, LN2, LOG2_E, scale_by_power
from .expression import MANTISSA_BITS, Num, horner, round_to_integer, scalar
from .functions import function, usual
from .logarithm import INFINITY, NAN, SMALLEST_NORMAL, log_of, split_any

# 2^r for |r| <= 1/2, and log2((1 + s) / (1 - s)) / s in s^2, (1 + s) / (1 - s) from sqrt(1/2) to sqrt(2), for single
# precision results.
EXP2_SINGLE = (
    0.999999999959405,
    0.6931471805349486,
    0.2402265121493754,
    0.055504109763686284,
    0.009618025426654278,
    0.001333342242989637,
    0.00015469787816652566,
    1.5316512659299835e-05,
)
LOG2_SINGLE = (
    2.8853900817901463,
    0.9617966732765025,
    0.5770835960489485,
    0.4116721171636614,
    0.3407403163720986,
)
ROOT_OF_HALF_BITS = 0x3F3504F3
POWER_USUAL_BELOW = 2.0**127
# Beyond these, powers of two are no single precision numbers.
EXP2_RANGE_SINGLE = (-160.0, 130.0)


@function("sqrt")
def sqrt(x: Num) -> Num:
    """The square root, correctly rounded."""
    return x.sqrt()


@function("rsqrt")
def rsqrt(x: Num) -> Num:
    """1 / sqrt(x)."""
    return 1.0 / x.sqrt()


def exp_of_pair(x: Pair) -> Num:
    """e to a number in two parts, in double precision."""
    low_bound, high_bound = EXP_RANGE["double"]
    bounded = x.high.min_with(high_bound).max_with(low_bound)
    high, low = LN2["double"]
    k, _ = round_to_integer(bounded * LOG2_E)
    exact = k.fma(-high, bounded)
    r = fast_two_sum(exact, k.fma(-low, x.low))
    squared = two_product(r.high, r.high)
    half = Pair(squared.high * 0.5, squared.low * 0.5)
    cubic = r.high * squared.high * horner(r.high, EXP_TAIL["double"][1:])
    one = fast_two_sum(x.high.of(1.0), r.high)
    sum = fast_two_sum(one.high, half.high)
    rest = one.low + sum.low + r.low.fma(r.high, r.low) + (half.low + cubic)
    return scale_by_power(sum.high + rest, k)


def _power_of_positive(x: Num, y: Num) -> Num:
    """x to the y for a positive finite x, in double precision."""
    product = scale(log_of(x), y)
    low = (product.high.abs() < 2.0**11).select(product.low, 0.0)
    return exp_of_pair(Pair(product.high, low))


def _power_of_positive_single(x: Num, y: Num) -> Num:
    """The same of floats, as 2^(y log2 x), to about 32 bits: doubles will do, and no pairs are needed."""
    exponent, mantissa = split_any(x, ROOT_OF_HALF_BITS)
    f = (mantissa - 1.0).widen()
    s = f / (f + 2.0)
    t = y.widen() * s.fma(horner(s * s, LOG2_SINGLE), exponent.widen())
    low, high = EXP2_RANGE_SINGLE
    t = t.min_with(high).max_with(low)
    k, bits = round_to_integer(t)
    power = horner(t - k, EXP2_SINGLE).bits() + (bits << MANTISSA_BITS["double"])
    return power.as_float(t.type).narrow()


@function("power")
def power(x: Num, y: Num) -> Num:
    """x to the y, with C's answers for zeros, infinities and NaN."""
    kind = scalar(x)
    size = x.abs()
    zero, infinite = size.equals(0.0), size.equals(INFINITY)
    ordinary = (zero | infinite).select(1.0, size)
    if kind == "float":
        result = _power_of_positive_single(ordinary, y)
    else:
        result = _power_of_positive(ordinary, y)
    up = infinite ^ (y < 0.0)
    result = (zero | infinite).select(up.select(INFINITY, x.of(0.0)), result)
    whole = y.rint().equals(y)
    half = y * 0.5
    odd = whole & ~half.rint().equals(half)
    negative = (x.bits() < 0) & odd
    result = negative.select(-result, result)
    undefined = (x < 0.0) & ~infinite & ~whole
    result = (undefined | x.is_nan() | y.is_nan()).select(NAN, result)
    one = x.equals(1.0) | y.equals(0.0) | (x.equals(-1.0) & y.abs().equals(INFINITY))
    return one.select(1.0, result)


@usual("power", "float", 4)
def power_usual(x: Num, y: Num) -> tuple[Num, Num]:
    """x to the y for normal positive x and finite y, neither of which is huge.

    LLVM makes integer arithmetic of comparisons with infinity, three operations of each.
    """
    holds = (x >= SMALLEST_NORMAL["float"]) & (x < POWER_USUAL_BELOW) & (y.abs() < POWER_USUAL_BELOW)
    return _power_of_positive_single(x, y), holds


def _guess_of_inverse_root(x: Num) -> Num:
    """About x**(-1/3), to 5 bits: the exponent field, with the mantissa behind it, divided by -3."""
    kind = scalar(x)
    if kind == "float":
        thousands = (x.bits() >> 10).to_float(x.type)
        _, bits = round_to_integer(thousands.fma(-1.0 / 3.0, CBRT_MAGIC[kind]))
        return (bits << 10).as_float(x.type)
    upper = ((x.bits() >> 32) | 0x4330000000000000).as_float(x.type) - 2.0**52
    _, bits = round_to_integer(upper.fma(-1.0 / 3.0, CBRT_MAGIC[kind]))
    return (bits << 32).as_float(x.type)


# The bits of 1.0 times 4/3, less what evens out the error, in units of the shifted fields.
CBRT_MAGIC = {"float": 0x54A232A3 / 2.0**10, "double": float(0x553EF0FF)}

# For small numbers, whose residuals would be subnormal: up to where, a factor, and its inverse's cube root.
CBRT_SCALE = {"float": (2.0**-80, 2.0**60, 2.0**-20), "double": (2.0**-900, 2.0**150, 2.0**-50)}


@function("cbrt")
def cbrt(x: Num) -> Num:
    """The cube root: r near x**(-1/3) by two fourth-order steps, then x r^2 corrected by its residual."""
    least, lift, drop = CBRT_SCALE[scalar(x)]
    size = x.abs()
    small = size < least
    size = small.select(size * lift, size)
    r = _guess_of_inverse_root(size)
    for _ in range(2):
        h = 1.0 - (size * r) * (r * r)
        r = (r * h).fma(horner(h, (1.0 / 3.0, 2.0 / 9.0, 14.0 / 81.0)), r)
    y = size * r * r
    squared = two_product(y, y)
    residual = (-squared.low).fma(y, (-squared.high).fma(y, size))
    y = residual.fma(r * r * (1.0 / 3.0), y)
    y = small.select(y * drop, y).copysign(x)
    return (x.abs() < INFINITY).select(y, x)
