"""Rules of sums, products, quotients and signs."""

from __future__ import annotations

from hloc.ir.instruction import Instruction
from hloc.passes.algebraic.facts import as_scalar, is_never_negative, is_normal
from hloc.passes.algebraic.rules import rule
from hloc.passes.emit import Emit
from hloc.passes.patterns import bind, constant, one_use, op, splat, splat_value, unknown

x, y = bind("x"), bind("y")
c, d = constant("c"), constant("d")


@rule(op("multiply", x, splat(1)), op("divide", x, splat(1)))
def multiply_by_one(instruction: Instruction, x: Instruction) -> Instruction | None:
    """x * 1 = x / 1 = x, but for complex numbers, where b * 0 is a term that may be NaN"""
    return None if instruction.shape.dtype.is_complex else x


@rule(op("multiply", x, splat(-1)), op("divide", x, splat(-1)))
def multiply_by_minus_one(instruction: Instruction, x: Instruction) -> Instruction | None:
    """x * -1 = x / -1 = -x; exact for floats"""
    return None if instruction.shape.dtype.is_complex else Emit.at(instruction).map("negate", x)


@rule(op("add", x, constant("zero")))
def add_zero(instruction: Instruction, x: Instruction, zero: Instruction) -> Instruction | None:
    """x + 0 = x; for floats -0 + 0 would be 0, but XLA drops the zero by default"""
    return x if splat_value(zero) == 0 and not instruction.shape.dtype.is_complex else None


@rule("subtract")
def subtract_zero(instruction: Instruction) -> Instruction | None:
    """x - 0 = x; for integers x - x = 0"""
    left, right = instruction.operands
    dtype = instruction.shape.dtype
    known = splat_value(right)
    if known is not None and known == 0 and not dtype.is_complex and not str(known).startswith("-"):
        return left
    if left is right and dtype.is_integer:
        return Emit.at(instruction).full(0, instruction.shape)
    return None


@rule(op("subtract", constant("zero"), x))
def subtract_from_zero(instruction: Instruction, zero: Instruction, x: Instruction) -> Instruction | None:
    """0 - x = -x for integers; for floats -0 - x = -x, while 0 - 0 is 0"""
    known, dtype = splat_value(zero), instruction.shape.dtype
    if known != 0 or dtype.is_complex or (dtype.is_float and not str(known).startswith("-")):
        return None
    return Emit.at(instruction).map("negate", x)


@rule(op("multiply", x, splat(0)))
def multiply_by_zero(instruction: Instruction, x: Instruction) -> Instruction | None:
    """x * 0 = 0 for integers; a float may be NaN or infinite"""
    return Emit.at(instruction).full(0, instruction.shape) if instruction.shape.dtype.is_integer else None


@rule(op("negate", op("negate", x)))
def negate_twice(instruction: Instruction, x: Instruction) -> Instruction | None:
    """-(-x) = x"""
    return x


@rule(op("negate", one_use(op("subtract", x, y))))
def negate_difference(instruction: Instruction, x: Instruction, y: Instruction) -> Instruction | None:
    """-(x - y) = y - x for integers; for floats 0 would lose its sign"""
    return Emit.at(instruction).map("subtract", y, x) if instruction.shape.dtype.is_integer else None


@rule("abs")
def abs_of_sign(instruction: Instruction) -> Instruction | None:
    """abs(x) = x for x that is never negative; abs(-x) = abs(x)"""
    inner = instruction.operands[0]
    if inner.shape.dtype is instruction.shape.dtype and is_never_negative(inner):
        return inner
    if inner.opcode == "negate" and not inner.shape.dtype.is_complex:
        return Emit.at(instruction).map("abs", inner.operands[0])
    return None


@rule(op("add", x, op("negate", y)))
def add_negated(instruction: Instruction, x: Instruction, y: Instruction) -> Instruction | None:
    """x + -y = x - y; exact for floats, signs of zero included"""
    return Emit.at(instruction).map("subtract", x, y)


@rule(op("subtract", x, op("negate", y)))
def subtract_negated(instruction: Instruction, x: Instruction, y: Instruction) -> Instruction | None:
    """x - -y = x + y; exact for floats"""
    return Emit.at(instruction).map("add", x, y)


@rule(op("multiply|divide", op("negate", x), op("negate", y)))
def product_of_negated(instruction: Instruction, x: Instruction, y: Instruction) -> Instruction | None:
    """-x * -y = x * y; -x / -y = x / y for floats (of integers, the least one has no opposite)"""
    dtype = instruction.shape.dtype
    if dtype.is_complex or (instruction.opcode == "divide" and not dtype.is_float):
        return None
    return Emit.at(instruction).map(instruction.opcode, x, y)


@rule(op("subtract", op("add", x, y), x), op("add", op("subtract", y, x), x))
def add_and_subtract(instruction: Instruction, x: Instruction, y: Instruction) -> Instruction | None:
    """x + y - x = y and y - x + x = y for integers, which wrap both ways"""
    return y if instruction.shape.dtype.is_integer else None


@rule(op("subtract", op("add", unknown("x"), c), d), op("add", op("subtract", unknown("x"), c), d))
def join_opposite_terms(
    instruction: Instruction, x: Instruction, c: Instruction, d: Instruction
) -> Instruction | None:
    """x + c - d = x + (c - d) and x - c + d = x - (c - d) for integers; floats would round otherwise"""
    if not instruction.shape.dtype.is_integer:
        return None
    emit = Emit.at(instruction)
    term = emit.map("subtract", as_scalar(emit, c), as_scalar(emit, d))
    inner = "subtract" if instruction.opcode == "add" else "add"
    return emit.map(inner, x, emit.broadcast(term, instruction.shape.dims))


@rule(op("subtract", op("subtract", unknown("x"), c), d))
def join_subtracted(
    instruction: Instruction, x: Instruction, c: Instruction, d: Instruction
) -> Instruction | None:
    """x - c - d = x - (c + d) for integers"""
    if not instruction.shape.dtype.is_integer:
        return None
    emit = Emit.at(instruction)
    term = emit.map("add", as_scalar(emit, c), as_scalar(emit, d))
    return emit.map("subtract", x, emit.broadcast(term, instruction.shape.dims))


_ASSOCIATIVE = "add|multiply|and|or|xor|minimum|maximum"


@rule(*(op(name, op(name, unknown("x"), c), d) for name in _ASSOCIATIVE.split("|")))
def join_constants(
    instruction: Instruction, x: Instruction, c: Instruction, d: Instruction
) -> Instruction | None:
    """f(f(x, c), d) = f(x, f(c, d)) for an associative f

    Exact for integers and for bounds. Products of floats round once in place of twice, as XLA has it too; only
    where c * d is neither infinite nor tiny. Sums of floats are left alone: 1e8 and -1e8 would take x with them.
    """
    dtype, opcode = instruction.shape.dtype, instruction.opcode
    if not dtype.is_integer and opcode in ("add", "multiply"):
        if not dtype.is_float or opcode == "add":
            return None
        if not is_normal(float(splat_value(c)) * float(splat_value(d)), dtype):
            return None
    emit = Emit.at(instruction)
    both = emit.map(opcode, as_scalar(emit, c), as_scalar(emit, d))
    return emit.map(opcode, x, emit.broadcast(both, instruction.shape.dims))


@rule(op("divide", unknown("x"), c))
def divide_by_constant(instruction: Instruction, x: Instruction, c: Instruction) -> Instruction | None:
    """x / c = x * (1 / c) for floats: exact for powers of two, else one more rounding, as XLA has it by default

    Only where 1 / c is neither infinite nor tiny.
    """
    dtype = instruction.shape.dtype
    if not dtype.is_float or dtype.bits < 16:
        return None
    value = float(splat_value(c))
    if value == 0 or not is_normal(1 / value, dtype) or not is_normal(value, dtype):
        return None
    emit = Emit.at(instruction)
    inverse = emit.map("divide", emit.scalar(1, dtype), as_scalar(emit, c))
    return emit.map("multiply", x, emit.broadcast(inverse, instruction.shape.dims))


_Z_TIMES_Y = one_use(op("multiply", bind("z"), y))


@rule(*(op("add|subtract", one_use(op("multiply", *pair)), _Z_TIMES_Y) for pair in ((x, y), (y, x))))
def factor_out(
    instruction: Instruction, x: Instruction, y: Instruction, z: Instruction
) -> Instruction | None:
    """x * y + z * y = (x + z) * y for integers, which wrap both ways"""
    if not instruction.shape.dtype.is_integer:
        return None
    emit = Emit.at(instruction)
    return emit.map("multiply", emit.map(instruction.opcode, x, z), y)
