"""Writes `map` as the elementwise ops of its computation."""

from __future__ import annotations

from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.passes.emit import Emit, dense, replace


def run(module: Module) -> bool:
    """Replaces a `map` by its computation's ops, each applied to whole arrays; constants are broadcast.

    Requires: calls inside of maps are inlined (call_inliner), or their maps stay.
    Ensures: a map that is left has an op in its computation that does not work on scalars element by element.
    Leaves: computations that nobody calls any more, for dce.
    """
    changed = False
    for computation in call_order(module.entry):
        for instruction in computation:
            if instruction.opcode == "map" and all(map(_is_simple, instruction.attributes["to_apply"])):
                _inline(instruction)
                changed = True
    return changed


def _is_simple(instruction: Instruction) -> bool:
    """Whether the op, given arrays in place of scalars, does the same to each element."""
    if not instruction.shape.is_array or instruction.shape.dims:
        return False
    if instruction.opcode in ("parameter", "constant"):
        return True
    return (
        instruction.op.is_elementwise and instruction.opcode != "map" and not instruction.control_predecessors
    )


def _inline(instruction: Instruction) -> None:
    emit = Emit.at(instruction)
    dims = instruction.shape.dims
    values: dict[Instruction, Instruction] = {}
    callee = instruction.attributes["to_apply"]
    for inner in callee:
        if inner.opcode == "parameter":
            values[inner] = instruction.operands[inner.attributes["number"]]
        elif inner.opcode == "constant":
            values[inner] = emit.broadcast(emit.literal(inner.attributes["literal"]), dims)
        else:
            shape = dense(instruction.shape).with_dtype(inner.shape.dtype)
            operands = [values[operand] for operand in inner.operands]
            values[inner] = emit.op(inner.opcode, shape, operands, **inner.attributes)
    replace(instruction, values[callee.root])
