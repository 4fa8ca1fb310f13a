"""Shapes: array shapes with layouts, tuples of shapes, and buffers.

All shapes are immutable and hashable; the parser shares equal ones. Dimensions are in logical order; a
layout lists them from the fastest varying (minor) to the slowest.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from hloc.ir.dtypes import OPAQUE, TOKEN, DType
from hloc.records import record, remembered, replace

UNBOUNDED = -1
"""The size of a dimension written `?`."""

COMBINED = -1
"""The size of a tile dimension written `*`: it takes in the next more major dimension."""


@record
class SplitConfig:
    """`SC(dimension:index,index,...)`: where a dimension is cut between memories."""

    dimension: int
    indices: tuple[int, ...]


@record
class Layout:
    """How an array lies in memory: order of dimensions, tiles, and where. Defaults are what XLA omits."""

    minor_to_major: tuple[int, ...]
    tiles: tuple[tuple[int, ...], ...] = ()
    tail_padding_alignment: int = 1
    index_type: DType | None = None
    pointer_type: DType | None = None
    element_bits: int = 0
    memory_space: int = 0
    split_configs: tuple[SplitConfig, ...] = ()
    dynamic_prefix_bytes: int = 0

    @staticmethod
    def default(rank: int) -> Layout:
        """Row-major: the last dimension varies fastest."""
        return _row_major(rank)

    @remembered
    def is_row_major(self) -> bool:
        rank = len(self.minor_to_major)
        return self.minor_to_major == tuple(range(rank - 1, -1, -1))

    @property
    def major_to_minor(self) -> tuple[int, ...]:
        return self.minor_to_major[::-1]


_ROW_MAJOR: dict[int, Layout] = {}


def _row_major(rank: int) -> Layout:
    layout = _ROW_MAJOR.get(rank)
    if layout is None:
        layout = _ROW_MAJOR[rank] = Layout(tuple(range(rank - 1, -1, -1)))
    return layout


class Shape:
    """Common ground of the three kinds of shape."""

    is_array = False
    is_tuple = False
    is_token = False

    def leaves(self) -> Iterator[tuple[tuple[int, ...], ArrayShape]]:
        """(index path, leaf) pairs, depth first; a leaf is an array, a token, an opaque or a buffer's array."""
        raise NotImplementedError

    def at(self, index: tuple[int, ...]) -> Shape:
        """The sub-shape at a tuple index path."""
        shape: Shape = self
        for position in index:
            shape = shape.elements[position]  # type: ignore[attr-defined]
        return shape

    def without_layout(self) -> Shape:
        raise NotImplementedError

    def with_default_layout(self) -> Shape:
        """The same shape, row-major wherever no layout is given."""
        raise NotImplementedError

    def compatible(self, other: Shape) -> bool:
        """Equal but for layouts."""
        return self is other or self.without_layout() == other.without_layout()


@record
class ArrayShape(Shape):
    """`f32[2,<=3]{1,0}`; also `token[]` and `opaque[]`, whose dtype says so.

    `dynamic[i]` marks a dimension whose size `dims[i]` is only a bound (or UNBOUNDED). An empty `dynamic`
    means that no dimension is dynamic.
    """

    dtype: DType
    dims: tuple[int, ...] = ()
    layout: Layout | None = None
    dynamic: tuple[bool, ...] = ()

    @remembered
    def _hash(self) -> int:
        return hash((self.dtype.name, self.dims, self.layout, self.dynamic))

    def __hash__(self) -> int:
        return self._hash

    @property
    def is_array(self) -> bool:  # type: ignore[override]
        return self.dtype.numpy is not None

    @property
    def is_token(self) -> bool:  # type: ignore[override]
        return self.dtype is TOKEN

    @property
    def rank(self) -> int:
        return len(self.dims)

    def compatible(self, other: Shape) -> bool:
        if self is other:
            return True
        same_class = other.__class__ is ArrayShape
        return same_class and (self.dtype, self.dims, self.dynamic) == (other.dtype, other.dims, other.dynamic)

    @remembered
    def count(self) -> int:
        """Number of elements (of the bound, where dimensions are dynamic)."""
        return prod(self.dims)

    @property
    def byte_size(self) -> int:
        """Bytes of a dense array of this shape, one byte an element for sub-byte types."""
        return self.count * self.dtype.itemsize

    @property
    def is_dynamic(self) -> bool:
        return bool(self.dynamic) and any(self.dynamic)

    def is_dynamic_dim(self, dimension: int) -> bool:
        return bool(self.dynamic) and self.dynamic[dimension]

    @property
    def minor_to_major(self) -> tuple[int, ...]:
        """The layout's order; row-major where there is no layout."""
        return (self.layout or _row_major(len(self.dims))).minor_to_major

    @remembered
    def strides(self) -> tuple[int, ...]:
        """Elements from one index to the next, a dimension each, as the layout has it."""
        strides, step = [0] * len(self.dims), 1
        for dimension in self.minor_to_major:
            strides[dimension] = step
            step *= self.dims[dimension]
        return tuple(strides)

    def leaves(self) -> Iterator[tuple[tuple[int, ...], ArrayShape]]:
        yield (), self

    def without_layout(self) -> ArrayShape:
        return self if self.layout is None else ArrayShape(self.dtype, self.dims, None, self.dynamic)

    def with_layout(self, layout: Layout | None) -> ArrayShape:
        return ArrayShape(self.dtype, self.dims, layout, self.dynamic)

    def with_default_layout(self) -> ArrayShape:
        if self.layout is not None or not self.is_array:
            return self
        return self.with_layout(_row_major(len(self.dims)))

    def with_dtype(self, dtype: DType) -> ArrayShape:
        return ArrayShape(dtype, self.dims, self.layout, self.dynamic)

    def __repr__(self) -> str:
        dims = ",".join(("<=" if self.is_dynamic_dim(i) else "") + str(d) for i, d in enumerate(self.dims))
        return f"{self.dtype.name}[{dims}]"


@record
class TupleShape(Shape):
    """`(f32[2], s32[])`."""

    elements: tuple[Shape, ...] = ()
    is_tuple = True

    def leaves(self) -> Iterator[tuple[tuple[int, ...], ArrayShape]]:
        for position, element in enumerate(self.elements):
            for index, leaf in element.leaves():
                yield (position, *index), leaf

    def without_layout(self) -> TupleShape:
        return TupleShape(tuple(element.without_layout() for element in self.elements))

    def with_default_layout(self) -> TupleShape:
        return TupleShape(tuple(element.with_default_layout() for element in self.elements))

    def __repr__(self) -> str:
        return "(" + ", ".join(map(repr, self.elements)) + ")"


@record
class BufferShape(Shape):
    """`b(f32[4]{0})`: a piece of memory that holds an array."""

    element: ArrayShape

    def leaves(self) -> Iterator[tuple[tuple[int, ...], ArrayShape]]:
        yield (), self.element

    def without_layout(self) -> BufferShape:
        return replace(self, element=self.element.without_layout())

    def with_default_layout(self) -> BufferShape:
        return replace(self, element=self.element.with_default_layout())

    def __repr__(self) -> str:
        return f"b({self.element!r})"


TOKEN_SHAPE = ArrayShape(TOKEN)
OPAQUE_SHAPE = ArrayShape(OPAQUE)


def array(dtype: DType, *dims: int, layout: Layout | None = None) -> ArrayShape:
    """An array shape, row-major unless a layout is given: `array(F32, 2, 3)`."""
    return ArrayShape(dtype, tuple(dims), layout or _row_major(len(dims)))
