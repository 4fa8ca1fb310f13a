"""Smaller sizes of dimensions: one size, wherever it stands in a program, becomes a lesser one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hloc.ir.clone import clone_module
from hloc.ir.literals import Literal
from hloc.ir.module import Module
from hloc.ir.shapes import ArrayShape, Shape, TupleShape

_SIZED = ("slice_sizes", "dynamic_slice_sizes")


def lesser_sizes(module: Module) -> Iterator[tuple[int, int]]:
    """(size, lesser size) to try, the greatest sizes first."""
    leaves = (leaf for i in module.instructions() for _, leaf in i.shape.leaves() if leaf.is_array)
    for size in sorted({size for leaf in leaves for size in leaf.dims if size > 1}, reverse=True):
        for lesser in dict.fromkeys((1, size // 2, size - 1)):
            yield size, lesser


def resized(module: Module, size: int, lesser: int) -> Module:
    """A copy in which dimensions of a size, and attributes that speak of it, have the lesser one.

    It need not be well formed: the size may have meant several things. Constants are cut.
    """
    module = clone_module(module)
    change = {size: lesser}
    if module.entry_layout is not None:
        parameters, result = module.entry_layout
        module.entry_layout = tuple(_changed(p, change) for p in parameters), _changed(result, change)
    for instruction in module.instructions():
        attributes = instruction.attributes
        instruction.shape = _changed(instruction.shape, change)
        if instruction.opcode == "constant" and instruction.shape.is_array:
            value = cut(np.asarray(attributes["literal"].value), change)
            attributes["literal"] = Literal.of(value, instruction.shape.dtype)
        for name in [name for name in _SIZED if name in attributes]:
            attributes[name] = tuple(change.get(number, number) for number in attributes[name])
        if "slice" in attributes:
            attributes["slice"] = tuple(
                part._replace(limit=change.get(part.limit, part.limit)) for part in attributes["slice"]
            )
    return module


def cut(array: np.ndarray, change: dict[int, int]) -> np.ndarray:
    """The first elements along each dimension of a size that changes."""
    return array[tuple(slice(0, change.get(size, size)) for size in array.shape)]


def _changed(shape: Shape, change: dict[int, int]) -> Shape:
    if isinstance(shape, TupleShape):
        return TupleShape(tuple(_changed(element, change) for element in shape.elements))
    if not isinstance(shape, ArrayShape) or not shape.is_array:
        return shape
    dims = tuple(change.get(size, size) for size in shape.dims)
    return ArrayShape(shape.dtype, dims, shape.layout, shape.dynamic)
