"""What loop fusion knows of single ops: which can be computed element by element, and at which index."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from hloc.analysis.layouts import moves_nothing
from hloc.ir.instruction import Instruction

MOVING = frozenset(
    (
        *("broadcast", "reshape", "transpose", "slice", "pad", "concatenate", "reverse", "iota"),
        *("dynamic-slice", "gather", "bitcast-convert", "constant"),
    )
)
"""Data-moving ops of which any one element can be had by itself."""

_PLACING = ("pad", "concatenate")
"""Ops that choose a source for each element: worth a branch in a small loop only, else their own loops."""

_PLACING_LIMIT = 2048

CLONED = ("broadcast", "iota", "constant")
"""Ops that cost less to do again than to load: they go into every loop that wants them."""

SAME_INDEX = "same index"
NO_INDEX = "no index"


def is_element_op(instruction: Instruction) -> bool:
    """Whether single elements of the result can be computed on their own."""
    shape = instruction.shape
    if (
        not shape.is_array
        or shape.is_dynamic
        or instruction.control_predecessors
        or instruction.control_successors
    ):
        return False
    if any(not operand.shape.is_array or operand.shape.is_dynamic for operand in instruction.operands):
        return False
    opcode = instruction.opcode
    if opcode == "constant":
        return shape.rank == 0
    if opcode == "bitcast-convert":
        return shape.rank == instruction.operands[0].shape.rank
    return opcode in MOVING or (instruction.op.is_elementwise and opcode != "map")


def is_producer(instruction: Instruction) -> bool:
    """Whether an element op may be computed inside of the loop of its user."""
    return is_element_op(instruction) and (
        instruction.opcode not in _PLACING or instruction.shape.count <= _PLACING_LIMIT
    )


def is_free(instruction: Instruction) -> bool:
    """Whether the op is another name of its operand's memory."""
    if instruction.opcode not in ("reshape", "transpose", "copy") or not is_element_op(instruction):
        return False
    return moves_nothing(instruction)


def own_loop_slots(instruction: Instruction) -> Sequence[int] | None:
    """The operands that an op with loops of its own takes element by element; None for any other op."""
    shape = instruction.shape
    operands = instruction.operands
    if any(leaf.is_dynamic for _, leaf in shape.leaves()):
        return None
    if instruction.control_predecessors or instruction.control_successors:
        return None
    if instruction.opcode == "reduce":
        return range(len(operands) // 2)
    if instruction.opcode == "dynamic-update-slice":
        return range(1, len(operands))
    if instruction.opcode in _PLACING and shape.count > _PLACING_LIMIT:
        return range(len(operands))
    return None


def index_step(user: Instruction, number: int) -> Hashable:
    """How the index of operand `number` follows from the user's: equal steps from equal indices are equal."""
    operand = user.operands[number]
    if operand.shape.rank == 0 and (user.shape.is_tuple or user.shape.rank != 0):
        return NO_INDEX
    if user.op.is_elementwise:
        return SAME_INDEX
    opcode = user.opcode
    if opcode in ("transpose", "reverse", "broadcast"):
        return opcode, user.get("dimensions"), operand.shape.dims
    if opcode == "slice":
        return opcode, user.attributes["slice"]
    if opcode == "reshape":
        return opcode, user.shape.dims, operand.shape.dims
    if opcode == "bitcast-convert":
        return SAME_INDEX
    return opcode, user.id, number


def evaluations(user: Instruction, number: int, times: float) -> float:
    """How often operand `number` is asked for, if the user is computed `times` times."""
    if user.opcode in _PLACING and user.shape.count:
        return times * user.operands[number].shape.count / user.shape.count
    return times
