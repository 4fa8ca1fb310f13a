"""Recipes: arrays of bounded dynamic shapes, from where they get their size to where it shows.

Other recipes don't see them: dimensions of one bound may have different sizes, which elementwise ops refuse.
"""

from __future__ import annotations

from hloc.ir import dtypes
from hloc.ir.attributes import PadDim
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape
from tools.fuzz import elementwise, folds
from tools.fuzz.maker import Maker
from tools.fuzz.values import ANY, COMPLEXES, FLOATS, INTEGERS


class Live:
    """An array whose dimension `along` has as many live elements as `size` says."""

    def __init__(self, m: Maker):
        operand = m.operand(ANY, least=1, most=3, empty=False)
        self.m = m
        self.along = m.draw.integer(0, operand.shape.rank - 1)
        bound = operand.shape.dims[self.along]
        size = m.draw.integer(0, bound)
        self.size = m.s32(size) if m.draw.chance(0.3) else m.whole_number(size)
        self.array = self.cut(operand)

    def cut(self, operand: Instruction) -> Instruction:
        return self.m.b.op("set-dimension-size", operand, self.size, dimensions=(self.along,))

    def another(self) -> Instruction:
        """One of the same type, bounds and live size."""
        if self.m.draw.chance(0.3):
            return self.array
        return self.cut(self.m.value(self.array.shape.dtype, self.array.shape.dims))

    def step(self) -> None:
        self.m.draw.choice(_STEPS, _STEPS.values())(self)

    def unary(self) -> None:
        dtype = self.array.shape.dtype
        fitting = [opcode for opcode, types in elementwise.UNARY.items() if dtype in types]
        if fitting:
            self.array = self.m.b.op(self.m.draw.choice(fitting), self.array)

    def binary(self) -> None:
        dtype = self.array.shape.dtype
        fitting = [opcode for opcode, types in elementwise.BINARY.items() if dtype in types]
        pair = self.m.draw.shuffled((self.array, self.another()))
        self.array = self.m.b.op(self.m.draw.choice(fitting), *pair)

    def convert(self) -> None:
        types = COMPLEXES if self.array.shape.dtype.is_complex else INTEGERS + FLOATS
        self.array = self.m.b.convert(self.array, self.m.draw.dtype(types))

    def transpose(self) -> None:
        order = tuple(self.m.draw.shuffled(range(self.array.shape.rank)))
        self.array = self.m.b.op("transpose", self.array, dimensions=order)
        self.along = order.index(self.along)

    def reverse(self) -> None:
        dims = self.m.draw.sample(range(self.array.shape.rank), self.m.draw.integer(0, self.array.shape.rank))
        self.array = self.m.b.op("reverse", self.array, dimensions=tuple(dims))

    def pad(self) -> None:
        """Other dimensions than the live one."""
        padding = [PadDim(self.m.draw.integer(0, 2), self.m.draw.integer(0, 2), 0) for _ in self.array.shape.dims]
        padding[self.along] = PadDim(0, 0, 0)
        value = self.m.scalar(self.array.shape.dtype)
        self.array = self.m.b.op("pad", self.array, value, padding=tuple(padding))

    def concatenate(self) -> None:
        """Along another dimension."""
        others = [d for d in range(self.array.shape.rank) if d != self.along]
        if others:
            pair = self.m.draw.shuffled((self.array, self.another()))
            self.array = self.m.b.concatenate(pair, self.m.draw.choice(others))

    def sort(self) -> None:
        dtype = self.array.shape.dtype
        if dtype.is_complex or dtype is dtypes.PRED:
            return
        total = {"type": "TOTALORDER"} if dtype.is_float else {}
        before = self.m.scalars("before", [dtype] * 2, lambda p: self.m.b.compare(p[0], p[1], "LT", **total))
        dims = (self.m.draw.integer(0, self.array.shape.rank - 1),)
        self.array = self.m.b.op("sort", self.array, dimensions=dims, to_apply=before, is_stable=True)

    def reduce_others(self) -> None:
        others = [d for d in range(self.array.shape.rank) if d != self.along]
        chosen = tuple(sorted(self.m.draw.sample(others, self.m.draw.integer(0, len(others)))))
        if chosen:
            self.array = self._reduced(chosen)
            self.along -= sum(d < self.along for d in chosen)

    def _reduced(self, dims: tuple[int, ...]) -> Instruction:
        opcode, body = folds.known(self.m, self.array.shape.dtype)
        start = folds.initial(self.m, opcode, self.array.shape.dtype)
        return self.m.b.op("reduce", self.array, start, dimensions=dims, to_apply=body)

    def end(self) -> Instruction:
        """A static array that tells of the live elements or of their number."""
        choice = self.m.draw.choice(("reduce", "size", "grow"), (4, 1, 2))
        if choice == "reduce":
            dims = {self.along, *self.m.draw.sample(range(self.array.shape.rank), 1)}
            return self._reduced(tuple(sorted(dims)))
        if choice == "size":
            return self.m.b.op("get-dimension-size", self.array, dimensions=(self.along,))
        bound = self.array.shape.dims[self.along]
        shape = ArrayShape(self.array.shape.dtype, self.array.shape.dims)
        return self.m.b.op(
            "set-dimension-size", self.array, self.m.s32(bound), shape=shape, dimensions=(self.along,)
        )


_STEPS = {
    Live.unary: 3, Live.binary: 4, Live.convert: 1, Live.transpose: 2, Live.reverse: 1, Live.pad: 1,
    Live.concatenate: 1, Live.sort: 1, Live.reduce_others: 1,
}  # fmt: skip


def live(m: Maker) -> Instruction:
    """Some ops on an array with a live size; now and then the array is a result of the program too."""
    m.portable = False  # XLA's own padding is not the measure
    array = Live(m)
    for _ in range(m.draw.integer(0, 4)):
        array.step()
    if m.depth == 0 and m.draw.chance(0.3):
        m.results.append(array.array)
    return array.end()


RECIPES = {live: 0.6}
