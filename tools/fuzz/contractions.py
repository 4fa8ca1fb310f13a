"""Recipes: sums of products and linear algebra."""

from __future__ import annotations

import numpy as np

from hloc.ir import dtypes
from hloc.ir.attributes import ConvDims, Window
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.ir.shape_inference import infer_shape
from tools.fuzz.folds import window_dims
from tools.fuzz.maker import Maker
from tools.fuzz.values import COMPLEXES, FLOATS, INTEGERS, WIDE_FLOATS

_FACTORS = WIDE_FLOATS * 2 + INTEGERS + COMPLEXES + FLOATS
_PROFILES = ("", "tame", "whole", "wide")


def _result_type(m: Maker, dtype: DType) -> DType:
    """The operands' own type, or a wider one."""
    if m.draw.chance(0.6):
        return dtype
    if dtype.is_float:
        return m.draw.choice((dtypes.F32, dtypes.F64))
    return m.draw.choice((dtypes.S32, dtypes.S64)) if dtype.is_signed else dtype


def dot(m: Maker) -> Instruction:
    """Any batch and contracting dimensions, in any places."""
    dtype = m.draw.dtype(_FACTORS)
    batch = [m.draw.choice((1, 2, 3)) for _ in range(m.draw.choice((0, 0, 0, 1, 2)))]
    shared = [m.draw.size() for _ in range(m.draw.choice((0, 1, 1, 1, 2)))]
    free = [[m.draw.size() for _ in range(m.draw.choice((0, 1, 1, 2)))] for _ in range(2)]
    operands, attributes = [], {}
    for side, own in zip(("lhs", "rhs"), free, strict=True):
        sizes = [
            *((s, ("b", i)) for i, s in enumerate(batch)),
            *((s, ("c", i)) for i, s in enumerate(shared)),
        ]
        sizes += [(s, ("f", i)) for i, s in enumerate(own)]
        placed = m.draw.shuffled(range(len(sizes))) if m.draw.chance(0.5) else list(range(len(sizes)))
        dims = [sizes[i] for i in placed]
        where = {label: place for place, (_, label) in enumerate(dims)}
        attributes[f"{side}_batch_dims"] = tuple(where["b", i] for i in range(len(batch)))
        attributes[f"{side}_contracting_dims"] = tuple(where["c", i] for i in range(len(shared)))
        shape = tuple(size for size, _ in dims)
        operands.append(m.value(dtype, tuple(min(s, 9) for s in shape), m.draw.choice(_PROFILES)))
    shape = infer_shape("dot", [o.shape for o in operands], attributes)
    if shape.count > 3000:
        return dot(m)
    result = _result_type(m, dtype)
    return m.b.op("dot", *operands, shape=shape.with_dtype(result), **attributes)


def matrix_product(m: Maker) -> Instruction:
    """Larger ones, with leftovers at the edges of tiles."""
    dtype = m.draw.dtype(
        (dtypes.F32, dtypes.F32, dtypes.F64, dtypes.BF16, dtypes.F16, dtypes.S32, dtypes.C64)
    )
    sizes = [m.draw.choice((1, 2, 7, 8, 17, 31, 40, 65)) for _ in range(3)]
    left = m.value(dtype, (sizes[0], sizes[1]), "tame")
    right = m.value(dtype, (sizes[1], sizes[2]), "tame")
    contracting = [1, 0]
    if m.draw.chance(0.3):
        left, contracting[0] = m.b.op("transpose", left, dimensions=(1, 0)), 0
    if m.draw.chance(0.3):
        right, contracting[1] = m.b.op("transpose", right, dimensions=(1, 0)), 1
    return m.b.op(
        "dot", left, right, lhs_contracting_dims=(contracting[0],), rhs_contracting_dims=(contracting[1],)
    )


def convolution(m: Maker) -> Instruction:
    dtype = m.draw.dtype(WIDE_FLOATS * 3 + INTEGERS + COMPLEXES + FLOATS)
    spatial = m.draw.choice((0, 1, 1, 2, 2, 3))
    features, batches = m.draw.choice(((1, 1), (1, 1), (2, 1), (3, 1), (1, 2)))
    inner, outer = m.draw.integer(1, 3), m.draw.integer(1, 3) * max(features, batches)
    sizes = tuple(m.draw.choice((1, 3, 4, 5, 7)) for _ in range(spatial))
    window = Window(
        tuple(
            dim._replace(size=min(dim.size, 4), reversed=m.draw.chance(0.2))
            for dim in window_dims(m, sizes).dims
        )
    )
    if any(dim.output_size(size) < 1 for dim, size in zip(window.dims, sizes, strict=True)):
        window = Window(tuple(type(dim)(1) for dim in window.dims))
    labels = _labels(m, spatial)
    lhs, rhs = [0] * (spatial + 2), [0] * (spatial + 2)
    lhs[labels.input_batch], lhs[labels.input_feature] = m.draw.integer(1, 2) * batches, inner * features
    rhs[labels.kernel_input_feature], rhs[labels.kernel_output_feature] = inner, outer
    for number in range(spatial):
        lhs[labels.input_spatial[number]] = sizes[number]
        rhs[labels.kernel_spatial[number]] = window.dims[number].size
    # Whether padding and other groups meet an infinity, as zeros, is open; wide numbers are infinite in narrow types.
    profile = m.draw.choice(_PROFILES[1:3] if dtype.bits <= 8 else _PROFILES[1:])
    if dtype.is_integer and profile == "wide":
        m.portable = False  # where XLA folds a constant one, its sums saturate
    operands = [m.value(dtype, tuple(dims), profile) for dims in (lhs, rhs)]
    attributes = {"window": window, "dim_labels": labels}
    attributes |= {"feature_group_count": features, "batch_group_count": batches}
    shape = infer_shape("convolution", [o.shape for o in operands], attributes)
    return m.b.op("convolution", *operands, shape=shape.with_dtype(_result_type(m, dtype)), **attributes)


def _labels(m: Maker, spatial: int) -> ConvDims:
    parts = []
    for _ in range(3):
        order = m.draw.shuffled(range(spatial + 2))
        parts += [order[0], order[1], tuple(order[2:])]
    return ConvDims(*parts)


def fft(m: Maker) -> Instruction:
    kind = m.draw.choice(("FFT", "IFFT", "RFFT", "IRFFT"))
    lengths = tuple(m.draw.choice((1, 2, 3, 4, 5, 7, 8, 12, 16)) for _ in range(m.draw.choice((1, 1, 2, 3))))
    batch = tuple(m.draw.choice((1, 2, 3)) for _ in range(m.draw.choice((0, 1))))
    inner = lengths if kind != "IRFFT" else (*lengths[:-1], lengths[-1] // 2 + 1)
    dtype = m.draw.choice((dtypes.F32, dtypes.F64) if kind == "RFFT" else COMPLEXES)
    operand = m.value(dtype, batch + inner, m.draw.choice(("tame", "whole")))
    return m.b.op("fft", operand, fft_type=kind, fft_length=lengths)


_MATRICES = (dtypes.F32, dtypes.F64, dtypes.C64, dtypes.C128)


def _matrix(m: Maker, dtype: DType, array: np.ndarray) -> Instruction:
    values = np.asarray(array).astype(dtype.numpy)
    return m.parameter(values, dtype) if m.depth == 0 else m.b.constant(values, dtype)


def cholesky(m: Maker) -> Instruction:
    dtype, size = m.draw.choice(_MATRICES), m.draw.integer(1, 6)
    batch = tuple(m.draw.choice((1, 2)) for _ in range(m.draw.choice((0, 0, 1))))
    a = m.draw.array(dtype, (*batch, size, size), "tame")
    definite = a @ np.conj(np.swapaxes(a, -1, -2)) + size * np.eye(size)
    lower = {"lower": True} if m.draw.chance(0.6) else {}
    if dtype.is_complex:
        m.portable = False  # XLA's diagonal is not quite real
    return m.b.op("cholesky", _matrix(m, dtype, definite), **lower)


def triangular_solve(m: Maker) -> Instruction:
    dtype, size, others = m.draw.choice(_MATRICES), m.draw.integer(1, 6), m.draw.integer(0, 4)
    batch = tuple(m.draw.choice((1, 2)) for _ in range(m.draw.choice((0, 0, 1))))
    a = _matrix(m, dtype, 0.3 * m.draw.array(dtype, (*batch, size, size), "tame") + 2 * np.eye(size))
    flags = {name: True for name in ("left_side", "lower", "unit_diagonal") if m.draw.chance(0.5)}
    inner = (size, others) if "left_side" in flags else (others, size)
    transpose = m.draw.choice(("NO_TRANSPOSE", "TRANSPOSE", "ADJOINT"))
    return m.b.op(
        "triangular-solve", a, m.value(dtype, batch + inner, "tame"), transpose_a=transpose, **flags
    )


def ragged_dot(m: Maker) -> Instruction:
    m.portable = False
    dtype = m.draw.dtype(WIDE_FLOATS + INTEGERS)
    rows, inner, columns, groups = (m.draw.integer(1, 6) for _ in range(4))
    sizes = m.b.constant([m.draw.integer(0, 3) for _ in range(groups)], dtypes.S32)
    left, right = m.value(dtype, (rows, inner), "tame"), m.value(dtype, (groups, inner, columns), "tame")
    return m.b.op(
        "ragged-dot",
        *(left, right, sizes),
        lhs_contracting_dims=(1,),
        rhs_contracting_dims=(1,),
        lhs_ragged_dims=(0,),
        rhs_group_dims=(0,),
    )


def scaled_dot(m: Maker) -> Instruction:
    """Scales of blocks in any dimension, or of the whole operand."""
    m.portable = False
    dtype, batch = m.draw.dtype(FLOATS), m.draw.choice(((), (2,)))
    sizes = [m.draw.choice((1, 2, 4, 6)) for _ in range(3)]
    left = m.value(dtype, (*batch, sizes[0], sizes[1]), "tame")
    right = m.value(m.draw.dtype((dtype, *FLOATS)), (*batch, sizes[2], sizes[1]), "tame")
    scales = [
        m.value(m.draw.dtype(FLOATS), _blocks(m, side.shape.dims), m.draw.choice(("tame", "whole")))
        for side in (left, right)
    ]
    dims = {f"{side}_batch_dims": tuple(range(len(batch))) for side in ("lhs", "rhs")}
    dims |= {f"{side}_contracting_dims": (len(batch) + 1,) for side in ("lhs", "rhs")}
    shape = infer_shape("scaled-dot", [o.shape for o in (left, right, *scales)], dims)
    return m.b.op("scaled-dot", left, right, *scales, shape=shape.with_dtype(_result_type(m, dtype)), **dims)


def _blocks(m: Maker, dims: tuple[int, ...]) -> tuple[int, ...]:
    """How many scales there are in each dimension."""
    if m.draw.chance(0.2):
        return ()
    return tuple(m.draw.choice([d for d in range(1, size + 1) if size % d == 0]) for size in dims)


RECIPES = {
    dot: 4, matrix_product: 1, convolution: 2.5, fft: 0.7, cholesky: 0.5,
    triangular_solve: 0.6, ragged_dot: 0.2, scaled_dot: 0.4,
}  # fmt: skip
