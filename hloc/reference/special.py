"""Elementary and special functions, element by element.

Real functions of types up to f32 are computed in f64 and rounded once, so they are correct to within one unit
in the last place; f64 ones are NumPy's (libm's) own. Complex ones are computed in c128.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from hloc.errors import HloError
from hloc.ir.instruction import Instruction
from hloc.reference.context import Context
from hloc.reference.elementwise import power_integers
from hloc.reference.values import common_sizes, narrow, widen, widest

Kernel = Callable[..., np.ndarray]


def function(kernel: Kernel, complex_kernel: Kernel | None = None) -> Callable:
    """The op of a kernel on f64 arrays, and of another on c128 arrays (the same if none is given)."""
    on_complex = complex_kernel or kernel

    def run(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
        dtype = instruction.operands[0].shape.dtype
        wide = [widest(operand, dtype) for operand in common_sizes(instruction, operands)]
        return narrow((on_complex if dtype.is_complex else kernel)(*wide), instruction.shape.dtype)

    return run


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def rsqrt(x: np.ndarray) -> np.ndarray:
    return 1 / np.sqrt(x)


def erf(x: np.ndarray) -> np.ndarray:
    flat = np.fromiter(map(math.erf, x.reshape(-1).tolist()), np.float64, x.size)
    return flat.reshape(x.shape)


def refuse_complex(x: np.ndarray) -> np.ndarray:
    raise HloError("erf of a complex number is not defined")


def complex_cbrt(z: np.ndarray) -> np.ndarray:
    return np.power(z, 1 / 3)


def complex_log1p(z: np.ndarray) -> np.ndarray:
    """log|1 + z| from x (2 + x) + y y, so that nothing is lost near 0."""
    x, y = z.real, z.imag
    near = np.abs(x) < 0.5
    close = 0.5 * np.log1p(np.where(near, x * (2 + x) + y * y, 0))
    return _join(np.where(near, close, np.log(np.abs(1 + z))), np.arctan2(y, 1 + x))


def complex_expm1(z: np.ndarray) -> np.ndarray:
    """e^x cos y - 1 = (e^x - 1) cos y - 2 sin^2(y / 2), so that nothing is lost near 0."""
    x, y = z.real, z.imag
    return _join(np.expm1(x) * np.cos(y) - 2 * np.sin(y / 2) ** 2, np.exp(x) * np.sin(y))


def complex_atan2(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """-i log((x + i y) / sqrt(x x + y y))."""
    return -1j * np.log((x + 1j * y) / np.sqrt(x * x + y * y))


def complex_power(base: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """exp(exponent log base); anything to the 0 is 1, and 0 to what has a positive real part is 0."""
    result = np.exp(exponent * np.log(base))
    result = np.where((base == 0) & (exponent.real > 0), 0, result)
    return np.where(exponent == 0, 1, result)


def _join(real: np.ndarray, imag: np.ndarray) -> np.ndarray:
    result = np.empty(np.shape(real), np.complex128)
    result.real, result.imag = real, imag
    return result


def power(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """By row X16: as C's pow for floats, wrapping for integers."""
    dtype = instruction.shape.dtype
    if dtype.is_integer:
        a, b = (widen(operand, dtype) for operand in common_sizes(instruction, operands))
        return narrow(power_integers(a, b), dtype)
    return _POWER(instruction, operands, context)


_POWER = function(np.power, complex_power)

TABLE: dict[str, Callable] = {
    "acos": function(np.arccos),
    "acosh": function(np.arccosh),
    "asin": function(np.arcsin),
    "asinh": function(np.arcsinh),
    "atan": function(np.arctan),
    "atan2": function(np.arctan2, complex_atan2),
    "atanh": function(np.arctanh),
    "cbrt": function(np.cbrt, complex_cbrt),
    "cosine": function(np.cos),
    "cosh": function(np.cosh),
    "erf": function(erf, refuse_complex),
    "exponential": function(np.exp),
    "exponential-minus-one": function(np.expm1, complex_expm1),
    "log": function(np.log),
    "log-plus-one": function(np.log1p, complex_log1p),
    "logistic": function(logistic),
    "power": power,
    "rsqrt": function(rsqrt),
    "sine": function(np.sin),
    "sinh": function(np.sinh),
    "sqrt": function(np.sqrt),
    "tan": function(np.tan),
    "tanh": function(np.tanh),
}
