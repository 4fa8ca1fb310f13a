"""Parts of arrays at computed places: dynamic-slice, dynamic-update-slice, gather. Starts are clamped."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.codegen.kernel import (
    Element,
    Index,
    KernelContext,
    Register,
    element,
    index_constant,
    kernel,
)
from hloc.codegen.llvm import Value, integer
from hloc.codegen.loops import clamped
from hloc.ir.instruction import Instruction


def starts_of(
    k: KernelContext, instruction: Instruction, operands: Sequence[Element], first: int, sizes: Sequence[int]
) -> list[Value]:
    """The start of the part in each dimension, from scalars, or from one vector as older programs have it."""
    dims = instruction.operands[0].shape.dims
    limits = [dim - size for dim, size in zip(dims, sizes, strict=True)]
    given = instruction.operands[first:]
    if len(given) == 1 and given[0].shape.rank == 1:
        values = [operands[first]((index_constant(d),)) for d in range(len(dims))]
        types = [given[0].shape.dtype] * len(dims)
    else:
        values = [operand(()) for operand in operands[first:]]
        types = [operand.shape.dtype for operand in given]
    return [clamped(k.b, v, dtype, limit) for v, dtype, limit in zip(values, types, limits, strict=True)]


@element("dynamic-slice")
def dynamic_slice(
    k: KernelContext, instruction: Instruction, operands: list[Element], index: Index
) -> Register:
    starts = starts_of(k, instruction, operands, 1, instruction.shape.dims)
    return operands[0](tuple(k.b.add(start, i) for start, i in zip(starts, index, strict=True)))


@element("dynamic-update-slice")
def dynamic_update_slice(
    k: KernelContext, instruction: Instruction, operands: list[Element], index: Index
) -> Register:
    """The update's element where the index lies in it, else the operand's."""
    b = k.b
    sizes = instruction.operands[1].shape.dims
    if 0 in sizes:
        return operands[0](index)
    starts = starts_of(k, instruction, operands, 2, sizes)
    places = tuple(b.sub(i, start) for i, start in zip(index, starts, strict=True))
    inside: Value = integer("i1", 1)
    for place, size, dim in zip(places, sizes, instruction.shape.dims, strict=True):
        if size != dim:
            inside = b.and_(inside, b.icmp_unsigned("<", place, index_constant(size)))
    return k.choose(inside, lambda: operands[1](places), lambda: operands[0](index))


@kernel(
    "dynamic-update-slice",
    element_operands=lambda instruction: range(1, len(instruction.operands)),
    in_place=lambda instruction: ((0, 0),),
)
def dynamic_update_slice_kernel(k: KernelContext, instruction: Instruction) -> None:
    """A copy of the operand unless it is updated in place, then the part."""
    output = k.outputs[0]
    if not k.is_in_place(0, 0):
        k.copy(k.input_array(0), output)
    sizes = instruction.operands[1].shape.dims
    inputs = [k.input(number) for number in range(len(instruction.operands))]
    starts = starts_of(k, instruction, inputs, 2, sizes)

    def one(index: Index) -> None:
        output.store(tuple(k.b.add(s, i) for s, i in zip(starts, index, strict=True)), inputs[1](index))

    k.loop_nest(sizes, one, output.shape.minor_to_major[::-1])


@element("gather")
def gather(k: KernelContext, instruction: Instruction, operands: list[Element], index: Index) -> Register:
    """operand[start + offset]: start from the indices at the batch part of `index`, offset the rest of it."""
    operand_dims = instruction.operands[0].shape.dims
    sizes = instruction.get("slice_sizes")
    batching = instruction.get("operand_batching_dims")
    offset_dims = instruction.get("offset_dims")
    batch = [value for dimension, value in enumerate(index) if dimension not in offset_dims]
    offsets = iter([index[dimension] for dimension in offset_dims])
    dropped = {*instruction.get("collapsed_slice_dims"), *batching}
    start = _gather_start(k, instruction, operands[1], batch)
    places: list[Value] = []
    for dimension, (dim, size) in enumerate(zip(operand_dims, sizes, strict=True)):
        place = start(dimension, dim - size)
        if dimension in batching:
            place = batch[_batch_position(instruction, batching.index(dimension))]
        places.append(place if dimension in dropped else k.b.add(place, next(offsets)))
    return operands[0](tuple(places))


def _batch_position(instruction: Instruction, number: int) -> int:
    """Where in the batch part of an index the coordinate of a batching dimension stands."""
    dimension = instruction.get("start_indices_batching_dims")[number]
    return dimension - (dimension > instruction.get("index_vector_dim"))


def _gather_start(
    k: KernelContext, instruction: Instruction, indices: Element, batch: list[Value]
) -> Callable[[int, int], Value]:
    """A function of (operand dimension, largest start) that gives the clamped start."""
    start_map = instruction.get("start_index_map")
    vector = instruction.get("index_vector_dim")
    shape = instruction.operands[1].shape

    def start(dimension: int, limit: int) -> Value:
        if dimension not in start_map or limit == 0:
            return index_constant(0)
        place = list(batch)
        if vector < shape.rank:
            place.insert(vector, index_constant(start_map.index(dimension)))
        return clamped(k.b, indices(tuple(place)), shape.dtype, limit)

    return start
