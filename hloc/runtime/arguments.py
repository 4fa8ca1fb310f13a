"""What a caller passes, checked and seen as NumPy arrays; results put into the caller's structure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from hloc.codegen.program import ParameterLeaf, Program
from hloc.errors import ArgumentError
from hloc.ir.dtypes import BY_NUMPY
from hloc.ir.shapes import ArrayShape, Shape
from hloc.runtime.padding import is_within

_SCALARS = (bool, int, float, complex)


View = Callable[[Any, str], Any]
"""Sees a value as an array, NumPy's or one that has dtype, shape, strides and size like it; the text is its place."""


def flat_arguments(program: Program, arguments: Sequence[Any], view: View | None = None) -> list[Any]:
    """An array for each parameter leaf. ArgumentError if count, type, shape or layout is not the program's.

    `arguments` are the leaves in order, or one argument a parameter, tuples and lists nested as its shape is.
    """
    view = view or viewed
    leaves = program.parameters
    if any(isinstance(argument, tuple | list) for argument in arguments):
        _check_count(len(arguments), len(program.parameter_shapes), "arguments")
        pairs = zip(arguments, program.parameter_shapes, strict=True)
        given = [leaf for number, pair in enumerate(pairs) for leaf in _nested(*pair, f"argument {number}")]
    else:
        _check_count(len(arguments), len(leaves), "arguments")
        given = list(arguments)
    pairs = zip(given, leaves, strict=True)
    return [_leaf_array(value, leaf, position, view) for position, (value, leaf) in enumerate(pairs)]


def check_donations(program: Program, given: Sequence[np.ndarray]) -> None:
    """ArgumentError if results cannot be written into the arguments that the program takes over."""
    for donor in program.donors:
        if donor is None:
            continue
        place, array = _place(program.parameters[donor], donor), given[donor]
        purpose = "but a result is to be written into it (Options.donate)"
        if not array.flags.writeable:
            raise ArgumentError(f"{place} is read-only, {purpose}")
        for number, other in enumerate(given):
            if number != donor and np.may_share_memory(array, other):
                raise ArgumentError(f"{place} shares memory with argument {number}, {purpose}")


def _place(leaf: ParameterLeaf, position: int) -> str:
    return f"argument {position} (%{leaf.name}{''.join(f'[{i}]' for i in leaf.index)})"


def _check_count(got: int, expected: int, what: str) -> None:
    if got != expected:
        raise ArgumentError(f"got {got} {what}, expected {expected}")


def _nested(argument: Any, shape: Shape, place: str) -> Iterator[Any]:
    """The leaves of one argument that has the structure of a parameter, without those for tokens."""
    if not shape.is_tuple:
        if shape.is_array:
            yield argument
        return
    if not isinstance(argument, tuple | list):
        count = len(shape.elements)
        raise ArgumentError(f"{place} is {_described(argument)}, expected a tuple of {count} elements")
    if len(argument) != len(shape.elements):
        raise ArgumentError(f"{place} has {len(argument)} elements, expected {len(shape.elements)}")
    for number, (element, part) in enumerate(zip(argument, shape.elements, strict=True)):
        yield from _nested(element, part, f"{place}[{number}]")


def _leaf_array(value: Any, leaf: ParameterLeaf, position: int, view: View) -> Any:
    place = _place(leaf, position)
    shape = leaf.shape
    array = _scalar_array(value, shape, place) if isinstance(value, _SCALARS) else view(value, place)
    if shape.is_dynamic and array.dtype == shape.dtype.numpy and is_within(array, shape):
        return array
    if array.dtype != shape.dtype.numpy or array.shape != shape.dims:
        raise ArgumentError(f"{place} is {_described(array)}, expected {shape!r}")
    if not _lies_as(array, shape):
        layout = ",".join(map(str, shape.minor_to_major))
        expected = f"those of {shape!r}{{{layout}}}: {_strides(shape)}"
        hint = "numpy.ascontiguousarray gives the row-major layout"
        raise ArgumentError(f"{place} has strides {array.strides}, expected {expected}", hint=hint)
    return array if not isinstance(array, np.ndarray) or array.flags.aligned else array.copy(order="K")


def viewed(value: Any, place: str) -> np.ndarray:
    """A NumPy view of an array of another library, or of an object with a buffer."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, np.generic):
        return np.asarray(value)
    try:
        if hasattr(value, "__array_interface__") or hasattr(value, "__array__"):
            return np.asarray(value)
        if hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
        return np.asarray(memoryview(value))
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        message = f"{place} is {_described(value)}, which NumPy cannot view as an array: {error}"
        raise ArgumentError(message) from None


def _scalar_array(value: bool | int | float | complex, shape: ArrayShape, place: str) -> np.ndarray:
    """A Python number as a rank-0 array, if the type holds exactly it."""
    expected = f"{place} is {value!r}, expected {shape!r}"
    if shape.dims:
        raise ArgumentError(expected)
    kind = shape.dtype.kind
    if isinstance(value, bool) != (kind == "predicate") or (isinstance(value, complex) and kind != "complex"):
        raise ArgumentError(expected)
    try:
        with np.errstate(all="ignore"):
            array = np.asarray(value).astype(shape.dtype.numpy)
    except (OverflowError, TypeError, ValueError):
        raise ArgumentError(expected) from None
    back = array.item()
    if back != value and not (value != value and back != back):
        raise ArgumentError(f"{expected}, which does not hold that number exactly")
    return array


def _strides(shape: ArrayShape) -> tuple[int, ...]:
    return tuple(stride * shape.dtype.itemsize for stride in shape.strides)


def _lies_as(array: np.ndarray, shape: ArrayShape) -> bool:
    """Whether the strides are the layout's; those of dimensions of size 1 mean nothing."""
    if array.size == 0:
        return True
    rows = zip(array.strides, _strides(shape), shape.dims, strict=True)
    return all(got == expected or size == 1 for got, expected, size in rows)


def _described(value: Any) -> str:
    """An array by its HLO type where it has one; anything else by its Python type."""
    if not isinstance(getattr(value, "dtype", None), np.dtype):
        return f"a {type(value).__name__}"
    known = BY_NUMPY.get(value.dtype)
    return f"{known.name if known else value.dtype}[{','.join(map(str, value.shape))}]"
