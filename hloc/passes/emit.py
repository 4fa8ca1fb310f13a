"""Writing new instructions in front of an existing one: what passes that expand ops have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from hloc.ir.attributes import PadDim, SliceDim
from hloc.ir.builder import make
from hloc.ir.computation import Computation
from hloc.ir.dtypes import PRED, DType
from hloc.ir.instruction import Instruction
from hloc.ir.literals import Literal
from hloc.ir.shapes import ArrayShape, Layout, Shape, TupleShape, array


class Emit:
    """Adds instructions to a computation, all in front of `before` (at the end if None), in call order.

    Array results are row-major. `like`, an instruction, lends its metadata and its place in the text.
    """

    def __init__(
        self, computation: Computation, before: Instruction | None = None, like: Instruction | None = None
    ):
        self.computation = computation
        self.before = before
        self.like = like or before

    @staticmethod
    def at(instruction: Instruction) -> Emit:
        """In front of an instruction, in whose name the new ones stand."""
        return Emit(instruction.computation, instruction)

    def op(
        self, opcode: str, shape: Shape, operands: Iterable[Instruction] = (), **attributes: object
    ) -> Instruction:
        """Any op; see `builder.make`."""
        return make(
            self.computation,
            opcode,
            list(operands),
            attributes,
            shape=shape,
            before=self.before,
            like=self.like,
        )

    def parameter(self, number: int, shape: Shape, name: str = "") -> Instruction:
        return make(
            self.computation, "parameter", [], {"number": number}, shape=shape, name=name or f"param_{number}"
        )

    # Constants

    def literal(self, literal: Literal) -> Instruction:
        return self.op("constant", literal.shape, literal=literal)

    def scalar(self, value: object, dtype: DType) -> Instruction:
        """A rank-0 constant."""
        return self.literal(Literal(array(dtype), np.asarray(value).astype(dtype.numpy).reshape(())))

    def full(self, value: object, shape: ArrayShape) -> Instruction:
        """An array whose every element is `value`."""
        return self.broadcast(self.scalar(value, shape.dtype), shape.dims)

    # Elementwise

    def map(self, opcode: str, *operands: Instruction, **attributes: object) -> Instruction:
        """An elementwise op whose result has the shape of its last operand (row-major)."""
        return self.op(opcode, dense(operands[-1].shape), operands, **attributes)

    def compare(
        self, direction: str, left: Instruction, right: Instruction, **attributes: object
    ) -> Instruction:
        shape = dense(left.shape).with_dtype(PRED)
        return self.op("compare", shape, (left, right), direction=direction, **attributes)

    def convert(self, operand: Instruction, dtype: DType) -> Instruction:
        """The operand itself if it is of that type."""
        if operand.shape.dtype is dtype:
            return operand
        return self.op("convert", dense(operand.shape).with_dtype(dtype), (operand,))

    def bitcast_convert(self, operand: Instruction, dtype: DType) -> Instruction:
        """To a type of the same width."""
        if operand.shape.dtype is dtype:
            return operand
        return self.op("bitcast-convert", dense(operand.shape).with_dtype(dtype), (operand,))

    # Data movement

    def broadcast(
        self, operand: Instruction, dims: Sequence[int], dimensions: Sequence[int] = ()
    ) -> Instruction:
        """The operand's dimensions placed at `dimensions` of a result of size `dims`."""
        if tuple(dims) == operand.shape.dims and tuple(dimensions) == tuple(range(len(dims))):
            return operand
        return self.op(
            "broadcast", array(operand.shape.dtype, *dims), (operand,), dimensions=tuple(dimensions)
        )

    def reshape(self, operand: Instruction, dims: Sequence[int]) -> Instruction:
        """The operand itself if it has these dimensions."""
        if tuple(dims) == operand.shape.dims:
            return operand
        return self.op("reshape", array(operand.shape.dtype, *dims), (operand,))

    def transpose(self, operand: Instruction, permutation: Sequence[int]) -> Instruction:
        """The operand itself if nothing changes places."""
        if tuple(permutation) == tuple(range(operand.shape.rank)):
            return operand
        dims = [operand.shape.dims[d] for d in permutation]
        shape = array(operand.shape.dtype, *dims)
        return self.op("transpose", shape, (operand,), dimensions=tuple(permutation))

    def slice(self, operand: Instruction, ranges: Sequence[SliceDim]) -> Instruction:
        dims = [max(0, -(-(r.limit - r.start) // r.stride)) for r in ranges]
        return self.op("slice", array(operand.shape.dtype, *dims), (operand,), slice=tuple(ranges))

    def pad(self, operand: Instruction, value: Instruction, padding: Sequence[PadDim]) -> Instruction:
        dims = [
            p.low + p.high + size + max(0, size - 1) * p.interior
            for size, p in zip(operand.shape.dims, padding, strict=True)
        ]
        return self.op("pad", array(operand.shape.dtype, *dims), (operand, value), padding=tuple(padding))

    def concatenate(self, operands: Sequence[Instruction], dimension: int) -> Instruction:
        dims = list(operands[0].shape.dims)
        dims[dimension] = sum(operand.shape.dims[dimension] for operand in operands)
        return self.op(
            "concatenate", array(operands[0].shape.dtype, *dims), operands, dimensions=(dimension,)
        )

    def iota(self, dtype: DType, dims: Sequence[int], dimension: int) -> Instruction:
        return self.op("iota", array(dtype, *dims), iota_dimension=dimension)

    def dynamic_slice(
        self, operand: Instruction, starts: Sequence[Instruction], sizes: Sequence[int]
    ) -> Instruction:
        shape = array(operand.shape.dtype, *sizes)
        return self.op("dynamic-slice", shape, (operand, *starts), dynamic_slice_sizes=tuple(sizes))

    def dynamic_update_slice(
        self, operand: Instruction, update: Instruction, starts: Sequence[Instruction]
    ) -> Instruction:
        return self.op("dynamic-update-slice", dense(operand.shape), (operand, update, *starts))

    # Tuples and reductions

    def tuple(self, elements: Sequence[Instruction]) -> Instruction:
        return self.op("tuple", TupleShape(tuple(e.shape for e in elements)), elements)

    def element(self, operand: Instruction, index: int) -> Instruction:
        return self.op("get-tuple-element", operand.shape.elements[index], (operand,), index=index)

    def reduce(
        self, operand: Instruction, init: Instruction, dimensions: Sequence[int], computation: Computation
    ) -> Instruction:
        dims = [size for d, size in enumerate(operand.shape.dims) if d not in dimensions]
        shape = array(operand.shape.dtype, *dims)
        return self.op("reduce", shape, (operand, init), dimensions=tuple(dimensions), to_apply=computation)


def dense(shape: ArrayShape) -> ArrayShape:
    """The shape, row-major; itself if it is so."""
    layout = Layout.default(len(shape.dims))
    return shape if shape.layout is layout else shape.with_layout(layout)


def row_major(shape: Shape) -> Shape:
    """The shape with every array dense and row-major."""
    if isinstance(shape, TupleShape):
        return TupleShape(tuple(row_major(element) for element in shape.elements))
    if isinstance(shape, ArrayShape) and shape.is_array:
        return dense(shape)
    return shape


def binary_computation(instruction: Instruction, opcode: str, dtype: DType) -> Computation:
    """A new computation of the instruction's module: one binary op on two scalars."""
    computation = Computation(f"{opcode}_{dtype.name}")
    emit = Emit(computation)
    operands = [emit.parameter(0, array(dtype), "lhs"), emit.parameter(1, array(dtype), "rhs")]
    computation.root = emit.op(opcode, array(dtype), operands)
    return instruction.computation.module.add_computation(computation)


def replace(old: Instruction, new: Instruction) -> None:
    """Let the users of `old` have `new`, and take `old` out.

    The control edges of `old` go to what was made just in front of it; an older instruction gets none.
    """
    computation = old.computation
    if old.previous is new:
        for earlier in old.control_predecessors:
            computation.add_control_edge(earlier, new)
        for later in old.control_successors:
            computation.add_control_edge(new, later)
    computation.replace_uses(old, new)
    computation.remove(old)
