"""Rules of powers, roots, exponentials and logarithms."""

from __future__ import annotations

from hloc.ir.instruction import Instruction
from hloc.passes.algebraic.facts import is_never_negative
from hloc.passes.algebraic.rules import rule
from hloc.passes.emit import Emit
from hloc.passes.patterns import bind, is_splat, one_use, op, splat

x, y = bind("x"), bind("y")


@rule(op("power", x, splat(0)))
def power_of_zero(instruction: Instruction, x: Instruction) -> Instruction | None:
    """x ^ 0 = 1, NaN and infinities included"""
    if instruction.shape.dtype.is_complex:
        return None
    return Emit.at(instruction).full(1, instruction.shape)


@rule("power")
def small_power(instruction: Instruction) -> Instruction | None:
    """x ^ 1 = x; x ^ 2 = x * x, which rounds once as the power should; x ^ 3 = x * x * x as XLA has it by default"""
    base, exponent = instruction.operands
    if instruction.shape.dtype.is_complex:
        return None
    if is_splat(exponent, 1):
        return base
    emit = Emit.at(instruction)
    if is_splat(exponent, 2):
        return emit.map("multiply", base, base)
    return emit.map("multiply", base, emit.map("multiply", base, base)) if is_splat(exponent, 3) else None


@rule(op("power", x, splat(-1)))
def power_of_minus_one(instruction: Instruction, x: Instruction) -> Instruction | None:
    """x ^ -1 = 1 / x for floats, which rounds once as the power should"""
    if not instruction.shape.dtype.is_float:
        return None
    emit = Emit.at(instruction)
    return emit.map("divide", emit.full(1, instruction.shape), x)


@rule(op("power", x, splat(0.5)))
def power_of_half(instruction: Instruction, x: Instruction) -> Instruction | None:
    """x ^ 0.5 = sqrt(x) where x is never negative: of -0 and -inf the two differ"""
    if not instruction.shape.dtype.is_float or not is_never_negative(x):
        return None
    return Emit.at(instruction).map("sqrt", x)


@rule(op("divide", splat(1), one_use(op("sqrt", x))))
def inverse_of_root(instruction: Instruction, x: Instruction) -> Instruction | None:
    """1 / sqrt(x) = rsqrt(x) as XLA has it by default"""
    if not instruction.shape.dtype.is_float or instruction.operands[1].attributes:
        return None
    return Emit.at(instruction).map("rsqrt", x)


@rule(op("divide", x, one_use(op("rsqrt", y))))
def divide_by_inverse_root(instruction: Instruction, x: Instruction, y: Instruction) -> Instruction | None:
    """x / rsqrt(y) = x * sqrt(y) as XLA has it by default: a rounding less"""
    if not instruction.shape.dtype.is_float or instruction.operands[1].attributes:
        return None
    emit = Emit.at(instruction)
    return emit.map("multiply", x, emit.map("sqrt", y))


@rule(op("divide", x, one_use(op("exponential", y))))
def divide_by_exponential(instruction: Instruction, x: Instruction, y: Instruction) -> Instruction | None:
    """x / exp(y) = x * exp(-y) as XLA has it by default: one rounding as before, and no division"""
    if not instruction.shape.dtype.is_float or instruction.operands[1].attributes:
        return None
    emit = Emit.at(instruction)
    return emit.map("multiply", x, emit.map("exponential", emit.map("negate", y)))


@rule(op("log", op("exponential", x)))
def log_of_exponential(instruction: Instruction, x: Instruction) -> Instruction | None:
    """log(exp(x)) = x as XLA has it by default: no rounding, and finite where exp(x) is not"""
    return x if instruction.shape.dtype.is_float else None


@rule(op("multiply", one_use(op("exponential", x)), one_use(op("exponential", y))))
def multiply_exponentials(instruction: Instruction, x: Instruction, y: Instruction) -> Instruction | None:
    """exp(x) * exp(y) = exp(x + y) as XLA has it by default: finite where a factor may not be"""
    if not instruction.shape.dtype.is_float or any(o.attributes for o in instruction.operands):
        return None
    emit = Emit.at(instruction)
    return emit.map("exponential", emit.map("add", x, y))
