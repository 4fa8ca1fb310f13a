"""Rules of reshape, broadcast, transpose, copy and reverse."""

from __future__ import annotations

from hloc.ir.instruction import Instruction
from hloc.ir.literals import Literal
from hloc.ir.shapes import array
from hloc.passes.algebraic.rules import rule
from hloc.passes.emit import Emit
from hloc.passes.rewriter import has_one_use, scalar_source, wide_dims


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


@rule("reshape")
def reshape_broadcast(instruction: Instruction) -> Instruction | None:
    """reshape(broadcast(x)) = broadcast(x), where the reshape only adds or drops dimensions of size 1"""
    inner, target = instruction.operands[0], instruction.shape.dims
    if inner.opcode != "broadcast" or 1 in inner.operands[0].shape.dims:
        return None
    source = inner.shape.dims
    wide, places = wide_dims(source), wide_dims(target)
    if [source[d] for d in wide] != [target[d] for d in places]:
        return None
    new = [places[wide.index(d)] for d in inner.get("dimensions")]
    return Emit.at(instruction).broadcast(inner.operands[0], target, new)


@rule("reshape")
def lift_reshape(instruction: Instruction) -> Instruction | None:
    """reshape(f(x, y)) = f(reshape(x), reshape(y)) for elementwise f

    Towards the operands, reshapes of what lies in memory cost nothing and several of them join. Done where
    every operand takes a reshape without a trace, or hands it on.
    """
    inner = instruction.operands[0]
    if not inner.op.is_elementwise or inner.opcode in ("map", "copy") or not has_one_use(inner):
        return None
    if not all(_takes_reshape(operand, inner) for operand in inner.operands):
        return None
    emit = Emit(instruction.computation, instruction, inner)
    dims = instruction.shape.dims
    operands = [o if _is_bound(o, inner) else emit.reshape(o, dims) for o in inner.operands]
    shape = array(instruction.shape.dtype, *dims)
    return emit.op(inner.opcode, shape, operands, **inner.attributes)


def _is_bound(operand: Instruction, user: Instruction) -> bool:
    """A scalar among arrays: a bound of clamp, the predicate of select."""
    return operand.shape.rank == 0 and user.shape.rank != 0


def _takes_reshape(operand: Instruction, user: Instruction) -> bool:
    if operand.opcode in ("parameter", "constant", "reshape", "get-tuple-element", "dot") or _is_bound(
        operand, user
    ):
        return True
    if scalar_source(operand) is not None:
        return True
    return operand.op.is_elementwise and operand.opcode != "map" and set(operand.users) == {user}


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
    """reverse(x) = x along dimensions of size 1; reverse(reverse(x)) = x along the same ones"""
    operand = instruction.operands[0]
    dimensions = instruction.attributes["dimensions"]
    if all(operand.shape.dims[d] <= 1 for d in dimensions):
        return operand
    if operand.opcode == "reverse" and set(operand.attributes["dimensions"]) == set(dimensions):
        return operand.operands[0]
    return None


@rule("constant")
def constant_to_broadcast(instruction: Instruction) -> Instruction | None:
    """constant({c, c, ...}) = broadcast(constant(c))"""
    shape = instruction.shape
    if not shape.is_array or shape.count <= 1 or not instruction.attributes["literal"].is_splat():
        return None
    emit = Emit.at(instruction)
    first = instruction.attributes["literal"].array.reshape(-1)[:1].reshape(())
    return emit.broadcast(emit.literal(Literal(array(shape.dtype), first)), shape.dims)
