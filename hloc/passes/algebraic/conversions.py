"""Rules of convert, bitcast-convert, and the parts of complex numbers."""

from __future__ import annotations

from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.passes.algebraic.rules import rule
from hloc.passes.emit import Emit


@rule("convert", "bitcast-convert")
def drop_same_type(instruction: Instruction) -> Instruction | None:
    """convert(x) = x to the type that x has"""
    operand = instruction.operands[0]
    return operand if operand.shape.dtype is instruction.shape.dtype else None


@rule("convert")
def join_converts(instruction: Instruction) -> Instruction | None:
    """convert(convert(x)) = convert(x), if the type in the middle has every value of the first exactly

    Not back to a float type with as wide an exponent as f32: there the way over the middle flushes denormals.
    """
    inner = instruction.operands[0]
    if inner.opcode != "convert":
        return None
    value = inner.operands[0]
    first, middle, last = value.shape.dtype, inner.shape.dtype, instruction.shape.dtype
    if not _holds_all(middle, first) or (first is last and first.exponent_bits >= 8):
        return None
    return Emit.at(instruction).convert(value, last)


def _holds_all(wide: DType, narrow: DType) -> bool:
    """Whether every value of `narrow` is one of `wide`, infinities and NaN included."""
    if narrow.kind == "predicate":
        return wide.is_integer or wide.is_float
    if narrow.is_integer and wide.is_integer:
        signs = narrow.is_signed == wide.is_signed or (wide.is_signed and narrow.bits < wide.bits)
        return signs and narrow.bits <= wide.bits
    if narrow.is_integer and wide.is_float:
        return wide.name in ("f16", "bf16", "f32", "f64") and narrow.bits <= wide.mantissa_bits + 1
    if narrow.is_float and wide.is_float:
        more = narrow.exponent_bits <= wide.exponent_bits and narrow.mantissa_bits <= wide.mantissa_bits
        return more and wide.name in ("f16", "f32", "f64") and wide.bits > narrow.bits
    return False


@rule("bitcast-convert")
def join_bitcasts(instruction: Instruction) -> Instruction | None:
    """bitcast-convert(bitcast-convert(x)) = bitcast-convert(x) between types of one width"""
    inner = instruction.operands[0]
    if inner.opcode != "bitcast-convert":
        return None
    value = inner.operands[0]
    if value.shape.dims != inner.shape.dims or inner.shape.dims != instruction.shape.dims:
        return None
    if value.shape.dtype.bits != instruction.shape.dtype.bits:
        return None
    return Emit.at(instruction).bitcast_convert(value, instruction.shape.dtype)


@rule("real", "imag")
def part_of_complex(instruction: Instruction) -> Instruction | None:
    """real(complex(a, b)) = a; imag(complex(a, b)) = b"""
    inner = instruction.operands[0]
    if inner.opcode != "complex":
        return None
    return inner.operands[0 if instruction.opcode == "real" else 1]


@rule("complex")
def complex_of_parts(instruction: Instruction) -> Instruction | None:
    """complex(real(x), imag(x)) = x"""
    real, imag = instruction.operands
    if real.opcode != "real" or imag.opcode != "imag" or real.operands != imag.operands:
        return None
    value = real.operands[0]
    return value if value.shape.dtype is instruction.shape.dtype else None
