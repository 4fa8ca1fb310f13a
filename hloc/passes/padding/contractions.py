"""Sums of products, and ops on matrices: dead elements that would be summed become zeros on both sides."""

from __future__ import annotations

from hloc.ir.attributes import ConvDims, WindowDim
from hloc.ir.instruction import Instruction
from hloc.passes.padding.folds import window_positions
from hloc.passes.padding.values import Padded, Rules, Site, common_sizes, filled, least


def dot(site: Site) -> Padded:
    """Dimensions of the result: batch, what is left of the left operand, of the right one."""
    emit, (left, right) = site.emit, site.operands
    batch = list(zip(site.get("lhs_batch_dims"), site.get("rhs_batch_dims"), strict=True))
    summed = list(zip(site.get("lhs_contracting_dims"), site.get("rhs_contracting_dims"), strict=True))
    data = _cleared(site, summed)
    sizes = [least(emit, [left.sizes.get(a), right.sizes.get(b)]) for a, b in batch]
    for side, value in enumerate((left, right)):
        shared = {pair[side] for pair in (*batch, *summed)}
        sizes += [value.sizes.get(d) for d in range(len(value.dims)) if d not in shared]
    return Padded(site.same(data), {d: size for d, size in enumerate(sizes) if size is not None})


def _cleared(site: Site, summed: list[tuple[int, int]]) -> list[Instruction]:
    """Both operands with zeros where a summed dimension, of the lesser size of both, has ended."""
    emit, values = site.emit, site.operands[:2]
    ends = [least(emit, [values[0].sizes.get(a), values[1].sizes.get(b)]) for a, b in summed]
    if any(size is not None for size in ends) and any(v.data.shape.dtype.name == "f8e8m0fnu" for v in values):
        raise site.refused("a sum over a type without zero")
    data = []
    for side, value in enumerate(values):
        cut = {pair[side]: end for pair, end in zip(summed, ends, strict=True) if end is not None}
        data.append(filled(emit, value.data, cut))
    return data


def convolution(site: Site) -> Padded:
    labels: ConvDims = site.get("dim_labels")
    emit, (lhs, rhs) = site.emit, site.operands
    dims = site.get("window").dims if site.get("window") is not None else ()
    grouped = site.get("feature_group_count") != 1 or site.get("batch_group_count") != 1
    parts = {labels.input_batch, labels.input_feature}
    if grouped and (parts & set(lhs.sizes) or rhs.sizes):
        raise site.refused("a batch or feature dimension in groups")
    if set(labels.kernel_spatial) & set(rhs.sizes):
        raise site.refused("a kernel of dynamic size")
    data = _cleared(site, [(labels.input_feature, labels.kernel_input_feature)])
    spatial = [d for d in labels.input_spatial if d in lhs.sizes]
    data[0] = filled(emit, data[0], {d: lhs.sizes[d] for d in spatial})
    sizes = {}
    if labels.input_batch in lhs.sizes:
        sizes[labels.output_batch] = lhs.sizes[labels.input_batch]
    if labels.kernel_output_feature in rhs.sizes:
        sizes[labels.output_feature] = rhs.sizes[labels.kernel_output_feature]
    for source, target, dim in zip(labels.input_spatial, labels.output_spatial, dims, strict=True):
        if source in lhs.sizes:
            size = lhs.sizes[source]
            sizes[target] = size if dim == WindowDim(1) else window_positions(emit, size, dim)
    return Padded(site.same(data), sizes)


def _of_batches(site: Site, inner: int) -> Padded:
    """An op on the last dimensions of its operand: those before are a batch."""
    value = site.operands[0]
    if any(d >= len(value.dims) - inner for d in value.sizes):
        raise site.refused("transformed or factored dimensions of dynamic size")
    return Padded(site.same(), value.sizes)


def fft(site: Site) -> Padded:
    return _of_batches(site, len(site.get("fft_length")))


def cholesky(site: Site) -> Padded:
    return _of_batches(site, 2)


def triangular_solve(site: Site) -> Padded:
    """Only the batch, and the dimension of right sides, may be dynamic."""
    matrix, sides = site.operands
    rank = len(matrix.dims)
    solved = rank - 2 if site.get("left_side") else rank - 1
    if solved in sides.sizes or any(d >= rank - 2 for d in matrix.sizes):
        raise site.refused("a system of dynamic size")
    return Padded(site.same(), common_sizes(site.emit, site.operands))


RULES: Rules = {
    "cholesky": cholesky,
    "convolution": convolution,
    "dot": dot,
    "fft": fft,
    "triangular-solve": triangular_solve,
}
