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
from hloc.reference import complex_functions
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


def power(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """By row X16: as C's pow for floats, wrapping for integers."""
    dtype = instruction.shape.dtype
    if dtype.is_integer:
        a, b = (widen(operand, dtype) for operand in common_sizes(instruction, operands))
        return narrow(power_integers(a, b), dtype)
    return _POWER(instruction, operands, context)


_POWER = function(np.power, complex_functions.power)

TABLE: dict[str, Callable] = {
    "acos": function(np.arccos),
    "acosh": function(np.arccosh),
    "asin": function(np.arcsin),
    "asinh": function(np.arcsinh),
    "atan": function(np.arctan),
    "atan2": function(np.arctan2, complex_functions.atan2),
    "atanh": function(np.arctanh),
    "cbrt": function(np.cbrt),
    "cosine": function(np.cos, complex_functions.cosine),
    "cosh": function(np.cosh, complex_functions.cosh),
    "erf": function(erf, refuse_complex),
    "exponential": function(np.exp, complex_functions.exponential),
    "exponential-minus-one": function(np.expm1, complex_functions.expm1),
    "log": function(np.log),
    "log-plus-one": function(np.log1p, complex_functions.log1p),
    "logistic": function(logistic, complex_functions.logistic),
    "power": power,
    "rsqrt": function(rsqrt, complex_functions.rsqrt),
    "sine": function(np.sin, complex_functions.sine),
    "sinh": function(np.sinh, complex_functions.sinh),
    "sqrt": function(np.sqrt, complex_functions.sqrt),
    "tan": function(np.tan, complex_functions.tan),
    "tanh": function(np.tanh, complex_functions.tanh),
}
