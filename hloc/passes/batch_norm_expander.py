"""Writes the batch-norm ops with reductions and elementwise ops."""

from __future__ import annotations

from math import prod

import numpy as np

from hloc.ir.computation import Computation
from hloc.ir.dtypes import F32, DType
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.passes.emit import Emit, binary_computation, replace


def run(module: Module) -> bool:
    """Replaces batch-norm-training, -inference and -grad by what they are defined as.

    Sums run in f32 where the element type is narrower. The variance is the mean of squared distances from
    the mean, in a second pass over the data, which does not cancel.

    Requires: nothing.
    Ensures: no batch-norm op.
    Leaves: a tuple of results where the op had one.
    """
    changed = False
    for computation in call_order(module.entry):
        for instruction in computation:
            if instruction.opcode in _EXPANSIONS:
                replace(instruction, _EXPANSIONS[instruction.opcode](_Norm(instruction)))
                changed = True
    if changed:
        module.order_computations()
    return changed


class _Norm:
    """One batch-norm op: its operands in the type of the sums, and the steps that the three ops share."""

    def __init__(self, instruction: Instruction):
        self.emit = Emit.at(instruction)
        self.instruction = instruction
        self.feature = instruction.attributes["feature_index"]
        data = instruction.operands[0].shape
        self.dims = data.dims
        self.type: DType = F32 if data.dtype.bits < 32 else data.dtype
        self.operands = [self.emit.convert(operand, self.type) for operand in instruction.operands]
        self.others = tuple(d for d in range(len(self.dims)) if d != self.feature)
        self.count = prod(self.dims[d] for d in self.others)
        self._sum: Computation | None = None

    def spread(self, per_feature: Instruction) -> Instruction:
        return self.emit.broadcast(per_feature, self.dims, (self.feature,))

    def sum(self, data: Instruction) -> Instruction:
        """Over everything but the feature dimension."""
        if self._sum is None:
            self._sum = binary_computation(self.instruction, "add", self.type)
        return self.emit.reduce(data, self.emit.scalar(0, self.type), self.others, self._sum)

    def mean(self, data: Instruction) -> Instruction:
        total = self.sum(data)
        return self.emit.map("divide", total, self.emit.full(self.count, total.shape))

    def shifted(self, variance: Instruction) -> Instruction:
        """variance + epsilon, which is an f32 whatever the elements are"""
        epsilon = float(np.float32(self.instruction.attributes["epsilon"]))
        return self.emit.map("add", variance, self.emit.full(epsilon, variance.shape))

    def centred(self, data: Instruction, mean: Instruction) -> Instruction:
        return self.emit.map("subtract", data, self.spread(mean))

    def normalized(
        self, centred: Instruction, variance: Instruction, scale: Instruction, offset: Instruction
    ):
        """centred * rsqrt(variance + epsilon) * scale + offset"""
        emit = self.emit
        factor = emit.map("rsqrt", self.shifted(variance))
        unit = emit.map("multiply", centred, self.spread(factor))
        return emit.map("add", emit.map("multiply", unit, self.spread(scale)), self.spread(offset))

    def results(self, *values: Instruction) -> Instruction:
        """In the op's own types; a tuple if there are several."""
        shape = self.instruction.shape
        if not shape.is_tuple:
            return self.emit.convert(values[0], shape.dtype)
        leaves = [self.emit.convert(v, s.dtype) for v, s in zip(values, shape.elements, strict=True)]
        return self.emit.tuple(leaves)


def _training(norm: _Norm) -> Instruction:
    data, scale, offset = norm.operands
    mean = norm.mean(data)
    centred = norm.centred(data, mean)
    variance = norm.mean(norm.emit.map("multiply", centred, centred))
    return norm.results(norm.normalized(centred, variance, scale, offset), mean, variance)


def _inference(norm: _Norm) -> Instruction:
    data, scale, offset, mean, variance = norm.operands
    return norm.results(norm.normalized(norm.centred(data, mean), variance, scale, offset))


def _grad(norm: _Norm) -> Instruction:
    """With n elements a feature, v = variance + epsilon, c = data - mean, and g the gradient of the output:

    d offset = sum g;  d scale = rsqrt(v) * sum(g c);
    d data = scale * rsqrt(v) / n * (n g - sum g - c / v * sum(g c))
    """
    data, scale, mean, variance, gradient = norm.operands
    emit = norm.emit
    centred = norm.centred(data, mean)
    shifted = norm.shifted(variance)
    factor = emit.map("rsqrt", shifted)
    d_offset = norm.sum(gradient)
    product = norm.sum(emit.map("multiply", gradient, centred))
    d_scale = emit.map("multiply", product, factor)
    count = emit.full(norm.count, d_offset.shape)
    along = emit.map("multiply", centred, norm.spread(emit.map("divide", product, shifted)))
    scaled = emit.map("multiply", gradient, norm.spread(count))
    inner = emit.map("subtract", emit.map("subtract", scaled, norm.spread(d_offset)), along)
    outer = emit.map("divide", emit.map("multiply", scale, factor), count)
    return norm.results(emit.map("multiply", inner, norm.spread(outer)), d_scale, d_offset)


_EXPANSIONS = {
    "batch-norm-training": _training,
    "batch-norm-inference": _inference,
    "batch-norm-grad": _grad,
}
