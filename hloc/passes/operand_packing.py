"""Packs in front of a loop what each of its turns multiplies by."""

from __future__ import annotations

from math import prod

from hloc.analysis.effects import Effects
from hloc.analysis.panels import panel_width
from hloc.ir.attributes import PadDim, SliceDim
from hloc.ir.dtypes import F32, F64, DType
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.ir.shapes import array
from hloc.passes.emit import Emit
from hloc.passes.hoisting import hoist, invariant_values
from hloc.passes.loops import Loop, loops_of
from hloc.passes.tuples import Owners

_FEWEST_ROWS, _MOST_ROWS = 5, 256
"""Rows of the left operand: for fewer, the right one is read as it lies; for more, packing it is little of the work."""

_FEW_ROWS, _LARGE = 8, 1 << 20
"""Rows for which a right operand of so many bytes is read as it lies, too."""

_LEAST, _MOST = 40_000, 1 << 26
"""Bytes of the right operand: few are read as they lie, and many may not be there twice."""


def run(module: Module) -> bool:
    """Gives products in loops right operands that lie in panels, if the operand is the same in each turn.

    A product packs its right operand, but for one that lies so already (`analysis.panels`). For few rows packing takes
    as long as multiplying. A matrix that a loop does not change is packed once, in front of the loop, or of the
    outermost one that does not change it; the result has the columns of each panel as a dimension of its own, and is
    reshaped. Floats below f32 are widened to what they are summed in. Loops that are not in explicit form are left
    alone.

    Requires: layouts; loops in explicit form, by while_simplifier.
    Ensures: no product in such a loop packs what it could find packed.
    Leaves: one more element of the state for each matrix; the matrix itself, which may not be needed any more.
    """
    owners = Owners(module)
    effects = Effects()
    panels: list[Instruction] = []
    for instruction in loops_of(module):
        loop = Loop.of(instruction)
        if loop is None or not (_products(loop, effects) or _movable(loop, panels, effects)):
            continue
        loop.own(owners)
        made: dict[tuple[Instruction, int], Instruction] = {}
        for product in _products(loop, effects):
            _pack(product, made)
        panels += hoist(loop, [*made.values(), *_movable(loop, panels, effects)], effects)
    if panels:
        module.order_computations()
    return bool(panels)


def _movable(loop: Loop, panels: list[Instruction], effects: Effects) -> list[Instruction]:
    """Panels that were made in front of an inner loop, and may be made in front of this one."""
    here = [panel for panel in panels if panel.computation is loop.body]
    invariant = invariant_values(loop, effects) if here else ()
    return [panel for panel in here if panel in invariant]


def _products(loop: Loop, effects: Effects) -> list[Instruction]:
    """The products of the body that are better for a packed operand."""
    found = [instruction for instruction in loop.body if instruction.opcode == "dot" and _is_worth_it(instruction)]
    invariant = invariant_values(loop, effects) if found else ()
    return [dot for dot in found if dot.operands[1] in invariant and dot.operands[0] not in invariant]


def _is_worth_it(dot: Instruction) -> bool:
    lhs, rhs = (operand.shape for operand in dot.operands)
    sums = _summing_type(dot)
    if sums is None or dot.get("lhs_batch_dims") or dot.get("algorithm") != "unset":
        return False
    if rhs.rank != 2 or len(dot.get("rhs_contracting_dims")) != 1 or any(s.is_dynamic for s in (lhs, rhs)):
        return False
    if dot.shape.minor_to_major != tuple(reversed(range(dot.shape.rank))):
        return False
    columns, rows, size = dot.shape.dims[-1], prod(dot.shape.dims[:-1]), rhs.count * sums.itemsize
    if columns <= panel_width(sums) or not _LEAST < size <= _MOST:
        return False
    return _FEWEST_ROWS <= rows <= _MOST_ROWS and not (rows <= _FEW_ROWS and size >= _LARGE)


def _summing_type(dot: Instruction) -> DType | None:
    """The type of panels: that of the products' sums, into which smaller floats are converted without loss."""
    types = [shape.dtype for shape in (dot.operands[0].shape, dot.operands[1].shape, dot.shape)]
    if all(dtype is F64 for dtype in types):
        return F64
    return F32 if all(dtype.is_float and dtype.bits <= 32 for dtype in types) else None


def _pack(dot: Instruction, made: dict[tuple[Instruction, int], Instruction]) -> None:
    """Lets a product read panels; those that are `made`, by the matrix and its contracted dimension, are shared."""
    emit = Emit.at(dot)
    lhs, rhs = dot.operands
    (step,) = dot.get("rhs_contracting_dims")
    if (rhs, step) not in made:
        made[rhs, step] = _panels(emit, rhs, step, _summing_type(dot))
    panels = made[rhs, step]
    number, _, width = panels.shape.dims
    *rows, columns = dot.shape.dims
    sums = panels.shape.dtype
    if lhs.shape.dtype is not sums:
        lhs = emit.op("convert", lhs.shape.with_dtype(sums), (lhs,))
    attributes = dot.attributes | {"rhs_contracting_dims": (1,)}
    product = emit.op("dot", array(sums, *rows, number, width), (lhs, panels), **attributes)
    result = emit.reshape(product, (*rows, number * width))
    if number * width != columns:
        result = emit.slice(result, [SliceDim(0, size) for size in dot.shape.dims])
    dot.computation.replace_uses(dot, emit.convert(result, dot.shape.dtype))
    dot.computation.remove(dot)


def _panels(emit: Emit, matrix: Instruction, step: int, dtype: DType) -> Instruction:
    """The panels of a matrix: their numbers, steps, and columns, of which the last panel may have more."""
    width = panel_width(dtype)
    steps, columns = matrix.shape.dims[step], matrix.shape.dims[1 - step]
    number = -(-columns // width)
    matrix = emit.convert(matrix, dtype)
    if number * width != columns:
        edges = [PadDim(0, number * width - columns if d != step else 0) for d in range(2)]
        matrix = emit.pad(matrix, emit.scalar(0, dtype), edges)
    if step == 0:
        return emit.transpose(emit.reshape(matrix, (steps, number, width)), (1, 0, 2))
    return emit.transpose(emit.reshape(matrix, (number, width, steps)), (0, 2, 1))
