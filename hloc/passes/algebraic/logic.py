"""Rules of bits, comparisons, selections and decided conditionals."""

from __future__ import annotations

import numpy as np

from hloc.ir.instruction import Instruction
from hloc.passes.algebraic.rules import rule
from hloc.passes.emit import Emit, dense
from hloc.passes.patterns import bind, constant, has_one_use, op, splat_value

x, y, p = bind("x"), bind("y"), bind("p")


def _is_zero(instruction: Instruction) -> bool:
    known = splat_value(instruction)
    return known is not None and not int(known)


def _is_ones(instruction: Instruction) -> bool:
    """All bits set: true, -1, or the greatest unsigned number."""
    known = splat_value(instruction)
    if known is None:
        return False
    dtype = instruction.shape.dtype
    return bool(known) if dtype.kind == "predicate" else int(known) in (-1, 2**dtype.bits - 1)


@rule("and")
def simplify_and(instruction: Instruction) -> Instruction | None:
    """x & x = x; x & ones = x; x & 0 = 0"""
    for value, other in (instruction.operands, reversed(instruction.operands)):
        if value is other or _is_ones(other):
            return value
        if _is_zero(other):
            return other
    return None


@rule("or")
def simplify_or(instruction: Instruction) -> Instruction | None:
    """x | x = x; x | 0 = x; x | ones = ones"""
    for value, other in (instruction.operands, reversed(instruction.operands)):
        if value is other or _is_zero(other):
            return value
        if _is_ones(other):
            return other
    return None


@rule("xor")
def simplify_xor(instruction: Instruction) -> Instruction | None:
    """x ^ 0 = x; x ^ x = 0"""
    for value, other in (instruction.operands, reversed(instruction.operands)):
        if _is_zero(other):
            return value
        if value is other:
            return Emit.at(instruction).full(0, instruction.shape)
    return None


@rule("not")
def not_twice(instruction: Instruction) -> Instruction | None:
    """~~x = x"""
    inner = instruction.operands[0]
    return inner.operands[0] if inner.opcode == "not" else None


_OPPOSITE = {"EQ": "NE", "NE": "EQ", "LT": "GE", "GE": "LT", "GT": "LE", "LE": "GT"}


@rule("not")
def not_compare(instruction: Instruction) -> Instruction | None:
    """!(x < y) = x >= y, but for floats, where NaN makes both false; there !(x == y) = x != y holds"""
    inner = instruction.operands[0]
    if inner.opcode != "compare" or not has_one_use(inner):
        return None
    attributes = dict(inner.attributes)
    direction = attributes["direction"]
    if not inner.operands[0].shape.dtype.is_integer and direction not in ("EQ", "NE"):
        return None
    attributes["direction"] = _OPPOSITE[direction]
    return Emit.at(instruction).op("compare", dense(instruction.shape), inner.operands, **attributes)


@rule("select")
def decided_select(instruction: Instruction) -> Instruction | None:
    """select(true, x, y) = x; select(p, x, x) = x"""
    predicate, on_true, on_false = instruction.operands
    if on_true is on_false:
        return on_true
    known = splat_value(predicate)
    return None if known is None else on_true if known else on_false


@rule(op("and|or|xor", x, op("not", x)))
def with_opposite(instruction: Instruction, x: Instruction) -> Instruction | None:
    """x & ~x = 0; x | ~x = x ^ ~x = ones"""
    emit = Emit.at(instruction)
    zeros = emit.full(0, instruction.shape)
    return zeros if instruction.opcode == "and" else emit.map("not", zeros)


@rule(op("xor", x, constant("c")))
def xor_with_ones(instruction: Instruction, x: Instruction, c: Instruction) -> Instruction | None:
    """x ^ ones = ~x"""
    return Emit.at(instruction).map("not", x) if _is_ones(c) else None


@rule(op("select", p, constant("c"), constant("d")))
def select_of_truth(
    instruction: Instruction, p: Instruction, c: Instruction, d: Instruction
) -> Instruction | None:
    """select(p, true, false) = p; select(p, false, true) = !p"""
    if instruction.shape.dtype.kind != "predicate" or p.shape.dims != instruction.shape.dims:
        return None
    on_true, on_false = bool(splat_value(c)), bool(splat_value(d))
    if on_true == on_false:
        return c
    return p if on_true else Emit.at(instruction).map("not", p)


@rule(op("select", p, op("select", p, x, bind("z")), y), op("select", p, x, op("select", p, bind("z"), y)))
def select_twice(
    instruction: Instruction, p: Instruction, x: Instruction, y: Instruction, z: Instruction
) -> Instruction | None:
    """select(p, select(p, x, z), y) = select(p, x, select(p, z, y)) = select(p, x, y)"""
    return Emit.at(instruction).map("select", p, x, y)


@rule(op("select", p, x, constant("c")), op("select", p, constant("c"), x))
def select_as_logic(
    instruction: Instruction, p: Instruction, x: Instruction, c: Instruction
) -> Instruction | None:
    """select(p, x, false) = p & x; select(p, true, x) = p | x, for pred"""
    on_false = instruction.operands[2] is c
    if instruction.shape.dtype.kind != "predicate" or p.shape.dims != instruction.shape.dims:
        return None
    if bool(splat_value(c)) is on_false:
        return None
    return Emit.at(instruction).map("and" if on_false else "or", p, x)


@rule("select")
def select_not(instruction: Instruction) -> Instruction | None:
    """select(!p, x, y) = select(p, y, x)"""
    predicate, on_true, on_false = instruction.operands
    if predicate.opcode != "not":
        return None
    return Emit.at(instruction).map("select", predicate.operands[0], on_false, on_true)


@rule("conditional")
def decided_conditional(instruction: Instruction) -> Instruction | None:
    """conditional(constant, ..) = call(the branch); an index out of range takes the last one"""
    chooser, *arguments = instruction.operands
    known = splat_value(chooser)
    if known is None:
        return None
    branches = instruction.called
    if isinstance(known, np.bool_):
        number = 0 if known else 1
    else:
        number = int(known) if 0 <= int(known) < len(branches) else len(branches) - 1
    branch = branches[number]
    return Emit.at(instruction).op("call", instruction.shape, (arguments[number],), to_apply=branch)
