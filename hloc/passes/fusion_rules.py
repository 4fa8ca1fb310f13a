"""What loop fusion knows of single ops: which can be computed element by element, and at which index."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from math import prod

from hloc.analysis.layouts import moves_nothing
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape
from hloc.passes.fusion_cost import SMALL_PRODUCT, Product

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
    if not is_element_op(instruction):
        return False
    is_single = instruction.opcode not in _PLACING or instruction.shape.count <= _PLACING_LIMIT
    return is_single or _is_only_padded(instruction)


def _is_only_padded(instruction: Instruction) -> bool:
    """Whether it is a concatenation of which a pad places the parts."""
    return (
        instruction.opcode == "concatenate"
        and all(user.opcode == "pad" for user in instruction.users)
        and not instruction.is_root
    )


def is_free(instruction: Instruction) -> bool:
    """Whether the op is another name of its operand's memory."""
    if instruction.opcode not in ("reshape", "transpose", "copy") or not is_element_op(instruction):
        return False
    return moves_nothing(instruction)


def own_loop_slots(instruction: Instruction) -> Sequence[int] | None:
    """The operands that an op with loops of its own takes element by element; None for any other op."""
    opcode, shape, operands = instruction.opcode, instruction.shape, instruction.operands
    if opcode not in _SLOTS and opcode not in _PLACING:
        return None
    if any(leaf.is_dynamic for value in (instruction, *operands) for _, leaf in value.shape.leaves()):
        return None
    if instruction.control_predecessors or instruction.control_successors:
        return None
    if opcode in _SLOTS:
        return _SLOTS[opcode](len(operands))
    if opcode in _PLACING and shape.count > _PLACING_LIMIT:
        return range(len(operands))
    return None


_SLOTS: dict[str, Callable[[int], Sequence[int]]] = {
    "reduce": lambda count: range(count // 2),
    "dynamic-update-slice": lambda count: range(1, count),
    "dot": range,
    "convolution": lambda count: range(2) if count == 2 else (),
    "scatter": lambda count: range(count // 2, count),
    "select-and-scatter": lambda count: (0, 1),
    "reduce-window": lambda count: range(count // 2),
    "sort": range,
    "topk": range,
    "fft": range,
    "cholesky": range,
    "triangular-solve": range,
}
"""opcode -> the operands taken element by element, of so many."""

PRODUCTS = ("dot", "convolution")

_TAKE_EPILOGUE = (*PRODUCTS, "reduce", "reduce-window")


def takes_epilogue(instruction: Instruction) -> bool:
    """Whether each result of an op with loops of its own may go through elementwise ops before it is stored."""
    return instruction.opcode in _TAKE_EPILOGUE and instruction.shape.is_array


def loop_space(instruction: Instruction, own: Sequence[int]) -> ArrayShape:
    """The index space that an op with loops of its own runs through."""
    if instruction.opcode == "scatter":
        return instruction.operands[-1].shape
    if instruction.opcode in ("reduce", "dynamic-update-slice") or instruction.shape.is_tuple:
        return instruction.operands[own[0]].shape
    return instruction.shape


def reads_of(user: Instruction, number: int) -> float:
    """How often an op with loops of its own asks for each element of an operand."""
    opcode = user.opcode
    if opcode == "dot":
        return Product(user).reads(number)
    if opcode == "convolution":
        return _reads_of_convolution(user, number)
    if opcode in ("reduce-window", "select-and-scatter"):
        window = user.get("window")
        sizes = prod(dim.size for dim in window.dims)
        counts = user.operands[0].shape.count, user.operands[1 if opcode == "select-and-scatter" else 0].shape.count
        if number == 1 and opcode == "select-and-scatter":
            return 1.0
        results = counts[1] if opcode == "select-and-scatter" else next(user.shape.leaves())[1].count
        return max(1.0, sizes * results / max(1, counts[0]))
    return 1.0


def _reads_of_convolution(convolution: Instruction, number: int) -> float:
    """Once, as images and kernel are packed; small ones are not packed, and few features are repeated."""
    kernel = convolution.operands[1].shape
    outputs = kernel.dims[convolution.attributes["dim_labels"].kernel_output_feature]
    terms = kernel.count // max(1, outputs)
    if convolution.shape.count * terms <= SMALL_PRODUCT or convolution.shape.dtype.is_complex:
        return convolution.shape.count * terms / max(1, convolution.operands[number].shape.count)
    groups = convolution.get("feature_group_count") * convolution.get("batch_group_count")
    return float(outputs // groups) if number == 0 and groups > 1 else 1.0


def is_read_in_place(user: Instruction, number: int) -> bool:
    """Whether an operand should only be seen through ops that leave it where it lies."""
    return user.opcode == "dot" and Product(user).is_read_in_place(number)


def leaves_in_place(instruction: Instruction) -> bool:
    """Whether an op's result is its operand's memory seen with other strides or as a wider type."""
    opcode = instruction.opcode
    if opcode == "convert":
        before, after = instruction.operands[0].shape.dtype, instruction.shape.dtype
        return after.is_float and before.bits < after.bits and not before.is_complex and before.name != "pred"
    if opcode == "dynamic-slice":
        return all(start.shape.rank == 0 for start in instruction.operands[1:])
    return opcode in ("slice", "transpose", "broadcast", "reshape", "copy")


def is_same_part(read: Instruction, update: Instruction) -> bool:
    """Whether a dynamic-slice takes from an array the part that a dynamic-update-slice puts back there."""
    if read.opcode != "dynamic-slice" or update.opcode != "dynamic-update-slice":
        return False
    return read.operands[1:] == update.operands[2:] and read.shape.dims == update.operands[1].shape.dims


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


def unchanged_turns(user: Instruction, number: int, order: Sequence[int]) -> int:
    """For how many neighbouring elements of the user, in memory `order`, the index of an operand is the same."""
    if user.opcode == "broadcast":
        moved = user.get("dimensions")
    elif user.opcode == "gather" and number == 1:
        moved = [d for d in range(user.shape.rank) if d not in user.get("offset_dims")]
    else:
        return 1
    turns = 1
    for dimension in order:
        if dimension in moved and user.shape.dims[dimension] != 1:
            break
        turns *= user.shape.dims[dimension]
    return turns


def evaluations(user: Instruction, number: int, times: float) -> float:
    """How often operand `number` is asked for, if the user is computed `times` times."""
    if user.opcode in _PLACING and user.shape.count:
        return times * user.operands[number].shape.count / user.shape.count
    return times
