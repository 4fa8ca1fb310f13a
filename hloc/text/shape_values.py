"""Callbacks of the grammar's rules for shapes and layouts: tokens to Shape and Layout."""

from __future__ import annotations

from math import prod
from typing import Any

from hloc.ir.dtypes import BY_NAME, DType
from hloc.ir.shapes import COMBINED, UNBOUNDED, ArrayShape, BufferShape, Layout, Shape, SplitConfig, TupleShape
from hloc.text.strings import int_of
from hloc.text.tokens import Fault, Token, fault_at

# Shapes are walked by recursion, here and elsewhere; no program comes near this.
MOST_NESTED = 64

# Elements that an array can be addressed by: XLA and NumPy count in signed 64-bit integers.
MOST_ELEMENTS = 2**63 - 1


class ShapeValues:
    """One method a rule, called with the rule's children."""

    def array_token(self, children: list[Token]) -> Shape:
        return children[0].value

    def array_shape(self, children: list[Any]) -> ArrayShape:
        kind, *rest = children
        dtype = BY_NAME[kind.value]
        fields = rest.pop() if rest and isinstance(rest[-1], _LayoutParts) else None
        dims = tuple(size for size, _ in rest)
        dynamic = tuple(flag for _, flag in rest)
        if dims and not dtype.is_array_element:
            raise fault_at(kind, f"{dtype.name} has no dimensions: write {dtype.name}[]")
        _check_size(kind, dims)
        layout = fields.layout(kind, len(dims)) if fields else None
        if layout is None and dtype.is_array_element:
            layout = Layout.default(len(dims))
        return ArrayShape(dtype, dims, layout, dynamic if any(dynamic) else ())

    def tuple_open(self, children: list[Token]) -> Token:
        return children[0]

    def tuple_shape(self, children: list[Any]) -> TupleShape:
        start, *elements = children
        shape = TupleShape(tuple(shapes_of(elements)))
        if _depth(shape) > MOST_NESTED:
            raise fault_at(start, f"tuples nest deeper than {MOST_NESTED}")
        return shape

    def buffer_shape(self, children: list[Any]) -> BufferShape:
        mark, element = children
        if not element.is_array:
            raise fault_at(mark, "a buffer holds an array")
        return BufferShape(element)

    def dimension(self, children: list[Token]) -> tuple[int, bool]:
        size = int_of(children[0])
        if size < 0:
            raise fault_at(children[0], f"a dimension cannot be negative: {size}")
        return size, False

    def bounded(self, children: list[Token]) -> tuple[int, bool]:
        return self.dimension(children)[0], True

    def unbounded(self, children: list[Token]) -> tuple[int, bool]:
        return UNBOUNDED, True

    def integers(self, children: list[Token]) -> tuple[int, ...]:
        return tuple(map(int_of, children))

    # Layouts. Each optional part is the rule of its own that gives () or one value.

    def layout(self, children: list[Any]) -> _LayoutParts:
        start, *rest = children
        order = rest.pop(0) if rest and isinstance(rest[0], tuple) else ()
        return _LayoutParts(start, order, rest)

    def level_types(self, children: list[Any]) -> None:
        return None

    def level_type(self, children: list[Token]) -> None:
        if children[0].value not in ("D", "C", "S", "H"):
            raise fault_at(children[0], f"expected a level type D, C, S or H, got {children[0].value!r}")

    def tiles(self, children: list[Any]) -> dict[str, Any]:
        return {"tiles": tuple(children)} if children else {}

    def tile(self, children: list[Any]) -> tuple[int, ...]:
        return tuple(children)

    def tile_dimension(self, children: list[Token]) -> int:
        return int_of(children[0])

    def combined(self, children: list[Token]) -> int:
        return COMBINED

    def tail_padding(self, children: list[Token]) -> dict[str, Any]:
        return {"tail_padding_alignment": int_of(children[0])} if children else {}

    def index_type(self, children: list[Token]) -> dict[str, Any]:
        return {"index_type": _unsigned(children[0])} if children else {}

    def pointer_type(self, children: list[Token]) -> dict[str, Any]:
        return {"pointer_type": _unsigned(children[0])} if children else {}

    def element_bits(self, children: list[Token]) -> dict[str, Any]:
        return {"element_bits": int_of(children[0])} if children else {}

    def memory_space(self, children: list[Token]) -> dict[str, Any]:
        return {"memory_space": int_of(children[0])} if children else {}

    def split_configs(self, children: list[Any]) -> dict[str, Any]:
        return {"split_configs": tuple(children)} if children else {}

    def split_config(self, children: list[Any]) -> SplitConfig:
        return SplitConfig(int_of(children[0]), children[1] if len(children) > 1 else ())

    def physical_shape(self, children: list[Any]) -> dict[str, Any]:
        if children:
            raise fault_at(children[0], "only a sparse array has a physical shape, and this layout is dense")
        return {}

    def prefix_bytes(self, children: list[Token]) -> dict[str, Any]:
        return {"dynamic_prefix_bytes": int_of(children[0])} if children else {}


class _LayoutParts:
    """A layout as written; whether it fits the rank is checked when the array is complete."""

    def __init__(self, start: Token, order: tuple[int, ...], parts: list[dict[str, Any] | None]):
        self.start = start
        self.order = order
        self.parts = {name: value for part in parts if part for name, value in part.items()}

    def layout(self, kind: Token, rank: int) -> Layout:
        if sorted(self.order) != list(range(rank)):
            order = ",".join(map(str, self.order))
            raise Fault(
                f"expected a layout that orders {rank} dimensions, got {{{order}}}", self.start.start, self.start.end
            )
        return Layout(self.order, **self.parts) if self.parts else _plain(self.order)


def shapes_of(children: list[Any]) -> list[Shape]:
    """The shapes of a list that is written out or one ARRAYS token."""
    return children[0].value if children and isinstance(children[0], Token) else children


def plain_array(text: str) -> ArrayShape | None:
    """The shape of an ARRAY terminal; None if it has a fault, which the fine rules then tell."""
    name, _, rest = text.partition("[")
    sizes, _, order = rest.partition("]")
    dtype = BY_NAME.get(name)
    if dtype is None or not dtype.is_array_element:
        return None
    try:
        dims = tuple(map(int, sizes.split(","))) if sizes else ()
        layout = Layout.default(len(dims))
        minor_to_major = tuple(map(int, order[1:-1].split(","))) if order else layout.minor_to_major
    except ValueError:
        return None
    if minor_to_major != layout.minor_to_major:
        if sorted(minor_to_major) != list(range(len(dims))):
            return None
        layout = Layout(minor_to_major)
    too_large = prod(dims) > MOST_ELEMENTS or (0 in dims and prod(max(size, 1) for size in dims) > MOST_ELEMENTS)
    return None if too_large else ArrayShape(dtype, dims, layout)


def _plain(order: tuple[int, ...]) -> Layout:
    """A layout that says nothing but the order, one object each."""
    rank = len(order)
    if order == tuple(range(rank - 1, -1, -1)):
        return Layout.default(rank)
    return Layout(order)


def _check_size(kind: Token, dims: tuple[int, ...]) -> None:
    count = prod(max(size, 1) for size in dims)
    if count > MOST_ELEMENTS:
        raise fault_at(kind, f"the number of elements, {count}, does not fit a 64-bit integer")


def _depth(shape: Shape) -> int:
    return 1 + max(map(_depth, shape.elements), default=0) if isinstance(shape, TupleShape) else 0


def _unsigned(token: Token) -> DType:
    dtype = BY_NAME[token.value]
    if not dtype.is_unsigned:
        raise fault_at(token, f"expected an unsigned integer type, got {dtype.name}")
    return dtype
