"""Writes `rng` on top of rng-bit-generator."""

from __future__ import annotations

from math import pi

import numpy as np

from hloc.errors import HloError
from hloc.ir.attributes import SliceDim
from hloc.ir.dtypes import BY_NAME, F32, F64, U32, U64, DType
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.ir.shapes import TupleShape, array
from hloc.passes.emit import Emit, replace

_PHILOX_BLOCK_BITS = 128


def run(module: Module) -> bool:
    """Replaces rng by Philox bits of the device's state, made uniform or normal.

    Uniform floats take the mantissa from the bits and lie in [a, b); uniform integers are the remainder of 64
    bits by b - a; normal floats follow from two uniform ones (Box and Muller, 1958). Every rng advances the
    state of the device by the 128-bit blocks that it used.

    Requires: nothing.
    Ensures: no rng.
    Leaves: an rng-get-and-update-state for each, which has a side effect. HloError for complex numbers.
    """
    changed = False
    for computation in call_order(module.entry):
        for instruction in computation:
            if instruction.opcode == "rng":
                replace(instruction, _expanded(instruction))
                changed = True
    return changed


def _expanded(instruction: Instruction) -> Instruction:
    emit = Emit.at(instruction)
    dtype = instruction.shape.dtype
    if dtype.is_complex:
        raise HloError("rng of complex numbers is not defined", instruction.span)
    if instruction.attributes["distribution"] == "rng_normal":
        if not dtype.is_float:
            raise HloError(f"rng_normal of {dtype.name} is not defined", instruction.span)
        return _normal(emit, instruction)
    if dtype.is_float:
        return _uniform_float(emit, instruction)
    return _uniform_integer(emit, instruction)


def _bits(emit: Emit, dims: tuple[int, ...], dtype: DType) -> Instruction:
    """Random bits of u32 or u64 from the device's state."""
    count = int(np.prod(dims, dtype=np.int64)) * dtype.bits
    blocks = max(1, -(-count // _PHILOX_BLOCK_BITS))
    state = emit.op("rng-get-and-update-state", array(U64, 2), delta=blocks)
    shape = TupleShape((array(U64, 2), array(dtype, *dims)))
    return emit.element(emit.op("rng-bit-generator", shape, (state,), algorithm="rng_philox"), 1)


def _unit(emit: Emit, dims: tuple[int, ...], work: DType) -> Instruction:
    """Uniform floats in [0, 1): random mantissas of numbers in [1, 2), less one."""
    bits_type = U32 if work is F32 else U64
    bits = _bits(emit, dims, bits_type)
    mantissa = emit.map("shift-right-logical", bits, emit.full(work.bits - work.mantissa_bits, bits.shape))
    one = emit.full(1, array(work, *dims))
    exponent = emit.bitcast_convert(one, bits_type)
    return emit.map("subtract", emit.bitcast_convert(emit.map("or", mantissa, exponent), work), one)


def _work_type(dtype: DType) -> DType:
    return F64 if dtype is F64 else F32


def _spread(emit: Emit, scalar: Instruction, dims: tuple[int, ...], dtype: DType) -> Instruction:
    return emit.broadcast(emit.convert(scalar, dtype), dims)


def _uniform_float(emit: Emit, instruction: Instruction) -> Instruction:
    shape = instruction.shape
    work = _work_type(shape.dtype)
    low, high = (_spread(emit, operand, shape.dims, work) for operand in instruction.operands)
    scaled = emit.map("multiply", _unit(emit, shape.dims, work), emit.map("subtract", high, low))
    value = emit.convert(emit.map("add", scaled, low), shape.dtype)
    low, high = (emit.broadcast(operand, shape.dims) for operand in instruction.operands)
    # Rounding can reach the upper bound, which is not in the range.
    return emit.map("select", emit.compare("LT", value, high), value, low)


def _normal(emit: Emit, instruction: Instruction) -> Instruction:
    """mean + deviation * sqrt(-2 log(1 - u)) * cos(2 pi v) for uniform u, v in [0, 1)"""
    shape = instruction.shape
    work = _work_type(shape.dtype)
    both = _unit(emit, (2, *shape.dims), work)
    parts = []
    for number in range(2):
        ranges = [SliceDim(number, number + 1), *(SliceDim(0, size) for size in shape.dims)]
        parts.append(emit.reshape(emit.slice(both, ranges), shape.dims))
    logarithm = emit.map("log-plus-one", emit.map("negate", parts[0]))
    radius = emit.map("sqrt", emit.map("multiply", logarithm, emit.full(-2, logarithm.shape)))
    angle = emit.map("multiply", parts[1], emit.full(2 * pi, parts[1].shape))
    unit = emit.map("multiply", radius, emit.map("cosine", angle))
    mean, deviation = (_spread(emit, operand, shape.dims, work) for operand in instruction.operands)
    return emit.convert(emit.map("add", emit.map("multiply", unit, deviation), mean), shape.dtype)


def _uniform_integer(emit: Emit, instruction: Instruction) -> Instruction:
    """low + bits mod (high - low), in 64 bits: for types of up to 32 bits no value is favoured measurably."""
    shape = instruction.shape
    bits = _bits(emit, shape.dims, U64)
    if not shape.dtype.is_integer:  # pred
        return emit.compare("NE", emit.map("and", bits, emit.full(1, bits.shape)), emit.full(0, bits.shape))
    wide = BY_NAME["s64" if shape.dtype.is_signed else "u64"]
    low, high = (_spread(emit, operand, shape.dims, wide) for operand in instruction.operands)
    span = emit.convert(emit.map("subtract", high, low), U64)
    offset = emit.convert(emit.map("remainder", bits, span), wide)
    return emit.convert(emit.map("add", offset, low), shape.dtype)
