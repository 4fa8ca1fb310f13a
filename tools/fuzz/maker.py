"""The module under construction: values that may be operands, arguments, nested computations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod

import numpy as np

from hloc.arrays import in_layout
from hloc.ir.builder import Builder
from hloc.ir.computation import Computation
from hloc.ir.dtypes import F4E2M1FN, S32, DType
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.ir.shapes import ArrayShape, Layout, Shape, TupleShape
from tools.fuzz.values import ANY, Draw

Body = Callable[[list[Instruction]], Instruction]


@dataclass
class Case:
    """A program and its arguments. `portable`: XLA's CPU backend runs it too, and means the same by it."""

    module: Module
    arguments: list[np.ndarray]
    portable: bool = True
    recipes: list[str] = field(default_factory=list)


def _known_to_xla(module: Module) -> bool:
    """XLA's CPU backend aborts on constants of 6-bit floats, and takes 1-bit integers for pred."""
    leaves = {leaf.dtype for i in module.instructions() for _, leaf in i.shape.leaves()}
    return not any(dtype.bits == 6 or (dtype.bits == 1 and dtype.is_integer) for dtype in leaves)


class Maker:
    """Builds one module. `pool` holds the values of the computation being built that may be operands."""

    def __init__(self, seed: int):
        self.draw = Draw(seed)
        self.b = Builder("fuzz")
        self.pool: list[Instruction] = []
        self.arguments: list[np.ndarray] = []
        self.results: list[Instruction] = []
        self.portable = True
        self.depth = 0
        self.devices = (1, 1)
        self._channels = 0

    def channel(self) -> int:
        """A number for a channel of its own."""
        self._channels += 1
        return self._channels

    # Operands

    def value(
        self, dtype: DType, dims: tuple[int, ...], profile: str = "", fresh: bool = False
    ) -> Instruction:
        """An array of that type and size: one that is there, one converted from there, or a new leaf.

        `fresh` asks for a leaf, whose bits are the same in every executor.
        """
        same = [v for v in self.pool if v.shape.is_array and v.shape.dims == dims]
        exact = [v for v in same if v.shape.dtype is dtype]
        if exact and not fresh and not profile and self.draw.chance(0.65):
            return self.draw.choice(exact)
        if same and not fresh and not profile and not dtype.is_complex and self.draw.chance(0.15):
            source = self.draw.choice(same)
            if not source.shape.dtype.is_complex and source.shape.dtype is not F4E2M1FN:
                return self.b.convert(source, dtype)
        return self.leaf(dtype, dims, profile)

    def leaf(self, dtype: DType, dims: tuple[int, ...], profile: str = "") -> Instruction:
        """A parameter or a constant; of computations other than the entry, a constant."""
        if self.depth == 0 and not self.draw.chance(0.15):
            return self.parameter(self.draw.array(dtype, dims, profile), dtype)
        if prod(dims) > 24:
            scalar = self.b.constant(self.draw.array(dtype, (), profile), dtype)
            return self.b.broadcast(scalar, dims)
        return self.b.constant(self.draw.array(dtype, dims, profile), dtype)

    def parameter(self, array: np.ndarray, dtype: DType) -> Instruction:
        """A new parameter of the entry with its argument, sometimes in another layout."""
        shape = ArrayShape(dtype, array.shape, self.layout(array.ndim))
        self.arguments.append(in_layout(array, shape))
        instruction = self.b.parameter(shape)
        self.pool.append(instruction)
        return instruction

    def layout(self, rank: int) -> Layout:
        if rank > 1 and self.draw.chance(0.2):
            return Layout(tuple(self.draw.shuffled(range(rank))))
        return Layout.default(rank)

    def operand(
        self, allowed: Sequence[DType] = ANY, least: int = 0, most: int = 5, empty: bool = True
    ) -> Instruction:
        """Any array of an allowed type and rank."""
        there = [
            v
            for v in self.pool
            if v.shape.is_array
            and v.shape.dtype in allowed
            and least <= v.shape.rank <= most
            and (empty or v.shape.count)
        ]
        if there and self.draw.chance(0.7):
            # Later values are likelier: chains grow.
            return self.draw.choice(there, range(1, len(there) + 1))
        return self.value(self.draw.dtype(allowed), self.draw.dims(least, most, empty))

    def whole_number(self, value: int) -> Instruction:
        """A scalar of s32 with that value, unknown to the compiler where it can be."""
        return self.parameter(np.array(value, np.int32), S32) if self.depth == 0 else self.s32(value)

    def scalar(self, dtype: DType, profile: str = "") -> Instruction:
        return self.value(dtype, (), profile)

    def index(self, dtype: DType, size: int) -> Instruction:
        """A scalar index, out of range now and then."""
        return self.index_array(dtype, (), size)

    def index_array(self, dtype: DType, dims: tuple[int, ...], size: int) -> Instruction:
        """Indices into a dimension of that size; some modules have a few below or beyond it."""
        beyond = 3 if self.draw.chance(0.3) else 0
        low = -beyond if dtype.is_signed else 0
        values = np.asarray(self.draw.numpy.integers(low, max(size - 1, 0) + beyond, dims, endpoint=True))
        if self.depth == 0:
            return self.parameter(values.astype(dtype.numpy), dtype)
        return self.b.constant(values.astype(dtype.numpy), dtype)

    # Nested computations

    @contextmanager
    def inside(self, builder: Builder, pool: list[Instruction]) -> Iterator[None]:
        """Builds in another computation for a while."""
        outer = self.b, self.pool
        self.b, self.pool, self.depth = builder, pool, self.depth + 1
        try:
            yield
        finally:
            self.b, self.pool = outer
            self.depth -= 1

    def computation(self, name: str, shapes: Sequence[Shape], body: Body) -> Computation:
        """A computation with such parameters; `body` builds it with this maker and returns the root."""
        inner = Builder(name, module=self.b.module)
        parameters = [inner.parameter(shape) for shape in shapes]
        with self.inside(inner, []):
            self.pool += [leaf for parameter in parameters for leaf in self.leaves(parameter)]
            inner.computation.root = body(parameters)
        return inner.computation

    def leaves(self, value: Instruction) -> list[Instruction]:
        """The arrays in a value: itself, or what is in a tuple."""
        if not value.shape.is_tuple:
            return [value]
        parts = [self.b.get_tuple_element(value, i) for i in range(len(value.shape.elements))]
        return [leaf for part in parts for leaf in self.leaves(part)]

    def scalars(self, name: str, dtypes: Sequence[DType], body: Body) -> Computation:
        """A computation of scalars."""
        return self.computation(name, [ArrayShape(dtype) for dtype in dtypes], body)

    def s32(self, value: int) -> Instruction:
        return self.b.constant(value, S32)

    # The whole

    def finish(self, recipes: list[str]) -> Case:
        """The case with a root of the values that nobody used, or of the last one."""
        unused = [v for v in self.pool if not v.users and v.opcode != "parameter"]
        roots = unused[-6:] or self.pool[-1:]
        roots += [value for value in self.results if value not in roots]
        if len(roots) == 1 and self.draw.chance(0.7):
            root = roots[0]
        elif len(roots) > 2 and self.draw.chance(0.2):
            root = self.b.tuple(self.b.tuple(*roots[:2]), *roots[2:])
        else:
            root = self.b.tuple(*roots)
        module = self.b.build(root)
        module.replica_count, module.num_partitions = self.devices
        if self.draw.chance(0.15):
            parameters, result = module.entry_shapes
            module.entry_layout = parameters, self._relaid(result)
        # XLA makes one program of several partitions itself.
        self.portable &= self.devices[1] == 1
        return Case(module, self.arguments, self.portable and _known_to_xla(module), recipes)

    def _relaid(self, shape: Shape) -> Shape:
        if isinstance(shape, TupleShape):
            return TupleShape(tuple(self._relaid(element) for element in shape.elements))
        return shape.with_layout(self.layout(shape.rank)) if shape.is_array else shape
