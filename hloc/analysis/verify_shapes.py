"""What the verifier asks of shapes: sizes that can be counted, layouts that order every dimension."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hloc.errors import HloError
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.ir.shape_rules.common import element_count
from hloc.ir.shapes import COMBINED, UNBOUNDED, ArrayShape, Layout, Shape

_LARGEST = 2**63 - 1


def shape_faults(module: Module, instructions: Sequence[Instruction]) -> Iterator[HloError]:
    """The faults of all result shapes and of the entry layout; a shared shape is looked at once."""
    seen: dict[int, Shape] = {}
    for instruction in instructions:
        if id(instruction.shape) in seen:
            continue
        for message, label in _faults(instruction.shape, seen):
            yield HloError(
                f"%{instruction.name} is {instruction.shape!r}: {message}", instruction.span, label=label
            )
    if module.entry_layout is not None:
        parameters, result = module.entry_layout
        for shape in (*parameters, result):
            for message, label in _faults(shape, seen):
                yield HloError(f"entry_computation_layout has {shape!r}: {message}", label=label)


def _faults(shape: Shape, seen: dict[int, Shape]) -> Iterator[tuple[str, str]]:
    seen[id(shape)] = shape  # kept, so that the id stays its own
    for _, leaf in shape.leaves():
        if id(leaf) not in seen or leaf is shape:
            seen[id(leaf)] = leaf
            yield from _size_faults(leaf)
            if leaf.layout is not None:
                yield from _layout_faults(leaf, leaf.layout)


def _size_faults(shape: ArrayShape) -> Iterator[tuple[str, str]]:
    if not shape.is_array:
        if shape.dims:
            yield f"{shape.dtype.name} has no dimensions", "SHAPE_C5"
        return
    if shape.dynamic and len(shape.dynamic) != len(shape.dims):
        yield f"{len(shape.dynamic)} dynamic flags for {len(shape.dims)} dimensions", "SHAPE_C4"
        return
    for number, size in enumerate(shape.dims):
        if size < 0 and not (size == UNBOUNDED and shape.is_dynamic_dim(number)):
            yield f"dimension {number} has the size {size}", "SHAPE_C4"
            return
    if element_count(shape.dims) * max(shape.dtype.itemsize, 1) > _LARGEST:
        yield "it has more bytes than 64 bits can count", "SHAPE_C3"


def _layout_faults(shape: ArrayShape, layout: Layout) -> Iterator[tuple[str, str]]:
    rank = len(shape.dims)
    order = layout.minor_to_major
    if sorted(order) != list(range(rank)):
        yield f"its layout {{{','.join(map(str, order))}}} does not order {rank} dimensions", "LAYOUT_C1"
    for tile in layout.tiles:
        if any(size < 1 and size != COMBINED for size in tile):
            yield f"its layout has a tile ({','.join(map(str, tile))}) with a size below 1", "LAYOUT_C2"
    for split in layout.split_configs:
        if not 0 <= split.dimension < rank or list(split.indices) != sorted(split.indices):
            yield f"its layout splits dimension {split.dimension} at {list(split.indices)}", "LAYOUT_C3"
    counts = (
        layout.tail_padding_alignment,
        layout.element_bits,
        layout.memory_space,
        layout.dynamic_prefix_bytes,
    )
    if min(counts) < 0:
        yield "its layout has a negative number", "LAYOUT_C4"
