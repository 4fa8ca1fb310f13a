"""Frees the module of layouts, so that what follows need not look at them."""

from __future__ import annotations

from math import prod

from hloc.analysis.layouts import check_bitcast
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.ir.literals import Literal
from hloc.ir.module import Module
from hloc.ir.shapes import ArrayShape, Shape, array
from hloc.passes.emit import Emit, dense, replace, row_major

_FIXED = ("custom-call", "infeed", "recv", "recv-done", "send")
"""Ops whose result layouts are an agreement with somebody outside."""


def run(module: Module) -> bool:
    """Writes `bitcast` as transposes and reshapes, and makes all arrays row-major.

    What a bitcast means depends on layouts: on those that the text has.

    The layouts that the caller sees are kept in the module's entry layout, those that a custom call or a host
    transfer was written for in its own shape.

    Requires: nothing.
    Ensures: no bitcast; every other array is row-major, without tiles, padding or memory space.
    Leaves: layout_assignment to be run. HloError for a bitcast of a tiled layout.
    """
    changed = False
    if module.entry_layout is None:
        module.entry_layout = module.entry_shapes
        changed = True
    # Before any is replaced: what one becomes, which may be the operand of the next, does not have its layout.
    for instruction, source in [(i, i.operands[0].shape) for i in module.instructions() if _is_bitcast(i)]:
        replace(instruction, _logical(instruction, source))
        changed = True
    for instruction in module.instructions():
        if instruction.opcode not in _FIXED:
            changed |= _reset(instruction)
    return changed


def _is_bitcast(instruction: Instruction) -> bool:
    """Whether to write it out; HloError if that cannot be."""
    if instruction.opcode != "bitcast" or not instruction.shape.is_array:
        return False
    check_bitcast(instruction)
    return True


def _logical(instruction: Instruction, source: ArrayShape) -> Instruction:
    """The memory of a `source` under another shape, said without memory."""
    emit = Emit.at(instruction)
    operand = instruction.operands[0]
    target = instruction.shape
    value = emit.transpose(operand, source.minor_to_major[::-1])
    order = target.minor_to_major[::-1]
    value = _reinterpreted(emit, value, target.dtype)
    value = emit.reshape(value, [target.dims[d] for d in order])
    value = emit.transpose(value, [order.index(d) for d in range(target.rank)])
    return emit.op("copy", dense(operand.shape), (operand,)) if value is operand else value


def _reinterpreted(emit: Emit, value: Instruction, dtype: DType) -> Instruction:
    """Row-major elements as those of another type; flat if the width changes."""
    source = value.shape.dtype
    if source is dtype:
        return value
    if source.itemsize == dtype.itemsize:
        return emit.bitcast_convert(value, dtype)
    flat = emit.reshape(value, [prod(value.shape.dims)])
    count = flat.shape.count * source.itemsize // dtype.itemsize
    if source.itemsize < dtype.itemsize:
        grouped = emit.reshape(flat, [count, dtype.itemsize // source.itemsize])
        return emit.op("bitcast-convert", array(dtype, count), (grouped,))
    shape = array(dtype, flat.shape.count, source.itemsize // dtype.itemsize)
    return emit.reshape(emit.op("bitcast-convert", shape, (flat,)), [count])


def _reset(instruction: Instruction) -> bool:
    """Whether the shape was another one before."""
    shape = row_major(instruction.shape)
    if shape == instruction.shape:
        return False
    instruction.shape = shape
    if instruction.opcode == "constant":
        literal = instruction.attributes["literal"]
        instruction.attributes["literal"] = _with_shape(literal, shape)
    return True


def _with_shape(literal: Literal, shape: Shape) -> Literal:
    if isinstance(literal.value, tuple):
        parts = zip(literal.value, shape.elements, strict=True)
        return Literal(shape, tuple(_with_shape(part, s) for part, s in parts))
    return Literal(shape, literal.value)
