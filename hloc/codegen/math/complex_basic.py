"""Complex arithmetic, modulus, square root, logarithm and exponential.

Functions marked `doubles` are written for doubles only; `functions.call_complex` gives them single
precision numbers as doubles, where squares neither overflow nor underflow.
"""

from __future__ import annotations

from .complex_number import Complex, choose
from .double_double import Pair, two_product, two_sum
from .exponential import exp, exp_reduced, expm1, power_bits, reduce_by_ln2, scale_by_power
from .expression import EXPONENT_BIAS, Num, scalar
from .functions import complex_function
from .inverse_trigonometric import atan2
from .logarithm import INFINITY, NAN, log_of_pair, log_one_plus
from .trigonometric import sin_cos

# Past the square of the greatest number, and not past what two steps of scaling can do.
WIDE_RANGE = {"float": 172.0, "double": 1400.0}


def _scaled(z: Complex) -> tuple[Complex, Num]:
    """z times 2**-k for a k that makes its greater part near 1, and k as a float; of doubles.

    k is 0 where z is zero, infinite or NaN.
    """
    largest = z.largest()
    ordinary = (largest > 0.0) & (largest < INFINITY)
    safe = ordinary.select(largest, 1.0)
    exponent = ((safe.bits() >> 52) | 0x4330000000000000).as_float(safe.type) - (2.0**52 + 1023)
    return Complex(scale_by_power(z.real, -exponent), scale_by_power(z.imag, -exponent)), exponent


def _with_squares(z: Complex) -> tuple[Complex, Num]:
    """Like `_scaled`, but z as it is if its squares neither overflow nor underflow."""
    return (z, z.real.of(0.0)) if z.is_single else _scaled(z)


@complex_function("divide", doubles=True)
def divide(z: Complex, w: Complex) -> Complex:
    """z / w: of numbers scaled to near 1 if need be, and with C's answers for infinities and zeros."""
    above, up = _with_squares(z)
    below, down = _with_squares(w)
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


@complex_function("abs")
def modulus(z: Complex) -> Complex:
    """|z| (in the real part): of z by a power of two that leaves its squares in range, to 1 ULP."""
    kind, type = scalar(z.real), z.real.type
    bias = EXPONENT_BIAS[kind]
    exponent = z.largest().bits() & power_bits(bias + 1, kind)
    exponent = exponent.max_with(power_bits(2 - bias, kind)).min_with(power_bits(bias - 2, kind))
    near = z.times((exponent.of(power_bits(bias, kind)) - exponent).as_float(type))
    size = near.real.fma(near.real, near.imag * near.imag).sqrt()
    return Complex(size * exponent.as_float(type), size.of(0.0))


def _root_near_one(z: Complex) -> tuple[Complex, Num, Num]:
    """The root and the modulus of z 2**(-2 k), and k: nothing overflows; the imaginary part has z's sign."""
    _, exponent = _scaled(z)
    half = (exponent * 0.5).rint()
    near = Complex(scale_by_power(z.real, half * -2.0), scale_by_power(z.imag, half * -2.0))
    size = near.real.fma(near.real, near.imag * near.imag).sqrt()
    larger = ((near.real.abs() + size) * 0.5).sqrt()
    smaller = larger.equals(0.0).select(0.0, near.imag.abs() / (larger + larger))
    left = near.real < 0.0
    root = Complex(left.select(smaller, larger), left.select(larger, smaller).copysign(z.imag))
    return root, size, half


def principal_sqrt(z: Complex) -> Complex:
    """The square root in the right half plane, its imaginary part with the sign of z's, of zeros too."""
    root, _, half = _root_near_one(z)
    return _sqrt_of_infinite(z, Complex(scale_by_power(root.real, half), scale_by_power(root.imag, half)))


def _sqrt_of_infinite(z: Complex, root: Complex) -> Complex:
    infinity, zero = z.real.of(INFINITY), z.real.of(0.0)
    unknown = z.imag.is_nan()
    right = Complex(infinity, unknown.select(NAN, zero.copysign(z.imag)))
    left = Complex(unknown.select(NAN, zero), infinity.copysign(z.imag))
    root = choose(z.real.equals(INFINITY), right, choose(z.real.equals(-INFINITY), left, root))
    return choose(z.imag.abs().equals(INFINITY) & ~z.real.is_nan(), Complex(infinity, z.imag), root)


@complex_function("sqrt", doubles=True)
def sqrt(z: Complex) -> Complex:
    """The principal square root; of a negative number on the positive imaginary axis, be its zero -0 or 0."""
    root = principal_sqrt(z)
    return Complex(root.real, ((z.real < 0.0) & z.imag.equals(0.0)).select(root.imag.abs(), root.imag))


@complex_function("rsqrt", doubles=True)
def rsqrt(z: Complex) -> Complex:
    """1 / sqrt(z): the conjugate of the root by |z|."""
    root, size, half = _root_near_one(z)
    real, imag = (scale_by_power(part / size, -half) for part in (root.real, -root.imag))
    result = Complex(real, imag)
    none = z.real.of(0.0)
    result = choose(z.is_infinite(), Complex(none.copysign(z.real), -none.copysign(z.imag)), result)
    return choose(z.is_zero(), Complex(z.real.of(INFINITY), z.real.of(NAN)), result)


def _sum_of_squares(z: Complex, start: Num) -> Pair:
    """start + x^2 + y^2 in two parts."""
    x, y = two_product(z.real, z.real), two_product(z.imag, z.imag)
    sum = two_sum(start, x.high)
    total = two_sum(sum.high, y.high)
    return two_sum(total.high, (sum.low + total.low) + (x.low + y.low))


def log_modulus(z: Complex) -> Num:
    """log |z|, good also near |z| = 1: half the logarithm of x^2 + y^2 in two parts."""
    near, exponent = _scaled(z)
    largest = z.largest()
    # Where no square overflows or underflows z is left as it is: near |z| = 1 nothing may be added.
    plain = (largest > 2.0**-400) & (largest < 2.0**400)
    near = choose(plain, z, near)
    result = log_of_pair(_sum_of_squares(near, z.real.of(0.0))) * 0.5
    result = plain.select(0.0, exponent).fma(0.6931471805599453, result)
    result = z.is_zero().select(-INFINITY, result)
    result = (z.real.is_nan() | z.imag.is_nan()).select(NAN, result)
    return z.is_infinite().select(INFINITY, result)


@complex_function("log", doubles=True)
def log(z: Complex) -> Complex:
    """log |z| + i arg z."""
    return Complex(log_modulus(z), atan2(z.imag, z.real))


@complex_function("log1p", doubles=True)
def log1p(z: Complex) -> Complex:
    """log(1 + z): near 0, its real part is log(1 + (2x + x^2 + y^2)) / 2."""
    moved = z.plus(1.0)
    near = (z.real.abs() < 0.5) & (z.imag.abs() < 4.0)
    zero = z.real.of(0.0)
    small = choose(near, z, Complex(zero, zero))
    v = _sum_of_squares(small, small.real + small.real)
    real = near.select(log_one_plus(v).value() * 0.5, log_modulus(moved))
    return Complex(real, atan2(z.imag, moved.real))


@complex_function("exp")
def exponential(z: Complex) -> Complex:
    """e^x (cos y + i sin y), the power of two put in last: the product may be finite where e^x is not."""
    end = WIDE_RANGE[scalar(z.real)]
    k, _, r = reduce_by_ln2(z.real.min_with(end).max_with(-end))
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
