"""Writing row kernels: the loops of `RowStages`, one row after the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from hloc.codegen.arrays import ArrayRef, Register
from hloc.codegen.bodies import Leaf
from hloc.codegen.folds import Folds, Values
from hloc.codegen.graphs import operands_of, shape_of
from hloc.codegen.kernel import Index, KernelContext, index_constant
from hloc.codegen.loops import reshape_index
from hloc.codegen.row_stages import Place, RowLoop, RowStages, inputs_of, kept_bytes, reducer_of
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape


def write_rows(k: KernelContext, stages: RowStages, roots: Sequence[Leaf]) -> None:
    """The code of a row kernel whose outputs are `roots`."""
    k.loop_nest(stages.space.sizes, _Row(k, stages, roots).write)


class _Row:
    """Writes the code for one row, whose running values are in registers."""

    def __init__(self, k: KernelContext, stages: RowStages, roots: Sequence[Leaf]):
        self.k, self.b, self.stages, self.roots = k, k.b, stages, roots
        self.kept: dict[Leaf, tuple[ArrayRef, Place]] = {}
        offset = 0
        for loop in stages.loops:
            for leaf, place in loop.kept:
                pointer = self.b.gep("i8", k.scratch, index_constant(offset))
                shape = ArrayShape(shape_of(leaf).dtype, loop.sizes)
                self.kept[leaf] = ArrayRef(self.b, shape, pointer), place
                offset += kept_bytes(loop, leaf)

    def write(self, row: Index) -> None:
        """Everything of a row: level by level its values, then its loops."""
        for level, values in enumerate(self.stages.values):
            made = {leaf: self._value(leaf, row) for leaf in values}
            for number in self.stages.row_roots[level]:
                leaf = self.roots[number]
                self.k.outputs[number].store(self._index(leaf, Place(self.stages.rows[leaf], ()), row, ()), made[leaf])
            for loop in self.stages.loops:
                if loop.level == level:
                    self._loop(loop, row)

    def _value(self, leaf: Leaf, row: Index) -> Register:
        """Computed here, it is found again by the loops inside."""
        index = self._index(leaf, Place(self.stages.rows[leaf], ()), row, ())
        return self.k.body.evaluate(self.k, *leaf, index)

    def _index(self, leaf: Leaf, place: Place, row: Index, column: Index) -> Index:
        """The index of a value's element in a row."""
        dims = shape_of(leaf).dims
        index = [index_constant(0)] * len(dims)
        rows = reshape_index(self.b, row, self.stages.space.sizes, [dims[d] for d in place.rows])
        for dimension, value in zip((*place.rows, *place.columns), (*rows, *column), strict=True):
            index[dimension] = value
        return tuple(index)

    def _loop(self, loop: RowLoop, row: Index) -> None:
        reducers = [reducer_of(reduce) for reduce, _ in loop.reduces]

        def elements(column: Index) -> Values:
            found = [self._folded(reduce, place, row, column) for reduce, place in loop.reduces]
            for leaf, place in loop.kept:
                value = self.k.body.evaluate(self.k, *leaf, self._index(leaf, place, row, column))
                self.kept[leaf][0].store(column, value)
            self._store_roots(loop, row, column)
            return found

        initial = [self._initial(reduce) for reduce, _ in loop.reduces]
        totals = Folds(self.k, reducers, loop.sizes, elements).run(initial)
        for (reduce, _), reducer, total in zip(loop.reduces, reducers, totals, strict=True):
            for (leaf, _), value in zip(reduce.shape.leaves(), reducer.narrow(self.b, total), strict=True):
                self.k.body.bind((reduce, leaf), partial(_given, value))
        for leaf, _ in loop.kept:
            self.k.body.bind(leaf, partial(self._load_kept, leaf))

    def _folded(self, reduce: Instruction, place: Place, row: Index, column: Index) -> list[Register]:
        """What a reduce folds at a column."""
        leaves = inputs_of(reduce)
        values = [self.k.body.evaluate(self.k, *leaf, self._index(leaf, place, row, column)) for leaf in leaves]
        return reducer_of(reduce).widen(self.b, values)

    def _initial(self, reduce: Instruction) -> list[Register]:
        given = operands_of((reduce, ()))[len(inputs_of(reduce)) :]
        return reducer_of(reduce).widen(self.b, [self.k.body.evaluate(self.k, *leaf, ()) for leaf in given])

    def _store_roots(self, loop: RowLoop, row: Index, column: Index) -> None:
        """All values first: an output may lie where an input does."""
        places = [(number, self._index(self.roots[number], place, row, column)) for number, place in loop.roots]
        values = [self.k.body.evaluate(self.k, *self.roots[number], index) for number, index in places]
        for (number, index), value in zip(places, values, strict=True):
            self.k.outputs[number].store(index, value)

    def _load_kept(self, leaf: Leaf, index: Index) -> Register:
        array, place = self.kept[leaf]
        return array.load(tuple(index[d] for d in place.columns))


def _given(value: Register, index: Index) -> Register:
    return value
