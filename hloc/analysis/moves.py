"""How the index of what is made of an array, element by element, follows from the array's own index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from hloc.analysis.layouts import reshaped_order
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape, Layout

Move = tuple[str, tuple[int, ...]]
"""("reshape", new sizes) or ("transpose", permutation)."""

Moves = tuple[Move, ...]

Leaf = tuple[Instruction, tuple[int, ...]]
"""A leaf of an instruction's result: the instruction and the index path."""


def moves_from(
    arrays: Sequence[Leaf], order: Iterable[Leaf], operands: Callable[[Leaf], Iterable[Leaf]]
) -> dict[Leaf, Moves] | None:
    """The moves from some arrays, of equal sizes, to each leaf in an order that depends on them.

    None if one of them asks for elements at several indices for one of its own, or at one that is computed.
    """
    dims = _dims(arrays[0])
    moves: dict[Leaf, Moves] = dict.fromkeys(arrays, ())
    for leaf in order:
        if leaf in moves:
            continue
        before = [operand for operand in operands(leaf) if operand in moves]
        if not before:
            continue
        made = moves[before[0]]
        if any(moves[operand] != made for operand in before):
            return None
        if leaf[0].op.is_elementwise:
            if any(_dims(operand) != _dims(leaf) for operand in before):
                return None
        else:
            move = _move_of(leaf[0])
            if move is None:
                return None
            made = _followed(dims, made, move)
        moves[leaf] = made
    return moves


def _dims(leaf: Leaf) -> tuple[int, ...]:
    return leaf[0].shape.at(leaf[1]).dims


def _move_of(instruction: Instruction) -> Move | None:
    if instruction.opcode == "transpose":
        return "transpose", tuple(instruction.get("dimensions"))
    return ("reshape", instruction.shape.dims) if instruction.opcode == "reshape" else None


def _followed(dims: Sequence[int], moves: Moves, move: Move) -> Moves:
    """Moves of an array of `dims`, one more added; reshapes one after the other are one, or none."""
    if move[0] == "transpose":
        return (*moves, move)
    if moves and moves[-1][0] == "reshape":
        moves = moves[:-1]
    return moves if dims_after(dims, moves) == move[1] else (*moves, move)


def dims_after(dims: Sequence[int], moves: Moves) -> tuple[int, ...]:
    """The sizes of a moved array."""
    for opcode, numbers in moves:
        dims = numbers if opcode == "reshape" else tuple(dims[d] for d in numbers)
    return tuple(dims)


def lies_as_moved(shape: ArrayShape, moves: Moves, there: ArrayShape) -> bool:
    """Whether each element of an array lies at the same place in memory as what it becomes in the array `there`."""
    order: tuple[int, ...] | None = tuple(shape.minor_to_major[::-1])
    dims = shape.dims
    for opcode, numbers in moves:
        if opcode == "transpose":
            order, dims = tuple(numbers.index(d) for d in order), tuple(dims[d] for d in numbers)
        else:
            order = reshaped_order(ArrayShape(shape.dtype, dims, Layout(order[::-1])), numbers)
            dims = numbers
        if order is None:
            return False
    wide, given = ([d for d in o if there.dims[d] != 1] for o in (order, there.minor_to_major[::-1]))
    return there.dtype is shape.dtype and wide == given
