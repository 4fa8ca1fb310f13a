"""Where an operand or the result of a dot lies: its batch dimensions, rows and columns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import prod

from hloc.analysis.panels import panel_width
from hloc.codegen.strided import Strided
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape

_LEAST_LEFT = 32
"""Rows or columns that are left where others are gone through one by one."""


def _stride(sizes: Sequence[int], strides: Sequence[int]) -> int | None:
    """The stride of dimensions counted through together, the last one fastest; None if there is none."""
    wide = [(size, stride) for size, stride in zip(sizes, strides, strict=True) if size != 1]
    for (_, major), (size, minor) in zip(wide, wide[1:]):
        if major != minor * size:
            return None
    return wide[-1][1] if wide else 1


def taken_apart(
    operand: Instruction,
    other: Instruction,
    dims: Sequence[int],
    results: Sequence[int],
    strides: Sequence[int],
    is_fused: bool,
) -> int:
    """How many of an operand's free dimensions, which are `results` of the dot, to go through one by one.

    None if all have a stride together, in memory and in the result, if few rows or columns were left, or if the other
    operand would be computed again for each.
    """
    place, own = Strided.of(operand, is_fused), Strided.of(other, is_fused)
    if own is None:
        return 0
    sizes = [operand.shape.dims[d] for d in dims]
    count = 0
    while place is not None and _stride(sizes[count:], [place.strides[d] for d in dims[count:]]) is None:
        count += 1
    while _stride(sizes[count:], [strides[d] for d in results[count:]]) is None:
        count += 1
    return count if prod(sizes[count:]) >= _LEAST_LEFT else 0


def padded(size: int) -> int:
    return -(-size // 64) * 64


class Side:
    """Operand `number`, or the result (None): where its batch dimensions, rows and columns lie.

    A batch dimension is None where it is the other operand's alone: this one is the same for each index of it.
    `shape` has its sizes, and the element type and strides that it has in memory; an operand whose elements are
    `computed` lies nowhere. One whose rows or columns have no one stride is copied, row-major in the order batch,
    rows, columns, and so is a computed one that is not packed at once.
    """

    def __init__(
        self,
        number: int | None,
        value: Instruction,
        batch: Sequence[int | None],
        rows: Sequence[int],
        columns: Sequence[int],
        is_fused: bool,
    ):
        self.number, self.value, self.is_fused, self.in_panels = number, value, is_fused, False
        self.batch, self.rows, self.columns = tuple(batch), tuple(rows), tuple(columns)
        self.place = Strided.of(value, is_fused) if number is not None else None
        self.computed = number is not None and self.place is None
        self.shape: ArrayShape = value.shape if self.place is None else value.shape.with_dtype(self.place.dtype)
        self.given = self.shape.strides if self.place is None else self.place.strides

    def sizes(self, dims: Sequence[int]) -> list[int]:
        return [self.shape.dims[d] for d in dims]

    @property
    def lies_in_panels(self) -> bool:
        """Whether rows lie as products read those that are packed: some side by side, step by step, panel by panel."""
        panels = [(size, self.given[d]) for d, size in zip(self.rows, self.sizes(self.rows), strict=True) if size != 1]
        step = _stride(self.sizes(self.columns), [self.given[d] for d in self.columns])
        width, steps = panel_width(self.shape.dtype), prod(self.sizes(self.columns))
        return not self.computed and panels[1:] == [(width, 1)] and step == width and panels[0][1] == steps * width

    def turned(self) -> Side:
        """The same with rows and columns changed over, for the result of the transposed product."""
        return Side(self.number, self.value, self.batch, self.columns, self.rows, self.is_fused)

    @property
    def order(self) -> tuple[int, ...]:
        return (*(d for d in self.batch if d is not None), *self.rows, *self.columns)

    @property
    def parts(self) -> int:
        """Real numbers an element."""
        return 2 if self.shape.dtype.is_complex else 1

    @cached_property
    def dense(self) -> ArrayShape:
        """The shape of the copy."""
        return ArrayShape(self.shape.dtype, tuple(self.sizes(self.order)))

    @cached_property
    def copied(self) -> bool:
        if self.in_panels:
            return False
        return self.computed or any(
            _stride(self.sizes(d), [self.given[i] for i in d]) is None for d in (self.rows, self.columns)
        )

    @cached_property
    def strides(self) -> tuple[tuple[int, ...], int, int]:
        """Strides of the batch dimensions, of rows and of columns, in the array or its copy.

        In panels, the stride of rows is right for those that panels begin with.
        """
        strides = self.given
        if self.in_panels:
            step = _stride(self.sizes(self.columns), [strides[d] for d in self.columns])
            return self._batch_strides(strides), prod(self.sizes(self.columns)), step
        if self.copied:
            strides = [stride for _, stride in sorted(zip(self.order, self.dense.strides, strict=True))]
        rows, columns = (_stride(self.sizes(d), [strides[i] for i in d]) for d in (self.rows, self.columns))
        return self._batch_strides(strides), rows or 0, columns or 0

    def _batch_strides(self, strides: Sequence[int]) -> tuple[int, ...]:
        return tuple(0 if d is None else strides[d] for d in self.batch)

    @property
    def copy_bytes(self) -> int:
        return padded(self.shape.byte_size) if self.copied else 0
