"""Recipes: ops that move elements."""

from __future__ import annotations

from math import prod

from hloc.ir.attributes import PadDim, Raw, SliceDim
from hloc.ir.dtypes import S32
from hloc.ir.instruction import Instruction
from hloc.ir.literals import Literal
from hloc.ir.shapes import ArrayShape
from tools.fuzz.maker import Maker
from tools.fuzz.values import COMPLEXES, FLOATS, INDICES, INTEGERS

_MOST = 3000


def broadcast(m: Maker) -> Instruction:
    operand = m.operand(most=3)
    rank = m.draw.integer(operand.shape.rank, max(operand.shape.rank, 4))
    dims = [m.draw.choice((1, 2, 3, 4, 5)) for _ in range(rank)]
    places = m.draw.sample(range(rank), operand.shape.rank)
    if m.draw.chance(0.8):
        places = sorted(places)
    for number, place in enumerate(places):
        dims[place] = operand.shape.dims[number]
    if prod(dims) > _MOST:
        dims, places = list(operand.shape.dims), list(range(operand.shape.rank))
    return m.b.broadcast(operand, dims, places)


def reshape(m: Maker) -> Instruction:
    operand = m.operand()
    return m.b.reshape(operand, factored(m, operand.shape.count))


def factored(m: Maker, count: int) -> tuple[int, ...]:
    """Dimensions of a product."""
    if count == 0:
        return tuple(m.draw.shuffled((0, m.draw.size(), m.draw.size(), 1)))[: m.draw.integer(1, 4)] + (0,)
    dims, left = [], count
    while left > 1 and len(dims) < 4:
        size = m.draw.choice([d for d in range(2, left + 1) if left % d == 0])
        dims.append(size)
        left //= size
    dims += [left] if left > 1 else []
    dims += [1] * m.draw.choice((0, 0, 1, 2))
    return tuple(m.draw.shuffled(dims))


def transpose(m: Maker) -> Instruction:
    operand = m.operand()
    return m.b.op("transpose", operand, dimensions=tuple(m.draw.shuffled(range(operand.shape.rank))))


def slice_(m: Maker) -> Instruction:
    operand = m.operand()
    limits = []
    for size in operand.shape.dims:
        start = m.draw.integer(0, size) if m.draw.chance(0.5) else 0
        limit = m.draw.integer(start, size) if m.draw.chance(0.5) else size
        limits.append(SliceDim(start, limit, m.draw.choice((1, 1, 1, 2, 3))))
    return m.b.op("slice", operand, slice=tuple(limits))


def pad(m: Maker) -> Instruction:
    operand = m.operand(most=4)
    if not operand.shape.dims:
        m.portable = False  # XLA does not parse the padding of a scalar
    padding, total = [], 1
    for size in operand.shape.dims:
        low, high = m.draw.choice((0, 0, 1, 2, -1, -2)), m.draw.choice((0, 0, 1, 2, -1, -3))
        interior = m.draw.choice((0, 0, 0, 1, 2))
        padded = size + low + high + max(size - 1, 0) * interior
        if padded < 0 or total * padded > _MOST:
            low, high, interior, padded = 0, 0, 0, size
        padding.append(PadDim(low, high, interior))
        total *= padded
    return m.b.op("pad", operand, m.scalar(operand.shape.dtype), padding=tuple(padding))


def concatenate(m: Maker) -> Instruction:
    first = m.operand(least=1)
    along = m.draw.integer(0, first.shape.rank - 1)
    operands = [first]
    for _ in range(m.draw.integer(0, 3)):
        dims = list(first.shape.dims)
        if m.draw.chance(0.5):
            dims[along] = m.draw.integer(0, 5)
        operands.append(m.value(first.shape.dtype, tuple(dims)))
    return m.b.concatenate(m.draw.shuffled(operands), along)


def reverse(m: Maker) -> Instruction:
    operand = m.operand()
    dimensions = m.draw.sample(range(operand.shape.rank), m.draw.integer(0, operand.shape.rank))
    return m.b.op("reverse", operand, dimensions=tuple(dimensions))


def iota(m: Maker) -> Instruction:
    dims = m.draw.dims(least=1)
    dtype = m.draw.dtype(INTEGERS + FLOATS + COMPLEXES)
    return m.b.iota(ArrayShape(dtype, dims), m.draw.integer(0, len(dims) - 1))


def copy(m: Maker) -> Instruction:
    operand = m.operand()
    return m.b.op("copy", operand, shape=operand.shape.with_layout(m.layout(operand.shape.rank)))


def dynamic_slice(m: Maker) -> Instruction:
    operand = m.operand()
    if not operand.shape.dims:
        m.portable = False  # XLA loses the sizes of a scalar's slice on the way in
    sizes = tuple(m.draw.integer(0 if m.draw.chance(0.1) else min(1, d), d) for d in operand.shape.dims)
    starts = _starts(m, operand.shape.dims)
    return m.b.op("dynamic-slice", operand, *starts, dynamic_slice_sizes=sizes)


def dynamic_update_slice(m: Maker) -> Instruction:
    operand = m.operand()
    dims = tuple(m.draw.integer(0 if m.draw.chance(0.1) else min(1, d), d) for d in operand.shape.dims)
    return m.b.op(
        "dynamic-update-slice", operand, m.value(operand.shape.dtype, dims), *_starts(m, operand.shape.dims)
    )


def _starts(m: Maker, dims: tuple[int, ...]) -> list[Instruction]:
    dtype = m.draw.dtype(INDICES)
    return [m.index(dtype, size) for size in dims]


def shuffle(m: Maker) -> Instruction:
    m.portable = False
    operand = m.operand(least=1, empty=False)
    rank = operand.shape.rank
    dimensions = tuple(sorted(m.draw.sample(range(rank), m.draw.integer(1, rank))))
    if m.draw.chance(0.5):
        shifts = tuple(m.draw.integer(0, operand.shape.dims[d]) for d in dimensions)
        return m.b.op("shuffle", operand, dimensions=dimensions, mode=Raw("rotate"), shifts=shifts)
    along = dimensions[0]
    order = m.draw.shuffled(range(operand.shape.dims[along]))
    indices = Literal.of([[i] for i in order], S32)
    return m.b.op("shuffle", operand, dimensions=(along,), mode=Raw("permute"), indices=indices)


def reshape_of_anything(m: Maker) -> Instruction:
    """Reshape and transpose in a row, which the rules join."""
    moved = transpose(m)
    m.pool.append(moved)
    return m.b.reshape(moved, factored(m, moved.shape.count))


RECIPES = {
    broadcast: 4, reshape: 3, transpose: 3, slice_: 3, pad: 3, concatenate: 3, reverse: 2, iota: 1, copy: 1,
    dynamic_slice: 2, dynamic_update_slice: 2, shuffle: 0.2, reshape_of_anything: 1,
}  # fmt: skip
