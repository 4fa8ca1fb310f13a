"""Loop nests in which a large input lies along another dimension than the result: transposes, fused with other ops."""

from __future__ import annotations

from collections.abc import Collection

from hloc.codegen.bodies import Leaf
from hloc.codegen.forms import Form
from hloc.codegen.graphs import keeps_index, operands_of, post_order
from hloc.codegen.kernel_steps import KernelStep
from hloc.ir.shapes import ArrayShape
from hloc.records import record

LEAST = 8
"""Sizes of both dimensions from which on it matters how they are gone through."""

_CACHED_BYTES = 1 << 15
"""Arrays of this size stay in the innermost cache however they are walked through."""

_MOST_NAMES = 4
"""Ways in which an input is read that are looked at."""

Names = tuple[int, ...]
"""Which dimension of the result each dimension of a value is."""


@record
class Crossing:
    """The result's fastest dimension, `along`, and the one `across` which inputs lie.

    `inputs` are these, with the result's dimensions that theirs are.
    """

    along: int
    across: int
    inputs: tuple[tuple[Leaf, Names], ...]


def crossing_of(step: KernelStep) -> Crossing | None:
    """The crossing of a loop nest over a step's first output; None if there is none."""
    shape = step.outputs[0].shape
    large = {
        leaf: view.shape
        for leaf, view in zip(step.bound, step.inputs, strict=True)
        if view.shape.rank > 1 and view.shape.byte_size > _CACHED_BYTES
    }
    if not large or shape.rank < 2:
        return None
    along = minor(shape)
    found: dict[int, list[tuple[Leaf, Names]]] = {}
    for leaf, names in _names_in_result(step.form, large):
        across = names[minor(large[leaf])]
        if along not in names:  # Each of its elements is read for all of a line of the result.
            continue
        if across != along and min(shape.dims[across], shape.dims[along]) >= LEAST:
            found.setdefault(across, []).append((leaf, names))
    if not found:
        return None
    across, inputs = next(iter(found.items()))
    return Crossing(along, across, tuple(inputs))


def minor(shape: ArrayShape) -> int:
    """The dimension whose elements are neighbours in memory."""
    return next((d for d in shape.minor_to_major if shape.dims[d] != 1), shape.minor_to_major[0])


def _names_in_result(form: Form, ends: Collection[Leaf]) -> list[tuple[Leaf, Names]]:
    """How some border leaves are read, as far as their dimensions are only renamed on the way to the result.

    Elementwise ops, transposes and broadcasts do nothing else.
    """
    found: list[tuple[Leaf, Names]] = []
    names: dict[Leaf, list[Names]] = {}
    for root in form.roots:
        names.setdefault(root, []).append(tuple(range(root[0].shape.at(root[1]).rank)))
    for node in reversed(post_order(form.roots, set(ends))):
        ways = list(dict.fromkeys(names.get(node, [])))[:_MOST_NAMES]
        if node in ends:
            found += [(node, way) for way in ways]
            continue
        for operand in operands_of(node) if ways else ():
            renamed = [_operand_names(node, operand, way) for way in ways]
            names.setdefault(operand, []).extend(way for way in renamed if way is not None)
    return found


def _operand_names(node: Leaf, operand: Leaf, names: Names) -> Names | None:
    """The names of an operand's dimensions, given those of the op's result."""
    instruction = node[0]
    if keeps_index(node, operand):
        return names
    if instruction.opcode == "broadcast":
        return tuple(names[dimension] for dimension in instruction.get("dimensions"))
    if instruction.opcode == "transpose":
        order = instruction.get("dimensions")
        return tuple(names[order.index(dimension)] for dimension in range(len(order)))
    return None
