"""Rules of convert, bitcast-convert, and the parts of complex numbers."""

from __future__ import annotations

from hloc.ir.instruction import Instruction
from hloc.passes.algebraic.facts import holds_all, is_plain_float, limits
from hloc.passes.algebraic.rules import rule
from hloc.passes.emit import Emit
from hloc.passes.patterns import bind, op

x = bind("x")


@rule("convert", "bitcast-convert")
def drop_same_type(instruction: Instruction) -> Instruction | None:
    """convert(x) = x to the type that x has"""
    operand = instruction.operands[0]
    return operand if operand.shape.dtype is instruction.shape.dtype else None


@rule("convert")
def join_converts(instruction: Instruction) -> Instruction | None:
    """convert(convert(x)) = convert(x), if the type in the middle has every value of the first exactly

    Also where that is the last one again, as XLA has it by default: the way over the middle would flush
    denormals. But a float becomes the nearest integer of a type, where an integer wraps around.
    """
    inner = instruction.operands[0]
    if inner.opcode != "convert":
        return None
    value = inner.operands[0]
    first, middle, last = value.shape.dtype, inner.shape.dtype, instruction.shape.dtype
    wraps = last.is_integer and not first.is_float and not holds_all(last, first)
    if not holds_all(middle, first) or (middle.is_float and wraps):
        return None
    return Emit.at(instruction).convert(value, last)


@rule(op("convert", op("iota")))
def convert_of_iota(instruction: Instruction) -> Instruction | None:
    """convert(iota) = iota of the other type, if that has every number of it exactly"""
    inner, dtype = instruction.operands[0], instruction.shape.dtype
    along = inner.attributes["iota_dimension"]
    last = inner.shape.dims[along] - 1
    own = inner.shape.dtype
    if not (own.is_integer and (dtype.is_integer or is_plain_float(dtype) or dtype.name == "bf16")):
        return None
    most = min(2 ** (t.mantissa_bits + 1) if t.is_float else limits(t)[1] for t in (own, dtype))
    return Emit.at(instruction).iota(dtype, instruction.shape.dims, along) if last <= most else None


@rule(op("reduce-precision", x))
def drop_reduce_precision(instruction: Instruction, x: Instruction) -> Instruction | None:
    """reduce-precision(x) = x to a format as wide as that of x, or of what x was converted from or reduced to"""
    kept = instruction.attributes["exponent_bits"], instruction.attributes["mantissa_bits"]
    source = x.operands[0].shape.dtype if x.opcode == "convert" else x.shape.dtype
    own = source.exponent_bits, source.mantissa_bits
    if x.opcode == "reduce-precision":
        own = x.attributes["exponent_bits"], x.attributes["mantissa_bits"]
    elif not source.is_float or source.name not in ("f16", "bf16", "f32", "f64"):
        return None
    return x if own[0] <= kept[0] and own[1] <= kept[1] else None


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
