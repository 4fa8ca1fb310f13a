"""Writes the custom call TopK as `topk`, and a `topk` of most of a long row as a sort."""

from __future__ import annotations

from hloc.errors import HloError
from hloc.ir.attributes import SliceDim
from hloc.ir.computation import Computation
from hloc.ir.dtypes import PRED, S32, DType
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.ir.shapes import Shape, TupleShape, array
from hloc.passes.emit import Emit, dense, replace, row_major

_FEW = 32
"""Elements that are selected rather than sorted, of however few."""


def run(module: Module) -> bool:
    """Replaces custom calls of TopK by topk, then each topk of more than a third of its rows by a sort and a slice.

    All of them compare floats in their total order, so that NaN is the greatest of all; of equal values the one at
    the lower position comes first, whichever end is asked for. A custom call's comparator tells no more than which
    end: XLA's own call doesn't ask it about NaNs and zeros either. Beyond a third, sorting is measured to be faster
    than selecting.

    Requires: layout_removal.
    Ensures: no custom call of TopK with at most one comparator.
    Leaves: topk of few elements, which has a kernel; a tuple (values, positions) behind a sort.
    """
    calls = [i for computation in call_order(module.entry) for i in computation if _is_call(i)]
    for call in calls:
        replace(call, _as_topk(call))
    many = [i for computation in call_order(module.entry) for i in computation if _is_of_many(i)]
    for instruction in many:
        replace(instruction, _sorted(instruction))
    if many:
        module.order_computations()
    return bool(calls or many)


def _is_call(instruction: Instruction) -> bool:
    if instruction.opcode != "custom-call" or instruction.get("custom_call_target") != "TopK":
        return False
    return len(instruction.operands) == 1 and len(instruction.called) <= 1


def _as_topk(call: Instruction) -> Instruction:
    (data,) = call.operands
    k = _count(call.shape)
    largest = not call.called or call.called[0].root.get("direction") != "LT"
    if k is not None and data.shape.rank and k <= data.shape.dims[-1]:
        made = Emit.at(call).op("topk", None, (data,), k=k, largest=largest)
        if made.shape == row_major(call.shape):
            return made
    raise HloError(f"TopK of {data.shape!r} does not give {call.shape!r}", call.span)


def _count(shape: Shape) -> int | None:
    """How many elements of each row a result of (values, positions) holds."""
    values = shape.elements[0] if shape.is_tuple and shape.elements else None
    return values.dims[-1] if values is not None and values.is_array and values.dims else None


def _is_of_many(instruction: Instruction) -> bool:
    if instruction.opcode != "topk":
        return False
    return instruction.get("k") > max(_FEW, instruction.operands[0].shape.dims[-1] // 3)


def _sorted(topk: Instruction) -> Instruction:
    """A stable sort of (value, position) pairs along the last dimension, and its first k."""
    emit = Emit.at(topk)
    (data,) = topk.operands
    dims = data.shape.dims
    last = len(dims) - 1
    positions = emit.iota(S32, dims, last)
    comparator = _comparator(data.shape.dtype, "GT" if topk.get("largest") else "LT")
    ordered = emit.op(
        "sort",
        TupleShape((dense(data.shape), positions.shape)),
        (data, positions),
        dimensions=(last,),
        is_stable=True,
        to_apply=topk.computation.module.add_computation(comparator),
    )
    ranges = [SliceDim(0, topk.get("k") if d == last else size) for d, size in enumerate(dims)]
    return emit.tuple([emit.slice(emit.element(ordered, i), ranges) for i in range(2)])


def _comparator(dtype: DType, direction: str) -> Computation:
    """Of (left, right, left position, right position)."""
    computation = Computation(f"topk_{direction.lower()}")
    emit = Emit(computation)
    left = emit.parameter(0, array(dtype), "left")
    right = emit.parameter(1, array(dtype), "right")
    emit.parameter(2, array(S32), "left_position")
    emit.parameter(3, array(S32), "right_position")
    order = {"type": "TOTALORDER"} if dtype.is_float else {}
    computation.root = emit.op("compare", array(PRED), (left, right), direction=direction, **order)
    return computation
