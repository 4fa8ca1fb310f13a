"""Lets loops see the constants that they carry."""

from __future__ import annotations

from hloc.ir.clone import clone_instruction
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.passes.loops import Loop, loops_of
from hloc.passes.tuples import Owners


def run(module: Module) -> bool:
    """Puts constants that a loop is given, and does not change, into its body and condition.

    So do iotas and what is broadcast of constants. There rules and fusion see their values, and the loop
    need not carry them.

    Requires: loops in explicit form, by while_simplifier; others are left alone.
    Ensures: in such loops no invariant element that begins as a constant is read.
    Leaves: elements that are only passed on, for while_simplifier.
    """
    owners = Owners(module)
    changed = False
    for instruction in reversed(loops_of(module)):
        loop = Loop.of(instruction)
        if loop is not None:
            changed |= _sink(loop, owners)
    if changed:
        module.order_computations()
    return changed


def _sink(loop: Loop, owners: Owners) -> bool:
    numbers = {number for number in loop.invariants() if _is_constant(loop.initial[number])}
    if not any(loop.is_used(read) for read in loop.read_inside() if read.attributes["index"] in numbers):
        return False
    loop.own(owners)
    for read in loop.read_inside():
        number = read.attributes["index"]
        if number in numbers and loop.is_used(read):
            computation = read.computation
            computation.replace_uses(read, _copied(loop.initial[number], read))
            if computation is loop.body:
                computation.set_operand(computation.root, number, read)
    return True


def _is_constant(value: Instruction) -> bool:
    while value.opcode == "broadcast":
        value = value.operands[0]
    return value.opcode in ("constant", "iota") and value.shape.is_array


def _copied(value: Instruction, before: Instruction) -> Instruction:
    operands = [_copied(operand, before) for operand in value.operands]
    return before.computation.add(clone_instruction(value, operands), before)
