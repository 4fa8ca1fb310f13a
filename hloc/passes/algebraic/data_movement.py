"""Rules of reshape, broadcast, transpose, copy and reverse."""

from __future__ import annotations

from math import prod

from hloc.ir.instruction import Instruction
from hloc.ir.literals import Literal
from hloc.ir.shapes import array
from hloc.passes.algebraic.facts import common_factors
from hloc.passes.algebraic.rules import rule
from hloc.passes.emit import Emit
from hloc.passes.patterns import bind, op, scalar_source, wide_dims

x = bind("x")


@rule("copy")
def drop_copy(instruction: Instruction) -> Instruction | None:
    """copy(x) = x, where the layout stays. Memory of its own is what buffer assignment sees to."""
    operand = instruction.operands[0]
    return operand if operand.shape == instruction.shape else None


@rule("reshape", "transpose", "broadcast")
def drop_identity(instruction: Instruction) -> Instruction | None:
    """A reshape to its own dimensions, a transpose or a broadcast that moves nothing: x."""
    operand = instruction.operands[0]
    if operand.shape.dims != instruction.shape.dims:
        return None
    order = instruction.get("dimensions")
    if instruction.opcode == "reshape" or order == tuple(range(operand.shape.rank)):
        return operand
    return None


@rule("reshape")
def join_reshapes(instruction: Instruction) -> Instruction | None:
    """reshape(reshape(x)) = reshape(x)"""
    inner = instruction.operands[0]
    if inner.opcode != "reshape":
        return None
    return Emit.at(instruction).reshape(inner.operands[0], instruction.shape.dims)


@rule("reshape", "transpose", "slice", "reverse")
def move_scalar(instruction: Instruction) -> Instruction | None:
    """f(broadcast(scalar)) = broadcast(scalar), for every f that only moves elements"""
    operand = instruction.operands[0]
    scalar = scalar_source(operand) if operand.opcode == "broadcast" else None
    if scalar is None:
        return None
    return Emit.at(instruction).broadcast(scalar, instruction.shape.dims)


@rule(op("reshape", bind("inner", op("broadcast", x))))
def reshape_broadcast(instruction: Instruction, inner: Instruction, x: Instruction) -> Instruction | None:
    """reshape(broadcast(x)) = broadcast(reshape(x)), where the dimensions of x are reshaped among themselves"""
    placed, target = inner.get("dimensions"), instruction.shape.dims
    if 1 in x.shape.dims or not inner.shape.count:
        return None
    own: list[int] = []
    for sources, targets in common_factors(inner.shape.dims, target):
        of_x = [d for d in sources if d in placed]
        if of_x and of_x != sources:
            return None
        own += targets if of_x else []
    order, emit = sorted(placed), Emit.at(instruction)
    if list(placed) == order:
        return emit.broadcast(emit.reshape(x, [target[d] for d in own]), target, own)
    if [target[d] for d in own] != [inner.shape.dims[d] for d in order]:
        return None
    return emit.broadcast(x, target, [own[order.index(d)] for d in placed])


@rule(op("reshape", bind("inner", op("transpose", x))))
def reshape_transpose(instruction: Instruction, inner: Instruction, x: Instruction) -> Instruction | None:
    """reshape(transpose(x)) = transpose(reshape(x)), where x has dimensions of size 1 and the reshape moves only such

    Without them transposes that stand in a row meet.
    """
    wide = wide_dims(x.shape.dims)
    order = [wide.index(d) for d in inner.attributes["dimensions"] if d in wide]
    target = [size for size in instruction.shape.dims if size != 1]
    if len(wide) == x.shape.rank or target != [x.shape.dims[wide[n]] for n in order]:
        return None
    emit = Emit.at(instruction)
    moved = emit.transpose(emit.reshape(x, [x.shape.dims[d] for d in wide]), order)
    return emit.reshape(moved, instruction.shape.dims)


@rule("broadcast")
def narrow_broadcast(instruction: Instruction) -> Instruction | None:
    """broadcast(x) = broadcast(reshape(x)), the operand without its dimensions of size 1"""
    operand = instruction.operands[0]
    if 1 not in operand.shape.dims:
        return None
    wide = wide_dims(operand.shape.dims)
    emit = Emit.at(instruction)
    value = emit.reshape(operand, [operand.shape.dims[d] for d in wide])
    return emit.broadcast(value, instruction.shape.dims, [instruction.get("dimensions")[d] for d in wide])


@rule("broadcast")
def join_broadcasts(instruction: Instruction) -> Instruction | None:
    """broadcast(broadcast(x)) = broadcast(x)"""
    inner = instruction.operands[0]
    if inner.opcode != "broadcast":
        return None
    outer = instruction.get("dimensions")
    dimensions = [outer[d] for d in inner.get("dimensions")]
    return Emit.at(instruction).broadcast(inner.operands[0], instruction.shape.dims, dimensions)


@rule("transpose")
def join_transposes(instruction: Instruction) -> Instruction | None:
    """transpose(transpose(x)) = transpose(x)"""
    inner = instruction.operands[0]
    if inner.opcode != "transpose":
        return None
    order = [inner.attributes["dimensions"][d] for d in instruction.attributes["dimensions"]]
    return Emit.at(instruction).transpose(inner.operands[0], order)


@rule("transpose")
def transpose_broadcast(instruction: Instruction) -> Instruction | None:
    """transpose(broadcast(x)) = broadcast(x), the operand's dimensions placed elsewhere

    The operand's own dimensions may change order, which a broadcast can say.
    """
    inner = instruction.operands[0]
    if inner.opcode != "broadcast":
        return None
    order = instruction.attributes["dimensions"]
    dimensions = [order.index(d) for d in inner.get("dimensions")]
    return Emit.at(instruction).broadcast(inner.operands[0], instruction.shape.dims, dimensions)


@rule("transpose")
def transpose_to_reshape(instruction: Instruction) -> Instruction | None:
    """transpose(x) = reshape(x), where only dimensions of size 1 change places"""
    operand = instruction.operands[0]
    moved = [d for d in instruction.attributes["dimensions"] if operand.shape.dims[d] != 1]
    if moved != sorted(moved):
        return None
    return Emit.at(instruction).reshape(operand, instruction.shape.dims)


@rule("reverse")
def drop_reverse(instruction: Instruction) -> Instruction | None:
    """reverse(x) = x along dimensions of size 1"""
    operand = instruction.operands[0]
    return operand if all(operand.shape.dims[d] <= 1 for d in instruction.attributes["dimensions"]) else None


@rule(op("reverse", op("broadcast", x)))
def reverse_broadcast(instruction: Instruction, x: Instruction) -> Instruction | None:
    """reverse(broadcast(x)) = broadcast(reverse(x)), along the dimensions that x has, which may be none"""
    placed = instruction.operands[0].get("dimensions")
    along = [number for number, d in enumerate(placed) if d in instruction.attributes["dimensions"]]
    emit = Emit.at(instruction)
    inner = emit.op("reverse", x.shape, (x,), dimensions=tuple(along)) if along else x
    return emit.broadcast(inner, instruction.shape.dims, placed)


@rule(op("reverse", op("reverse", x)))
def join_reverses(instruction: Instruction, x: Instruction) -> Instruction | None:
    """reverse(reverse(x)) = reverse(x) along the dimensions that only one of them names"""
    inner, outer = instruction.operands[0].attributes["dimensions"], instruction.attributes["dimensions"]
    along = tuple(sorted(set(inner) ^ set(outer)))
    return Emit.at(instruction).op("reverse", instruction.shape, (x,), dimensions=along) if along else x


@rule(op("transpose|broadcast|reshape|slice", bind("inner", op("iota"))))
def move_iota(instruction: Instruction, inner: Instruction) -> Instruction | None:
    """An iota transposed, broadcast, reshaped or cut is an iota, if its own dimension stays whole and alone"""
    along = _place_of(inner.attributes["iota_dimension"], inner, instruction)
    if along is None:
        return None
    return Emit.at(instruction).iota(instruction.shape.dtype, instruction.shape.dims, along)


def _place_of(dimension: int, operand: Instruction, user: Instruction) -> int | None:
    """The dimension of a moving op's result that is one of its operand, counted from the same beginning."""
    if user.opcode == "transpose":
        return user.attributes["dimensions"].index(dimension)
    if user.opcode == "broadcast":
        return user.get("dimensions")[dimension]
    if user.opcode == "slice":
        cut = user.attributes["slice"][dimension]
        return dimension if cut.start == 0 and cut.stride == 1 else None
    size, before = operand.shape.dims[dimension], prod(operand.shape.dims[:dimension])
    dims = user.shape.dims
    return next((d for d in range(len(dims)) if prod(dims[:d]) == before and dims[d] == size), None)


@rule("iota")
def iota_of_one(instruction: Instruction) -> Instruction | None:
    """iota along a dimension of size 1 = 0"""
    shape, along = instruction.shape, instruction.attributes["iota_dimension"]
    if shape.dtype.is_complex or shape.dims[along] != 1:
        return None
    return Emit.at(instruction).full(0, shape)


@rule("constant")
def constant_to_broadcast(instruction: Instruction) -> Instruction | None:
    """constant({c, c, ...}) = broadcast(constant(c))"""
    shape = instruction.shape
    if not shape.is_array or shape.count <= 1 or not instruction.attributes["literal"].is_splat():
        return None
    emit = Emit.at(instruction)
    first = instruction.attributes["literal"].array.reshape(-1)[:1].reshape(())
    return emit.broadcast(emit.literal(Literal(array(shape.dtype), first)), shape.dims)
