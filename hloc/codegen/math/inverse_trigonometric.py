"""asin, acos, atan and atan2.

asin and acos near 0 are odd polynomials; for |x| > 1/2, asin x = pi/2 - 2 asin(sqrt((1 - x) / 2)). The
arc tangent of a quotient from 0 to 1 is taken of (a - b) / (a + b) plus pi/4 where a > b tan(pi/8), and
what is left is an odd polynomial (tools/minimax.py, `asin` and `atan`). Multiples of pi are pairs. Single
precision computes the arc tangent in doubles.
"""

from __future__ import annotations

from .double_double import Pair, add, constant, divide, fast_two_sum, multiply, square, two_sum
from .expression import Num, horner, scalar
from .functions import function
from .logarithm import INFINITY, NAN

ASIN_TAIL = {
    "float": (
        0.16666659712791443,
        0.07500513643026352,
        0.0445152185857296,
        0.03182205185294151,
        0.014384914189577103,
        0.03759123012423515,
    ),
    "double": (
        0.16666666666666763,
        0.07499999999969922,
        0.04464285717546158,
        0.03038194266651094,
        0.02237221616227473,
        0.01735159073672968,
        0.013981077438974022,
        0.011396796995014937,
        0.010792177801842707,
        0.003661114768466965,
        0.021818247623810072,
        -0.02115670080986425,
        0.03272773179327113,
    ),
}
ATAN_TAIL_SINGLE = (
    -0.3333333251270695,
    0.19999905006627744,
    -0.1428203661397659,
    0.11045022266847576,
    -0.08477988347578658,
    0.047473719071472124,
)
ATAN_TAIL = (
    0.1999999999999922,
    -0.1428571428554292,
    0.11111111096215039,
    -0.09090908393366738,
    0.07692287693225022,
    -0.06666291725680092,
    0.05877596388811023,
    -0.05221780002163409,
    0.045161843380028585,
    -0.03374718756876952,
    0.015453549873875946,
)
MINUS_THIRD = (-0.3333333333333333, -1.850371707708594e-17)
TAN_EIGHTH = 0.41421356237309503
# pi, pi/2 and pi/4, in two parts.
PI = {
    "float": (3.1415927410125732, -8.742277657347586e-08),
    "double": (3.141592653589793, 1.2246467991473532e-16),
}
HALF_PI = {kind: (high / 2, low / 2) for kind, (high, low) in PI.items()}


def _root_of_half(x: Num) -> tuple[Num, Pair]:
    """w = (1 - |x|) / 2 and its square root in two parts."""
    w = (x.abs() * -0.5) + 0.5
    root = w.sqrt()
    rest = w.equals(0.0).select(0.0, (-root).fma(root, w) / (root + root))
    return w, Pair(root, rest)


@function("asin")
def asin(x: Num) -> Num:
    """Arc sine; NaN outside of [-1, 1]."""
    size = x.abs()
    near = size <= 0.5
    w, root = _root_of_half(x)
    t = near.select(size, root.high)
    z = near.select(size * size, w)
    tail = t * z * horner(z, ASIN_TAIL[scalar(x)])
    high, low = HALF_PI[scalar(x)]
    turned = fast_two_sum(x.of(high), root.high * -2.0)
    far = turned.high + (turned.low + (root.low + tail).fma(-2.0, low))
    return near.select(t + tail, far).copysign(x)


@function("acos")
def acos(x: Num) -> Num:
    """Arc cosine; NaN outside of [-1, 1]."""
    near = x.abs() <= 0.5
    w, root = _root_of_half(x)
    negative = x < 0.0
    t = near.select(-x, negative.select(-root.high, root.high) * 2.0)
    t_low = near.select(0.0, negative.select(-root.low, root.low) * 2.0)
    z = near.select(x * x, w)
    start, half = PI[scalar(x)], HALF_PI[scalar(x)]
    high = near.select(x.of(half[0]), negative.select(start[0], x.of(0.0)))
    low = near.select(x.of(half[1]), negative.select(start[1], x.of(0.0)))
    sum = fast_two_sum(high, t)
    return sum.high + (sum.low + ((t * z).fma(horner(z, ASIN_TAIL[scalar(x)]), t_low) + low))


def _arctan_tail(t: Pair) -> Pair:
    """The arc tangent, for |t| <= tan(pi/8)."""
    z = square(t)
    cube = multiply(multiply(t, z), constant(t.high, *MINUS_THIRD))
    fifth = t.high * z.high * (z.high * horner(z.high, ATAN_TAIL))
    sum = fast_two_sum(t.high, cube.high)
    return Pair(sum.high, sum.low + (cube.low + t.low + fifth))


def _with_sign(a: Num, negative: Num) -> Num:
    """-a where `negative`, else a."""
    return negative.select(-a, a)


def _scaled(a: Num, b: Num) -> tuple[Num, Num]:
    """a and b, 0 <= a <= b, times a power of two that keeps b and 1 / b normal; infinite b becomes 1."""
    large, small = b > 2.0**1000, b < 2.0**-900
    factor = large.select(2.0**-60, small.select(2.0**120, b.of(1.0)))
    infinite = b.equals(INFINITY)
    a = infinite.select(a.equals(INFINITY).select(1.0, a.of(0.0)), a * factor)
    b = infinite.select(1.0, b * factor)
    return a, b.equals(0.0).select(1.0, b)


def _arctan_of_quotient(y: Num, x: Num) -> Num:
    """atan2(y, x) in double precision."""
    size_y, size_x = y.abs(), x.abs()
    swap = size_y > size_x
    a, b = _scaled(swap.select(size_x, size_y), swap.select(size_y, size_x))
    reduced = a > b * TAN_EIGHTH
    above, below = two_sum(a, -b), two_sum(b, a)
    above = Pair(reduced.select(above.high, a), reduced.select(above.low, -0.0))
    below = Pair(reduced.select(below.high, b), reduced.select(below.low, -0.0))
    angle = _arctan_tail(divide(above, below).normalized())
    backward = (x.bits() < 0) ^ swap
    high, low = PI["double"]
    eighth = Pair(*(reduced.select(_with_sign(x.of(part / 4), backward), 0.0) for part in (high, low)))
    negative_x = x.bits() < 0
    base = [swap.select(x.of(part / 2), negative_x.select(part, x.of(0.0))) for part in (high, low)]
    start = add(Pair(*base), eighth)
    signed = Pair(_with_sign(angle.high, backward), _with_sign(angle.low, backward))
    result = add(start, signed).value().copysign(y)
    return (x.is_nan() | y.is_nan()).select(NAN, result)


def _arctan_of_quotient_single(y: Num, x: Num) -> Num:
    """The magnitude of atan2(y, x) of floats widened to double, to about 35 bits."""
    size_y, size_x = y.abs(), x.abs()
    swap = size_y > size_x
    a, b = swap.select(size_x, size_y), swap.select(size_y, size_x)
    both = a.equals(INFINITY)
    a, b = both.select(1.0, a), both.select(1.0, b.equals(0.0).select(1.0, b))
    reduced = a > b * TAN_EIGHTH
    t = reduced.select(a - b, a) / reduced.select(a + b, b)
    z = t * t
    angle = (t * z).fma(horner(z, ATAN_TAIL_SINGLE), t)
    angle = reduced.select(angle + PI["double"][0] / 4, angle)
    angle = swap.select(PI["double"][0] / 2 - angle, angle)
    angle = (x.bits() < 0).select(PI["double"][0] - angle, angle)
    return (x.is_nan() | y.is_nan()).select(NAN, angle)


@function("atan2")
def atan2(y: Num, x: Num) -> Num:
    """The angle of the point (x, y), from -pi to pi, by the signs of both (of zeros too)."""
    if scalar(x) == "double":
        return _arctan_of_quotient(y, x)
    # The sign comes last: a double's copysign rounded to half would become a library call on x86.
    return _arctan_of_quotient_single(y.widen(), x.widen()).narrow().copysign(y)


@function("atan")
def atan(x: Num) -> Num:
    """Arc tangent."""
    return atan2(x, x.of(1.0))
