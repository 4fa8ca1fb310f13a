"""Recipes: ops that fold, scan and sort by computations."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from hloc.ir import dtypes
from hloc.ir.attributes import Window, WindowDim
from hloc.ir.computation import Computation
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape, Shape
from tools.fuzz import elementwise
from tools.fuzz.maker import Maker
from tools.fuzz.values import ANY, FLOATS, INTEGERS, NUMBERS, PRED, WIDE_FLOATS, limits

_FOLDS = {
    "add": NUMBERS + PRED,
    "multiply": NUMBERS + PRED,
    "maximum": INTEGERS + FLOATS + PRED,
    "minimum": INTEGERS + FLOATS + PRED,
    "and": INTEGERS + PRED,
    "or": INTEGERS + PRED,
    "xor": INTEGERS + PRED,
}
_NEUTRAL = {"add": 0, "or": 0, "xor": 0, "multiply": 1}


def known(m: Maker, dtype: DType) -> tuple[str, Computation]:
    """A reducer that is one operation."""
    opcode = m.draw.choice([name for name, allowed in _FOLDS.items() if dtype in allowed])
    if opcode == "multiply" and dtype.is_float and dtype.bits < 32:
        m.portable = False  # XLA rounds each step, which costs small products all their digits
    return opcode, m.b.reducer(opcode, dtype)


def initial(m: Maker, opcode: str, dtype: DType) -> Instruction:
    """The value that changes nothing; now and then another one, which XLA may leave out or use twice."""
    if m.draw.chance(0.85):
        return m.b.constant(neutral(opcode, dtype), dtype)
    m.portable = False
    return m.scalar(dtype, "" if m.draw.chance(0.1) else "tame")


def neutral(opcode: str, dtype: DType) -> object:
    """What a fold starts from when nothing else is meant."""
    if opcode in _NEUTRAL:
        return _NEUTRAL[opcode]
    if opcode == "and":
        return True if dtype is dtypes.PRED else -1 if dtype.is_signed else limits(dtype)[1]
    if dtype is dtypes.PRED:
        return opcode == "minimum"
    if dtype.is_integer:
        return limits(dtype)[opcode == "minimum"]
    infinite = np.array(np.inf).astype(dtype.numpy)
    top = float(infinite) if np.isinf(float(infinite)) else float(ml_dtypes.finfo(dtype.numpy).max)
    return top if opcode == "minimum" else max(-top, float(ml_dtypes.finfo(dtype.numpy).min))


def reduce(m: Maker) -> Instruction:
    operand = m.operand(ANY)
    opcode, body = known(m, operand.shape.dtype)
    return m.b.op(
        "reduce",
        operand,
        initial(m, opcode, operand.shape.dtype),
        dimensions=_dimensions(m, operand.shape.rank),
        to_apply=body,
    )


def _dimensions(m: Maker, rank: int) -> tuple[int, ...]:
    return tuple(sorted(m.draw.sample(range(rank), m.draw.integer(min(1, rank), rank))))


def reduce_several(m: Maker) -> Instruction:
    """The greatest (or least) with what stands beside it; ties go to the lesser companion."""
    dtype, companion = m.draw.dtype(INTEGERS + FLOATS), m.draw.dtype(INTEGERS)
    keys = m.value(dtype, m.draw.dims(), m.draw.choice(("tame", "wide", "whole")))
    others = m.value(companion, keys.shape.dims)
    body, starts = _pair_reducer(m, dtype, companion)
    return m.b.op("reduce", keys, others, *starts, dimensions=_dimensions(m, keys.shape.rank), to_apply=body)


def _pair_reducer(m: Maker, dtype: DType, companion: DType) -> tuple[Computation, list[Instruction]]:
    """The computation, and the starts that lose against everything."""
    direction = m.draw.choice(("GT", "LT"))
    worst = neutral("maximum" if direction == "GT" else "minimum", dtype)
    starts = [m.b.constant(worst, dtype), m.b.constant(limits(companion)[1], companion)]

    def body(p: list[Instruction]) -> Instruction:
        better = m.b.compare(p[0], p[2], direction)
        ties = m.b.op("and", m.b.compare(p[0], p[2], "EQ"), m.b.compare(p[1], p[3], "LT"))
        first = m.b.op("or", better, ties)
        return m.b.tuple(m.b.op("select", first, p[0], p[2]), m.b.op("select", first, p[1], p[3]))

    return m.scalars("pick", [dtype, companion] * 2, body), starts


def reduce_in_order(m: Maker) -> Instruction:
    """By a computation that is not associative: the elements come in row-major order."""
    m.portable = False
    operand = m.operand(INTEGERS + PRED)
    body = _ordered(m, operand.shape.dtype)
    dims = _dimensions(m, operand.shape.rank)
    return m.b.op("reduce", operand, m.scalar(operand.shape.dtype), dimensions=dims, to_apply=body)


def _ordered(m: Maker, dtype: DType) -> Computation:
    def body(p: list[Instruction]) -> Instruction:
        for _ in range(m.draw.integer(1, 3)):
            m.pool.append(m.draw.choice((elementwise.binary, elementwise.unary, elementwise.select))(m))
        rest = [v for v in m.pool if v.shape.dtype is dtype and not v.shape.dims]
        return rest[-1] if len(rest) > 2 else m.b.op("xor", p[0], p[1])

    return m.scalars("ordered", [dtype, dtype], body)


def window_dims(m: Maker, dims: tuple[int, ...], negative: bool = True) -> Window | None:
    """A window with any attributes that leaves every dimension a place or more (or none)."""
    found = []
    for size in dims:
        for _ in range(8):
            dim = _window_dim(m, size, negative)
            if dim.output_size(size) > 0 or (size == 0 and m.draw.chance(0.3)):
                break
        else:
            dim = WindowDim(1)
        found.append(dim)
    return Window(tuple(found))


def _window_dim(m: Maker, size: int, negative: bool) -> WindowDim:
    pads = (0, 0, 1, 2, -1) if negative else (0, 0, 1)
    return WindowDim(
        size=m.draw.choice((1, 2, 2, 3, max(1, size))),
        stride=m.draw.choice((1, 1, 2, 3)),
        pad_low=m.draw.choice(pads),
        pad_high=m.draw.choice(pads),
        base_dilation=m.draw.choice((1, 1, 1, 2)),
        window_dilation=m.draw.choice((1, 1, 1, 2)),
    )


def reduce_window(m: Maker) -> Instruction:
    operand = m.operand(ANY, least=1, most=4)
    if operand.shape.count > 500:
        operand = m.value(operand.shape.dtype, m.draw.dims(1, 2)[:2])
    opcode, body = known(m, operand.shape.dtype)
    return m.b.op(
        "reduce-window",
        operand,
        initial(m, opcode, operand.shape.dtype),
        to_apply=body,
        window=window_dims(m, operand.shape.dims),
    )


def reduce_window_several(m: Maker) -> Instruction:
    dtype, companion = m.draw.dtype(INTEGERS + FLOATS), m.draw.dtype(INTEGERS)
    keys = m.value(dtype, m.draw.dims(1, 3), m.draw.choice(("tame", "wide", "whole")))
    others = m.value(companion, keys.shape.dims)
    body, starts = _pair_reducer(m, dtype, companion)
    return m.b.op(
        "reduce-window", keys, others, *starts, to_apply=body, window=window_dims(m, keys.shape.dims)
    )


def select_and_scatter(m: Maker) -> Instruction:
    operand = m.operand(INTEGERS + WIDE_FLOATS, least=1, most=3, empty=False)
    dtype = operand.shape.dtype
    dims = []
    for size in operand.shape.dims:
        width = m.draw.integer(1, min(3, size))
        pads = (m.draw.integer(0, width - 1), m.draw.integer(0, width - 1)) if m.draw.chance(0.3) else (0, 0)
        dims.append(WindowDim(width, m.draw.integer(1, 3), *pads))
    places = tuple(dim.output_size(size) for dim, size in zip(dims, operand.shape.dims, strict=True))
    direction = m.draw.choice(("GE", "LE", "GT"))
    choose = m.scalars("choose", [dtype] * 2, lambda p: m.b.compare(p[0], p[1], direction))
    add = m.b.reducer(m.draw.choice(("add", "maximum")), dtype)
    source = m.value(dtype, places)
    zero = m.b.constant(0, dtype)
    return m.b.op(
        "select-and-scatter", operand, source, zero, select=choose, scatter=add, window=Window(tuple(dims))
    )


def scan(m: Maker) -> Instruction:
    """Carries and outputs made of the slices and carries by elementwise ops."""
    first = m.operand(INTEGERS + PRED + WIDE_FLOATS, least=1, most=3)
    along = m.draw.integer(0, first.shape.rank - 1)
    rest = first.shape.dims[:along] + first.shape.dims[along + 1 :]
    inputs = [first] + [
        m.value(m.draw.dtype(INTEGERS), first.shape.dims) for _ in range(m.draw.integer(0, 1))
    ]
    carries = [m.value(first.shape.dtype, rest)] + [
        m.value(dtypes.S32, ()) for _ in range(m.draw.integer(0, 1))
    ]

    def body(p: list[Instruction]) -> Instruction:
        carry = p[len(inputs)]
        changed = m.b.op(m.draw.choice(("maximum", "minimum", "add")), p[0], carry)
        outputs = [m.draw.choice((changed, carry, p[0])) for _ in range(m.draw.integer(0, 2))]
        return m.b.tuple(*outputs, changed, *p[len(inputs) + 1 :])

    slices: list[Shape] = [ArrayShape(v.shape.dtype, rest) for v in inputs]
    step = m.computation("step", [*slices, *(c.shape for c in carries)], body)
    reverse = {"is_reverse": True} if m.draw.chance(0.4) else {}
    return m.b.op(
        "scan", *inputs, *carries, to_apply=step, dimensions=(along,), num_carries=len(carries), **reverse
    )


def sort(m: Maker) -> Instruction:
    """By any total preorder: keys compared, then their companions; stable where ties could show."""
    count = m.draw.integer(1, 3)
    dims = m.draw.dims(least=1)
    keys = [m.value(m.draw.dtype(INTEGERS + FLOATS), dims, fresh=i == 0) for i in range(count)]
    total = {"type": "TOTALORDER"} if keys[0].shape.dtype.is_float else {}
    direction = m.draw.choice(("LT", "GT"))

    def body(p: list[Instruction]) -> Instruction:
        before = m.b.compare(p[0], p[1], direction, **total)
        if count == 1 or keys[1].shape.dtype.is_float or m.draw.chance(0.5):
            return before
        ties = m.b.op("not", m.b.op("or", before, m.b.compare(p[1], p[0], direction, **total)))
        return m.b.op("or", before, m.b.op("and", ties, m.b.compare(p[2], p[3], "LT")))

    comparator = m.scalars("before", [k.shape.dtype for k in keys for _ in range(2)], body)
    along = m.draw.integer(0, len(dims) - 1)
    return m.b.op("sort", *keys, dimensions=(along,), to_apply=comparator, is_stable=True)


def topk(m: Maker) -> Instruction:
    operand = m.operand(INTEGERS + WIDE_FLOATS, least=1, most=3)
    k = m.draw.integer(0 if m.draw.chance(0.1) else min(1, operand.shape.dims[-1]), operand.shape.dims[-1])
    largest = {} if m.draw.chance(0.7) else {"largest": False}
    return m.b.op("topk", operand, k=k, **largest)


def batch_norm(m: Maker) -> Instruction:
    dtype = m.draw.dtype(WIDE_FLOATS)
    if dtype is dtypes.F16:
        m.portable = False  # XLA's steps overflow on the way
    dims = m.draw.dims(least=1, most=4, empty=False)
    feature = m.draw.integer(0, len(dims) - 1)
    x = m.value(dtype, dims, "tame")
    vector = [m.value(dtype, (dims[feature],), "tame") for _ in range(3)]
    variance = m.b.op("abs", m.value(dtype, (dims[feature],), "whole"))
    settings = {"epsilon": m.draw.choice((0.001, 0.5)), "feature_index": feature}
    opcode = m.draw.choice(("batch-norm-training", "batch-norm-inference", "batch-norm-grad"))
    if opcode == "batch-norm-training":
        return m.b.op(opcode, x, *vector[:2], **settings)
    if opcode == "batch-norm-inference":
        return m.b.op(opcode, x, *vector, variance, **settings)
    return m.b.op(opcode, x, *vector[:2], variance, m.value(dtype, dims, "tame"), **settings)


RECIPES = {
    reduce: 5, reduce_several: 1.5, reduce_in_order: 1, reduce_window: 3, reduce_window_several: 0.6,
    select_and_scatter: 1, scan: 1, sort: 2, topk: 0.7, batch_norm: 0.6,
}  # fmt: skip
