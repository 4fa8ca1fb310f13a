"""Complex arithmetic, modulus, square root, logarithm and exponential.

Functions marked `doubles` are written for doubles only; `functions.call_complex` gives them single
precision numbers as doubles, where squares neither overflow nor underflow.
"""

from __future__ import annotations

from .complex_number import Complex, choose
from .double_double import Pair, two_product, two_sum
from .exponential import EXP_RANGE, exp, exp_reduced, expm1, reduce_by_ln2, scale_by_power
from .expression import Num, scalar
from .functions import complex_function
from .inverse_trigonometric import atan2
from .logarithm import INFINITY, NAN, log_one_plus
from .trigonometric import sin_cos


def _scaled(z: Complex) -> tuple[Complex, Num]:
    """z times 2**-k for a k that makes its greater part near 1, and k as a float; of doubles.

    k is 0 where z is zero, infinite or NaN.
    """
    largest = z.largest()
    ordinary = (largest > 0.0) & (largest < INFINITY)
    safe = ordinary.select(largest, 1.0)
    exponent = ((safe.bits() >> 52) | 0x4330000000000000).as_float(safe.type) - (2.0**52 + 1023)
    return Complex(scale_by_power(z.real, -exponent), scale_by_power(z.imag, -exponent)), exponent


@complex_function("divide", doubles=True)
def divide(z: Complex, w: Complex) -> Complex:
    """z / w: of numbers scaled to near 1, and with C's answers for infinities and zeros."""
    above, up = _scaled(z)
    below, down = _scaled(w)
    size = below.real.fma(below.real, below.imag * below.imag)
    product = above * below.conjugate()
    quotient = Complex(
        scale_by_power(product.real / size, up - down), scale_by_power(product.imag / size, up - down)
    )
    by_zero = z.times(w.real.of(INFINITY).copysign(w.real))
    quotient = choose(w.is_zero(), by_zero, quotient)
    undefined = quotient.real.is_nan() & quotient.imag.is_nan()
    finite_z, finite_w = z.largest() < INFINITY, w.largest() < INFINITY
    infinite = (_signs(z) * w.conjugate()).times(INFINITY)
    vanishing = (z * _signs(w).conjugate()).times(0.0)
    quotient = choose(undefined & z.is_infinite() & finite_w, infinite, quotient)
    return choose(undefined & w.is_infinite() & finite_z, vanishing, quotient)


def _signs(z: Complex) -> Complex:
    """Infinite parts as 1, others as 0, with their signs."""
    parts = [
        part.abs().equals(INFINITY).select(part.of(1.0), 0.0).copysign(part) for part in (z.real, z.imag)
    ]
    return Complex(*parts)


@complex_function("abs", doubles=True)
def modulus(z: Complex) -> Complex:
    """|z| (in the real part)."""
    near, exponent = _scaled(z)
    size = near.real.fma(near.real, near.imag * near.imag).sqrt()
    return Complex(scale_by_power(size, exponent), size.of(0.0))


@complex_function("sqrt", doubles=True)
def sqrt(z: Complex) -> Complex:
    """The square root in the right half plane; of a negative number, on the positive imaginary axis."""
    _, exponent = _scaled(z)
    half = (exponent * 0.5).rint()
    near = Complex(scale_by_power(z.real, half * -2.0), scale_by_power(z.imag, half * -2.0))
    size = near.real.fma(near.real, near.imag * near.imag).sqrt()
    larger = ((near.real.abs() + size) * 0.5).sqrt()
    smaller = larger.equals(0.0).select(near.imag, near.imag / (larger + larger))
    left = near.real < 0.0
    side = (near.imag < 0.0).select(-larger, larger)
    real = scale_by_power(left.select(smaller.abs(), larger), half)
    imag = scale_by_power(left.select(side, smaller), half)
    return _sqrt_of_infinite(z, Complex(real, imag))


def _sqrt_of_infinite(z: Complex, root: Complex) -> Complex:
    inf_real, inf_imag = z.real.abs().equals(INFINITY), z.imag.abs().equals(INFINITY)
    positive, zero = z.real > 0.0, z.real.of(0.0)
    side = (z.imag < 0.0).select(-INFINITY, z.real.of(INFINITY))
    unknown = z.imag.is_nan().select(z.imag, zero)
    real = positive.select(INFINITY, unknown)
    imag = positive.select(z.imag.is_nan().select(z.imag, zero.copysign(z.imag)), side)
    root = choose(inf_real, Complex(real, imag), root)
    return choose(inf_imag & ~z.real.is_nan(), Complex(z.real.of(INFINITY), z.imag), root)


@complex_function("rsqrt", doubles=True)
def rsqrt(z: Complex) -> Complex:
    """1 / sqrt(z): the conjugate of the root, divided by its modulus twice."""
    root = sqrt(z)
    size = modulus(root).real
    result = Complex(root.real / size / size, -root.imag / size / size)
    none = z.real.of(0.0)
    result = choose(z.is_infinite(), Complex(none.copysign(z.real), -none.copysign(z.imag)), result)
    return choose(z.is_zero(), Complex(z.real.of(INFINITY), z.real.of(NAN)), result)


def log_modulus(z: Complex) -> Num:
    """log |z|, good also near |z| = 1: half the logarithm of x^2 + y^2, which is summed in two parts."""
    near, exponent = _scaled(z)
    largest = z.largest()
    # Where no square overflows or underflows z is left as it is: |z| near 1 has parts of any size below.
    plain = (largest > 2.0**-400) & (largest < 2.0**400)
    near = choose(plain, z, near)
    exponent = plain.select(0.0, exponent)
    result = _half_log_of_squares(near, -1.0)
    result = exponent.fma(0.6931471805599453, result)
    result = z.is_zero().select(-INFINITY, result)
    return z.is_infinite().select(INFINITY, result)


def _half_log_of_squares(z: Complex, start: float, double_real: Num | None = None) -> Num:
    """log(1 + v) / 2 for v = x^2 + y^2 + start (or plus 2x)."""
    x, y = two_product(z.real, z.real), two_product(z.imag, z.imag)
    first = double_real if double_real is not None else z.real.of(start)
    sum = two_sum(first, x.high)
    total = two_sum(sum.high, y.high)
    v = two_sum(total.high, (sum.low + total.low) + (x.low + y.low))
    return log_one_plus(Pair(v.high, v.low)).value() * 0.5


@complex_function("log", doubles=True)
def log(z: Complex) -> Complex:
    """log |z| + i arg z."""
    return Complex(log_modulus(z), atan2(z.imag, z.real))


@complex_function("log1p", doubles=True)
def log1p(z: Complex) -> Complex:
    """log(1 + z): its real part is log(1 + 2x + x^2 + y^2) / 2 unless z is large."""
    moved = z.plus(1.0)
    large = z.largest() > 2.0**20
    small = _half_log_of_squares(
        choose(large, Complex(*[z.real.of(0.0)] * 2), z), 0.0, large.select(0.0, z.real + z.real)
    )
    small = moved.is_zero().select(-INFINITY, small)
    real = (large | z.real.is_nan() | z.imag.is_nan()).select(log_modulus(moved), small)
    return Complex(real, atan2(z.imag, moved.real))


@complex_function("exp")
def exponential(z: Complex) -> Complex:
    """e^x (cos y + i sin y), the power of two put in last: the product may be finite where e^x is not."""
    low, high = EXP_RANGE[scalar(z.real)]
    k, _, r = reduce_by_ln2(z.real.min_with(2 * high).max_with(2 * low))
    size = exp_reduced(r)
    sine, cosine = sin_cos(z.imag)
    real, imag = scale_by_power(size * cosine, k), scale_by_power(size * sine, k)
    # exp of an infinite real number stays real.
    return Complex(real, z.imag.equals(0.0).select(z.imag, imag))


@complex_function("expm1", doubles=True)
def exponential_less_one(z: Complex) -> Complex:
    """(e^x - 1) cos y + (cos y - 1) + i e^x sin y, where cos y - 1 = -2 sin^2(y / 2)."""
    sine, cosine = sin_cos(z.imag)
    half_sine = sin_cos(z.imag * 0.5)[0]
    real = expm1(z.real) * cosine - half_sine * half_sine * 2.0
    imag = z.imag.equals(0.0).select(z.imag, exp(z.real) * sine)
    return Complex(real, imag)


@complex_function("sign", doubles=True)
def sign(z: Complex) -> Complex:
    """z / |z|; 0 for 0."""
    size = modulus(z).real
    result = Complex(z.real / size, z.imag / size)
    return choose(z.is_zero(), z, result)
