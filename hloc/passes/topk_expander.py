"""Writes `topk` as a sort."""

from __future__ import annotations

from hloc.ir.attributes import SliceDim
from hloc.ir.computation import Computation
from hloc.ir.dtypes import PRED, S32, DType
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.ir.shapes import TupleShape, array
from hloc.passes.emit import Emit, dense, replace


def run(module: Module) -> bool:
    """Replaces topk by a stable sort of (value, position) pairs along the last dimension, and a slice.

    Floats are compared in their total order, so that NaN is the greatest of all; of equal values the one at
    the lower position comes first, whichever end is asked for.

    Requires: nothing.
    Ensures: no topk.
    Leaves: a tuple (values, positions).
    """
    found = [i for computation in call_order(module.entry) for i in computation if i.opcode == "topk"]
    for instruction in found:
        replace(instruction, _expanded(instruction))
    if found:
        module.order_computations()
    return bool(found)


def _expanded(instruction: Instruction) -> Instruction:
    emit = Emit.at(instruction)
    data = instruction.operands[0]
    dims = data.shape.dims
    last = len(dims) - 1
    positions = emit.iota(S32, dims, last)
    comparator = _comparator(data.shape.dtype, "GT" if instruction.get("largest") else "LT")
    module = instruction.computation.module
    shape = TupleShape((dense(data.shape), positions.shape))
    ordered = emit.op(
        "sort",
        shape,
        (data, positions),
        dimensions=(last,),
        is_stable=True,
        to_apply=module.add_computation(comparator),
    )
    k = instruction.attributes["k"]
    ranges = [SliceDim(0, k if d == last else size) for d, size in enumerate(dims)]
    return emit.tuple([emit.slice(emit.element(ordered, i), ranges) for i in range(2)])


def _comparator(dtype: DType, direction: str) -> Computation:
    computation = Computation(f"topk_{direction.lower()}")
    emit = Emit(computation)
    left = emit.parameter(0, array(dtype), "left")
    right = emit.parameter(1, array(dtype), "right")
    emit.parameter(2, array(S32), "left_position")
    emit.parameter(3, array(S32), "right_position")
    order = {"type": "TOTALORDER"} if dtype.is_float else {}
    computation.root = emit.op("compare", array(PRED), (left, right), direction=direction, **order)
    return computation
