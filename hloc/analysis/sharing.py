"""Which operands an op may write its result over: it reads each element of them only where it writes."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from hloc.analysis.layouts import same_order
from hloc.analysis.places import ITS_ROW, THE_SAME, places_needed
from hloc.analysis.updates import base_of, root_leaves, updating_root
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import Shape

Path = tuple[int, ...]
Pair = tuple[int, Path, Path]
"""(operand number, leaf of the operand, leaf of the result)."""

_PRODUCTS = ("dot", "convolution")

_MOST_STEPS = 256
"""Steps of a product's sums from which on parts of them are kept in the result: then nothing else may lie there."""

_FEW = 4
"""Rows or columns of a product that is summed up in the result anyway."""


def shared_pairs(instruction: Instruction) -> list[Pair]:
    """The leaves of operands and of the result that may be one piece of memory.

    The operand's last use has to be this one; whether it is, is the caller's to see.
    """
    if instruction.opcode == "fusion":
        return _stated(instruction) or list(_of_fusion(instruction.called[0]))
    if instruction.opcode == "custom-call":
        return _stated(instruction)
    if instruction.opcode == "copy":
        return []  # it is there to have a second one
    if instruction.op.is_elementwise and instruction.shape.is_array:
        return [(n, (), ()) for n, o in enumerate(instruction.operands) if _alike(o.shape, instruction.shape)]
    return [(n, (), path) for n, path in based_on(instruction)]


def based_on(instruction: Instruction) -> list[tuple[int, Path]]:
    """(operand number, leaf of the result): arrays that an op changes in a few places, or sorts."""
    opcode, shape = instruction.opcode, instruction.shape
    if opcode == "dynamic-update-slice":
        return [(0, ())]
    if opcode == "scatter":
        arrays = len(instruction.operands) // 2
        return [(n, (n,) if shape.is_tuple else ()) for n in range(arrays)]
    if opcode in ("sort", "all-reduce"):
        return [(n, (n,) if shape.is_tuple else ()) for n in range(len(instruction.operands))]
    return [(1, ())] if opcode == "triangular-solve" else []


def _is_made_at_once(product: Instruction) -> bool:
    """Whether each element of a product is stored just once, when it is complete."""
    if product.opcode != "dot" or product.shape.dtype.is_complex:
        return False
    lhs, rhs = (operand.shape for operand in product.operands)
    steps = prod(lhs.dims[d] for d in product.get("lhs_contracting_dims"))
    batch = prod(lhs.dims[d] for d in product.get("lhs_batch_dims"))
    sides = [shape.count // max(1, steps * batch) for shape in (lhs, rhs)]
    return steps <= _MOST_STEPS and min(sides) > _FEW


def _stated(instruction: Instruction) -> list[Pair]:
    aliases = instruction.get("output_to_operand_aliasing") or ()
    return [(alias.number, alias.input_index, alias.output_index) for alias in aliases]


def _alike(one: Shape, other: Shape) -> bool:
    """Whether elements of the same index lie at the same place."""
    if not (one.is_array and other.is_array and one.dims == other.dims):
        return False
    return one.byte_size == other.byte_size and same_order(one, other)


def _are_as_large(one: Shape, other: Shape) -> bool:
    """Whether two arrays have equally many elements, and bytes."""
    return one.is_array and other.is_array and one.count == other.count and one.byte_size == other.byte_size


def _of_fusion(body: Computation) -> Iterator[Pair]:
    roots = root_leaves(body)
    if any(not root.shape.is_array for _, root in roots):
        return
    if not any(_are_as_large(p.shape, root.shape) for p in body.parameters for _, root in roots):
        return
    products = [instruction for instruction in body.instructions if instruction.opcode in _PRODUCTS]
    if products and (len(products) > 1 or not _is_made_at_once(products[0])):
        return
    groups = places_needed(body)
    for parameter in body.parameters:
        needing = [needs for needs in groups if parameter in needs]
        is_near = len(needing) == 1 and needing[0][parameter] in (THE_SAME, ITS_ROW)
        near = [(path, root) for path, root in roots if is_near and root in needing[0]]
        for path, root in near if parameter.shape.is_array else ():
            update = updating_root(root)
            if _are_as_large(parameter.shape, root.shape) and (update is None or base_of(update) in (parameter, None)):
                yield parameter.attributes["number"], (), path
