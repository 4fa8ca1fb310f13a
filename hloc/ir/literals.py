"""Constant values: a shape and the NumPy array (or tuple of literals) that it holds.

Arrays are in logical order whatever the layout of the shape; a literal never changes after it is made.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from hloc.ir.dtypes import DType, dtype_of_numpy
from hloc.ir.shapes import ArrayShape, Layout, Shape, TupleShape


class Literal:
    """A constant of an array or tuple shape. `value` is a read-only array, or a tuple of literals.

    Literals are equal when shapes and bits are: NaNs by payload, and -0 differs from 0.
    """

    __slots__ = ("shape", "value", "_hash", "_is_splat")

    def __init__(self, shape: Shape, value: np.ndarray | tuple[Literal, ...]):
        if isinstance(value, np.ndarray):
            if not isinstance(shape, ArrayShape) or value.shape != shape.dims or value.dtype != shape.dtype.numpy:
                raise ValueError(f"an array {value.dtype}{value.shape} does not make a literal of shape {shape}")
            value = value if not value.flags.writeable else value.view()
            value.flags.writeable = False
        self.shape = shape
        self.value = value
        self._hash: int | None = None
        self._is_splat: bool | None = None

    @staticmethod
    def of(value: object, dtype: DType | None = None) -> Literal:
        """A literal from anything that NumPy makes an array of, row-major; `dtype` converts it."""
        array = np.asarray(value) if dtype is None else np.asarray(value).astype(dtype.numpy)
        kind = dtype or dtype_of_numpy(array.dtype)
        return Literal(ArrayShape(kind, array.shape, Layout.default(array.ndim)), array)

    @staticmethod
    def tuple_of(elements: Iterable[Literal]) -> Literal:
        parts = tuple(elements)
        return Literal(TupleShape(tuple(part.shape for part in parts)), parts)

    @property
    def is_tuple(self) -> bool:
        return isinstance(self.value, tuple)

    @property
    def array(self) -> np.ndarray:
        """The array; TypeError for a tuple literal."""
        if not isinstance(self.value, np.ndarray):
            raise TypeError("a tuple literal has no array")
        return self.value

    def scalar(self) -> object:
        """The one element of a one-element array, as a Python object (bool, int, float, complex)."""
        return self.array.reshape(()).item()

    def is_splat(self) -> bool:
        """Whether all elements (one at least) have the same bits."""
        if self._is_splat is None:
            flat = bits_of(self.array).reshape(-1)
            self._is_splat = flat.size == 1 or (flat.size > 0 and bool((flat == flat[0]).all()))
        return self._is_splat

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Literal) or self.shape != other.shape:
            return False
        if isinstance(self.value, tuple):
            return self.value == other.value
        return bool(np.array_equal(bits_of(self.value), bits_of(other.array)))

    def __hash__(self) -> int:
        if self._hash is None:
            content = self.value if isinstance(self.value, tuple) else bits_of(self.value).tobytes()
            self._hash = hash((self.shape, content))
        return self._hash

    def __repr__(self) -> str:
        return f"Literal({self.shape!r})"


def bits_of(array: np.ndarray) -> np.ndarray:
    """The same memory as unsigned integers, so that comparing sees NaN payloads and signs of zero."""
    size = array.dtype.itemsize
    if size == 16:
        return np.ascontiguousarray(array).reshape(-1).view(np.uint64)
    if array.dtype.kind in "biu" and size > 1:
        return array
    return np.ascontiguousarray(array).view(f"u{size}")
