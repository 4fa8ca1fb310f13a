"""Facts about layouts: which ops move nothing, and whether a module's layouts agree with each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from hloc.errors import HloError
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.ir.shapes import ArrayShape, Shape


def same_order(one: Shape, other: Shape) -> bool:
    """Whether two shapes, equal but for layouts, lie in memory in the same order."""
    if one.is_array and other.is_array:
        return one.layout is other.layout or one.minor_to_major == other.minor_to_major
    pairs = zip(one.leaves(), other.leaves(), strict=True)
    return all(a.minor_to_major == b.minor_to_major for (_, a), (_, b) in pairs)


def reshape_runs(source: Sequence[int], target: Sequence[int]) -> list[tuple[list[int], list[int]]] | None:
    """Runs of dimensions wider than 1, pair by pair as short as can be, that hold equally many elements.

    None for arrays without elements.
    """
    if 0 in source:
        return None
    runs = []
    sources = [d for d, size in enumerate(source) if size != 1]
    targets = [d for d, size in enumerate(target) if size != 1]
    while sources or targets:
        ours, theirs = [sources.pop(0)], [targets.pop(0)]
        while (left := prod(source[d] for d in ours)) != (right := prod(target[d] for d in theirs)):
            if left < right:
                ours.append(sources.pop(0))
            else:
                theirs.append(targets.pop(0))
        runs.append((ours, theirs))
    return runs


def reshaped_order(shape: ArrayShape, dims: Sequence[int]) -> tuple[int, ...] | None:
    """The major-to-minor order in which a reshape of an array to `dims` moves nothing, or None."""
    runs = reshape_runs(shape.dims, dims)
    if runs is None:
        return tuple(range(len(dims)))
    order = [d for d in reversed(shape.minor_to_major) if shape.dims[d] != 1]
    target: list[int] = []
    while order:
        run = next(run for run in runs if order[0] in run[0])
        if order[: len(run[0])] != run[0]:
            return None
        order = order[len(run[0]) :]
        target += run[1]
    for dimension, size in enumerate(dims):  # dimensions of size 1 may stand anywhere
        if size == 1:
            target.insert(dimension, dimension)
    return tuple(target)


def moves_nothing(instruction: Instruction) -> bool:
    """Whether a reshape, transpose or copy leaves every element where it is in memory."""
    operand, shape = instruction.operands[0].shape, instruction.shape
    if instruction.opcode == "copy":
        return _wide_order(operand) == _wide_order(shape)
    if instruction.opcode == "transpose":
        order = instruction.attributes["dimensions"]
        wide = [order[d] for d in _wide_order(shape)]
        return wide == _wide_order(operand)
    order = reshaped_order(operand, shape.dims)
    return order is not None and [d for d in order if shape.dims[d] != 1] == _wide_order(shape)


def _wide_order(shape: ArrayShape) -> list[int]:
    """Dimensions wider than 1 from major to minor; none if there are no elements."""
    if shape.count == 0:
        return []
    return [d for d in reversed(shape.minor_to_major) if shape.dims[d] != 1]


def check_bitcast(instruction: Instruction) -> None:
    """HloError for a bitcast that is no reordering of whole elements: through tiles, or within bytes."""
    source, target = instruction.operands[0].shape, instruction.shape
    for shape in (source, target):
        if shape.layout is not None and shape.layout.tiles:
            raise HloError("a bitcast of a tiled layout is not supported", instruction.span)
    narrow = source.dtype.is_subbyte or target.dtype.is_subbyte
    if narrow and source.dtype.bits != target.dtype.bits:
        message = f"a bitcast of {source!r} to {target!r} regroups bits within bytes, which is not supported"
        raise HloError(message, instruction.span)


def layout_faults(module: Module) -> list[str]:
    """What does not agree among a module's layouts, one sentence each; empty after layout_assignment."""
    faults = [
        f"%{instruction.name} has no layout"
        for instruction in module.instructions()
        for _, leaf in instruction.shape.leaves()
        if leaf.is_array and leaf.layout is None
    ]
    for instruction in module.instructions():
        for what, one, other in _agreements(instruction):
            if not same_order(one, other):
                faults.append(f"%{instruction.name}: {what} has another layout")
    parameters, result = module.entry_shapes
    for parameter, shape in zip(module.entry.parameters, parameters, strict=True):
        if not same_order(parameter.shape, shape):
            faults.append(f"%{parameter.name}: the entry layout is another one")
    if not same_order(module.entry.root.shape, result):
        faults.append(f"%{module.entry.root.name}: the entry layout is another one")
    return faults


def _agreements(instruction: Instruction) -> Iterator[tuple[str, Shape, Shape]]:
    """Pairs of shapes that must lie in the same order."""
    shape, operands = instruction.shape, instruction.operands
    opcode = instruction.opcode
    if opcode == "tuple":
        for number, (element, operand) in enumerate(zip(shape.elements, operands, strict=True)):
            yield f"operand {number}", element, operand.shape
    elif opcode == "get-tuple-element":
        yield "the element", shape, operands[0].shape.elements[instruction.attributes["index"]]
    elif opcode in ("dynamic-update-slice", "opt-barrier", "add-dependency", "domain"):
        yield "operand 0", shape, operands[0].shape
    elif opcode == "while":
        for part in ("condition", "body"):
            yield part, operands[0].shape, instruction.attributes[part].parameters[0].shape
        yield "the body's result", shape, instruction.attributes["body"].root.shape
        yield "operand 0", shape, operands[0].shape
    elif opcode in ("call", "fusion"):
        callee = instruction.called[0]
        for number, (operand, parameter) in enumerate(zip(operands, callee.parameters, strict=True)):
            yield f"operand {number}", operand.shape, parameter.shape
        yield "the result", shape, callee.root.shape
    elif opcode == "conditional":
        for number, branch in enumerate(instruction.called):
            yield f"branch {number}", shape, branch.root.shape
            yield f"operand {number + 1}", operands[number + 1].shape, branch.parameters[0].shape
    elif opcode == "custom-call" and instruction.get("operand_layout_constraints"):
        constraints = instruction.get("operand_layout_constraints")
        for number, (operand, constraint) in enumerate(zip(operands, constraints, strict=True)):
            yield f"operand {number}", operand.shape, constraint
