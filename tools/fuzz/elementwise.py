"""Recipes: ops that work element by element."""

from __future__ import annotations

from hloc.ir import dtypes
from hloc.ir.instruction import Instruction
from hloc.ir.shape_inference import infer_shape
from hloc.ir.shapes import ArrayShape
from tools.fuzz.maker import Maker
from tools.fuzz.values import ANY, COMPLEXES, FLOATS, INTEGERS, NUMBERS, PRED, SIGNED, WIDE_FLOATS

FUNCTIONS = (
    "cosine", "erf", "cbrt", "exponential", "exponential-minus-one",
    "log", "log-plus-one", "logistic", "rsqrt",
    "sine", "sqrt", "tan", "tanh",
)  # fmt: skip
NOT_IN_XLA = ("acos", "acosh", "asin", "asinh", "atan", "atanh", "cosh", "sinh")
UNARY = {
    "abs": SIGNED + FLOATS + COMPLEXES,
    "ceil": FLOATS,
    "floor": FLOATS,
    "round-nearest-afz": FLOATS,
    "round-nearest-even": FLOATS,
    "is-finite": FLOATS,
    "negate": NUMBERS,
    "sign": SIGNED + FLOATS + COMPLEXES,
    "not": INTEGERS + PRED,
    "popcnt": INTEGERS,
    "count-leading-zeros": INTEGERS,
    "real": FLOATS + COMPLEXES,
    "imag": FLOATS + COMPLEXES,
}
BINARY = {
    "add": ANY,
    "subtract": NUMBERS,
    "multiply": ANY,
    "divide": NUMBERS,
    "remainder": INTEGERS + FLOATS,
    "maximum": INTEGERS + FLOATS + PRED,
    "minimum": INTEGERS + FLOATS + PRED,
    "and": INTEGERS + PRED,
    "or": INTEGERS + PRED,
    "xor": INTEGERS + PRED,
    "power": INTEGERS + FLOATS,
    "atan2": FLOATS,
    "shift-left": INTEGERS,
    "shift-right-arithmetic": INTEGERS,
    "shift-right-logical": INTEGERS,
}


def unary(m: Maker) -> Instruction:
    opcode = m.draw.choice(UNARY)
    operand = m.operand(UNARY[opcode])
    if opcode == "ceil" and operand.shape.dtype is dtypes.F8E8M0FNU:
        opcode = "floor"  # a type without zero, whose least number is denormal in f32: LLVM may see 1 or NaN
    if opcode == "count-leading-zeros" and operand.shape.dtype.is_signed:
        m.portable = False  # XLA folds that of a negative constant to a negative number
    if opcode == "popcnt" and operand.shape.dtype.is_signed and operand.shape.dtype.is_subbyte:
        m.portable = False  # XLA counts the bits of the sign's extension too
    if opcode == "imag" and operand.shape.dtype is dtypes.F8E8M0FNU:
        m.portable = False  # a type without zero: the nearest number here, NaN in XLA
    return m.b.op(opcode, operand)


def function(m: Maker) -> Instruction:
    opcode = m.draw.choice(FUNCTIONS + NOT_IN_XLA, [4] * len(FUNCTIONS) + [1] * len(NOT_IN_XLA))
    if opcode in NOT_IN_XLA:
        m.portable = False
    if opcode == "cbrt" and m.draw.chance(0.5):
        m.portable = False  # XLA's root of a denormal is about -6e-16
    elif opcode == "cbrt":
        return m.b.op(opcode, m.value(m.draw.dtype(FLOATS), m.draw.dims(), "wide"))
    complex_types = () if opcode in ("erf", "cbrt") else COMPLEXES
    return m.b.op(opcode, m.operand(WIDE_FLOATS * 3 + FLOATS + complex_types))


def binary(m: Maker) -> Instruction:
    opcode = m.draw.choice(BINARY)
    left = m.operand(BINARY[opcode])
    if opcode == "power" and left.shape.dtype.is_integer:
        # XLA goes wrong from exponents of 64 on, and takes those of unsigned types as signed.
        return m.b.op(opcode, left, m.value(left.shape.dtype, left.shape.dims, "whole"))
    right = m.value(left.shape.dtype, left.shape.dims)
    if opcode == "power":
        m.portable = False  # XLA takes denormal exponents for fractions, so powers of negative numbers are NaN
    if opcode == "atan2" and right is left:
        m.portable = False  # XLA's of two denormals is NaN
    left, right = m.draw.shuffled((left, right))
    return m.b.op(opcode, left, right)


def mulhi(m: Maker) -> Instruction:
    m.portable = False
    left = m.operand(INTEGERS)
    return m.b.op("mulhi", left, m.value(left.shape.dtype, left.shape.dims))


def compare(m: Maker) -> Instruction:
    direction = m.draw.choice(("EQ", "NE", "GE", "GT", "LE", "LT"))
    if m.draw.chance(0.2):
        dtype, dims = m.draw.dtype(FLOATS), m.draw.dims()
        pair = [m.value(dtype, dims, fresh=True) for _ in range(2)]
        return m.b.op("compare", *pair, direction=direction, type="TOTALORDER")
    left = m.operand(ANY)
    if left.shape.dtype.is_complex:
        direction = m.draw.choice(("EQ", "NE"))
    return m.b.op("compare", left, m.value(left.shape.dtype, left.shape.dims), direction=direction)


def select(m: Maker) -> Instruction:
    chosen = m.operand(ANY)
    dims = () if m.draw.chance(0.2) else chosen.shape.dims
    predicate = m.value(dtypes.PRED, dims)
    return m.b.op("select", predicate, chosen, m.value(chosen.shape.dtype, chosen.shape.dims))


def clamp(m: Maker) -> Instruction:
    middle = m.operand(INTEGERS + FLOATS)
    bounds = [m.value(middle.shape.dtype, m.draw.choice(((), middle.shape.dims))) for _ in range(2)]
    return m.b.op("clamp", bounds[0], middle, bounds[1])


def convert(m: Maker) -> Instruction:
    source = m.operand(ANY)
    if source.shape.dtype is dtypes.F4E2M1FN:
        m.portable = False  # XLA takes its greatest number for an infinity
    return m.b.convert(source, m.draw.dtype(COMPLEXES if source.shape.dtype.is_complex else ANY))


def bitcast_convert(m: Maker) -> Instruction:
    """Of a leaf: bits of computed NaNs are nobody's promise."""
    source, target = m.draw.dtype(), m.draw.dtype()
    fits = not max(source.bits, target.bits) % min(source.bits, target.bits)
    if dtypes.PRED in (source, target) or source.is_complex != target.is_complex or not fits:
        target = source
    dims = m.draw.dims(0, 3)
    if target.bits > source.bits:
        dims = (*dims, target.bits // source.bits)
    if source.bits != target.bits and min(source.bits, target.bits) < 8:
        m.portable = False  # XLA folds that of a constant to other halves of bytes
    operand = m.value(source, dims, m.draw.choice(("tame", "wide")), fresh=True)
    shape = infer_shape("bitcast-convert", [operand.shape], {}, ArrayShape(target))
    return m.b.op("bitcast-convert", operand, shape=shape)


def reduce_precision(m: Maker) -> Instruction:
    operand = m.operand(WIDE_FLOATS)
    exponent, mantissa = m.draw.integer(1, 11), m.draw.integer(0, 52)
    return m.b.op("reduce-precision", operand, exponent_bits=exponent, mantissa_bits=mantissa)


def complex_number(m: Maker) -> Instruction:
    real = m.operand((dtypes.F32, dtypes.F64))
    return m.b.op("complex", real, m.value(real.shape.dtype, real.shape.dims))


def map_(m: Maker) -> Instruction:
    """A computation of scalars, itself made of recipes."""
    first = m.operand(ANY)
    dims = first.shape.dims
    operands = [first] + [m.value(m.draw.dtype(), dims) for _ in range(m.draw.integer(0, 2))]

    def body(parameters: list[Instruction]) -> Instruction:
        for _ in range(m.draw.integer(1, 4)):
            m.pool.append(m.draw.choice((unary, binary, compare, select, convert, clamp))(m))
        return next(v for v in reversed(m.pool) if v.shape.is_array and not v.shape.dims)

    function = m.scalars("mapped", [o.shape.dtype for o in operands], body)
    return m.b.op("map", *operands, to_apply=function, dimensions=tuple(range(len(dims))))


def stochastic_convert(m: Maker) -> Instruction:
    m.portable = False
    source = m.operand((dtypes.F16, dtypes.BF16, dtypes.F32, dtypes.F64))
    bits = {16: dtypes.U16, 32: dtypes.U32, 64: dtypes.U64}[source.shape.dtype.bits]
    target = m.draw.dtype(SIGNED + tuple(f for f in FLOATS if f.bits < source.shape.dtype.bits))
    return m.b.op(
        "stochastic-convert", source, m.value(bits, source.shape.dims), shape=source.shape.with_dtype(target)
    )


RECIPES = {
    unary: 5, function: 4, binary: 10, mulhi: 0.3, compare: 2, select: 2, clamp: 1.5, convert: 3,
    bitcast_convert: 1.5,
    reduce_precision: 0.6, complex_number: 0.6, map_: 1, stochastic_convert: 0.2,
}  # fmt: skip
