"""Arrays in memory, as kernels see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.codegen import scalar
from hloc.codegen.llvm import Builder, Value
from hloc.codegen.loops import Index, linear
from hloc.ir.shapes import ArrayShape

Register = Value | tuple[Value, Value]
"""An element's value: one LLVM value, or (real, imaginary)."""

Element = Callable[[Index], Register]
"""Gives the element at a logical index, at the builder's current place."""


class ArrayRef:
    """An array in memory: `shape` with its layout, and `pointer` to its first element."""

    __slots__ = ("builder", "shape", "pointer")

    def __init__(self, builder: Builder, shape: ArrayShape, pointer: Value):
        self.builder = builder
        self.shape = shape
        self.pointer = pointer

    def offset(self, index: Index) -> Value:
        """Elements (not bytes) from the start to the element at `index`."""
        return linear(self.builder, index, self.shape.dims, self.shape.strides)

    def address(self, index: Index) -> Value:
        """The address of the element at `index`."""
        return self.builder.gep(scalar.memory_type(self.shape.dtype), self.pointer, self.offset(index))

    def load(self, index: Index) -> Register:
        """The element at `index`, as a register value."""
        return scalar.load(self.builder, self.shape.dtype, self.address(index))

    def store(self, index: Index, value: Register) -> None:
        """Puts a register value of the array's element type at `index`."""
        scalar.store(self.builder, self.shape.dtype, value, self.address(index))

    @property
    def element(self) -> Element:
        """The array as an Element."""
        return self.load


def like_at(arrays: Sequence[ArrayRef], pointers: Sequence[Value]) -> list[ArrayRef]:
    """Arrays like these, elsewhere."""
    return [ArrayRef(array.builder, array.shape, pointer) for array, pointer in zip(arrays, pointers, strict=True)]


def flattened(values: Sequence[Register]) -> list[Value]:
    """Complex pairs as two values each."""
    flat: list[Value] = []
    for value in values:
        flat.extend(value if isinstance(value, tuple) else (value,))
    return flat


def grouped(values: Sequence[Value], like: Sequence[Register]) -> list[Register]:
    """Values with the two of each complex pair together again: the inverse of `flattened`, for kinds as in `like`."""
    given = iter(values)
    return [(next(given), next(given)) if isinstance(value, tuple) else next(given) for value in like]
