"""Trigonometric, hyperbolic, power and other functions of complex numbers, all in double precision.

The inverse functions are Kahan's: "Branch cuts for complex elementary functions" (1987).
"""

from __future__ import annotations

from .complex_basic import divide, exponential, log, log_modulus, modulus, principal_sqrt, sqrt
from .complex_number import Complex, choose
from .exponential import exp
from .expression import Num
from .functions import complex_function
from .hyperbolic import asinh as asinh_real
from .hyperbolic import half_exp
from .hyperbolic import sinh as sinh_real
from .inverse_trigonometric import atan2
from .logarithm import INFINITY, NAN, log1p
from .power import cbrt as cbrt_real
from .trigonometric import sin_cos
from .trigonometric import tan as tan_real


def _cosh_sinh(x: Num) -> tuple[Num, Num]:
    up, down = half_exp(x.abs())
    return up + down, sinh_real(x)


def _product(size: Num, direction: Num) -> Num:
    """A product that is 0 where the direction is, though the size be infinite or NaN."""
    endless = ~(size.abs() < INFINITY)
    return (direction.equals(0.0) & endless).select(direction, size * direction)


@complex_function("sin", doubles=True)
def sin(z: Complex) -> Complex:
    """sin x cosh y + i cos x sinh y."""
    sine, cosine = sin_cos(z.real)
    up, down = _cosh_sinh(z.imag)
    return Complex(_product(up, sine), _product(cosine, down))


@complex_function("cos", doubles=True)
def cos(z: Complex) -> Complex:
    """cos x cosh y - i sin x sinh y."""
    sine, cosine = sin_cos(z.real)
    up, down = _cosh_sinh(z.imag)
    return Complex(up * cosine, -_product(down, sine))


@complex_function("sinh", doubles=True)
def sinh(z: Complex) -> Complex:
    """-i sin(i z)."""
    turned = sin(z.times_i())
    return Complex(turned.imag, -turned.real)


@complex_function("cosh", doubles=True)
def cosh(z: Complex) -> Complex:
    """cos(i z)."""
    return cos(z.times_i())


@complex_function("tanh", doubles=True)
def tanh(z: Complex) -> Complex:
    """(b r s + i t) / (1 + b s^2), where t = tan y, s = sinh x, b = 1 + t^2, r = sqrt(1 + s^2)."""
    x = z.real.abs().min_with(20.0).copysign(z.real)
    t = tan_real(z.imag)
    s = sinh_real(x)
    b = t.fma(t, 1.0)
    r = s.fma(s, 1.0).sqrt()
    below = (b * s).fma(s, 1.0)
    # tanh of a real number stays real.
    real, imag = b * r * s / below, z.imag.equals(0.0).select(z.imag, t / below)
    infinite = z.real.abs().equals(INFINITY)
    sine, cosine = sin_cos(z.imag)
    far_imag = sine * cosine * 4.0 * exp(z.real.abs() * -2.0)
    bounded = z.imag.abs() < INFINITY
    far_imag = (infinite & ~bounded).select(far_imag.of(0.0).copysign(z.imag), far_imag)
    known = infinite | bounded
    far_real = known.select(z.real.of(1.0).copysign(z.real), NAN)
    return choose(z.real.abs() > 20.0, Complex(far_real, far_imag), Complex(real, imag))


@complex_function("tan", doubles=True)
def tan(z: Complex) -> Complex:
    """-i tanh(i z)."""
    turned = tanh(z.times_i())
    return Complex(turned.imag, -turned.real)


@complex_function("logistic", doubles=True)
def logistic(z: Complex) -> Complex:
    """1 / (1 + exp(-z))."""
    return divide(Complex(z.real.of(1.0), z.real.of(0.0)), exponential(-z).plus(1.0))


@complex_function("cbrt", doubles=True)
def cbrt(z: Complex) -> Complex:
    """The cube root with a third of the argument."""
    size = cbrt_real(modulus(z).real)
    sine, cosine = sin_cos(atan2(z.imag, z.real) * (1.0 / 3.0))
    return choose(z.is_zero(), z, Complex(size * cosine, size * sine))


@complex_function("power", doubles=True)
def power(base: Complex, exponent: Complex) -> Complex:
    """exp(w log z); anything to the 0 is 1, and 0 to what has a positive real part is 0."""
    size, angle = log_modulus(base), atan2(base.imag, base.real)
    size = base.is_zero().select(0.0, size)
    result = exponential(exponent * Complex(size, angle))
    zero, one = size.of(0.0), size.of(1.0)
    to_positive = exponent.real > 0.0
    at_zero = to_positive.select(zero, NAN)
    infinite = (exponent.real < 0.0) & exponent.imag.equals(0.0)
    at_zero = infinite.select(INFINITY, at_zero)
    result = choose(base.is_zero(), Complex(at_zero, (to_positive | infinite).select(zero, at_zero)), result)
    return choose(exponent.is_zero(), Complex(one, zero), result)


@complex_function("atan2", doubles=True)
def arctan_of_quotient(y: Complex, x: Complex) -> Complex:
    """-i log((x + i y) / sqrt(x^2 + y^2))."""
    result = log(divide(x + y.times_i(), sqrt(x * x + y * y)))
    return Complex(result.imag, -result.real)


HUGE = 2.0**60
HALF_PI = 1.5707963267948966


def _roots_around_one(z: Complex) -> tuple[Complex, Complex]:
    """sqrt(1 - z) and sqrt(1 + z)."""
    return principal_sqrt((-z).plus(1.0)), principal_sqrt(z.plus(1.0))


def _log_of_double(z: Complex) -> Num:
    """log |2 z|: of huge numbers, the modulus's part in the inverse functions."""
    return log_modulus(z) + 0.6931471805599453


@complex_function("asin", doubles=True)
def asin(z: Complex) -> Complex:
    """Arc sine."""
    less, more = _roots_around_one(z)
    result = Complex(atan2(z.real, (less * more).real), asinh_real((less.conjugate() * more).imag))
    huge = Complex(atan2(z.real, z.imag.abs()), _log_of_double(z).copysign(z.imag))
    return choose(z.largest() > HUGE, huge, result)


@complex_function("acos", doubles=True)
def acos(z: Complex) -> Complex:
    """Arc cosine."""
    less, more = _roots_around_one(z)
    imag = asinh_real((more.conjugate() * less).imag)
    result = Complex(atan2(less.real, more.real) * 2.0, imag)
    huge = Complex(atan2(z.imag.abs(), z.real), -_log_of_double(z).copysign(z.imag))
    return choose(z.largest() > HUGE, huge, result)


@complex_function("acosh", doubles=True)
def acosh(z: Complex) -> Complex:
    """Inverse hyperbolic cosine."""
    less, more = principal_sqrt(z.plus(-1.0)), principal_sqrt(z.plus(1.0))
    real = asinh_real((less.conjugate() * more).real)
    result = Complex(real, atan2(less.imag, more.real) * 2.0)
    huge = Complex(_log_of_double(z), atan2(z.imag, z.real))
    return choose(z.largest() > HUGE, huge, result)


@complex_function("asinh", doubles=True)
def asinh(z: Complex) -> Complex:
    """-i asin(i z)."""
    turned = asin(z.times_i())
    return Complex(turned.imag, -turned.real)


@complex_function("atanh", doubles=True)
def atanh(z: Complex) -> Complex:
    """log((1 + z) / (1 - z)) / 2, for the real part's magnitude by way of |x|."""
    x, y = z.real.abs(), z.imag
    distance = (1.0 - x) * (1.0 - x) + y * y
    real = log1p(x * 4.0 / distance) * 0.25
    # Very close to 1 the squares underflow.
    close = log_modulus(Complex((1.0 - x) * 0.5, y * 0.5)) * -0.5
    real = (distance < 2.0**-200).select(close, real)
    imag = atan2(y + y, (1.0 - x) * (x + 1.0) - y * y) * 0.5
    huge = Complex(x.of(0.0), x.of(HALF_PI).copysign(y))
    result = choose((z.largest() > 2.0**500) & ~y.is_nan(), huge, Complex(real, imag))
    return Complex(result.real.copysign(z.real), result.imag)


@complex_function("atan", doubles=True)
def atan(z: Complex) -> Complex:
    """-i atanh(i z)."""
    turned = atanh(z.times_i())
    return Complex(turned.imag, -turned.real)
