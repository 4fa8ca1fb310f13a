"""Ops whose result holds elements of their operands, elsewhere; and what only passes a value on."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from hloc.errors import HloError
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import COMBINED, ArrayShape
from hloc.reference.context import Context
from hloc.reference.values import TOKEN, Value, from_unsigned, literal_value, unsigned


def constant(instruction: Instruction, operands: list[Value], context: Context) -> Value:
    return literal_value(instruction.attributes["literal"])


def iota(instruction: Instruction, operands: list[Value], context: Context) -> np.ndarray:
    """Each element its index along one dimension; integers wrap."""
    shape, dimension = instruction.shape, instruction.get("iota_dimension")
    count = np.arange(shape.dims[dimension], dtype=np.int64)
    dtype = shape.dtype
    values = count.astype(dtype.numpy) if dtype.bits >= 32 or dtype.is_integer else count.astype(np.float32)
    along = [1] * shape.rank
    along[dimension] = -1
    return np.broadcast_to(values.astype(dtype.numpy).reshape(along), shape.dims)


def broadcast(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """Operand dimension i becomes result dimension `dimensions[i]`; the rest repeat."""
    shape, places = instruction.shape, instruction.get("dimensions")
    sizes = list(shape.dims)
    spread = [1] * shape.rank
    for place, size in zip(places, operands[0].shape):
        spread[place] = sizes[place] = size
    order = sorted(range(len(places)), key=lambda i: places[i])
    return np.broadcast_to(operands[0].transpose(order).reshape(spread), sizes)


def reshape(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """The same elements in row-major order.

    Of a dynamic operand these are the live ones, and one dynamic dimension follows from their count.
    """
    array, shape = operands[0], instruction.shape
    if array.size == shape.count:
        return array.reshape(shape.dims)
    open_dimensions = [d for d in range(shape.rank) if shape.is_dynamic_dim(d)]
    chosen = instruction.get("inferred_dimension")
    if chosen is None and len(open_dimensions) == 1:
        chosen = open_dimensions[0]
    if chosen is None:
        raise HloError(
            "which dimension of the result is cut does not follow: give inferred_dimension", instruction.span
        )
    others = prod(size for d, size in enumerate(shape.dims) if d != chosen)
    sizes = list(shape.dims)
    sizes[chosen] = array.size // others if others else 0
    return array.reshape(sizes)


def slice_(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    return operands[0][tuple(slice(dim.start, dim.limit, dim.stride) for dim in instruction.get("slice"))]


def reverse(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    return np.flip(operands[0], instruction.get("dimensions"))


def transpose(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    return operands[0].transpose(instruction.get("dimensions"))


def concatenate(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    return np.concatenate(operands, axis=instruction.get("dimensions")[0])


def pad(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """Interior padding first, then the edges; a negative edge cuts."""
    array, value = operands
    dims = instruction.get("padding")
    spread = [size + max(size - 1, 0) * dim.interior for size, dim in zip(array.shape, dims)]
    result = np.full([max(0, n + dim.low + dim.high) for n, dim in zip(spread, dims)], value, array.dtype)
    source, target = [], []
    for size, dim, whole in zip(array.shape, dims, result.shape):
        step = dim.interior + 1
        first = 0 if dim.low >= 0 else -(dim.low // step)
        place = first * step + dim.low
        count = max(0, min(size - first, -(-(whole - place) // step)))
        source.append(slice(first, first + count))
        target.append(slice(place, place + count * step, step) if count else slice(0, 0))
    result[tuple(target)] = array[tuple(source)]
    return result


def shuffle(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """Elements moved around the end (`rotate`), or taken from the places that `indices` lists (`permute`)."""
    array = operands[0]
    dimensions, mode = instruction.get("dimensions"), instruction.get("mode").text
    if mode == "rotate":
        return np.roll(array, instruction.get("shifts"), dimensions)
    if mode != "permute":
        raise HloError(f"unknown shuffle mode {mode!r}", instruction.span)
    sizes = [array.shape[d] for d in dimensions]
    table = instruction.get("indices").array.reshape((*sizes, len(dimensions))).astype(np.int64)
    limits = np.array(sizes) - 1
    places = np.moveaxis(np.clip(table, 0, limits), -1, 0)
    front = range(len(dimensions))
    moved = np.moveaxis(array, dimensions, front)[tuple(places)]
    return np.moveaxis(moved, front, dimensions)


def bitcast(instruction: Instruction, operands: list[Value], context: Context) -> Value:
    """The operand's bytes, in the order of its layout, read in the order of the result's layout."""
    source, target = instruction.operands[0].shape, instruction.shape
    if not isinstance(source, ArrayShape) or not isinstance(target, ArrayShape):
        return operands[0]
    array = operands[0]
    packed = any(shape.layout is not None and shape.layout.element_bits % 8 for shape in (source, target))
    if source.dtype is not target.dtype and (packed or source.dtype.is_subbyte or target.dtype.is_subbyte):
        if source.dtype.bits != target.dtype.bits:
            raise HloError(
                f"a bitcast of {source!r} to {target!r} regroups bits within bytes", instruction.span
            )
        array = from_unsigned(unsigned(array, source.dtype), target.dtype)
    flat = np.ascontiguousarray(in_memory_order(array, source)).reshape(-1)
    if flat.dtype != target.dtype.numpy:
        flat = flat.view(target.dtype.numpy)
    return from_memory_order(flat, target)


def in_memory_order(array: np.ndarray, shape: ArrayShape) -> np.ndarray:
    """The elements as they lie in memory, flat; places that tiles leave empty hold zeros."""
    physical = array.transpose(shape.minor_to_major[::-1])
    for tile in shape.layout.tiles if shape.layout is not None else ():
        physical = _tiled(physical, _full_tile(physical.shape, tile))
    return physical.reshape(-1)


def from_memory_order(flat: np.ndarray, shape: ArrayShape) -> np.ndarray:
    """The inverse of `in_memory_order`."""
    major = shape.minor_to_major[::-1]
    sizes = tuple(shape.dims[d] for d in major)
    steps = []
    for tile in shape.layout.tiles if shape.layout is not None else ():
        full = _full_tile(sizes, tile)
        steps.append((sizes, full))
        sizes = _tiled_sizes(sizes, full)
    physical = flat.reshape(sizes)
    for before, full in reversed(steps):
        physical = _untiled(physical, before, full)
    return physical.transpose(np.argsort(major))


def _full_tile(sizes: tuple[int, ...], tile: tuple[int, ...]) -> tuple[int, ...]:
    """The tile with its COMBINED dimensions refused: they merge dimensions, which no layout here needs."""
    if COMBINED in tile or len(tile) > len(sizes):
        raise HloError(f"a bitcast through the tile {tile} is not supported")
    return tile


def _tiled_sizes(sizes: tuple[int, ...], tile: tuple[int, ...]) -> tuple[int, ...]:
    rest, cut = sizes[: len(sizes) - len(tile)], sizes[len(sizes) - len(tile) :]
    return (*rest, *(-(-size // t) for size, t in zip(cut, tile)), *tile)


def _tiled(array: np.ndarray, tile: tuple[int, ...]) -> np.ndarray:
    rest = array.ndim - len(tile)
    sizes = _tiled_sizes(array.shape, tile)
    counts = sizes[rest : array.ndim]
    padded = np.zeros((*array.shape[:rest], *(n * t for n, t in zip(counts, tile))), array.dtype)
    padded[tuple(slice(0, size) for size in array.shape)] = array
    pairs = [part for n, t in zip(counts, tile) for part in (n, t)]
    split = padded.reshape((*array.shape[:rest], *pairs))
    order = [*range(rest), *range(rest, split.ndim, 2), *range(rest + 1, split.ndim, 2)]
    return split.transpose(order)


def _untiled(array: np.ndarray, sizes: tuple[int, ...], tile: tuple[int, ...]) -> np.ndarray:
    rest, cut = len(sizes) - len(tile), len(tile)
    order = [*range(rest), *(place for i in range(cut) for place in (rest + i, rest + cut + i))]
    counts = array.shape[rest : rest + cut]
    merged = array.transpose(order).reshape((*sizes[:rest], *(n * t for n, t in zip(counts, tile))))
    return merged[tuple(slice(0, size) for size in sizes)]


def pass_on(instruction: Instruction, operands: list[Value], context: Context) -> Value:
    """The first operand itself: values never change, so a copy is the same value."""
    return operands[0]


def make_tuple(instruction: Instruction, operands: list[Value], context: Context) -> tuple:
    return tuple(operands)


def get_tuple_element(instruction: Instruction, operands: list[Value], context: Context) -> Value:
    return operands[0][instruction.get("index")]


def copy_start(instruction: Instruction, operands: list[Value], context: Context) -> tuple:
    return operands[0], operands[0], np.zeros((), np.uint32)


def copy_done(instruction: Instruction, operands: list[Value], context: Context) -> Value:
    return operands[0][0]


def after_all(instruction: Instruction, operands: list[Value], context: Context) -> Value:
    return TOKEN


TABLE: dict[str, Callable] = {
    "add-dependency": pass_on,
    "after-all": after_all,
    "bitcast": bitcast,
    "broadcast": broadcast,
    "concatenate": concatenate,
    "constant": constant,
    "copy": pass_on,
    "copy-done": copy_done,
    "copy-start": copy_start,
    "domain": pass_on,
    "get-tuple-element": get_tuple_element,
    "iota": iota,
    "opt-barrier": pass_on,
    "pad": pad,
    "reshape": reshape,
    "reverse": reverse,
    "shuffle": shuffle,
    "slice": slice_,
    "transpose": transpose,
    "tuple": make_tuple,
}
