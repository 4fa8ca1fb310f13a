"""Complex ops on pairs (real, imaginary)."""

from __future__ import annotations

from collections.abc import Callable

from hloc.codegen import math
from hloc.codegen.llvm import Builder
from hloc.codegen.math.complex_number import Complex
from hloc.codegen.math.expression import Num
from hloc.ir.dtypes import DType

from .scalar_types import Register

Function = Callable[..., Register]

# HLO's names, and those of hloc.codegen.math where they differ.
_CALLED = {
    "acos": "acos",
    "acosh": "acosh",
    "asin": "asin",
    "asinh": "asinh",
    "atan": "atan",
    "atan2": "atan2",
    "atanh": "atanh",
    "cbrt": "cbrt",
    "cosh": "cosh",
    "cosine": "cos",
    "divide": "divide",
    "exponential": "exp",
    "exponential-minus-one": "expm1",
    "log": "log",
    "log-plus-one": "log1p",
    "logistic": "logistic",
    "power": "power",
    "rsqrt": "rsqrt",
    "sign": "sign",
    "sine": "sin",
    "sinh": "sinh",
    "sqrt": "sqrt",
    "tan": "tan",
    "tanh": "tanh",
}


def _called(name: str) -> Function:
    def run(b: Builder, dtype: DType, *operands: Register) -> Register:
        return math.call_complex(b, name, operands)

    return run


def _inline(function: Callable[..., Complex]) -> Function:
    def run(b: Builder, dtype: DType, *operands: Register) -> Register:
        result = function(*[Complex(Num(b, real), Num(b, imag)) for real, imag in operands])
        return result.real.v, result.imag.v

    return run


def _modulus(b: Builder, dtype: DType, z: Register) -> Register:
    """A real number."""
    return math.call_complex(b, "abs", [z])[0]


COMPLEXES: dict[str, Function] = {
    "abs": _modulus,
    "add": _inline(lambda z, w: z + w),
    "multiply": _inline(lambda z, w: z * w),
    "negate": _inline(lambda z: -z),
    "subtract": _inline(lambda z, w: z - w),
    **{opcode: _called(name) for opcode, name in _CALLED.items()},
}
