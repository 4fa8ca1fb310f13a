"""Writes `shuffle` as slices joined in another order, or as a gather."""

from __future__ import annotations

from math import prod

import numpy as np

from hloc.ir.attributes import SliceDim
from hloc.ir.dtypes import S64
from hloc.ir.instruction import Instruction
from hloc.ir.literals import Literal
from hloc.ir.module import Module, call_order
from hloc.ir.shapes import array
from hloc.passes.emit import Emit, replace


def run(module: Module) -> bool:
    """Replaces a rotation by the two parts of each dimension, changed places, and a permutation by a gather.

    Requires: nothing.
    Ensures: no shuffle.
    Leaves: a constant of indices for each permutation.
    """
    found = [i for computation in call_order(module.entry) for i in computation if i.opcode == "shuffle"]
    for instruction in found:
        expand = _rotated if instruction.get("mode").text == "rotate" else _permuted
        replace(instruction, expand(Emit.at(instruction), instruction))
    return bool(found)


def _rotated(emit: Emit, instruction: Instruction) -> Instruction:
    """The element at i comes from i - shift, around the end."""
    value = emit.op("copy", instruction.shape, instruction.operands)
    dims = value.shape.dims
    for dimension, shift in zip(instruction.get("dimensions"), instruction.get("shifts"), strict=True):
        size = dims[dimension]
        if not size or not shift % size:
            continue
        cut = size - shift % size
        parts = [_part(emit, value, dimension, cut, size), _part(emit, value, dimension, 0, cut)]
        value = emit.concatenate(parts, dimension)
    return value


def _part(emit: Emit, value: Instruction, dimension: int, start: int, limit: int) -> Instruction:
    ranges = [SliceDim(0, size) for size in value.shape.dims]
    ranges[dimension] = SliceDim(start, limit)
    return emit.slice(value, ranges)


def _permuted(emit: Emit, instruction: Instruction) -> Instruction:
    """`indices` lists, for each place of the dimensions, the place from where its element comes."""
    (operand,), dimensions = instruction.operands, instruction.get("dimensions")
    dims = operand.shape.dims
    rest = [d for d in range(len(dims)) if d not in dimensions]
    count = prod(dims[d] for d in dimensions)
    table = instruction.get("indices").array.reshape(count, len(dimensions)).astype(np.int64)
    indices = emit.literal(Literal(array(S64, *table.shape), table))
    rows = emit.op(
        "gather",
        array(operand.shape.dtype, count, *(dims[d] for d in rest)),
        (operand, indices),
        offset_dims=tuple(range(1, 1 + len(rest))),
        collapsed_slice_dims=tuple(sorted(dimensions)),
        start_index_map=tuple(dimensions),
        index_vector_dim=1,
        slice_sizes=tuple(1 if d in dimensions else size for d, size in enumerate(dims)),
    )
    order = [*dimensions, *rest]
    spread = emit.reshape(rows, [dims[d] for d in order])
    return emit.transpose(spread, [order.index(d) for d in range(len(dims))])
