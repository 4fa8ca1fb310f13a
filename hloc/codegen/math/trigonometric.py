"""sin, cos and tan, correct for arguments of any size.

The argument in quarter turns is x * 2/pi. Only its fraction and its last two integer bits matter, so bits
of 2/pi that contribute multiples of 4 are left out (Payne and Hanek, "Radian reduction for trigonometric
functions", 1983): each range of exponents has its own window of 2/pi, in pieces of 53 bits. All is done in
doubles, with products split exactly by fma: single precision picks one of five windows by comparison,
double precision reads one of 63 from a table. There is no other path for large arguments, except that loops over
floats, in doubles too, take multiples of pi in two parts from arguments that are not large (`usual`).
"""

from __future__ import annotations

import math
import struct
from functools import cache

from hloc.codegen.llvm import Value

from .double_double import (
    Pair,
    add_single,
    constant,
    divide,
    fast_two_sum,
    multiply,
    square,
    two_product,
    two_sum,
)
from .expression import Num, horner, round_to_integer, scalar
from .functions import function, usual

# sin(t pi/2) / t and cos(t pi/2) in t^2, |t| <= 1/2, for single precision results (`sin_quarter`, ...).
SIN_QUARTER = (
    1.5707963267880862,
    -0.6459640961441775,
    0.07969258265592985,
    -0.004681265699742239,
    0.0001582049679839543,
)
COS_QUARTER = (
    0.9999999999999443,
    -1.2337005501201141,
    0.25366950715192127,
    -0.020863467978463824,
    0.0009191616108355486,
    -2.4850733741833006e-05,
)
# sin r = r + r^3 p(r^2), |r| <= pi/2, for single precision results (`sin_half`).
SIN_HALF = (
    -0.16666666626108526,
    0.00833333110680363,
    -0.0001984086796711764,
    2.7525371617667824e-06,
    -2.388867800936684e-08,
)
PI = (3.141592653589793, 1.2246467991473532e-16)
# Below this the distance to a multiple of pi is good to 30 bits, or in two parts to 50, for every float.
USUAL_BELOW = 2.0**22
# sin r = r - r^3/6 + r^5 p(r^2), cos r = 1 - r^2/2 + r^4/24 + r^6 q(r^2), |r| <= pi/4 (`sin`, `cos`).
SIN_TAIL = (
    0.00833333333333333,
    -0.0001984126984126115,
    2.7557319216859614e-06,
    -2.5052105517651767e-08,
    1.605843537249166e-10,
    -7.581780209762872e-13,
)
COS_TAIL = (
    -0.0013888888888888885,
    2.4801587301579417e-05,
    -2.7557319218383004e-07,
    2.0876754974511883e-09,
    -1.147035606498524e-11,
    4.740712009895046e-14,
)
MINUS_SIXTH = (-0.16666666666666666, -9.25185853854297e-18)
TWENTY_FOURTH = (0.041666666666666664, 2.3129646346357427e-18)
HALF_PI = (1.5707963267948966, 6.123233995736766e-17)

# The windows of single precision: from 2**0, 2**44, 2**64, ...
SINGLE_FIRST, SINGLE_STEP, SINGLE_WINDOWS = 44, 20, 5
# The windows of double precision: up to 2**46, then 16 exponents each.
DOUBLE_FIRST, DOUBLE_STEP, DOUBLE_WINDOWS, DOUBLE_PIECES = 46, 16, 63, 4
# From the first window boundary past 2**500 on, x is scaled down and the pieces up: they would underflow.
DOUBLE_LARGE, DOUBLE_SCALE = DOUBLE_FIRST + 29 * DOUBLE_STEP, 512
TINY = {"float": 2.0**-14, "double": 2.0**-32}


def _arctan_of_inverse(n: int, one: int) -> int:
    """one * arctan(1 / n), by its Taylor series."""
    total, power, k = 0, one // n, 1
    while power:
        total += power // k if k % 4 == 1 else -(power // k)
        power //= n * n
        k += 2
    return total


@cache
def two_over_pi(bits: int) -> int:
    """The integer part of 2**bits * 2/pi; pi by Machin's formula."""
    one = 1 << (bits + 32)
    pi = 4 * (4 * _arctan_of_inverse(5, one) - _arctan_of_inverse(239, one))
    return (one << (bits + 1)) // pi


@cache
def window(top: int, pieces: int, scaled: int = 0) -> tuple[float, ...]:
    """The bits of 2/pi of weights below 2**top, in pieces of 53 bits, times 2**scaled."""
    lowest = 53 * pieces - top
    digits = two_over_pi(lowest) % (1 << (lowest + top))
    parts = []
    for index in range(pieces):
        shift = 53 * (pieces - 1 - index)
        parts.append(math.ldexp(float(digits >> shift), shift - lowest + scaled))
        digits &= (1 << shift) - 1
    return tuple(parts)


def quarter_turns_single(x: Num) -> tuple[Num, Num]:
    """x (a float widened to double) in quarter turns: the fraction from -1/2 to 1/2, and the integer.

    The integer is in the low bits of an integer value. The fraction's absolute error is below 2**-60.
    """
    size = x.abs()
    high, low = [x.of(piece) for piece in window(0, 2)]
    for index in range(SINGLE_WINDOWS - 1):
        exponent = SINGLE_FIRST + index * SINGLE_STEP
        larger = size >= 2.0**exponent
        # x is a multiple of 2**(exponent - 23), so these weights contribute multiples of 4.
        pieces = window(25 - exponent, 2)
        high, low = larger.select(pieces[0], high), larger.select(pieces[1], low)
    turns = two_product(x, high)
    whole, bits = round_to_integer(turns.high)
    return (turns.high - whole) + x.fma(low, turns.low), bits


@cache
def _table() -> bytes:
    rows = [window(0, DOUBLE_PIECES)]
    for index in range(1, DOUBLE_WINDOWS):
        exponent = DOUBLE_FIRST + (index - 1) * DOUBLE_STEP
        rows.append(window(54 - exponent, DOUBLE_PIECES, DOUBLE_SCALE if exponent >= DOUBLE_LARGE else 0))
    return b"".join(struct.pack("<4d", *row) for row in rows)


def _pieces(x: Num) -> list[Num]:
    """The window of 2/pi for the exponent of a double."""
    exponent = (x.bits() >> 52) & 0x7FF
    past = exponent - (1023 + DOUBLE_FIRST - DOUBLE_STEP)
    row = past.max_with(0) >> DOUBLE_STEP.bit_length() - 1
    table: Value = x.b.module.constant_bytes(_table(), 64, "two_over_pi")
    return [x.lookup(table, row * DOUBLE_PIECES + column) for column in range(DOUBLE_PIECES)]


def quarter_turns_double(x: Num) -> tuple[Pair, Num]:
    """A double in quarter turns: the fraction in two parts, and the integer in an integer's low bits.

    The products by the pieces reach 2**70, 2**17, 2**-36 and 2**-89; multiples of 4 are dropped from the
    first, and all is summed without loss down to 2**-140.
    """
    pieces = _pieces(x)
    x = (x.abs() >= 2.0**DOUBLE_LARGE).select(x * 2.0**-DOUBLE_SCALE, x)
    first, second, third = [two_product(x, piece) for piece in pieces[:3]]
    top = first.high - (first.high * 0.25).rint() * 4.0
    whole_top, bits_top = round_to_integer(top)
    middle = two_sum(first.low, second.high)
    sum = two_sum(top - whole_top, middle.high)
    whole, bits = round_to_integer(sum.high)
    rest = two_sum(middle.low, second.low)
    rest_third = two_sum(rest.high, third.high)
    fraction = two_sum(sum.high - whole, sum.low)
    fraction_rest = two_sum(fraction.high, rest_third.high)
    low = fraction_rest.low + (fraction.low + rest_third.low) + (rest.low + x.fma(pieces[3], third.low))
    return fast_two_sum(fraction_rest.high, low), bits + bits_top


def sin_cos_reduced(x: Num) -> tuple[Pair, Pair, Num]:
    """sin and cos of a double's distance to the nearest quarter turn, and that quarter's number.

    The low parts hold the polynomials' last terms: up to 2**-8 of the high parts.
    """
    turns, quarter = quarter_turns_double(x)
    r = multiply(turns, constant(x, *HALF_PI)).normalized()
    z = square(r)
    cube = multiply(multiply(r, z), constant(x, *MINUS_SIXTH))
    sine = fast_two_sum(r.high, cube.high)
    fifth = r.high * z.high * z.high * horner(z.high, SIN_TAIL)
    sine = Pair(sine.high, sine.low + (cube.low + r.low + fifth))
    zz = square(z)
    fourth = multiply(zz, constant(x, *TWENTY_FOURTH))
    cosine = add_single(x.of(1.0), Pair(z.high * -0.5, z.low * -0.5))
    total = fast_two_sum(cosine.high, fourth.high)
    sixth = zz.high * z.high * horner(z.high, COS_TAIL)
    return sine, Pair(total.high, total.low + (cosine.low + fourth.low + sixth)), quarter


def by_quarter(quarter: Num, sine: Num, cosine: Num) -> tuple[Num, Num]:
    """sin and cos of the whole angle from those of the reduced one."""
    swap = (quarter & 1).equals(1)
    sine, cosine = swap.select(cosine, sine), swap.select(sine, cosine)
    negate_sine = (quarter & 2) << 62
    negate_cosine = ((quarter + 1) & 2) << 62
    return (
        (sine.bits() ^ negate_sine).as_float(sine.type),
        (cosine.bits() ^ negate_cosine).as_float(cosine.type),
    )


def sin_cos(x: Num) -> tuple[Num, Num]:
    """Sine and cosine."""
    if scalar(x) == "float":
        turns, quarter = quarter_turns_single(x.widen())
        z = turns * turns
        sine, cosine = by_quarter(quarter, turns * horner(z, SIN_QUARTER), horner(z, COS_QUARTER))
        sine, cosine = sine.narrow(), cosine.narrow()
    else:
        sine, cosine, quarter = sin_cos_reduced(x)
        sine, cosine = by_quarter(quarter, sine.value(), cosine.value())
    return keep_tiny(x, sine), cosine


def keep_tiny(x: Num, result: Num) -> Num:
    """x itself where that is the sine and the tangent; it also keeps the sign of zero."""
    return (x.abs() < TINY[scalar(x)]).select(x, result)


@function("sin")
def sin(x: Num) -> Num:
    """Sine of radians."""
    return sin_cos(x)[0]


@function("cos")
def cos(x: Num) -> Num:
    """Cosine of radians."""
    return sin_cos(x)[1]


def _sin_of_rest(x: Num, turns: Num, parity: Num) -> Num:
    """The sine of x - turns pi, negative for odd parity, in doubles; what pi lacks and the sign delay no polynomial.

    Few operations that wait for one another are faster here than more that do not: there are four vectors at a time.
    """
    near = turns.fma(-PI[0], x)
    polynomial = horner(near * near, (1.0, *SIN_HALF))
    rest = turns.fma(-PI[1], near)
    return (rest.bits() ^ (parity << 63)).as_float(x.type) * polynomial


@usual("sin", "float", 2)
def sin_usual(x: Num) -> tuple[Num, Num]:
    """Sine of radians, as (-1)^k sin(x - k pi)."""
    wide = x.widen()
    return _sin_of_rest(wide, *round_to_integer(wide, 1.0 / math.pi)).narrow(), x.abs() < USUAL_BELOW


@usual("cos", "float", 2)
def cos_usual(x: Num) -> tuple[Num, Num]:
    """Cosine of radians, as (-1)^k sin(x - (k - 1/2) pi)."""
    wide = x.widen()
    whole, bits = round_to_integer(wide.fma(1.0 / math.pi, 0.5))
    return _sin_of_rest(wide, whole - 0.5, bits).narrow(), x.abs() < USUAL_BELOW


@function("tan")
def tan(x: Num) -> Num:
    """Tangent of radians: sine by cosine, in odd quarters the other way around and negative."""
    if scalar(x) == "float":
        turns, quarter = quarter_turns_single(x.widen())
        z = turns * turns
        sine, cosine = turns * horner(z, SIN_QUARTER), horner(z, COS_QUARTER)
        swap = (quarter & 1).equals(1)
        return keep_tiny(x, (swap.select(-cosine, sine) / swap.select(sine, cosine)).narrow())
    sine, cosine, quarter = sin_cos_reduced(x)
    swap = (quarter & 1).equals(1)
    above = Pair(swap.select(-cosine.high, sine.high), swap.select(-cosine.low, sine.low))
    below = Pair(swap.select(sine.high, cosine.high), swap.select(sine.low, cosine.low))
    return keep_tiny(x, divide(above.normalized(), below.normalized()).value())
