"""Dimensions folded (reduce), step by step with every output kept (scan), and map."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from hloc.ir.instruction import Instruction
from hloc.reference.context import Context
from hloc.reference.reducers import as_list, fold, known_operation, reduce_axes
from hloc.reference.values import Value, common_sizes


def reduce(instruction: Instruction, operands: list[np.ndarray], context: Context) -> Value:
    """`dimensions` folded by `to_apply`; of dynamic operands, the live elements (X28)."""
    half = len(operands) // 2
    arrays, initial = common_sizes(instruction, operands[:half]), operands[half:]
    axes, computation = instruction.get("dimensions"), instruction.get("to_apply")
    operation = known_operation(computation)
    if half == 1 and operation is not None:
        return reduce_axes(operation, arrays[0], axes, initial[0], instruction.operands[0].shape.dtype)
    results = fold(computation, initial, [_fronted(array, axes) for array in arrays], context)
    return tuple(results) if instruction.shape.is_tuple else results[0]


def _fronted(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The reduced dimensions as one first axis, in row-major order."""
    inside = sorted(axes)
    kept = [axis for axis in range(array.ndim) if axis not in inside]
    count = prod(array.shape[axis] for axis in inside)
    return array.transpose([*inside, *kept]).reshape((count, *(array.shape[axis] for axis in kept)))


def scan(instruction: Instruction, operands: list[np.ndarray], context: Context) -> Value:
    """`to_apply` takes (slices..., carries...) and gives (outputs..., carries...), for every step."""
    axis = instruction.get("dimensions")[0]
    split = len(operands) - instruction.get("num_carries")
    inputs, carries = [np.moveaxis(array, axis, 0) for array in operands[:split]], list(operands[split:])
    count = instruction.operands[0].shape.dims[axis] if split else _scan_length(instruction, axis)
    shapes = instruction.shape.elements if instruction.shape.is_tuple else (instruction.shape,)
    outputs = len(shapes) - len(carries)
    kept: list[list[np.ndarray]] = [[] for _ in range(outputs)]
    steps = range(count - 1, -1, -1) if instruction.get("is_reverse") else range(count)
    for step in steps:
        results = as_list(
            context.apply(instruction.get("to_apply"), [*(array[step] for array in inputs), *carries])
        )
        carries = results[outputs:]
        for place, output in zip(kept, results):
            place.append(output)
    if instruction.get("is_reverse"):
        kept = [place[::-1] for place in kept]
    stacked = [_stack(place, shape, axis) for place, shape in zip(kept, shapes)]
    return tuple(stacked + carries) if instruction.shape.is_tuple else (stacked + carries)[0]


def _scan_length(instruction: Instruction, axis: int) -> int:
    return instruction.shape.elements[0].dims[axis]


def _stack(outputs: list[np.ndarray], shape, axis: int) -> np.ndarray:
    return np.stack(outputs, axis=axis) if outputs else np.zeros(shape.dims, shape.dtype.numpy)


def map_(instruction: Instruction, operands: list[np.ndarray], context: Context) -> Value:
    return context.lift(instruction.get("to_apply"), common_sizes(instruction, operands))


TABLE: dict[str, Callable] = {
    "map": map_,
    "reduce": reduce,
    "scan": scan,
}
