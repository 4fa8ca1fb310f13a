"""Ops that fold or order elements: dead ones take no part.

A dead element is replaced by what the reducer leaves out of account, where its operation is known to have
such a value. For any other reducer each element carries a pred along, and the computation passes dead ones
over.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hloc.ir.attributes import WindowDim
from hloc.ir.computation import Computation
from hloc.ir.dtypes import PRED, S32, DType
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import TupleShape, array
from hloc.passes.emit import Emit
from hloc.passes.padding.values import (
    PREDICATE,
    Padded,
    Result,
    Rules,
    Site,
    at_least,
    common_sizes,
    filled,
    live,
    moved,
    shifted,
)
from hloc.reference.reducers import known_operation


def reduce(site: Site) -> Result:
    emit, values = site.emit, site.operands[: len(site.operands) // 2]
    sizes = common_sizes(emit, values)
    dropped = site.get("dimensions")
    kept = [d for d in range(len(values[0].dims)) if d not in dropped]
    places = [kept.index(d) if d in kept else None for d in range(len(values[0].dims))]
    return _folded(site, {d: s for d, s in sizes.items() if d in dropped}, moved(sizes, places))


def reduce_window(site: Site) -> Result:
    emit, values = site.emit, site.operands[: len(site.operands) // 2]
    sizes = common_sizes(emit, values)
    windows = window_dims(site)
    slid = {d: size for d, size in sizes.items() if windows[d] != WindowDim(1)}
    after = {d: window_positions(emit, size, windows[d]) for d, size in slid.items()}
    return _folded(site, slid, {**sizes, **after})


def window_dims(site: Site) -> Sequence[WindowDim]:
    window = site.get("window")
    rank = len(site.operands[0].dims)
    return window.dims if window is not None and window.dims else [WindowDim(1)] * rank


def window_positions(emit: Emit, size: Instruction, dim: WindowDim) -> Instruction:
    """How many positions a window has in a base dimension of a live size (s32), as WindowDim.output_size."""
    spaced = emit.map("multiply", shifted(emit, size, -1), emit.scalar(dim.base_dilation, S32))
    dilated = at_least(emit, 0, shifted(emit, spaced, 1))
    room = shifted(emit, dilated, dim.pad_low + dim.pad_high - dim.dilated_size + dim.stride)
    return emit.map("divide", at_least(emit, 0, room), emit.scalar(dim.stride, S32))


def _folded(site: Site, cut: dict[int, Instruction], sizes: dict[int, Instruction]) -> Result:
    """The fold over live elements: `cut` are the sizes of folded dimensions, `sizes` those of the result."""
    values = [value.data for value in site.operands]
    half = len(values) // 2
    if cut:
        fill = _neutral(site, values[0].shape.dtype)
        if fill is None:
            return _folded_by_validity(site, cut, sizes)
        values[0] = filled(site.emit, values[0], cut, fill)
    made = site.same(values)
    if not made.shape.is_tuple:
        return Padded(made, sizes)
    return [Padded(site.emit.element(made, i), sizes) for i in range(half)]


def _neutral(site: Site, dtype: DType) -> Instruction | None:
    """What the reducer leaves out of account, if it is one known operation with such a value."""
    operation = known_operation(site.get("to_apply")) if len(site.operands) == 2 else None
    value = None if operation is None else _NEUTRAL[operation](dtype)
    return None if value is None else site.emit.scalar(value, dtype)


def _sum(dtype: DType) -> object:
    """Minus zero: a sum of minus zeros is one."""
    if dtype.is_complex:
        return complex(-0.0, -0.0)
    if dtype.is_float:
        return None if dtype.name == "f8e8m0fnu" else -0.0  # that type has no zero
    return 0


def _extreme(dtype: DType, greatest: bool) -> object:
    if dtype.is_float and dtype.bits >= 16:
        return np.inf if greatest else -np.inf
    if dtype.is_integer and dtype.bits >= 8:
        limits = np.iinfo(dtype.numpy)
        return limits.max if greatest else limits.min
    return greatest if dtype is PRED else None


_NEUTRAL = {
    "add": _sum,
    "multiply": lambda dtype: 1,
    "maximum": lambda dtype: _extreme(dtype, False),
    "minimum": lambda dtype: _extreme(dtype, True),
    "and": lambda dtype: True if dtype is PRED else -1 if dtype.is_signed else (1 << dtype.bits) - 1,
    "or": lambda dtype: 0,
    "xor": lambda dtype: 0,
}


def _folded_by_validity(site: Site, cut: dict[int, Instruction], sizes: dict[int, Instruction]) -> Result:
    emit = site.emit
    values = [value.data for value in site.operands]
    half = len(values) // 2
    mask = live(emit, values[0].shape.dims, cut)
    parts = site.shape.elements if site.shape.is_tuple else (site.shape,)
    shape = TupleShape((*parts, array(PRED, *parts[0].dims)))
    reducer = _of_live_elements(site.get("to_apply"), [value.shape.dtype for value in values[:half]])
    attributes = {**site.instruction.attributes, "to_apply": _added(site, reducer)}
    operands = [*values[:half], mask, *values[half:], emit.scalar(True, PRED)]
    made = emit.op(site.instruction.opcode, shape, operands, **attributes)
    results = [Padded(emit.element(made, i), sizes) for i in range(half)]
    return results if site.shape.is_tuple else results[0]


def _added(site: Site, computation: Computation) -> Computation:
    return site.instruction.computation.module.add_computation(computation)


def _of_live_elements(reducer: Computation, dtypes: Sequence[DType]) -> Computation:
    """(accumulators..., live, elements..., live): two live sides are folded, else the live one stays."""
    computation = Computation(f"{reducer.name}.live")
    emit = Emit(computation)
    scalars = [*map(array, dtypes), PREDICATE]
    given = [emit.parameter(i, shape) for i, shape in enumerate(scalars * 2)]
    (*ours, we_live), (*theirs, they_live) = given[: len(scalars)], given[len(scalars) :]
    both = emit.map("and", we_live, they_live)
    called = emit.op("call", reducer.root.shape, [*ours, *theirs], to_apply=reducer)
    folded = [emit.element(called, i) for i in range(len(dtypes))] if called.shape.is_tuple else [called]
    rest = [emit.map("select", we_live, a, b) for a, b in zip(ours, theirs, strict=True)]
    chosen = [emit.map("select", both, a, b) for a, b in zip(folded, rest, strict=True)]
    computation.root = emit.tuple([*chosen, emit.map("or", we_live, they_live)])
    return computation


def select_and_scatter(site: Site) -> Padded:
    operand, source = site.operands[:2]
    sizes = common_sizes(site.emit, [operand, source])
    if any(window_dims(site)[d] != WindowDim(1) for d in sizes):
        raise site.refused("a window over a dynamic dimension")
    return Padded(site.same(), sizes)


def sort(site: Site) -> Result:
    """Along a dynamic dimension dead elements go last."""
    emit, values = site.emit, site.operands
    sizes = common_sizes(emit, values)
    data = [value.data for value in values]
    (along,) = site.get("dimensions")
    if along not in sizes:
        made = site.same()
        parts = [emit.element(made, i) for i in range(len(data))] if made.shape.is_tuple else [made]
    else:
        mask = live(emit, data[0].shape.dims, {along: sizes[along]})
        shapes = [value.shape for value in data]
        comparator = _live_first(site.get("to_apply"), [shape.dtype for shape in shapes])
        attributes = {**site.instruction.attributes, "to_apply": _added(site, comparator)}
        made = emit.op("sort", TupleShape((*shapes, mask.shape)), [*data, mask], **attributes)
        parts = [emit.element(made, i) for i in range(len(data))]
    results = [Padded(part, sizes) for part in parts]
    return results if site.instruction.shape.is_tuple else results[0]


def _live_first(comparator: Computation, dtypes: Sequence[DType]) -> Computation:
    """(left, right, ..., left live, right live) -> whether left comes first."""
    computation = Computation(f"{comparator.name}.live")
    emit = Emit(computation)
    scalars = [array(dtype) for dtype in (*dtypes, PRED) for _ in range(2)]
    *operands, left, right = [emit.parameter(i, shape) for i, shape in enumerate(scalars)]
    ordered = emit.op("call", PREDICATE, operands, to_apply=comparator)
    first = emit.map("or", emit.map("not", right), ordered)
    computation.root = emit.map("and", left, first)
    return computation


def topk(site: Site) -> Result:
    emit, value = site.emit, site.operands[0]
    if len(value.dims) - 1 in value.sizes:
        raise site.refused("choosing from a dynamic dimension")
    made = site.same()
    return [Padded(emit.element(made, i), value.sizes) for i in range(2)]


def batch_norm_inference(site: Site) -> Padded:
    sizes = site.operands[0].sizes
    if site.get("feature_index") in sizes:
        raise site.refused("a dynamic feature dimension")
    return Padded(site.same(), sizes)


RULES: Rules = {
    "batch-norm-inference": batch_norm_inference,
    "reduce": reduce,
    "reduce-window": reduce_window,
    "select-and-scatter": select_and_scatter,
    "sort": sort,
    "topk": topk,
}
