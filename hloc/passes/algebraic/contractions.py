"""Rules of dot and reduce."""

from __future__ import annotations

from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.passes.algebraic.rules import rule
from hloc.passes.emit import Emit


@rule("dot")
def fold_transpose_into_dot(instruction: Instruction) -> Instruction | None:
    """dot(transpose(x), y) = dot(x, y) with the dimensions renamed, if those that x keeps stay in order"""
    attributes = dict(instruction.attributes)
    operands = list(instruction.operands)
    folded = False
    for number, side in enumerate(("lhs", "rhs")):
        operand = operands[number]
        if operand.opcode != "transpose":
            continue
        order = operand.attributes["dimensions"]
        named = {
            f"{side}_{part}_dims": instruction.get(f"{side}_{part}_dims") for part in ("batch", "contracting")
        }
        taken = {d for dims in named.values() for d in dims}
        kept = [order[d] for d in range(operand.shape.rank) if d not in taken]
        if kept == sorted(kept):
            attributes.update({name: tuple(order[d] for d in dims) for name, dims in named.items()})
            operands[number] = operand.operands[0]
            folded = True
    return Emit.at(instruction).op("dot", instruction.shape, operands, **attributes) if folded else None


@rule("reduce")
def fold_transpose_into_reduce(instruction: Instruction) -> Instruction | None:
    """reduce(transpose(x)) = reduce(x) along other dimensions, if those that are kept stay in order

    The order in which elements are folded is free in HLO.
    """
    if len(instruction.operands) != 2 or instruction.operands[0].opcode != "transpose":
        return None
    operand, init = instruction.operands
    order = operand.attributes["dimensions"]
    along = instruction.get("dimensions")
    kept = [order[d] for d in range(operand.shape.rank) if d not in along]
    if kept != sorted(kept):
        return None
    attributes = dict(instruction.attributes)
    attributes["dimensions"] = tuple(sorted(order[d] for d in along))
    return Emit.at(instruction).op("reduce", instruction.shape, (operand.operands[0], init), **attributes)


@rule("reduce")
def reduce_single_elements(instruction: Instruction) -> Instruction | None:
    """reduce(x, init) along dimensions of size 1 = f(init, reshape(x)), for a reducer f that is one op"""
    if len(instruction.operands) != 2:
        return None
    operand, init = instruction.operands
    opcode = binary_opcode(instruction.attributes["to_apply"])
    if opcode is None or any(operand.shape.dims[d] != 1 for d in instruction.get("dimensions")):
        return None
    emit = Emit.at(instruction)
    value = emit.reshape(operand, instruction.shape.dims)
    return emit.map(opcode, emit.broadcast(init, instruction.shape.dims), value)


def binary_opcode(computation: Computation) -> str | None:
    """The op of a computation that only applies a binary op to its two parameters, in order."""
    root = computation.root
    simple = (
        len(root.operands) == 2 and root.op.is_elementwise and not root.attributes and root.shape.is_array
    )
    if not simple or [o.opcode for o in root.operands] != ["parameter", "parameter"]:
        return None
    numbers = [operand.attributes["number"] for operand in root.operands]
    same_type = all(operand.shape.dtype is root.shape.dtype for operand in root.operands)
    return root.opcode if numbers == [0, 1] and same_type else None
