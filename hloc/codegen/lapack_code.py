"""Code that calls LAPACK for every matrix of a batch, as a recipe says.

LAPACK's matrices lie column by column. Where an operand or a result lies so in memory, the routine works
on it there; elsewhere it is copied to temporary memory or from it.
"""

from __future__ import annotations

from math import prod

import numpy as np

from hloc.codegen import scalar
from hloc.codegen.arrays import ArrayRef, Register, flattened
from hloc.codegen.kernel import Index, KernelContext, index_constant
from hloc.codegen.lapack_calls import Argument, Copy, Dims, In, Out, Recipe, Room, RoomSize
from hloc.codegen.llvm import Value, const, integer
from hloc.codegen.program import ALIGNMENT, LAPACK, External
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape, Layout

_NOT_FINITE = -4
"""The info of a matrix that is not given to the routine: its argument number 4, as LAPACK counts."""

Place = tuple[str, int | str]
"""What lies in temporary memory: ("in", operand), ("copy", operand), ("out", result) or ("room", name)."""


def scratch_places(recipe: Recipe, instruction: Instruction) -> tuple[dict[Place, int], int]:
    """Offsets in temporary memory of what may have to lie there for one matrix, and the size of it all."""
    sizes: dict[Place, int] = {}
    for argument in recipe.arguments:
        if isinstance(argument, In | Copy):
            kind = "in" if isinstance(argument, In) else "copy"
            shape = instruction.operands[argument.number].shape
            dims = shape.dims[len(recipe.batch) :]
            sizes[kind, argument.number] = prod(dims) * shape.dtype.itemsize
        elif isinstance(argument, Room):
            sizes["room", argument.name] = argument.count * argument.dtype.itemsize
    for number, result in enumerate(recipe.results):
        sizes["out", number] = prod(result.dims) * result.dtype.itemsize
    offsets, total = {}, 0
    for place, size in sizes.items():
        offsets[place] = total
        total += -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
    return offsets, total


class _Part:
    """The matrix (vector, number) of an array at one index of the batch."""

    def __init__(self, array: ArrayRef, batch: Index, dims: Dims):
        self.array, self.batch, self.dims = array, batch, dims
        strides = array.shape.strides[len(batch) :]
        columns = [prod(dims[:d]) for d in range(len(dims))]
        self.is_dense = all(
            size == 1 or have == want for size, have, want in zip(dims, strides, columns, strict=True)
        )
        self.bytes = index_constant(prod(dims) * array.shape.dtype.itemsize)

    def at(self, index: Index) -> Index:
        return (*self.batch, *index)

    @property
    def pointer(self) -> Value:
        return self.array.address(self.at((index_constant(0),) * len(self.dims)))

    @property
    def dtype(self) -> DType:
        return self.array.shape.dtype


class LapackCode:
    """Writes the kernel of one custom call."""

    def __init__(self, k: KernelContext, recipe: Recipe):
        self.k, self.b, self.recipe = k, k.b, recipe
        self.offsets, _ = scratch_places(recipe, k.instruction)

    def write(self) -> None:
        self.k.loop_nest(self.recipe.batch, self._matrix)

    def _matrix(self, batch: Index) -> None:
        recipe, b = self.recipe, self.b
        outputs = [_Part(a, batch, r.dims) for a, r in zip(self.k.outputs, recipe.results, strict=True)]
        outs = [self._out(number, part, batch) for number, part in enumerate(outputs)]
        if recipe.finite_only:
            finite = self._is_finite(self._operand(0, batch))
            b.if_else(finite, lambda: self._call(outs, batch), lambda: self._refuse(outs))
        else:
            self._call(outs, batch)
        for out, output in zip(outs, outputs, strict=True):
            if out is not output:
                self._move(out, output)

    # Memory

    def _operand(self, number: int, batch: Index) -> _Part:
        array = self.k.input_array(number)
        return _Part(array, batch, array.shape.dims[len(batch) :])

    def _temporary(self, place: Place, dtype: DType, dims: Dims) -> _Part:
        pointer = self.b.gep("i8", self.k.scratch, index_constant(self.offsets[place]))
        shape = ArrayShape(dtype, dims, Layout(tuple(range(len(dims)))))
        return _Part(ArrayRef(self.b, shape, pointer), (), dims)

    def _out(self, number: int, output: _Part, batch: Index) -> _Part:
        """Where the routine finds a result's first contents and leaves the result."""
        result = self.recipe.results[number]
        out = output if output.is_dense else self._temporary(("out", number), result.dtype, result.dims)
        if result.source is None:
            self.b.memset(out.pointer, integer("i8", 0), out.bytes)
        elif out is not output or not self.k.is_in_place(result.source, number):
            self._move(self._operand(result.source, batch), out)
        return out

    def _move(self, source: _Part, target: _Part) -> None:
        if source.is_dense and target.is_dense:
            self.b.memcpy(target.pointer, source.pointer, target.bytes)
            return
        self.k.loop_nest(
            target.dims,
            lambda index: target.array.store(target.at(index), source.array.load(source.at(index))),
            order=range(len(target.dims))[::-1],
        )

    # The call

    def _call(self, outs: list[_Part], batch: Index) -> None:
        recipe, b = self.recipe, self.b
        _, routine = self.k.external(External(LAPACK, recipe.function))
        pointers = [self._pointer(argument, outs, batch) for argument in recipe.arguments]
        b.call(routine, pointers, "void")
        for room, number in recipe.pairs:
            self._unpack(room, outs[1], outs[number])
        if recipe.nan_unless:
            info = b.load("i32", self._room(recipe.nan_unless))
            with b.if_then(b.icmp_signed("!=", info, integer("i32", 0))):
                self._fill_with_nan(outs)

    def _pointer(self, argument: Argument, outs: list[_Part], batch: Index) -> Value:
        if argument is None:
            return const("ptr", 0)
        if isinstance(argument, Out):
            itemsize = outs[argument.number].dtype.itemsize
            return self.b.gep("i8", outs[argument.number].pointer, index_constant(argument.start * itemsize))
        if isinstance(argument, Room):
            return self._room(argument.name)
        if isinstance(argument, RoomSize):
            return self._constant(next(r.count for r in self.recipe.rooms if r.name == argument.name))
        if isinstance(argument, In | Copy):
            part = self._operand(argument.number, batch)
            if isinstance(argument, In) and part.is_dense:
                return part.pointer
            kind = "in" if isinstance(argument, In) else "copy"
            copy = self._temporary((kind, argument.number), part.dtype, part.dims)
            self._move(part, copy)
            return copy.pointer
        return self._constant(argument)

    def _constant(self, value: str | int | bytes) -> Value:
        if isinstance(value, int):
            value = np.int32(value).tobytes()
        data = value.encode() if isinstance(value, str) else value
        return self.b.module.constant_bytes(data, align=16)

    def _room(self, name: str) -> Value:
        return self.b.gep("i8", self.k.scratch, index_constant(self.offsets["room", name]))

    # What LAPACK leaves to its callers

    def _is_finite(self, part: _Part) -> Value:
        """Whether a matrix has neither infinities nor NaN."""
        b = self.b

        def check(index: Index, carried: list[Value]) -> list[Value]:
            good = carried[0]
            for x in flattened([part.array.load(part.at(index))]):
                good = b.and_(good, b.fcmp_ordered("==", b.fsub(x, x), const(x.type, 0)))
            return [good]

        fast, b.fast = b.fast, ""  # fast math knows of no NaN
        (finite,) = self.k.reduce_loop(part.dims, [integer("i1", 1)], check)
        b.fast = fast
        return finite

    def _refuse(self, outs: list[_Part]) -> None:
        self._fill_with_nan(outs)
        self.b.store(integer("i32", _NOT_FINITE), outs[-1].pointer)

    def _fill_with_nan(self, outs: list[_Part]) -> None:
        for out in outs:
            if not out.dtype.is_integer:
                self._fill(out, scalar.constant(out.dtype, float("nan")))

    def _fill(self, out: _Part, value: Register) -> None:
        self.k.loop_nest(out.dims, lambda index: out.array.store(out.at(index), value))

    def _unpack(self, room: str, imaginary: _Part, vectors: _Part) -> None:
        """Complex vectors from LAPACK's columns: the real, then the imaginary part of a conjugate pair."""
        b = self.b
        packed = self._temporary(("room", room), imaginary.dtype, vectors.dims)
        last = index_constant(vectors.dims[1] - 1)

        def element(index: Index) -> None:
            i, j = index
            sign = imaginary.array.load(imaginary.at((j,)))
            zero = const(sign.type, 0)
            first, second = b.fcmp_ordered(">", sign, zero), b.fcmp_ordered("<", sign, zero)
            behind = b.select(b.icmp_signed("<", j, last), b.add(j, index_constant(1)), j)
            before = b.select(b.icmp_signed(">", j, index_constant(0)), b.sub(j, index_constant(1)), j)
            real = packed.array.load((i, b.select(second, before, j)))
            other = packed.array.load((i, b.select(first, behind, j)))
            imag = b.select(first, other, b.select(second, b.fneg(other), zero))
            vectors.array.store(vectors.at(index), (real, imag))

        self.k.loop_nest(vectors.dims, element)
