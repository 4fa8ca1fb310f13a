"""Rules that move broadcasts, transposes, reshapes and slices over the ops that compute."""

from __future__ import annotations

from hloc.ir.instruction import Instruction
from hloc.ir.opcodes import OPS
from hloc.ir.shapes import array
from hloc.passes.algebraic.rules import rule
from hloc.passes.emit import Emit
from hloc.passes.patterns import has_one_use, scalar_source

_STAYING = ("clamp", "copy", "map", "stochastic-convert")
"""Elementwise ops over which nothing is moved: with scalars among arrays, a function, or a meaning of their own."""

_ELEMENTWISE = tuple(name for name, op in OPS.items() if op.is_elementwise and name not in _STAYING)


@rule(*_ELEMENTWISE)
def sink_broadcasts(instruction: Instruction) -> Instruction | None:
    """f(broadcast(x), broadcast(y)) = broadcast(f(x, y)), where both place x and y in the same way

    A scalar goes with anything, since it can be placed anyhow.
    """
    operands = instruction.operands
    if any(o.opcode != "broadcast" and o.shape.rank for o in operands) or not instruction.shape.rank:
        return None
    arrays = [o for o in operands if scalar_source(o) is None]
    ways = {(o.get("dimensions"), o.operands[0].shape.dims) for o in arrays}
    dimensions, dims = ways.pop() if ways else ((), ())
    if ways or len(dims) == instruction.shape.rank:  # a transpose in disguise would only change places
        return None
    emit = Emit.at(instruction)
    values = [_narrow(emit, operand, dims) for operand in operands]
    shape = array(instruction.shape.dtype, *dims)
    small = emit.op(instruction.opcode, shape, values, **instruction.attributes)
    return emit.broadcast(small, instruction.shape.dims, dimensions)


def _narrow(emit: Emit, operand: Instruction, dims: tuple[int, ...]) -> Instruction:
    scalar = scalar_source(operand)
    return operand.operands[0] if scalar is None else emit.broadcast(scalar, dims)


@rule(*_ELEMENTWISE)
def sink_transposes(instruction: Instruction) -> Instruction | None:
    """f(transpose(x), transpose(y)) = transpose(f(x, y)), where both have the same order

    One transpose is left of several; a single one moves on only to what may take it in.
    """
    if not any(o.opcode == "transpose" for o in instruction.operands):
        return None
    arrays = [o for o in instruction.operands if scalar_source(o) is None]
    if any(o.opcode != "transpose" or set(o.users) != {instruction} for o in arrays):
        return None
    orders = {o.attributes["dimensions"] for o in arrays}
    if len(orders) > 1 or (len(set(arrays)) == 1 and not _is_taken_in(instruction)):
        return None
    (order,) = orders
    emit = Emit.at(instruction)
    dims = arrays[0].operands[0].shape.dims
    values = [o.operands[0] if o in arrays else emit.broadcast(scalar_source(o), dims) for o in instruction.operands]
    shape = array(instruction.shape.dtype, *dims)
    return emit.transpose(emit.op(instruction.opcode, shape, values, **instruction.attributes), order)


def _is_taken_in(instruction: Instruction) -> bool:
    """Whether every user may absorb a transpose, and it would move no more bytes than before."""
    same_size = instruction.shape.dtype.itemsize <= instruction.operands[0].shape.dtype.itemsize
    users = {user.opcode for user in instruction.users}
    return same_size and bool(users) and not instruction.is_root and users <= {"dot", "reduce", "transpose"}


@rule(*_ELEMENTWISE)
def sink_reverses(instruction: Instruction) -> Instruction | None:
    """f(reverse(x), reverse(y)) = reverse(f(x, y)) along the same dimensions, of several one is left"""
    if not any(o.opcode == "reverse" for o in instruction.operands):
        return None
    arrays = [o for o in instruction.operands if scalar_source(o) is None]
    if len(set(arrays)) < 2 or any(o.opcode != "reverse" or set(o.users) != {instruction} for o in arrays):
        return None
    along = arrays[0].attributes["dimensions"]
    if any(o.attributes["dimensions"] != along for o in arrays):
        return None
    emit = Emit.at(instruction)
    values = [o.operands[0] if o in arrays else o for o in instruction.operands]
    inner = emit.op(instruction.opcode, instruction.shape, values, **instruction.attributes)
    return emit.op("reverse", instruction.shape, (inner,), dimensions=along)


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


_IN_MEMORY = ("parameter", "constant", "reshape", "get-tuple-element", "dot")


def _takes_reshape(operand: Instruction, user: Instruction) -> bool:
    if operand.opcode in _IN_MEMORY or _is_bound(operand, user) or scalar_source(operand) is not None:
        return True
    return operand.op.is_elementwise and operand.opcode != "map" and set(operand.users) == {user}
