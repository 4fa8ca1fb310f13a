"""Writes `topk`, and the custom call TopK, as a sort."""

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
    the lower position comes first, whichever end is asked for. The custom call brings its own comparator.

    Requires: nothing.
    Ensures: no topk, no custom call of TopK.
    Leaves: a tuple (values, positions).
    """
    found = [i for computation in call_order(module.entry) for i in computation if _is_topk(i)]
    for instruction in found:
        replace(instruction, _expanded(instruction))
    if found:
        module.order_computations()
    return bool(found)


def _is_topk(instruction: Instruction) -> bool:
    if instruction.opcode == "custom-call":
        return instruction.attributes["custom_call_target"] == "TopK" and len(instruction.called) == 1
    return instruction.opcode == "topk"


def _expanded(instruction: Instruction) -> Instruction:
    emit = Emit.at(instruction)
    data = instruction.operands[0]
    dims = data.shape.dims
    last = len(dims) - 1
    positions = emit.iota(S32, dims, last)
    ordered = emit.op(
        "sort",
        TupleShape((dense(data.shape), positions.shape)),
        (data, positions),
        dimensions=(last,),
        is_stable=True,
        to_apply=_order(instruction),
    )
    k = instruction.shape.elements[0].dims[-1]
    ranges = [SliceDim(0, k if d == last else size) for d, size in enumerate(dims)]
    return emit.tuple([emit.slice(emit.element(ordered, i), ranges) for i in range(2)])


def _order(instruction: Instruction) -> Computation:
    """The comparator: of (left, right, left position, right position)."""
    if instruction.called:
        return instruction.called[0]
    dtype = instruction.operands[0].shape.dtype
    comparator = _comparator(dtype, "GT" if instruction.get("largest") else "LT")
    return instruction.computation.module.add_computation(comparator)


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
