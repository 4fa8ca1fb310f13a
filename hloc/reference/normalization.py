"""The three batch-norm ops: statistics over all dimensions but the feature's (X30), computed in f64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hloc.ir.instruction import Instruction
from hloc.reference.context import Context
from hloc.reference.values import narrow, widest


def _operands(
    instruction: Instruction, operands: list[np.ndarray]
) -> tuple[list[np.ndarray], tuple[int, ...]]:
    """Wide arrays, the one-dimensional ones spread along the feature dimension; and the other dimensions."""
    feature = instruction.get("feature_index")
    rank = operands[0].ndim
    along = [-1 if axis == feature else 1 for axis in range(rank)]
    wide = [widest(array, source.shape.dtype) for array, source in zip(operands, instruction.operands)]
    spread = [array if array.ndim == rank and rank > 1 else array.reshape(along) for array in wide[1:]]
    return [wide[0], *spread], tuple(axis for axis in range(rank) if axis != feature)


def _rounded(instruction: Instruction, results: list[np.ndarray]) -> tuple:
    shapes = instruction.shape.elements
    return tuple(narrow(array.reshape(shape.dims), shape.dtype) for array, shape in zip(results, shapes))


def _epsilon(instruction: Instruction) -> float:
    """The attribute is an f32, whatever the elements are."""
    return float(np.float32(instruction.get("epsilon")))


def training(instruction: Instruction, operands: list[np.ndarray], context: Context) -> tuple:
    """(normalized, mean, biased variance)."""
    (x, scale, offset), others = _operands(instruction, operands)
    mean = x.mean(axis=others, keepdims=True)
    variance = np.square(x - mean).mean(axis=others, keepdims=True)
    normal = (x - mean) / np.sqrt(variance + _epsilon(instruction))
    return _rounded(instruction, [normal * scale + offset, mean, variance])


def inference(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    (x, scale, offset, mean, variance), _ = _operands(instruction, operands)
    normal = (x - mean) / np.sqrt(variance + _epsilon(instruction))
    return narrow(normal * scale + offset, instruction.shape.dtype)


def grad(instruction: Instruction, operands: list[np.ndarray], context: Context) -> tuple:
    """(gradient of the operand, of scale, of offset) from the mean and variance of the training form."""
    (x, scale, mean, variance, gradient), others = _operands(instruction, operands)
    inverse = 1 / np.sqrt(variance + _epsilon(instruction))
    centered = (x - mean) * inverse
    scale_gradient = (gradient * centered).sum(axis=others, keepdims=True)
    offset_gradient = gradient.sum(axis=others, keepdims=True)
    count = x.size / max(1, scale.size)
    # The sum first, which may be the gradient itself and cancel it.
    x_gradient = scale * inverse / count * (count * gradient - offset_gradient - centered * scale_gradient)
    return _rounded(instruction, [x_gradient, scale_gradient, offset_gradient])


TABLE: dict[str, Callable] = {
    "batch-norm-grad": grad,
    "batch-norm-inference": inference,
    "batch-norm-training": training,
}
