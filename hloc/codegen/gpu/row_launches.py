"""Fused computations that go by rows, loop by loop: each loop of `RowStages` folds all rows in launches of its own.

What reduces make is in scratch between the launches, in the shapes that they have; values with one element a row are
computed from it where they are wanted. So it does not matter how long rows are, how many, or how they lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from hloc.codegen.arrays import ArrayRef
from hloc.codegen.bodies import Leaf
from hloc.codegen.folds import Values
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.fold_plan import THREADS, FoldSpace
from hloc.codegen.gpu.pieces import without_divisions
from hloc.codegen.gpu.reductions import Fold, fold, loaded_size
from hloc.codegen.gpu.running import Running
from hloc.codegen.gpu.spread import over_elements
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.graphs import shape_of
from hloc.codegen.kernel import Index, KernelContext
from hloc.codegen.llvm import Value
from hloc.codegen.loops import Flat, reshape_index
from hloc.codegen.routines import i64
from hloc.codegen.row_kernel import RowParts
from hloc.codegen.row_stages import Place, RowLoop, RowStages, inputs_of, reducer_of
from hloc.ir.instruction import Instruction


def launches_bytes(stages: RowStages) -> int:
    """Scratch for results of reduces, and for parts of those under way."""
    parts = [_loop_space(stages, loop).scratch_bytes(_reducers(loop)) for loop in stages.loops]
    if stages.totals:
        parts.append(_total_space(stages).scratch_bytes(list(map(reducer_of, stages.totals))))
    return _results_bytes(stages) + max(parts, default=0)


def _loop_space(stages: RowStages, loop: RowLoop) -> FoldSpace:
    lanes = stages.space.lanes if loop.sizes else stages.space.count
    return FoldSpace(stages.space.sizes, (loop.sizes,) if loop.sizes else (), lanes)


def _total_space(stages: RowStages) -> FoldSpace:
    return FoldSpace((), (stages.space.sizes,) if stages.space.sizes else (), 1)


def _reducers(loop: RowLoop) -> list:
    return [reducer_of(reduce) for reduce, _ in loop.reduces]


def _result_leaves(stages: RowStages) -> Iterator[Leaf]:
    for loop in stages.loops:
        for reduce, _ in loop.reduces:
            yield from ((reduce, leaf) for leaf, _ in reduce.shape.leaves())


def _leaf_bytes(leaf: Leaf) -> int:
    return -(-shape_of(leaf).byte_size // 64) * 64


def _results_bytes(stages: RowStages) -> int:
    return sum(map(_leaf_bytes, _result_leaves(stages)))


class RowLaunches:
    """Writes one launch after the other, for a computation whose outputs are `roots`."""

    def __init__(self, g: GpuStep, stages: RowStages, roots: Sequence[Leaf]):
        self.g, self.stages, self.roots = g, stages, roots
        self.parts_at = _results_bytes(stages)

    def write(self) -> None:
        """All of them."""
        last = max(number for number, loop in enumerate(self.stages.loops) if loop.reduces)
        for number, loop in enumerate(self.stages.loops):
            if loop.reduces:
                self._fold_loop(loop, number == last)
            else:
                self._store_loop_roots(loop)
        if self.stages.totals:
            self.fold_totals()

    def _begin(self, k: GpuContext) -> RowParts:
        """A kernel's parts, with the results of all reduces so far in scratch."""
        parts = RowParts(k, self.stages, self.roots)
        for leaf, array in self._results(k).items():
            k.body.bind(leaf, array.load)
        return parts

    def _results(self, k: KernelContext) -> dict[Leaf, ArrayRef]:
        found, offset = {}, 0
        for leaf in _result_leaves(self.stages):
            pointer = k.b.gep("i8", k.scratch, i64(offset))
            found[leaf] = ArrayRef(k.b, shape_of(leaf).with_default_layout(), pointer)
            offset += _leaf_bytes(leaf)
        return found

    def _fold_loop(self, loop: RowLoop, is_last: bool) -> None:
        """A loop's reduces, and the roots that it stores beside them; with the last ones the roots of rows."""
        reduces = [reduce for reduce, _ in loop.reduces]

        def prepare(k: GpuContext, running: Running) -> Fold:
            parts = self._begin(k)

            def elements(row: Index, column: Index) -> Values:
                return [parts.folded(reduce, place, row, column) for reduce, place in loop.reduces]

            def finish(row: Index, totals: list[Value]) -> None:
                values = running.finish([parts.initial(reduce) for reduce in reduces], totals)
                if not is_last or loop is not self.stages.loops[-1] or self.stages.totals:
                    self.store_results(parts, reduces, row, values)
                if is_last:
                    parts.bind(reduces, values)
                    for level in range(len(self.stages.row_roots)):
                        parts.store_row_roots(level, row)

            visit = partial(parts.store_roots, loop) if loop.roots else None
            return Fold(elements, finish, visit=visit)

        size = loaded_size(self.g, shape_of(inputs_of(reduces[0])[0]))
        fold(self.g, _loop_space(self.stages, loop), _reducers(loop), prepare, size, self.parts_at)

    def store_results(self, parts: RowParts, reduces: Sequence[Instruction], row: Index, values: Values) -> None:
        """Puts what reduces make of a row into scratch."""
        results = self._results(parts.k)
        for reduce, made in zip(reduces, values, strict=True):
            leaves = [(reduce, leaf) for leaf, _ in reduce.shape.leaves()]
            index = parts.index(leaves[0], Place(self._rows(reduce), ()), row, ())
            for leaf, value in zip(leaves, made, strict=True):
                results[leaf].store(index, value)

    def _rows(self, reduce: Instruction) -> tuple[int, ...]:
        """The rows of a reduce's results."""
        rows = self.stages.rows
        return next(rows[reduce, leaf] for leaf, _ in reduce.shape.leaves() if (reduce, leaf) in rows)

    def fold_totals(self) -> None:
        """What is folded over all rows, and the roots made of it."""
        totals = self.stages.totals

        def prepare(k: GpuContext, running: Running) -> Fold:
            parts = self._begin(k)

            def elements(kept: Index, row: Index) -> Values:
                return [parts.folded(reduce, parts.place(reduce), row, ()) for reduce in totals]

            def finish(kept: Index, values: list[Value]) -> None:
                parts.bind(totals, running.finish([parts.initial(reduce) for reduce in totals], values))
                for number in self.stages.whole_roots:
                    parts.store_whole(number)

            return Fold(elements, finish)

        fold(self.g, _total_space(self.stages), list(map(reducer_of, totals)), prepare, 4, self.parts_at)

    def _store_loop_roots(self, loop: RowLoop) -> None:
        """The roots with elements for all columns, a few neighbours in memory a thread."""
        leaf, place = self.roots[loop.roots[0][0]], loop.roots[0][1]
        shape = shape_of(leaf).with_default_layout()
        width = max(1, 16 // max(shape_of(self.roots[number]).dtype.itemsize for number, _ in loop.roots))
        while width > 1 and shape.count // width < 1 << 14:
            width //= 2
        rows, sizes = self.stages.space.sizes, [shape.dims[d] for d in place.rows]

        def write(by_rows: bool) -> list[Flat]:
            with self.g.launch(-(-shape.count // (width * THREADS)), THREADS, name="roots") as k:
                parts = self._begin(k)

                def together(indices: list[Index]) -> None:
                    at = []
                    for index in indices:
                        row = reshape_index(parts.b, tuple(index[d] for d in place.rows), sizes, rows)
                        at.append((row, tuple(index[d] for d in place.columns)))
                    parts.store_roots(loop, at)

                return over_elements(k, k.global_index(), shape, width, together, by_rows)

        without_divisions(self.g, write)
