"""Writes `scaled-dot` as a dot of operands multiplied by their scales."""

from __future__ import annotations

from hloc.ir.dtypes import F32, F64, DType
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.passes.emit import Emit, replace

_DIMENSIONS = ("lhs_batch_dims", "lhs_contracting_dims", "rhs_batch_dims", "rhs_contracting_dims")


def run(module: Module) -> bool:
    """Replaces scaled-dot by a dot of f32, or of f64 where that comes in or goes out.

    Each scale is spread over its block of operand elements.

    Requires: nothing.
    Ensures: no scaled-dot.
    Leaves: a dot of operands of that type, and a convert where the result is of another.
    """
    changed = False
    for computation in call_order(module.entry):
        for instruction in computation:
            if instruction.opcode == "scaled-dot":
                replace(instruction, _expanded(instruction))
                changed = True
    return changed


def _expanded(instruction: Instruction) -> Instruction:
    emit = Emit.at(instruction)
    lhs, rhs, lhs_scale, rhs_scale = instruction.operands
    shapes = (instruction.shape, *(operand.shape for operand in instruction.operands))
    dtype = F64 if any(shape.dtype is F64 for shape in shapes) else F32
    operands = [_scaled(emit, lhs, lhs_scale, dtype), _scaled(emit, rhs, rhs_scale, dtype)]
    dimensions = {name: instruction.get(name) for name in _DIMENSIONS}
    product = emit.op("dot", instruction.shape.with_dtype(dtype), operands, **dimensions)
    return emit.convert(product, instruction.shape.dtype)


def _scaled(emit: Emit, operand: Instruction, scale: Instruction, dtype: DType) -> Instruction:
    value = emit.convert(operand, dtype)
    return emit.map("multiply", value, _spread(emit, emit.convert(scale, dtype), operand.shape.dims))


def _spread(emit: Emit, scale: Instruction, dims: tuple[int, ...]) -> Instruction:
    """Each scale repeated over its block: a dimension of s blocks becomes (s, block), and then one again."""
    blocks = scale.shape.dims
    if not blocks:
        return emit.broadcast(scale, dims)
    if blocks == dims:
        return scale
    split = []
    for count, size in zip(blocks, dims, strict=True):
        split += [count, size // count if count else 0]
    spread = emit.broadcast(scale, split, range(0, len(split), 2))
    return emit.reshape(spread, dims)
