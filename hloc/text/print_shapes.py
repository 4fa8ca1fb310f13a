"""Shapes and layouts as text."""

from __future__ import annotations

from functools import lru_cache

from hloc.ir.shapes import COMBINED, UNBOUNDED, ArrayShape, BufferShape, Layout, Shape


@lru_cache(maxsize=4096)
def print_shape(shape: Shape, layouts: bool = True) -> str:
    """`f32[2,<=3]{1,0}`; without layouts `f32[2,<=3]`. Tuples number every fifth element in a comment."""
    if shape.is_tuple:
        return f"({print_shapes(shape.elements, layouts)})"
    if isinstance(shape, BufferShape):
        return f"b({print_shape(shape.element, layouts)})"
    text = f"{shape.dtype.name}[{','.join(map(_dimension, shape.dims, _dynamic(shape)))}]"
    if not layouts or shape.layout is None or not shape.is_array:
        return text
    layout = print_layout(shape.layout)
    return text if layout == "{}" else text + layout


def print_shapes(shapes: tuple[Shape, ...], layouts: bool = True) -> str:
    """Shapes with commas, the fifth, tenth, ... after a comment that says which it is."""
    return join_numbered([print_shape(shape, layouts) for shape in shapes])


def join_numbered(texts: list[str]) -> str:
    """`a, b, c, d, e, /*index=5*/f`."""
    if len(texts) <= 5:
        return ", ".join(texts)
    return ", ".join(f"/*index={i}*/{text}" if i and i % 5 == 0 else text for i, text in enumerate(texts))


def _dynamic(shape: ArrayShape) -> tuple[bool, ...]:
    return shape.dynamic or (False,) * len(shape.dims)


def _dimension(size: int, dynamic: bool) -> str:
    if not dynamic:
        return str(size)
    return "?" if size == UNBOUNDED else f"<={size}"


def print_layout(layout: Layout) -> str:
    """`{1,0:T(8,128)(2,1)S(1)}`: the order, then what differs from the default."""
    order = ",".join(map(str, layout.minor_to_major))
    parts = []
    if layout.tiles:
        parts.append("T" + "".join(f"({','.join(map(_tile_dimension, tile))})" for tile in layout.tiles))
    if layout.tail_padding_alignment != 1:
        parts.append(f"L({layout.tail_padding_alignment})")
    if layout.index_type is not None:
        parts.append(f"#({layout.index_type.name})")
    if layout.pointer_type is not None:
        parts.append(f"*({layout.pointer_type.name})")
    if layout.element_bits:
        parts.append(f"E({layout.element_bits})")
    if layout.memory_space:
        parts.append(f"S({layout.memory_space})")
    if layout.split_configs:
        cuts = (f"({cut.dimension}:{','.join(map(str, cut.indices))})" for cut in layout.split_configs)
        parts.append("SC" + "".join(cuts))
    if layout.dynamic_prefix_bytes:
        parts.append(f"M({layout.dynamic_prefix_bytes})")
    return f"{{{order}:{''.join(parts)}}}" if parts else f"{{{order}}}"


def _tile_dimension(size: int) -> str:
    return "*" if size == COMBINED else str(size)
