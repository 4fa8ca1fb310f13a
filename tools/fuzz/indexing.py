"""Recipes: gather and scatter with any dimension numbers, random bits."""

from __future__ import annotations

from dataclasses import dataclass

from hloc.ir import dtypes
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape, TupleShape
from tools.fuzz.folds import known
from tools.fuzz.maker import Maker
from tools.fuzz.values import INDICES


@dataclass
class Numbers:
    """Dimension numbers that a gather and the scatter that mirrors it share."""

    mapped: tuple[int, ...]
    dropped: tuple[int, ...]
    batching: tuple[int, ...]
    index_batching: tuple[int, ...]
    index_vector_dim: int
    index_dims: tuple[int, ...]
    window: tuple[int, ...]
    sizes: tuple[int, ...]
    result: tuple[int, ...]


def _numbers(m: Maker, dims: tuple[int, ...]) -> Numbers:
    rank = len(dims)
    roles = [m.draw.choice(("batching", "dropped", "window"), (1, 2, 4)) for _ in dims]
    batching = tuple(d for d in range(rank) if roles[d] == "batching")
    indexable = [d for d in range(rank) if d not in batching]
    mapped = tuple(m.draw.sample(indexable, m.draw.integer(0, len(indexable))))
    outer = [m.draw.choice((1, 2, 3, 4)) for _ in range(m.draw.choice((0, 1, 1, 2)))]
    batch = m.draw.shuffled([*(("own", size) for size in outer), *((d, dims[d]) for d in batching)])
    # Without a dimension for them, index vectors have one entry.
    place = m.draw.integer(0, len(batch))
    implicit = len(mapped) == 1 and m.draw.chance(0.4)
    index = [size for _, size in batch]
    keys = [key for key, _ in batch]
    if implicit:
        place = len(batch)
    else:
        index.insert(place, len(mapped))
        keys.insert(place, "vector")
    dropped = tuple(d for d in range(rank) if roles[d] == "dropped")
    sizes = tuple(_slice_size(m, roles[d], dims[d]) for d in range(rank))
    kept = [sizes[d] for d in range(rank) if roles[d] == "window"]
    total = len(batch) + len(kept)
    window = tuple(sorted(m.draw.sample(range(total), len(kept))))
    inner, outside = iter(kept), iter(size for _, size in batch)
    result = tuple(next(inner) if d in window else next(outside) for d in range(total))
    index_batching = tuple(keys.index(d) for d in batching)
    return Numbers(mapped, dropped, batching, index_batching, place, tuple(index), window, sizes, result)


def _slice_size(m: Maker, role: str, size: int) -> int:
    if role != "window":
        return min(1, size)
    return m.draw.integer(min(1, size), size) if m.draw.chance(0.6) else size


def _operand(m: Maker, **keywords) -> Instruction:
    operand = m.operand(most=4, **keywords)
    return operand if operand.shape.count <= 300 else m.value(operand.shape.dtype, m.draw.dims(1, 2)[:1])


def gather(m: Maker) -> Instruction:
    operand = _operand(m)
    dims = operand.shape.dims
    numbers = _numbers(m, dims)
    longest = max((dims[d] for d in numbers.mapped), default=1)
    indices = m.index_array(m.draw.dtype(INDICES), numbers.index_dims, longest)
    return m.b.op(
        "gather",
        *(operand, indices),
        offset_dims=numbers.window,
        collapsed_slice_dims=numbers.dropped,
        start_index_map=numbers.mapped,
        operand_batching_dims=numbers.batching,
        start_indices_batching_dims=numbers.index_batching,
        index_vector_dim=numbers.index_vector_dim,
        slice_sizes=numbers.sizes,
    )


def scatter(m: Maker) -> Instruction:
    """Updates in order of their indices where the computation tells."""
    operand = _operand(m)
    numbers = _scatter_dims(m, operand.shape.dims)
    dtype, dims = operand.shape.dtype, operand.shape.dims
    if m.draw.chance(0.3):
        body = m.scalars("replace", [dtype, dtype], lambda p: p[1])
    else:
        body = known(m, dtype)[1]
    longest = max((dims[d] for d in numbers.mapped), default=1)
    indices = m.index_array(m.draw.dtype(INDICES), numbers.index_dims, longest)
    return m.b.op(
        "scatter",
        *(operand, indices, m.value(dtype, numbers.result)),
        **_scatter_numbers(numbers),
        to_apply=body,
    )


def _scatter_dims(m: Maker, dims: tuple[int, ...]) -> Numbers:
    """Without index entries, XLA's expansion breaks its own verifier or keeps one update of several."""
    numbers = _numbers(m, dims)
    m.portable &= bool(numbers.mapped)
    return numbers


def _scatter_numbers(numbers: Numbers) -> dict:
    return {
        "update_window_dims": numbers.window,
        "inserted_window_dims": numbers.dropped,
        "scatter_dims_to_operand_dims": numbers.mapped,
        "input_batching_dims": numbers.batching,
        "scatter_indices_batching_dims": numbers.index_batching,
        "index_vector_dim": numbers.index_vector_dim,
    }


def scatter_several(m: Maker) -> Instruction:
    first = _operand(m)
    dims = first.shape.dims
    second = m.value(m.draw.dtype(), dims)
    if second is first:
        m.portable = False  # XLA writes both results into one array
    numbers = _scatter_dims(m, dims)
    types = [first.shape.dtype, second.shape.dtype]
    opcodes = [m.draw.choice(("maximum", "add")) if not t.is_complex else "add" for t in types]

    def body(p: list[Instruction]) -> Instruction:
        return m.b.tuple(m.b.op(opcodes[0], p[0], p[2]), m.b.op(opcodes[1], p[1], p[3]))

    both = m.scalars("both", types * 2, body)
    longest = max((dims[d] for d in numbers.mapped), default=1)
    indices = m.index_array(m.draw.dtype(INDICES), numbers.index_dims, longest)
    updates = [m.value(dtype, numbers.result) for dtype in types]
    return m.b.op("scatter", first, second, indices, *updates, **_scatter_numbers(numbers), to_apply=both)


def random_bits(m: Maker) -> Instruction:
    algorithm = m.draw.choice(("rng_three_fry", "rng_philox", "rng_default"))
    words = 2 if algorithm == "rng_three_fry" else m.draw.choice((2, 3))
    state = m.value(dtypes.U64, (words,), "wide")
    bits = m.draw.choice((dtypes.U32, dtypes.U64, dtypes.U16, dtypes.U8))
    shape = TupleShape((state.shape.without_layout(), ArrayShape(bits, m.draw.dims())))
    return m.b.op("rng-bit-generator", state, shape=shape, algorithm=algorithm)


RECIPES = {gather: 3, scatter: 3, scatter_several: 0.7, random_bits: 0.5}
