"""Rules of reduce."""

from __future__ import annotations

from math import prod

import numpy as np

from hloc.ir.attributes import SliceDim
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import array
from hloc.passes.algebraic.facts import binary_opcode, common_factors, is_identity
from hloc.passes.algebraic.rules import rule
from hloc.passes.emit import Emit
from hloc.passes.patterns import bind, one_use, op

x, init = bind("x"), bind("init")

ONCE = ("maximum", "minimum", "and", "or")
"""Binary ops for which an element that comes twice counts once."""


def folding(instruction: Instruction) -> str | None:
    """The binary op of a reduce of one operand, of its own type, if it begins with the op's identity."""
    opcode = binary_opcode(instruction.attributes["to_apply"]) if len(instruction.operands) == 2 else None
    return opcode if opcode is not None and is_identity(opcode, instruction.operands[1]) else None


def _reduced(
    instruction: Instruction, operand: Instruction, dimensions: list[int], dims: tuple[int, ...]
) -> Instruction:
    """The reduce of another operand along other dimensions, of size `dims`."""
    shape = array(instruction.shape.dtype, *dims)
    operands = (operand, instruction.operands[1])
    to_apply = instruction.attributes["to_apply"]
    return Emit.at(instruction).op("reduce", shape, operands, dimensions=tuple(dimensions), to_apply=to_apply)


@rule(op("reduce", op("transpose", x), init))
def fold_transpose_into_reduce(instruction: Instruction, x: Instruction, init: Instruction) -> Instruction | None:
    """reduce(transpose(x)) = reduce(x) along other dimensions, if those that are kept stay in order

    The order in which elements are folded is free in HLO.
    """
    order = instruction.operands[0].attributes["dimensions"]
    along = instruction.get("dimensions")
    kept = [order[d] for d in range(x.shape.rank) if d not in along]
    if kept != sorted(kept):
        return None
    return _reduced(instruction, x, sorted(order[d] for d in along), instruction.shape.dims)


@rule("reduce")
def reduce_single_elements(instruction: Instruction) -> Instruction | None:
    """reduce(x, init) along dimensions of size 1 = f(init, reshape(x)), for a reducer f that is one op"""
    if len(instruction.operands) != 2:
        return None
    operand, init = instruction.operands
    if any(operand.shape.dims[d] != 1 for d in instruction.get("dimensions")):
        return None
    opcode = binary_opcode(instruction.attributes["to_apply"])
    if opcode is None:
        return None
    emit = Emit.at(instruction)
    value = emit.reshape(operand, instruction.shape.dims)
    if is_identity(opcode, init) and opcode != "add":
        return value
    return emit.map(opcode, emit.broadcast(init, instruction.shape.dims), value)


@rule(op("reduce", x, init))
def reduce_without_unit_dims(instruction: Instruction, x: Instruction, init: Instruction) -> Instruction | None:
    """reduce(x) = reshape(reduce(x)), without folding dimensions of size 1"""
    along = instruction.get("dimensions")
    wide = [d for d in along if x.shape.dims[d] != 1]
    if not wide or len(wide) == len(along):
        return None
    dims = tuple(size for d, size in enumerate(x.shape.dims) if d not in wide)
    return Emit.at(instruction).reshape(_reduced(instruction, x, wide, dims), instruction.shape.dims)


@rule(op("reduce", one_use(bind("inner", op("reduce", x, init))), bind("outer_init")))
def join_reduces(
    instruction: Instruction, inner: Instruction, x: Instruction, init: Instruction, outer_init: Instruction
) -> Instruction | None:
    """reduce(reduce(x)) = reduce(x) along the dimensions of both, for one op whose identity begins the inner one"""
    opcode = folding(inner)
    if opcode is None or opcode != binary_opcode(instruction.attributes["to_apply"]):
        return None
    kept = [d for d in range(x.shape.rank) if d not in inner.get("dimensions")]
    along = sorted((*inner.get("dimensions"), *(kept[d] for d in instruction.get("dimensions"))))
    return _reduced(instruction, x, along, instruction.shape.dims)


@rule(op("reduce", op("broadcast", x), init))
def reduce_broadcast(instruction: Instruction, x: Instruction, init: Instruction) -> Instruction | None:
    """reduce(broadcast(x)) = reduce(x) for maxima and the like, n times reduce(x) for sums, n the times it repeats

    Sums of floats round once in place of n times, as XLA has it by default.
    """
    opcode, along = folding(instruction), instruction.get("dimensions")
    inner = instruction.operands[0]
    placed = inner.get("dimensions")
    repeated = [d for d in along if d not in placed]
    if opcode not in (*ONCE, "add") or not repeated:
        return None
    times = prod(inner.shape.dims[d] for d in repeated)
    if opcode == "add" and not _is_factor(times, instruction.shape.dtype):
        return None
    emit = Emit.at(instruction)
    kept = [d for d in range(inner.shape.rank) if d not in repeated]
    value = emit.broadcast(x, [inner.shape.dims[d] for d in kept], [kept.index(d) for d in placed])
    rest = [kept.index(d) for d in along if d in placed]
    result = _reduced(instruction, value, rest, instruction.shape.dims) if rest else value
    return result if opcode in ONCE else _times(emit, result, [inner.shape.dims[d] for d in repeated])


def _is_factor(times: int, dtype: DType) -> bool:
    """Whether the narrow floats, if it is one of them, have this number: others are near enough, or wrap."""
    return not dtype.is_float or dtype.bits > 16 or float(np.asarray(times).astype(dtype.numpy)) == times


def _times(emit: Emit, value: Instruction, sizes: list[int]) -> Instruction:
    factor = np.prod([np.array(size).astype(value.shape.dtype.numpy) for size in sizes])
    return emit.map("multiply", value, emit.full(factor, value.shape))


@rule(op("reduce", op("reshape", x), init))
def reduce_reshape(instruction: Instruction, x: Instruction, init: Instruction) -> Instruction | None:
    """reduce(reshape(x)) = reshape(reduce(x)), if what is folded is whole dimensions of x"""
    target, along = instruction.operands[0].shape.dims, set(instruction.get("dimensions"))
    own: list[int] = []
    if x.shape.count == 0:
        return None
    for sources, targets in common_factors(x.shape.dims, target):
        if along.isdisjoint(targets):
            continue
        if not along.issuperset(targets):
            return None
        own += sources
    if not own:
        return None
    dims = tuple(size for d, size in enumerate(x.shape.dims) if d not in own)
    return Emit.at(instruction).reshape(_reduced(instruction, x, own, dims), instruction.shape.dims)


@rule(op("reduce", one_use(bind("parts", op("concatenate"))), init))
def reduce_concatenate(instruction: Instruction, parts: Instruction, init: Instruction) -> Instruction | None:
    """reduce(concatenate(x, y)) = f(reduce(x), reduce(y)) for an op f that begins with its identity

    Where the operand is too large to be computed in the loop of the reduce. As XLA has it by default.
    """
    opcode = folding(instruction)
    along = parts.attributes["dimensions"][0]
    if opcode is None or along not in instruction.get("dimensions"):
        return None
    if len(parts.operands) > 4 or parts.shape.count < 4096:
        return None
    dims, dimensions = instruction.shape.dims, list(instruction.get("dimensions"))
    result, *others = (_reduced(instruction, part, dimensions, dims) for part in parts.operands)
    for other in others:
        result = Emit.at(instruction).map(opcode, result, other)
    return result


@rule(op("reduce", op("pad", x, bind("value")), init))
def reduce_pad(
    instruction: Instruction, x: Instruction, value: Instruction, init: Instruction
) -> Instruction | None:
    """reduce(pad(x, e)) = reduce(x) for the identity e of the op, if all padded dimensions are folded"""
    opcode, padding = folding(instruction), instruction.operands[0].attributes["padding"]
    padded = {d for d, p in enumerate(padding) if p != (0, 0, 0)}
    if opcode is None or not is_identity(opcode, value) or not padded <= set(instruction.get("dimensions")):
        return None
    if any(p.low < 0 or p.high < 0 for p in padding):
        return None
    return _reduced(instruction, x, list(instruction.get("dimensions")), instruction.shape.dims)


@rule(op("reduce", op("reverse", x), init))
def reduce_reverse(instruction: Instruction, x: Instruction, init: Instruction) -> Instruction | None:
    """reduce(reverse(x)) = reduce(x), if all reversed dimensions are folded: the order is free"""
    along = instruction.get("dimensions")
    if not set(instruction.operands[0].attributes["dimensions"]) <= set(along):
        return None
    if binary_opcode(instruction.attributes["to_apply"]) is None:
        return None
    return _reduced(instruction, x, list(along), instruction.shape.dims)


@rule(op("slice", one_use(bind("inner", op("reduce", x, init)))))
def slice_reduce(
    instruction: Instruction, inner: Instruction, x: Instruction, init: Instruction
) -> Instruction | None:
    """slice(reduce(x)) = reduce(slice(x)): less to fold"""
    along = inner.get("dimensions")
    ranges = iter(instruction.attributes["slice"])
    cut = [SliceDim(0, size) if d in along else next(ranges) for d, size in enumerate(x.shape.dims)]
    value = Emit.at(instruction).slice(x, cut)
    attributes = dict(inner.attributes)
    return Emit.at(instruction).op("reduce", instruction.shape, (value, init), **attributes)
