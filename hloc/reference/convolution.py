"""convolution: window sums of products, with strides, padding, dilations, reversal and groups.

One matrix product for every place of the window, added up in f64 (as dot does).
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from hloc.errors import HloError
from hloc.ir.attributes import ConvDims, WindowDim
from hloc.ir.instruction import Instruction
from hloc.reference.context import Context
from hloc.reference.dot import product_type, summed_up
from hloc.reference.values import widest
from hloc.reference.window import window_dims


def convolution(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    if len(operands) != 2 or instruction.get("sparsity_config") or instruction.get("block_scaling_config"):
        raise HloError("a convolution with scales or sparsity is not supported", instruction.span)
    labels: ConvDims = instruction.get("dim_labels")
    result = instruction.shape.dtype
    sources = [operand.shape.dtype for operand in instruction.operands]
    kind = product_type(sources[0], sources[1], result)
    if result.is_integer and not any(source.is_float or source.is_complex for source in sources):
        kind = np.dtype(np.int64)
    base, kernel = (widest(x, source).astype(kind) for x, source in zip(operands, sources))
    base = base.transpose([labels.input_batch, labels.input_feature, *labels.input_spatial])
    kernel = kernel.transpose(
        [labels.kernel_output_feature, labels.kernel_input_feature, *labels.kernel_spatial]
    )
    dims = window_dims(instruction.get("window"), len(labels.input_spatial))
    total = _grouped(
        base, kernel, dims, instruction.get("feature_group_count"), instruction.get("batch_group_count")
    )
    places = [labels.output_batch, labels.output_feature, *labels.output_spatial]
    return summed_up(total.transpose(np.argsort(places)), result)


def _grouped(
    base: np.ndarray, kernel: np.ndarray, dims: tuple[WindowDim, ...], features: int, batches: int
) -> np.ndarray:
    """Base (batch, feature, spatial...) and kernel (output feature, input feature, spatial...) to (batch,
    feature, spatial...).

    Feature groups: group g of the base's features meets group g of the kernel's output features. Batch
    groups: group g of the base's batch does, and the groups' outputs lie side by side in the feature
    dimension.
    """
    groups = max(features, batches)
    axis = 1 if features > 1 else 0
    parts = np.split(base, groups, axis=axis)
    stacked = np.stack(parts)  # (group, batch, input feature, spatial...)
    kernels = np.stack(np.split(kernel, groups, axis=0))  # (group, output feature, input feature, spatial...)
    total = _convolve(stacked, kernels, dims)  # (group, batch, output feature, spatial...)
    group, batch, output = total.shape[:3]
    return np.moveaxis(total, 0, 1).reshape((batch, group * output, *total.shape[3:]))


def _convolve(base: np.ndarray, kernel: np.ndarray, dims: tuple[WindowDim, ...]) -> np.ndarray:
    sizes = [dim.output_size(size) for dim, size in zip(dims, base.shape[3:])]
    padded = _padded(base, dims)
    groups, batch, features = base.shape[:3]
    total = np.zeros((groups, batch, *sizes, kernel.shape[1]), base.dtype)
    for offsets in np.ndindex(*kernel.shape[3:]):
        places = tuple(
            slice(
                offset * dim.window_dilation,
                offset * dim.window_dilation + (size - 1) * dim.stride + 1,
                dim.stride,
            )
            if size
            else slice(0, 0)
            for offset, dim, size in zip(offsets, dims, sizes)
        )
        # A reversed window meets the base from its end.
        taken = tuple(d.size - 1 - o if d.reversed else o for o, d in zip(offsets, dims))
        seen = np.moveaxis(padded[(slice(None),) * 3 + places], 2, -1).reshape(
            (groups, batch * prod(sizes), features)
        )
        weights = kernel[(slice(None),) * 3 + taken].transpose(0, 2, 1)
        total += np.matmul(seen, weights).reshape(total.shape)
    return np.moveaxis(total, -1, 2)


def _padded(base: np.ndarray, dims: tuple[WindowDim, ...]) -> np.ndarray:
    """Zeros at edges and between elements; negative padding cuts."""
    spatial = base.shape[3:]
    dilated = [(size - 1) * dim.base_dilation + 1 if size else 0 for size, dim in zip(spatial, dims)]
    spread = base
    if any(dim.base_dilation > 1 for dim in dims):
        spread = np.zeros((*base.shape[:3], *dilated), base.dtype)
        spread[(slice(None),) * 3 + tuple(slice(None, None, dim.base_dilation) for dim in dims)] = base
    inside = tuple(
        slice(max(0, -d.pad_low), max(0, size - max(0, -d.pad_high))) for d, size in zip(dims, dilated)
    )
    edges = [(max(0, dim.pad_low), max(0, dim.pad_high)) for dim in dims]
    return np.pad(spread[(slice(None),) * 3 + inside], [(0, 0)] * 3 + edges)


TABLE: dict[str, Callable] = {"convolution": convolution}
