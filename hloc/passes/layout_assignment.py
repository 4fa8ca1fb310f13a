"""Gives every array a layout."""

from __future__ import annotations

from collections.abc import Sequence

from hloc.analysis.layouts import check_bitcast, reshaped_order, same_order
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.ir.opcodes import COLLECTIVE
from hloc.ir.shapes import ArrayShape, Layout, Shape, TupleShape
from hloc.passes.emit import Emit, row_major
from hloc.passes.layout_turning import turn_producers

_FOLLOW_FIRST = (
    *("slice", "reverse", "pad", "dynamic-slice", "dynamic-update-slice", "scatter", "reduce-window"),
    *("set-dimension-size", "copy"),
)
"""Ops whose result lies in memory as their first operand does; the in-place ones have to."""

_SAME_AS_OPERAND = ("opt-barrier", "domain", "add-dependency", "all-reduce-done")

_WANT_ROW_MAJOR = (
    *("call", "while", "conditional", "fusion", "async-start", "async-update", "async-done", "custom-call"),
    *("infeed", "outfeed", "send", "send-done", "recv", "recv-done", "copy-start", "copy-done"),
    *("sort", "topk", "fft", "cholesky", "triangular-solve", "rng-bit-generator", "dynamic-reshape", "scan"),
)
"""Ops that take row-major operands: called computations, the world outside, and whole lines or matrices."""

_FIXED_RESULT = ("custom-call", "infeed", "recv", "recv-done", "bitcast", "constant")


def run(module: Module) -> bool:
    """Chooses layouts from operands to results, and puts in a `copy` where two sides do not agree.

    What is fixed: the entry's parameters and result lie as the caller has them (`entry_computation_layout`),
    operands of a custom call as it demands, and what enters or leaves any other computation row-major.
    In between a transpose costs nothing: its result lies in memory as its operand does. Elementwise ops,
    slices and reductions follow their operand, and so does a reshape where it can; all else is row-major. Then a
    product, with elementwise ops behind it, takes the layout that a copy of it has, if that costs less.

    Requires: nothing; a bitcast keeps the layouts that it was written for.
    Ensures: `analysis.layouts.layout_faults` finds nothing.
    Leaves: copies, which fusion joins with what makes or takes the value. HloError for a bitcast of tiles.
    """
    before = _state(module)
    demands = {i: i.operands[0].shape for i, *_ in before if i.opcode == "bitcast" and i.shape.is_array}
    for bitcast in demands:
        check_bitcast(bitcast)
    shapes = module.entry_shapes
    for computation in module:
        parameters, result = shapes if computation is module.entry else _boundary(computation)
        _assign(computation, parameters, result, demands)
    return _state(module) != before


def _state(module: Module) -> list[tuple[Instruction, Shape, list[Instruction]]]:
    """What is there, with shapes and operands: a copy that goes again is no change."""
    return [(i, i.shape, list(i.operands)) for i in module.instructions()]


def _boundary(computation: Computation) -> tuple[list[Shape], Shape]:
    return [row_major(p.shape) for p in computation.parameters], row_major(computation.root.shape)


def _assign(
    computation: Computation,
    parameters: Sequence[Shape],
    result: Shape,
    demands: dict[Instruction, Shape],
) -> None:
    for instruction in computation:
        if instruction.opcode == "parameter":
            instruction.shape = _in_order_of(parameters[instruction.attributes["number"]])
            continue
        for number, wanted in enumerate(_wanted(instruction, demands)):
            if wanted is not None:
                operand = instruction.operands[number]
                conforming = _conform(operand, wanted, instruction)
                if conforming is not operand:
                    computation.set_operand(instruction, number, conforming)
        shape = _result(instruction)
        if shape != instruction.shape:  # a shape that stays is the same object, which later checks see at once
            instruction.shape = shape
    root = computation.root
    computation.root = _conform(root, result, None)
    if root.opcode == "tuple" and root is not computation.root and not root.users:
        computation.remove(root)  # its elements are in another tuple now
    turn_producers(computation)


def _wanted(instruction: Instruction, demands: dict[Instruction, Shape]) -> list[Shape | None]:
    """The layouts that an op demands of its operands; None where any will do."""
    operands = instruction.operands
    if instruction in demands:
        return [demands[instruction]]
    constraints = instruction.attributes.get("operand_layout_constraints")
    if constraints:
        return [shape.with_default_layout() if shape.is_array else None for shape in constraints]
    if instruction.opcode in _WANT_ROW_MAJOR or instruction.op.has(COLLECTIVE) or _changes_width(instruction):
        return [row_major(operand.shape) for operand in operands]
    if instruction.opcode in ("reduce", "reduce-window", "scatter") and instruction.shape.is_tuple:
        return _like_first(instruction)
    return [None] * len(operands)


def _changes_width(instruction: Instruction) -> bool:
    return (
        instruction.opcode == "bitcast-convert"
        and instruction.shape.rank != instruction.operands[0].shape.rank
    )


def _like_first(instruction: Instruction) -> list[Shape | None]:
    """Several arrays that are walked together lie in the same order."""
    first = instruction.operands[0].shape
    wanted: list[Shape | None] = []
    for operand in instruction.operands[: len(instruction.shape.elements)]:
        wanted.append(operand.shape.with_layout(_plain(first.minor_to_major)))
    return wanted


def _in_order_of(shape: Shape) -> Shape:
    """The shape without tiles, memory spaces and the like, since arrays here are dense and in one memory."""
    if isinstance(shape, TupleShape):
        return TupleShape(tuple(_in_order_of(element) for element in shape.elements))
    if isinstance(shape, ArrayShape) and shape.is_array:
        return shape.with_layout(_plain(shape.minor_to_major))
    return shape


def _plain(minor_to_major: Sequence[int]) -> Layout:
    return Layout(tuple(minor_to_major))


def _result(instruction: Instruction) -> Shape:
    """The result's shape, with the layout that follows from the operands."""
    opcode, operands, shape = instruction.opcode, instruction.operands, instruction.shape
    if opcode == "tuple":
        return TupleShape(tuple(operand.shape for operand in operands))
    if opcode == "get-tuple-element":
        return operands[0].shape.elements[instruction.attributes["index"]]
    if opcode in _SAME_AS_OPERAND:
        return operands[0].shape
    if opcode in _FIXED_RESULT:
        return _in_order_of(shape)
    if shape.is_tuple and opcode in ("reduce", "reduce-window", "scatter"):
        order = _order(instruction, shape.elements[0])
        return TupleShape(tuple(leaf.with_layout(_plain(order)) for leaf in shape.elements))
    if not isinstance(shape, ArrayShape) or not shape.is_array:
        return row_major(shape)
    order = tuple(_order(instruction, shape))
    row_major_layout = Layout.default(len(order))
    if order != row_major_layout.minor_to_major:
        return shape.with_layout(Layout(order))
    return shape if shape.layout is row_major_layout else shape.with_layout(row_major_layout)


def _order(instruction: Instruction, shape: ArrayShape) -> Sequence[int]:
    """The result's dimensions from minor to major."""
    default = range(shape.rank - 1, -1, -1)
    opcode = instruction.opcode
    if not instruction.operands or not instruction.operands[0].shape.is_array:
        return default
    first = instruction.operands[0].shape
    if opcode == "transpose":
        permutation = instruction.attributes["dimensions"]
        return [permutation.index(d) for d in first.minor_to_major]
    if opcode == "reshape":
        order = reshaped_order(first, shape.dims) if not shape.is_dynamic else None
        return default if order is None else order[::-1]
    if opcode == "reduce":
        kept = [d for d in range(first.rank) if d not in instruction.get("dimensions")]
        return [kept.index(d) for d in first.minor_to_major if d in kept]
    if opcode in _FOLLOW_FIRST:
        return first.minor_to_major
    if instruction.op.is_elementwise or opcode == "concatenate":
        return _common(instruction, shape)
    return default


def _common(instruction: Instruction, shape: ArrayShape) -> Sequence[int]:
    """The order of the first operand that really lies in memory; broadcasts can be had in any."""
    arrays = [o for o in instruction.operands if o.shape.is_array and o.shape.rank == shape.rank]
    given = [o for o in arrays if o.opcode not in ("broadcast", "iota", "constant")]
    return next((o.shape.minor_to_major for o in given), range(shape.rank - 1, -1, -1))


def _conform(value: Instruction, wanted: Shape, before: Instruction | None) -> Instruction:
    """The value in the wanted layout: itself, or a copy in front of `before` (at the end if None)."""
    if same_order(value.shape, wanted):
        return value
    emit = Emit(value.computation, before, value)
    if not isinstance(value.shape, TupleShape):
        order = _plain(wanted.minor_to_major)
        return emit.op("copy", value.shape.with_layout(order), (value,))
    parts = []
    for index, element in enumerate(wanted.elements):
        part = value.operands[index] if value.opcode == "tuple" else emit.element(value, index)
        parts.append(_conform(part, element, before))
    return emit.tuple(parts)
