"""LLVM IR as text: a thin builder whose cost is a string per instruction.

`Module` and `Function` hold, `Builder` appends; types are LLVM's own spelling, values a type and a name.
"""

from .builder import Builder
from .module import Block, Callee, Function, Module, Phi
from .values import (
    Constant,
    Value,
    bit_width,
    const,
    float_from_bits,
    integer,
    is_float,
    lane_count,
    mangled,
    poison,
    scalar_type,
    vector_type,
    with_scalar,
    zero,
)

__all__ = [
    "Block",
    "Builder",
    "Callee",
    "Constant",
    "Function",
    "Module",
    "Phi",
    "Value",
    "bit_width",
    "const",
    "float_from_bits",
    "integer",
    "is_float",
    "lane_count",
    "mangled",
    "poison",
    "scalar_type",
    "vector_type",
    "with_scalar",
    "zero",
]
