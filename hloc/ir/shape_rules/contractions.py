"""Shape rules of dots, convolutions and the other sums of products."""

from __future__ import annotations

from hloc.ir.attributes import ConvDims, WindowDim
from hloc.ir.dtypes import C64, C128, F32, F64, DType
from hloc.ir.shape_rules.common import (
    ANY,
    FLOAT_OR_COMPLEX,
    FLOATS,
    INTEGERS,
    Site,
    make_array,
    sizes_agree,
)
from hloc.ir.shapes import UNBOUNDED, ArrayShape, Shape


def window_output(site: Site, sizes: tuple[int, ...], window: tuple[WindowDim, ...]) -> list[int]:
    """How many window positions each base dimension has."""
    if len(window) != len(sizes):
        raise site.error("WINDOW_C1", f"the window has {len(window)} dimensions, expected {len(sizes)}")
    for number, dim in enumerate(window):
        for field in ("size", "stride", "base_dilation", "window_dilation"):
            value = getattr(dim, field)
            if value < 1:
                raise site.error(
                    "WINDOW_C2", f"dimension {number} of the window has {field} {value}, expected at least 1"
                )
    return [
        UNBOUNDED if size == UNBOUNDED else max(dim.output_size(size), 0)
        for size, dim in zip(sizes, window, strict=True)
    ]


def _product_type(site: Site, lhs: ArrayShape, rhs: ArrayShape) -> DType:
    """The declared element type, to which sums are converted, else the wider of the operands'."""
    return _wider(lhs.dtype, rhs.dtype) if site.declared is None else site.result_array().dtype


def _wider(one: DType, other: DType) -> DType:
    """The type that can hold both: the higher family (pred, integer, float, complex), then the wider."""
    order = {"predicate": 0, "unsigned": 1, "signed": 1, "float": 2, "complex": 3}
    return max((one, other), key=lambda d: (order[d.kind], d.bits, d is one))


def _check_precision(site: Site) -> None:
    precision = site.get("operand_precision")
    if precision and len(precision) > len(site.shapes):
        raise site.error(
            "PRECISION_C1", f"operand_precision has {len(precision)} entries for {len(site.shapes)} operands"
        )


Dims = tuple[int, ...]


def _parts(site: Site, side: str, shape: ArrayShape, groups: Dims = ()) -> tuple[Dims, Dims]:
    """Batch and contracting dimensions of one side of a dot."""
    batch = site.dimensions(f"{side}_batch_dims", shape.rank)
    contracting = site.dimensions(f"{side}_contracting_dims", shape.rank)
    taken = [*batch, *contracting, *groups]
    if len(set(taken)) != len(taken):
        raise site.error("DOT_C1", f"a dimension of {side} has two parts (batch, contracting, group)")
    return batch, contracting


def _check_pairs(site: Site, part: str, ours: Dims, theirs: Dims) -> None:
    """Dimensions of the two sides that go together."""
    lhs, rhs = site.array(0), site.array(1)
    if len(ours) != len(theirs):
        raise site.error("DOT_C2", f"{len(ours)} {part} dimensions of lhs, but {len(theirs)} of rhs")
    for a, b in zip(ours, theirs, strict=True):
        if not sizes_agree(lhs.dims[a], rhs.dims[b]):
            raise site.error(
                "DOT_C3",
                f"{part} dimension {a} of {site.name(0)} has size {lhs.dims[a]}, "
                f"but {b} of {site.name(1)} has size {rhs.dims[b]}",
            )


def _dot_dims(site: Site, lhs: ArrayShape, rhs: ArrayShape, groups: Dims = ()) -> tuple[list, list]:
    """Sizes and dynamic flags of batch, then lhs, then rhs dimensions."""
    lhs_batch, lhs_contracting = _parts(site, "lhs", lhs)
    rhs_batch, rhs_contracting = _parts(site, "rhs", rhs, groups)
    _check_pairs(site, "contracting", lhs_contracting, rhs_contracting)
    _check_pairs(site, "batch", lhs_batch, rhs_batch)
    places = [(lhs, d) for d in lhs_batch]
    places += [(lhs, d) for d in range(lhs.rank) if d not in lhs_batch + lhs_contracting]
    places += [(rhs, d) for d in range(rhs.rank) if d not in rhs_batch + rhs_contracting + groups]
    return [shape.dims[d] for shape, d in places], [shape.is_dynamic_dim(d) for shape, d in places]


def dot(site: Site) -> Shape:
    """Batch dimensions, then what is left of lhs, then of rhs."""
    lhs, rhs = site.typed(0, ANY), site.typed(1, ANY)
    _check_precision(site)
    dims, flags = _dot_dims(site, lhs, rhs)
    return make_array(_product_type(site, lhs, rhs), dims, flags)


def scaled_dot(site: Site) -> Shape:
    """As a dot; a scale is a scalar, or an array of its operand's rank whose sizes divide the operand's."""
    lhs, rhs = site.typed(0, FLOATS), site.typed(1, FLOATS)
    _check_precision(site)
    for number, operand in ((2, lhs), (3, rhs)):
        scale = site.typed(number, FLOATS)
        fits = not scale.dims or (
            scale.rank == operand.rank
            and all(
                s > 0 and size % s == 0 or s == size for s, size in zip(scale.dims, operand.dims, strict=True)
            )
        )
        if not fits:
            raise site.error(
                "SCALED_DOT_C1",
                f"{site.name(number)} is {scale!r}, which does not scale blocks of {operand!r}",
            )
    dims, flags = _dot_dims(site, lhs, rhs)
    return make_array(_product_type(site, lhs, rhs), dims, flags)


def ragged_dot(site: Site) -> Shape:
    """A dot whose lhs has one dimension of groups of rows, sized by the third operand.

    Where the ragged dimension is kept, rhs has a group dimension; where it is contracted, the result gets
    one in front; where it is a batch dimension, there is none.
    """
    lhs, rhs = site.typed(0, ANY), site.typed(1, ANY)
    sizes = site.typed(2, INTEGERS)
    _check_precision(site)
    ragged = site.dimension("lhs_ragged_dims", lhs.rank)
    groups = site.dimensions("rhs_group_dims", rhs.rank)
    is_kept = ragged not in site.get("lhs_contracting_dims") + site.get("lhs_batch_dims")
    if len(groups) != int(is_kept):
        raise site.error(
            "RAGGED_DOT_C1", f"rhs_group_dims has {len(groups)} entries, expected {int(is_kept)}"
        )
    if not sizes.dims or (is_kept and not sizes_agree(sizes.dims[-1], rhs.dims[groups[0]])):
        raise site.error("RAGGED_DOT_C2", f"{site.name(2)} is {sizes!r}, expected a size for each group")
    dims, flags = _dot_dims(site, lhs, rhs, groups)
    if ragged in site.get("lhs_contracting_dims"):
        dims, flags = [sizes.dims[-1], *dims], [sizes.is_dynamic_dim(sizes.rank - 1), *flags]
    return make_array(_product_type(site, lhs, rhs), dims, flags)


def convolution(site: Site) -> Shape:
    lhs, rhs = site.typed(0, ANY), site.typed(1, ANY)
    _check_precision(site)
    labels = site.get("dim_labels")
    _check_labels(site, labels, lhs, rhs)
    window = site.get("window")
    window_dims = window.dims if window is not None else ()
    if len(window_dims) != len(labels.input_spatial):
        raise site.error(
            "WINDOW_C1", f"the window has {len(window_dims)} dimensions, expected {len(labels.input_spatial)}"
        )
    for number, (dim, place) in enumerate(zip(window_dims, labels.kernel_spatial, strict=True)):
        if not sizes_agree(rhs.dims[place], dim.size):
            raise site.error(
                "CONVOLUTION_C3",
                f"window dimension {number} has size {dim.size}, that of {site.name(1)} {rhs.dims[place]}",
            )
    batch = _check_groups(site, labels, lhs, rhs)
    places = window_output(site, tuple(lhs.dims[d] for d in labels.input_spatial), window_dims)
    dims, flags = [0] * lhs.rank, [False] * lhs.rank
    dims[labels.output_batch], flags[labels.output_batch] = batch, lhs.is_dynamic_dim(labels.input_batch)
    dims[labels.output_feature] = rhs.dims[labels.kernel_output_feature]
    for number, target in enumerate(labels.output_spatial):
        dims[target] = places[number]
        flags[target] = lhs.is_dynamic_dim(labels.input_spatial[number]) or rhs.is_dynamic_dim(
            labels.kernel_spatial[number]
        )
    return make_array(_product_type(site, lhs, rhs), dims, flags)


def _check_labels(site: Site, labels: ConvDims, lhs: ArrayShape, rhs: ArrayShape) -> None:
    """dim_labels names each dimension of input, kernel and output once."""
    rank = len(labels.input_spatial) + 2
    for number, shape in ((0, lhs), (1, rhs)):
        if shape.rank != rank:
            raise site.error(
                "CONVOLUTION_C1", f"{site.name(number)} is {shape!r}, but dim_labels has {rank} dimensions"
            )
    parts = (
        ("input", labels.input_batch, labels.input_feature, labels.input_spatial),
        ("kernel", labels.kernel_input_feature, labels.kernel_output_feature, labels.kernel_spatial),
        ("output", labels.output_batch, labels.output_feature, labels.output_spatial),
    )
    for part, first, second, spatial in parts:
        if sorted((first, second, *spatial)) != list(range(rank)):
            raise site.error(
                "CONVOLUTION_C2", f"the {part} part of dim_labels does not name {rank} dimensions once each"
            )


def _check_groups(site: Site, labels: ConvDims, lhs: ArrayShape, rhs: ArrayShape) -> int:
    """Check group counts against features and batch; returns the output's batch size."""
    feature_groups, batch_groups = site.get("feature_group_count"), site.get("batch_group_count")
    if feature_groups < 1 or batch_groups < 1 or (feature_groups > 1 and batch_groups > 1):
        raise site.error(
            "CONVOLUTION_C4",
            f"feature_group_count={feature_groups} and batch_group_count={batch_groups}, "
            "expected both positive and one of them 1",
        )
    features, kernel_features = lhs.dims[labels.input_feature], rhs.dims[labels.kernel_input_feature]
    if UNBOUNDED not in (features, kernel_features) and features != kernel_features * feature_groups:
        raise site.error(
            "CONVOLUTION_C5",
            f"{site.name(0)} has {features} features, expected {feature_groups} groups of {kernel_features}",
        )
    outputs, batch = rhs.dims[labels.kernel_output_feature], lhs.dims[labels.input_batch]
    if outputs != UNBOUNDED and (outputs % feature_groups or outputs % batch_groups):
        raise site.error(
            "CONVOLUTION_C6",
            f"{outputs} output features cannot be split into {max(feature_groups, batch_groups)} groups",
        )
    if batch == UNBOUNDED:
        return UNBOUNDED
    if batch % batch_groups:
        raise site.error("CONVOLUTION_C7", f"a batch of {batch} cannot be split into {batch_groups} groups")
    return batch // batch_groups


def fft(site: Site) -> Shape:
    lengths, kind = site.get("fft_length"), site.get("fft_type")
    operand = site.array(0)
    if not 1 <= len(lengths) <= 3 or operand.rank < len(lengths):
        raise site.error(
            "FFT_C1",
            f"fft_length has {len(lengths)} entries for {operand!r}, expected 1 to 3, each with a dimension",
        )
    is_real_input = kind == "RFFT"
    if (
        is_real_input
        and operand.dtype not in (F32, F64)
        or not is_real_input
        and not operand.dtype.is_complex
    ):
        raise site.error(
            "FFT_C2",
            f"{site.name(0)} is {operand!r}, expected {'f32 or f64' if is_real_input else 'complex'}",
        )
    expected = list(lengths)
    if kind == "IRFFT" and lengths[-1]:
        expected[-1] = lengths[-1] // 2 + 1
    inner = operand.dims[operand.rank - len(lengths) :]
    # An FFT or IFFT of another length than its dimension is no transform that XLA's backends define.
    if min(lengths) < 0 or not all(map(sizes_agree, inner, expected)):
        raise site.error(
            "FFT_C3", f"{site.name(0)} is {operand!r}, expected its last dimensions to be {expected}"
        )
    if kind in ("FFT", "IFFT"):
        return operand
    last = lengths[-1] if kind == "IRFFT" else lengths[-1] // 2 + 1 if lengths[-1] else 0
    dtype = operand.dtype.real_part if kind == "IRFFT" else C64 if operand.dtype is F32 else C128
    return ArrayShape(dtype, (*operand.dims[:-1], last), operand.layout, operand.dynamic)


def _check_square(site: Site, number: int, label: str) -> ArrayShape:
    shape = site.typed(number, FLOAT_OR_COMPLEX)
    if shape.rank < 2 or not sizes_agree(shape.dims[-1], shape.dims[-2]):
        raise site.error(label, f"{site.name(number)} is {shape!r}, expected square matrices")
    return shape


def cholesky(site: Site) -> Shape:
    return _check_square(site, 0, "CHOLESKY_C1")


def triangular_solve(site: Site) -> Shape:
    a = _check_square(site, 0, "TRIANGULAR_SOLVE_C1")
    b = site.array(1)
    site.same_type(1)
    shared = -2 if site.get("left_side") else -1
    fits = (
        b.rank == a.rank
        and all(map(sizes_agree, a.dims[:-2], b.dims[:-2]))
        and sizes_agree(a.dims[-1], b.dims[shared])
    )
    if not fits:
        raise site.error("TRIANGULAR_SOLVE_C2", f"{site.name(1)} is {b!r}, which does not go with {a!r}")
    if site.get("transpose_a") in (None, "TRANSPOSE_INVALID"):
        raise site.error("TRIANGULAR_SOLVE_C3", "transpose_a must be NO_TRANSPOSE, TRANSPOSE or ADJOINT")
    return b
