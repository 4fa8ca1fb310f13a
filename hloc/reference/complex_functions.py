"""Functions of complex numbers in c128, with the answers at infinities, NaNs and zeros of their formulas.

NumPy's own follow C's annex G there, or the machine's vector code; XLA's and native code's come from the
parts: what a formula makes of an infinity or a NaN, but a part that a real operand leaves zero stays zero.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_NAN = complex(np.nan, np.nan)


def join(real: np.ndarray, imag: np.ndarray) -> np.ndarray:
    result = np.empty(np.broadcast(real, imag).shape, np.complex128)
    result.real, result.imag = real, imag
    return result


def _product(size: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """A product that is 0 where the direction is, though the size be infinite or NaN."""
    return np.where((direction == 0) & ~np.isfinite(size), direction, size * direction)


def divide(z: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The quotient, with C's answers for infinities and zeros."""
    a, b, c, d = z.real, z.imag, w.real, w.imag
    quotient = z / w
    zero = (c == 0) & (d == 0)
    endless = np.copysign(np.inf, c)
    quotient = np.where(zero, join(a * endless, b * endless), quotient)
    undefined = np.isnan(quotient.real) & np.isnan(quotient.imag)
    # Infinite by finite is infinite in the direction of the infinite parts, finite by infinite vanishes.
    p, q = _ones(a), _ones(b)
    infinite = join(np.inf * (p * c + q * d), np.inf * (q * c - p * d))
    quotient = np.where(undefined & np.isinf(z) & np.isfinite(w), infinite, quotient)
    r, s = _ones(c), _ones(d)
    vanishing = join(0 * (a * r + b * s), 0 * (b * r - a * s))
    return np.where(undefined & np.isfinite(z) & np.isinf(w), vanishing, quotient)


def _ones(part: np.ndarray) -> np.ndarray:
    """Infinite parts as 1, others as 0, with their signs."""
    return np.copysign(np.where(np.isinf(part), 1.0, 0.0), part)


def modulus(z: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(z), np.nan, np.abs(z))


def sign(z: np.ndarray) -> np.ndarray:
    """A number divided by its modulus; 0 is its own."""
    size = np.where(z == 0, 1.0, modulus(z))
    return np.where(z == 0, z, join(z.real / size, z.imag / size))


def exponential(z: np.ndarray) -> np.ndarray:
    """e^x (cos y + i sin y) in two steps: the product may be finite where e^x is not."""
    half = np.exp(z.real / 2)
    imag = np.where(z.imag == 0, z.imag, half * np.sin(z.imag) * half)
    return join(half * np.cos(z.imag) * half, imag)


def expm1(z: np.ndarray) -> np.ndarray:
    """e^x cos y - 1 = (e^x - 1) cos y - 2 sin^2(y / 2), so that nothing is lost near 0."""
    x, y = z.real, z.imag
    real = np.expm1(x) * np.cos(y) - 2 * np.sin(y / 2) ** 2
    return join(real, np.where(y == 0, y, np.exp(x) * np.sin(y)))


def log1p(z: np.ndarray) -> np.ndarray:
    """log|1 + z| from x (2 + x) + y y, so that nothing is lost near 0."""
    x, y = z.real, z.imag
    near = np.abs(x) < 0.5
    close = 0.5 * np.log1p(np.where(near, x * (2 + x) + y * y, 0))
    return join(np.where(near, close, np.log(np.abs(1 + z))), np.arctan2(y, 1 + x))


def logistic(z: np.ndarray) -> np.ndarray:
    return divide(join(np.ones(z.shape), np.zeros(z.shape)), 1 + exponential(-z))


def sqrt(z: np.ndarray) -> np.ndarray:
    """The principal root; of a negative number on the positive imaginary axis, be its zero -0 or 0."""
    root = np.sqrt(z)
    on_cut = (z.real < 0) & (z.imag == 0)
    root = join(root.real, np.where(on_cut, np.abs(root.imag), root.imag))
    return np.where(np.isnan(z.real), _NAN, root)


def rsqrt(z: np.ndarray) -> np.ndarray:
    """The conjugate of the root by the modulus: of infinities 0, of 0 infinite with no direction."""
    root = np.sqrt(z)
    size = np.abs(root)
    result = join(root.real / size / size, -root.imag / size / size)
    result = np.where(np.isnan(z), _NAN, result)
    result = np.where(np.isinf(z), join(np.copysign(0, z.real), -np.copysign(0, z.imag)), result)
    return np.where(z == 0, complex(np.inf, np.nan), result)


def sine(z: np.ndarray) -> np.ndarray:
    """sin x cosh y + i cos x sinh y."""
    x, y = z.real, z.imag
    return join(_product(np.cosh(y), np.sin(x)), _product(np.cos(x), np.sinh(y)))


def cosine(z: np.ndarray) -> np.ndarray:
    """cos x cosh y - i sin x sinh y."""
    x, y = z.real, z.imag
    return join(np.cosh(y) * np.cos(x), -_product(np.sinh(y), np.sin(x)))


def sinh(z: np.ndarray) -> np.ndarray:
    return _turned(sine, z)


def cosh(z: np.ndarray) -> np.ndarray:
    return cosine(_times_i(z))


def tanh(z: np.ndarray) -> np.ndarray:
    """NumPy's; that of an unbounded angle has no value, unless the real part is infinite too."""
    x, y = z.real, z.imag
    result = np.tanh(z)
    lost = ~np.isfinite(y) & ~np.isinf(x)
    return np.where(lost, _NAN, np.where(np.isnan(x), join(x, np.where(y == 0, y, np.nan)), result))


def tan(z: np.ndarray) -> np.ndarray:
    return _turned(tanh, z)


def _turned(function: Callable[[np.ndarray], np.ndarray], z: np.ndarray) -> np.ndarray:
    """-i f(i z)."""
    value = function(_times_i(z))
    return join(value.imag, -value.real)


def _times_i(z: np.ndarray) -> np.ndarray:
    return join(-z.imag, z.real)


def atan2(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """-i log((x + i y) / sqrt(x x + y y))."""
    return -1j * np.log((x + 1j * y) / np.sqrt(x * x + y * y))


def power(base: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """exp(w log z); anything to the 0 is 1, and 0 to what has a positive real part is 0."""
    size, angle = np.log(modulus(base)), np.angle(base)
    size = np.where(base == 0, 0.0, size)
    w = exponent
    result = exponential(join(w.real * size - w.imag * angle, w.real * angle + w.imag * size))
    infinite = (w.real < 0) & (w.imag == 0)
    at_zero = join(np.where(infinite, np.inf, np.nan), np.where(infinite, 0.0, np.nan))
    at_zero = np.where(w.real > 0, 0, at_zero)
    result = np.where(base == 0, at_zero, result)
    return np.where(w == 0, 1, result)
