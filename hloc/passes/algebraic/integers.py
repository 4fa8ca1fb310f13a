"""Rules of shifts, and of integer quotients and remainders."""

from __future__ import annotations

from hloc.ir.instruction import Instruction
from hloc.passes.algebraic.facts import integer_range
from hloc.passes.algebraic.rules import rule
from hloc.passes.emit import Emit
from hloc.passes.patterns import bind, constant, op, splat, splat_value, unknown

x = bind("x")
c, d = constant("c"), constant("d")
_SHIFTS = "shift-left|shift-right-logical|shift-right-arithmetic"


@rule(op(_SHIFTS, x, splat(0)))
def shift_by_zero(instruction: Instruction, x: Instruction) -> Instruction | None:
    """x shifted by 0 = x"""
    return x


@rule(op("shift-left|shift-right-logical", unknown("x"), c))
def shift_out(instruction: Instruction, x: Instruction, c: Instruction) -> Instruction | None:
    """x << n = x >> n = 0 for n from the width on, as HLO defines it"""
    dtype = instruction.shape.dtype
    amount = int(splat_value(c)) % 2**dtype.bits
    return Emit.at(instruction).full(0, instruction.shape) if amount >= dtype.bits else None


@rule(op("shift-right-logical", unknown("x"), c))
def shift_all_out(instruction: Instruction, x: Instruction, c: Instruction) -> Instruction | None:
    """x >> n = 0 for integers from 0 to less than 2^n (the upper halves of counters of 64 bits are often that)"""
    low, high = integer_range(x)
    amount = int(splat_value(c)) % 2**instruction.shape.dtype.bits
    return Emit.at(instruction).full(0, instruction.shape) if low >= 0 and high.bit_length() <= amount else None


@rule(*(op(name, op(name, unknown("x"), c), d) for name in ("shift-left", "shift-right-logical")))
def join_shifts(
    instruction: Instruction, x: Instruction, c: Instruction, d: Instruction
) -> Instruction | None:
    """x << m << n = x << (m + n), and so for >>, below the width"""
    bits = instruction.shape.dtype.bits
    amount = int(splat_value(c)) % 2**bits + int(splat_value(d)) % 2**bits
    if amount >= min(bits, 2 ** (bits - 1)):
        return None
    emit = Emit.at(instruction)
    return emit.map(instruction.opcode, x, emit.full(amount, instruction.shape))


def _log2(instruction: Instruction) -> int | None:
    """n of a known 2 ** n."""
    value = int(splat_value(instruction))
    return value.bit_length() - 1 if value > 0 and value & (value - 1) == 0 else None


@rule(op("divide", unknown("x"), c))
def divide_by_power_of_two(instruction: Instruction, x: Instruction, c: Instruction) -> Instruction | None:
    """x / 2^n = x >> n for integers never negative; of others the quotient would have to go toward zero"""
    dtype = instruction.shape.dtype
    if not dtype.is_integer or integer_range(x)[0] < 0 or not _log2(c):
        return None
    emit = Emit.at(instruction)
    return emit.map("shift-right-logical", x, emit.full(_log2(c), instruction.shape))


@rule(op("remainder", unknown("x"), c))
def remainder_by_power_of_two(instruction: Instruction, x: Instruction, c: Instruction) -> Instruction | None:
    """x mod 2^n = x & (2^n - 1) for integers never negative"""
    dtype = instruction.shape.dtype
    if not dtype.is_integer or integer_range(x)[0] < 0 or _log2(c) is None:
        return None
    emit = Emit.at(instruction)
    return emit.map("and", x, emit.full(int(splat_value(c)) - 1, instruction.shape))


@rule(op("remainder", unknown("x"), c))
def remainder_of_less(instruction: Instruction, x: Instruction, c: Instruction) -> Instruction | None:
    """x mod c = x for integers known to lie in [0, c)"""
    if not instruction.shape.dtype.is_integer:
        return None
    low, high = integer_range(x)
    return x if low >= 0 and high < int(splat_value(c)) else None


@rule(op("divide", unknown("x"), c))
def quotient_of_less(instruction: Instruction, x: Instruction, c: Instruction) -> Instruction | None:
    """x / c = 0 for integers known to lie in (-c, c)"""
    if not instruction.shape.dtype.is_integer:
        return None
    low, high = integer_range(x)
    bound = int(splat_value(c))
    return Emit.at(instruction).full(0, instruction.shape) if -bound < low and high < bound else None


@rule(op("divide", op("divide", unknown("x"), c), d))
def join_quotients(
    instruction: Instruction, x: Instruction, c: Instruction, d: Instruction
) -> Instruction | None:
    """x / c / d = x / (c * d) for integers, where the product does not wrap"""
    dtype = instruction.shape.dtype
    if not dtype.is_integer:
        return None
    product = int(splat_value(c)) * int(splat_value(d))
    if splat_value(c) <= 0 or not 0 < product < 2 ** (dtype.bits - 1):
        return None
    emit = Emit.at(instruction)
    return emit.map("divide", x, emit.full(product, instruction.shape))
