"""log and log1p.

x = 2^e m; log x = e ln 2 + log(1 + f), f = m - 1. Single precision, m from 2/3 to 4/3: log(1 + f) = f + f^2 p(f).
Double precision, m from sqrt(1/2) to sqrt(2): with s = f / (2 + f): log(1 + f) = 2 atanh(s) =
2 s + s^3 (2/3 + s^2 q(s^2)), where all but the innermost terms are pairs of doubles: the result is good to
about 64 bits, which `power` needs, and rounds correctly but for a few cases in a thousand. Both polynomials
are minimax (tools/minimax.py, `log` and `atanh`).
"""

from __future__ import annotations

from .double_double import Pair, add, add_single, divide, multiply, square, two_sum
from .exponential import LN2
from .expression import MANTISSA_BITS, Num, by_pairs, horner, power_of_two, round_to_integer, scalar
from .functions import function, usual

LOG_REST = (
    -0.5,
    0.3333320915699005,
    -0.24999506771564484,
    0.20010770857334137,
    -0.16689501702785492,
    0.14000824093818665,
    -0.12078169733285904,
    0.14006227254867554,
    -0.1331167072057724,
)
ATANH_TAIL = (
    0.39999999999999974,
    0.28571428571445345,
    0.22222222217479973,
    0.18181818877256178,
    0.1538455639678077,
    0.133363356872735,
    0.11674447208687015,
    0.11992109178840155,
)
TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)
SMALLEST_NORMAL = {"float": 2.0**-126, "double": 2.0**-1022}
ONE_BITS = {"float": 0x3F800000, "double": 0x3FF0000000000000}
# Up to here 1 + x can be multiplied by a normal number that makes it m.
LOG1P_USUAL_BELOW = 2.0**125
# The least m.
LEAST_BITS = {"float": 0x3F2AAAAB, "double": 0x3FE6A09E667F3BCD}
# Below these f(x) = x for log1p, asinh and atanh, and squares may underflow.
TINY = {"float": 2.0**-26, "double": 2.0**-55}
INFINITY, NAN = float("inf"), float("nan")


def exponent_of(bits: Num, least: int = LEAST_BITS["float"]) -> tuple[Num, Num]:
    """e of the float with these bits, an integer, and the bits that e adds to those of m, at least `least`."""
    moved = bits - least
    return moved.ashr(MANTISSA_BITS["float"]), moved & (-1 << MANTISSA_BITS["float"])


def split(x: Num, least: int = LEAST_BITS["float"]) -> tuple[Num, Num]:
    """e as a float and m of x = 2**e * m, for a positive normal x; `least` is for floats."""
    kind = scalar(x)
    if kind == "float":
        e, bits = exponent_of(x.bits(), least)
        return e.to_float(x.type), (x.bits() - bits).as_float(x.type)
    shift = MANTISSA_BITS[kind]
    moved = x.bits() + (ONE_BITS[kind] - LEAST_BITS[kind])
    mantissa = ((moved & ((1 << shift) - 1)) + LEAST_BITS[kind]).as_float(x.type)
    # There is no vector conversion from i64 before AVX-512: put the number under a big power of two.
    return ((moved >> shift) | 0x4330000000000000).as_float(x.type) - (2.0**52 + 1023), mantissa


def split_any(x: Num, least: int = LEAST_BITS["float"]) -> tuple[Num, Num]:
    """Like `split`, of positive subnormal numbers too, if the module's code does not count these as zeros."""
    if x.b.module.flushes_denormals:
        return split(x, least)
    kind = scalar(x)
    lift = MANTISSA_BITS[kind] + 2
    small = x < SMALLEST_NORMAL[kind]
    exponent, mantissa = split(small.select(x * 2.0**lift, x), least)
    return small.select(exponent - float(lift), exponent), mantissa


def log_near_one(e: Num, f: Num, correction: Num | None = None) -> Num:
    """e ln 2 + log(1 + f), and a small correction if there is one, in single precision."""
    high, low = LN2["float"]
    small = e * low if correction is None else e.fma(low, correction)
    return e.fma(high, f + (f * f).fma(by_pairs(f, LOG_REST), small))


def log_pair(e: Num, f: Pair) -> Pair:
    """e ln 2 + log(1 + f), to about 64 bits, in double precision."""
    below = f.high + 2.0
    s = divide(f, Pair(below, (f.high - (below - 2.0)) + f.low))
    z = square(s)
    factor = add_single(
        z.high.of(TWO_THIRDS[0]), Pair(z.high * horner(z.high, ATANH_TAIL), z.high.of(TWO_THIRDS[1]))
    )
    cube = multiply(s, multiply(z, factor))
    near = add(Pair(s.high + s.high, s.low + s.low), cube)
    high, low = LN2["double"]
    return add(Pair(e * high, e * low), near)


def at_ends(x: Num, argument: Num, result: Num) -> Num:
    """The result, but -inf where the logarithm's argument is 0, NaN below it, and x itself where that is inf or NaN."""
    result = (x < INFINITY).select(result, x)
    result = (argument.bits() < 0).select(NAN, result)
    return argument.equals(0.0).select(-INFINITY, result)


def log_of(x: Num) -> Pair:
    """The logarithm of a positive finite number in two parts (of a float, the second is 0)."""
    exponent, mantissa = split_any(x)
    f = Pair.of(mantissa - 1.0)
    return log_pair(exponent, f) if scalar(x) == "double" else Pair.of(log_near_one(exponent, f.high))


def log_of_pair(x: Pair) -> Num:
    """The logarithm of a positive normal number in two parts, in double precision."""
    exponent, mantissa = split(x.high)
    return log_pair(exponent, Pair(mantissa - 1.0, x.low * _inverse_power(exponent))).value()


def _inverse_power(exponent: Num) -> Num:
    """2**-exponent; near the end of the range a larger power of two."""
    _, opposite = round_to_integer(-exponent.min_with(1000.0))
    return power_of_two(opposite, exponent.type)


def log_one_plus(v: Pair) -> Pair:
    """log(1 + v) for finite v > -1, in two parts (of a float, the second is 0).

    1 + v is u + c, where u is rounded and c what that lost; the mantissa of u and c scaled alike make the
    argument, or v itself where u is near 1.
    """
    u = two_sum(v.high.of(1.0), v.high)
    lost = u.low + v.low
    exponent, mantissa = split(u.high)
    near = exponent.equals(0.0)
    f = near.select(v.high, mantissa - 1.0)
    lost = near.select(v.low, lost)
    if scalar(f) == "float":
        return Pair.of(log_near_one(exponent, f, lost / u.high))
    return log_pair(exponent, Pair(f, lost * _inverse_power(exponent)))


@function("log")
def log(x: Num) -> Num:
    """The natural logarithm."""
    return at_ends(x, x, log_of(x).value())


def _log1p_single(x: Num) -> Num:
    """log(1 + x) for floats > -1 that are not tiny: f = (1 + x) / 2^e - 1 is rounded once, from x itself.

    A quarter of x is scaled: 2^-e may be subnormal.
    """
    exponent, bits = exponent_of((x + 1.0).bits())
    scale = (exponent.of(ONE_BITS["float"] + (2 << MANTISSA_BITS["float"])) - bits).as_float(x.type)
    f = (x * 0.25).fma(scale, scale.fma(0.25, -1.0))
    return log_near_one(exponent.to_float(x.type), f)


@function("log1p")
def log1p(x: Num) -> Num:
    """The natural logarithm of 1 + x."""
    result = _log1p_single(x) if scalar(x) == "float" else log_one_plus(Pair.of(x)).value()
    # This also keeps the sign of zero. The square does not count, but that denormals are zeros, where they are to be.
    return (x.abs() < TINY[scalar(x)]).select((-x).fma(x, x), at_ends(x, x + 1.0, result))


@usual("log1p", "float", 4)
def log1p_usual(x: Num) -> tuple[Num, Num]:
    """The natural logarithm of 1 + x, neither of which is huge; 1 + x is positive."""
    one_more = x + 1.0
    exponent, bits = exponent_of(one_more.bits())
    scale = (exponent.of(ONE_BITS["float"]) - bits).as_float(x.type)
    f = x.fma(scale, scale - 1.0)
    # The sign is that of x, of zeros too.
    result = log_near_one(exponent.to_float(x.type), f).with_sign_of(x)
    return result, (one_more > 0.0) & (one_more < LOG1P_USUAL_BELOW)
