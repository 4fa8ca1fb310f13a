"""Values that pass between computations: dynamic arrays go as tuples (padded array, sizes)."""

from __future__ import annotations

from collections.abc import Sequence

from hloc.errors import HloError
from hloc.ir.computation import Computation
from hloc.ir.dtypes import S32
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape, Shape, TupleShape
from hloc.passes.emit import Emit
from hloc.passes.padding.values import Padded, dynamic_dimensions, packed, static


def is_dynamic(shape: Shape) -> bool:
    return any(leaf.is_dynamic for _, leaf in shape.leaves())


def unpacked(emit: Emit, value: Instruction, shape: ArrayShape) -> Padded:
    """The padded array in the tuple that stands for an array of a shape."""
    if not shape.is_dynamic:
        return Padded(value, {})
    sizes = {d: emit.element(value, 1 + i) for i, d in enumerate(dynamic_dimensions(shape))}
    return Padded(emit.element(value, 0), sizes)


def pack(emit: Emit, value: Padded, shape: ArrayShape) -> Instruction:
    """What stands for an array of a shape; dynamic dimensions without a live size are full."""
    if not shape.is_dynamic:
        return value.data
    known = value.sizes
    sizes = [known.get(d) or emit.scalar(shape.dims[d], S32) for d in dynamic_dimensions(shape)]
    return emit.tuple([value.data, *sizes])


def adapted(emit: Emit, value: Instruction, before: Shape, after: Shape) -> Instruction:
    """What stands for a value, with more dimensions dynamic. HloError if one would become static."""
    if packed(before) == packed(after) or not (is_dynamic(before) or is_dynamic(after)):
        return value
    if isinstance(before, TupleShape) and isinstance(after, TupleShape):
        parts = zip(before.elements, after.elements, strict=True)
        return emit.tuple([adapted(emit, emit.element(value, i), *part) for i, part in enumerate(parts)])
    if not set(dynamic_dimensions(before)) <= set(dynamic_dimensions(after)):
        message = f"{before!r} is passed on as {after!r}: a dynamic dimension cannot become static here"
        raise HloError(message, emit.like.span if emit.like is not None else None)
    return pack(emit, unpacked(emit, value, before), after)


def merged(shapes: Sequence[Shape]) -> Shape:
    """The first shape, with a dimension dynamic where any has it so."""
    first = shapes[0]
    if isinstance(first, TupleShape):
        return TupleShape(tuple(merged(parts) for parts in zip(*(s.elements for s in shapes), strict=True)))
    if not isinstance(first, ArrayShape) or not any(is_dynamic(shape) for shape in shapes):
        return first
    flags = tuple(any(shape.is_dynamic_dim(d) for shape in shapes) for d in range(first.rank))
    return ArrayShape(first.dtype, first.dims, first.layout, flags)


def wrapped(
    callee: Computation, signature: tuple[Shape, Shape], parameter: Shape, result: Shape, caller: Instruction
) -> Computation:
    """A computation of one parameter that calls another one, with more dimensions dynamic."""
    before, after = signature
    if packed(before) == packed(parameter) and packed(after) == packed(result):
        return callee
    computation = Computation(f"{callee.name}.adapted")
    emit = Emit(computation, like=caller)
    given = adapted(emit, emit.parameter(0, packed(parameter)), parameter, before)
    made = emit.op("call", packed(after), [given], to_apply=callee)
    computation.root = adapted(emit, made, after, result)
    return caller.computation.module.add_computation(computation)


def refuse_unbounded(instruction: Instruction) -> None:
    """HloError for a dimension without a bound."""
    for _, leaf in instruction.shape.leaves():
        if any(size < 0 for size in static(leaf).dims):
            message = f"{instruction.opcode} of the shape {leaf!r}: a dimension without bound has no memory"
            raise HloError(message, instruction.span)
