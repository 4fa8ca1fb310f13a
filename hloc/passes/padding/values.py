"""Padded arrays: the live size of each dynamic dimension beside the array, and what rules do with both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce

import numpy as np

from hloc.errors import HloError
from hloc.ir.dtypes import PRED, S32, S64, DType
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape, Shape, TupleShape, array
from hloc.passes.emit import Emit
from hloc.records import NamedTuple
from hloc.reference.custom_calls import SIZE_CHECK


class Padded(NamedTuple):
    """An array of static shape, and the live size (s32[]) of each dimension that may be cut."""

    data: Instruction
    sizes: dict[int, Instruction]

    @property
    def dims(self) -> tuple[int, ...]:
        return self.data.shape.dims


class Site:
    """One op over dynamic arrays, to be done on padded ones. `operands` are its operands that are arrays."""

    def __init__(self, instruction: Instruction, operands: list[Padded], emit: Emit):
        self.instruction = instruction
        self.operands = operands
        self.emit = emit

    @property
    def shape(self) -> Shape:
        """Of the result, padded."""
        return static(self.instruction.shape)

    def get(self, attribute: str) -> object:
        return self.instruction.get(attribute)

    def same(self, operands: Sequence[Instruction] | None = None, **attributes: object) -> Instruction:
        """The same op on other operands: those given, or the padded arrays as they are."""
        given = [value.data for value in self.operands] if operands is None else operands
        return self.emit.op(
            self.instruction.opcode, self.shape, given, **{**self.instruction.attributes, **attributes}
        )

    def refused(self, why: str) -> HloError:
        """The error of a form that padded arrays do not have."""
        message = f"{self.instruction.opcode} of dynamic dimensions: {why} is not supported"
        return HloError(message, self.instruction.span)


Result = Padded | list[Padded]
Rule = Callable[[Site], Result]
"""Gives the padded result; for a result that is a tuple, those of its elements."""

Rules = dict[str, Rule]


def static(shape: Shape) -> Shape:
    """The shape with every bound a size."""
    if isinstance(shape, TupleShape):
        return TupleShape(tuple(static(element) for element in shape.elements))
    if isinstance(shape, ArrayShape) and shape.is_dynamic:
        return ArrayShape(shape.dtype, shape.dims, shape.layout)
    return shape


def packed(shape: Shape) -> Shape:
    """The shape with a tuple (padded array, size of each dynamic dimension) for every dynamic array."""
    if isinstance(shape, TupleShape):
        return TupleShape(tuple(packed(element) for element in shape.elements))
    if isinstance(shape, ArrayShape) and shape.is_dynamic:
        return TupleShape((static(shape), *[array(S32)] * sum(shape.dynamic)))
    return shape


def dynamic_dimensions(shape: ArrayShape) -> list[int]:
    return [d for d in range(shape.rank) if shape.is_dynamic_dim(d)]


# Sizes


def size_of(emit: Emit, value: Padded, dimension: int) -> Instruction:
    """The live size of a dimension, as s32[]."""
    size = value.sizes.get(dimension)
    return emit.scalar(value.dims[dimension], S32) if size is None else size


def least(emit: Emit, sizes: Iterable[Instruction | None]) -> Instruction | None:
    """The least of the sizes that are known; None if none is."""
    known = list(dict.fromkeys(size for size in sizes if size is not None))
    return reduce(lambda a, b: emit.map("minimum", a, b), known) if known else None


def common_sizes(emit: Emit, values: Sequence[Padded]) -> dict[int, Instruction]:
    """Sizes where arrays of the same bounds meet: the least counts. Scalars have none."""
    rank = max((len(value.dims) for value in values), default=0)
    found = {d: least(emit, [value.sizes.get(d) for value in values]) for d in range(rank)}
    return {d: size for d, size in found.items() if size is not None}


def moved(sizes: dict[int, Instruction], places: Sequence[int | None]) -> dict[int, Instruction]:
    """The sizes of dimensions that have moved: dimension i is at places[i] now, or gone."""
    return {places[d]: size for d, size in sizes.items() if places[d] is not None}


def shifted(emit: Emit, size: Instruction, by: int) -> Instruction:
    """size + by, as scalars of the size's type."""
    return size if by == 0 else emit.map("add", size, emit.scalar(by, size.shape.dtype))


def at_least(emit: Emit, low: int, size: Instruction) -> Instruction:
    return emit.map("maximum", size, emit.scalar(low, size.shape.dtype))


def product(emit: Emit, sizes: Iterable[Instruction]) -> Instruction:
    """Of s32 sizes, as s64[]."""
    wide = [emit.convert(size, S64) for size in sizes]
    return reduce(lambda a, b: emit.map("multiply", a, b), wide) if wide else emit.scalar(1, S64)


def checked(emit: Emit, size: Instruction, holds: Instruction) -> Instruction:
    """The size; the run fails if a condition does not hold."""
    return emit.op("custom-call", array(S32), (size, holds), custom_call_target=SIZE_CHECK)


def within(emit: Emit, size: Instruction, bound: int) -> Instruction:
    """Whether 0 <= size <= bound."""
    low = emit.compare("GE", size, emit.scalar(0, S32))
    return emit.map("and", low, emit.compare("LE", size, emit.scalar(bound, S32)))


# Elements


def live(emit: Emit, dims: Sequence[int], sizes: dict[int, Instruction]) -> Instruction | None:
    """A pred array that tells live elements; None if all are live."""
    masks = []
    for dimension, size in sorted(sizes.items()):
        places = emit.iota(S32, dims, dimension)
        masks.append(emit.compare("LT", places, emit.broadcast(size, dims)))
    return reduce(lambda a, b: emit.map("and", a, b), masks) if masks else None


def filled(
    emit: Emit, data: Instruction, sizes: dict[int, Instruction], fill: Instruction | None = None
) -> Instruction:
    """The array with a scalar (zero by default) for every element beyond the sizes."""
    mask = live(emit, data.shape.dims, sizes)
    if mask is None:
        return data
    if fill is None:
        fill = zero(emit, data.shape.dtype)
    return emit.map("select", mask, data, emit.broadcast(fill, data.shape.dims))


def zero(emit: Emit, dtype: DType) -> Instruction:
    return emit.scalar(np.zeros((), dtype.numpy), dtype)


def any_empty(emit: Emit, sizes: Iterable[Instruction]) -> Instruction | None:
    """Whether one of the sizes is 0, as pred[]; None if there are none."""
    empty = [emit.compare("EQ", size, emit.scalar(0, S32)) for size in dict.fromkeys(sizes)]
    return reduce(lambda a, b: emit.map("or", a, b), empty) if empty else None


def spread(emit: Emit, scalar: Instruction, dims: Sequence[int]) -> Instruction:
    """A scalar repeated over dimensions."""
    return emit.broadcast(scalar, dims) if dims else scalar


def wide_index(emit: Emit, index: Instruction) -> Instruction:
    """Start indices of any integer type as s64; what is too large for it stays large."""
    dtype = index.shape.dtype
    if dtype.name == "u64":
        most = emit.full(1 << 62, index.shape)
        index = emit.map("minimum", index, most)
    return emit.convert(index, S64)


def settled(emit: Emit, value: Padded, shape: ArrayShape) -> Padded:
    """The value with zeros beyond the live elements of dimensions that the shape calls static."""
    cut = {d: size for d, size in value.sizes.items() if not shape.is_dynamic_dim(d)}
    kept = {d: size for d, size in value.sizes.items() if d not in cut}
    return Padded(filled(emit, value.data, cut), kept) if cut else value


PREDICATE = array(PRED)
