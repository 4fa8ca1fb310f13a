"""Elementary functions as LLVM IR: inline, free of branches and library calls, so that loops vectorize."""

from . import (  # noqa: F401 (each registers its functions)
    complex_basic,
    complex_functions,
    error_function,
    exponential,
    hyperbolic,
    inverse_trigonometric,
    logarithm,
    power,
    trigonometric,
)
from .functions import FUNCTIONS, call, call_complex, call_inlined

__all__ = ["FUNCTIONS", "call", "call_complex", "call_inlined"]
