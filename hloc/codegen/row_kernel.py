"""Writing row kernels: the loops of `RowStages`, one row after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property, partial
from math import prod

from hloc.analysis.row_softmax import tells_nans_by_powers
from hloc.codegen import streams
from hloc.codegen.arrays import ArrayRef, Register
from hloc.codegen.bodies import Leaf
from hloc.codegen.folds import Folds, Values
from hloc.codegen.graphs import operands_of, shape_of
from hloc.codegen.kernel import Index, KernelContext, index_constant
from hloc.codegen.llvm import Value
from hloc.codegen.loops import index_key, reshape_index
from hloc.codegen.next_row import NextRow, next_row
from hloc.codegen.reducers import Reducer
from hloc.codegen.routines import i64
from hloc.codegen.row_stages import Place, RowLoop, RowStages, inputs_of, kept_bytes, reducer_of
from hloc.codegen.rows import Row, Strip, held_bytes, row_bytes
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape
from hloc.records import replace

_TOGETHER = 4
"""Columns folded in one pass over the running values."""

_MOST_VECTORS = 8
"""Vectors of a row of which the last two overlap: in longer ones, what is left over hardly counts."""


def write_rows(k: KernelContext, stages: RowStages, roots: Sequence[Leaf]) -> None:
    """The code of a row kernel whose outputs are `roots`."""
    if stages.strip:
        _StripWriter(k, stages, roots).write_all()
    else:
        RowWriter(k, stages, roots).write_all()


class RowParts:
    """What a row's work is made of: values of a row, what reduces fold, roots, and what is kept, in `kept`."""

    def __init__(self, k: KernelContext, stages: RowStages, roots: Sequence[Leaf]):
        self.k, self.b, self.stages, self.roots = k, k.b, stages, roots
        self.kept: dict[Leaf, tuple[ArrayRef, Place]] = {}

    def write(self, row: Index) -> None:
        """Everything of a row: level by level its values, then its loops."""
        for level in range(len(self.stages.values)):
            self._values(level, row)
            for loop in self.stages.loops:
                if loop.level == level:
                    self._loop(loop, row)

    def _loop(self, loop: RowLoop, row: Index) -> None:
        """A loop over the columns; a way to write it is to be given."""
        raise NotImplementedError

    def _values(self, level: int, row: Index) -> None:
        """What has one element a row."""
        for leaf in self.stages.values[level]:
            self.value(leaf, row)
        self.store_row_roots(level, row)

    def store_row_roots(self, level: int, row: Index) -> None:
        for number in self.stages.row_roots[level]:
            leaf = self.roots[number]
            index = self.index(leaf, Place(self.stages.rows[leaf], ()), row, ())
            self.k.outputs[number].store(index, self.value(leaf, row))

    def value(self, leaf: Leaf, row: Index) -> Register:
        """What has one element a row. Computed here, it is found again by the loops inside."""
        index = self.index(leaf, Place(self.stages.rows[leaf], ()), row, ())
        return self.k.body.evaluate(self.k, *leaf, index)

    def index(self, leaf: Leaf, place: Place, row: Index, column: Index) -> Index:
        """The index of a value's element in a row."""
        dims = shape_of(leaf).dims
        index = [index_constant(0)] * len(dims)
        rows = reshape_index(self.b, row, self.stages.space.sizes, [dims[d] for d in place.rows]) if row else ()
        for dimension, value in zip((*place.rows, *place.columns), (*rows, *column), strict=True):
            index[dimension] = value
        return tuple(index)

    def folded(self, reduce: Instruction, place: Place, row: Index, column: Index) -> list[Register]:
        """What a reduce folds at a column."""
        leaves = inputs_of(reduce)
        values = [self.k.body.evaluate(self.k, *leaf, self.index(leaf, place, row, column)) for leaf in leaves]
        return reducer_of(reduce).widen(self.b, values)

    def initial(self, reduce: Instruction) -> list[Register]:
        given = operands_of((reduce, ()))[len(inputs_of(reduce)) :]
        return reducer_of(reduce).widen(self.b, [self.k.body.evaluate(self.k, *leaf, ()) for leaf in given])

    def bind(self, reduces: Sequence[Instruction], results: Values) -> None:
        """Lets reduces have these results from here on."""
        for reduce, values in zip(reduces, results, strict=True):
            for (leaf, _), value in zip(reduce.shape.leaves(), values, strict=True):
                self.k.body.bind((reduce, leaf), partial(_given, value))

    def place(self, total: Instruction) -> Place:
        """Where a reduce over all rows finds what it folds."""
        return Place(self.stages.rows[inputs_of(total)[0]], ())

    def store_roots(self, loop: RowLoop, at: Sequence[tuple[Index, Index]]) -> None:
        """Those at some rows and columns. All values first: an output may lie where an input does."""
        places = [
            (number, self.index(self.roots[number], place, row, column))
            for number, place in loop.roots
            for row, column in at
        ]
        values = [self.k.body.evaluate(self.k, *self.roots[number], index) for number, index in places]
        for (number, index), value in zip(places, values, strict=True):
            self.k.outputs[number].store(index, value)

    def keep(self, loop: RowLoop, at: Sequence[tuple[Index, Index]]) -> None:
        """Stores what later loops want of some rows and columns."""
        for leaf, place in loop.kept:
            if leaf in self.kept:
                values = [self.k.body.evaluate(self.k, *leaf, self.index(leaf, place, *where)) for where in at]
                for (_, column), value in zip(at, values, strict=True):
                    self.kept[leaf][0].store(column, value)

    def bind_kept(self, loop: RowLoop, row: Index) -> None:
        """Lets later loops load what is kept of a row."""
        for leaf, _ in loop.kept:
            if leaf in self.kept:
                self.k.body.bind(leaf, partial(self._load_kept, leaf, row))

    def _load_kept(self, leaf: Leaf, row: Index, index: Index) -> Register:
        """What is kept of a row; that of another row is computed."""
        array, place = self.kept[leaf]
        column = tuple(index[d] for d in place.columns)
        if index_key(index) == index_key(self.index(leaf, place, row, column)):
            return array.load(column)
        operands = [self.k.body.element(self.k, operand) for operand in leaf[0].operands]
        return self.k.compute(leaf[0], operands, index)

    def store_whole(self, number: int) -> None:
        """A root that is made of all rows."""
        index = self.index(self.roots[number], Place((), ()), (), ())
        self.k.outputs[number].store(index, self.k.body.evaluate(self.k, *self.roots[number], index))


class RowWriter(RowParts):
    """Writes the code for one row, whose running values are in registers."""

    def __init__(self, k: KernelContext, stages: RowStages, roots: Sequence[Leaf]):
        super().__init__(k, stages, roots)
        offset = 0
        for loop in stages.loops:
            for leaf, place in loop.kept:
                pointer = self.b.gep("i8", k.scratch, index_constant(offset))
                shape = ArrayShape(shape_of(leaf).dtype, loop.sizes)
                self.kept[leaf] = ArrayRef(self.b, shape, pointer), place
                offset += kept_bytes(loop, leaf)

    def write_all(self) -> None:
        """Row after row, then what is made of all of them."""

        def elements(row: Index) -> Values:
            self.write(row)
            return [self.folded(reduce, self.place(reduce), row, ()) for reduce in totals]

        totals = self.stages.totals
        if any(loop.roots or loop.kept for loop in self.stages.loops):
            # Where one loop along a row is left, the one over rows is not vectorized: either all go or none.
            self.k.short_fold = self.k.short
        reducers = [reducer_of(reduce) for reduce in totals]
        folds = Folds(self.k, reducers, self.stages.space.sizes, elements)
        self._bind_results(totals, folds.run([self.initial(reduce) for reduce in totals]))
        for number in self.stages.whole_roots:
            self.store_whole(number)

    def _bind_results(self, reduces: Sequence[Instruction], totals: Values) -> None:
        pairs = zip(reduces, totals, strict=True)
        self.bind(reduces, [reducer_of(reduce).narrow(self.b, total) for reduce, total in pairs])

    def _loop(self, loop: RowLoop, row: Index) -> None:
        block = self._streamed_block(loop)
        if block:
            self._stream(loop, row, block)
            return
        reducers = [_reducer(reduce) for reduce, _ in loop.reduces]

        def elements(column: Index) -> Values:
            found = [self.folded(reduce, place, row, column) for reduce, place in loop.reduces]
            self.keep(loop, [(row, column)])
            self.store_roots(loop, [(row, column)])
            return found

        def last(column: Index, is_new: Value) -> Values:
            found = [self.folded(reduce, place, row, column) for reduce, place in loop.reduces]
            with self.b.if_then(is_new) if self._in_place(loop) else nullcontext():
                self.keep(loop, [(row, column)])
                self.store_roots(loop, [(row, column)])
            return found

        initial = [self.initial(reduce) for reduce, _ in loop.reduces]
        folds = Folds(self.k, reducers, loop.sizes, elements, repeatable=not loop.roots)
        count, lanes = self._segments(loop), self._lanes(loop, reducers)
        if count:
            totals = folds.in_segments(initial, count, partial(self._fetch, loop, row))
        elif lanes:
            totals = folds.in_vectors(initial, lanes, last, is_stored=bool(loop.roots or loop.kept))
        else:
            totals = folds.run(initial)
        self._bind_results([reduce for reduce, _ in loop.reduces], totals)
        self.bind_kept(loop, row)

    def _lanes(self, loop: RowLoop, reducers: Sequence[Reducer]) -> int:
        """Columns of a vector, if a short loop is divided into vectors, of which the last two may overlap; 0 if not."""
        if len(loop.sizes) != 1 or any(reducer.operation is None for reducer in reducers):
            return 0
        dtypes = [shape_of(self.roots[root]).dtype for root, _ in loop.roots]
        dtypes += [dtype for reducer in reducers for dtype in reducer.sums]
        lanes = self.k.target.vector_bytes // max([4, *(dtype.itemsize for dtype in dtypes)])
        (size,) = loop.sizes
        return lanes if max(self.k.short_fold, lanes) < size < _MOST_VECTORS * lanes and size % lanes else 0

    def _in_place(self, loop: RowLoop) -> bool:
        """Whether a loop writes over what it reads."""
        return any(self.k.body.lies_at(self.k.outputs[root].pointer) for root, _ in loop.roots)

    def _streamed_block(self, loop: RowLoop) -> int:
        """How many columns are stored at once past the caches; 0 if that is not for what the loop stores."""
        places = {(place, self.k.outputs[root].shape.minor_to_major) for root, place in loop.roots}
        if loop.reduces or loop.kept or len(places) != 1 or not loop.sizes:
            return 0
        outputs = [self.k.outputs[root] for root, _ in loop.roots]
        ((place, order),) = places
        # What is no array of its own is read again soon.
        if not all(isinstance(output, ArrayRef) for output in outputs):
            return 0
        if order[0] != place.columns[-1] or any(self.k.body.lies_at(output.pointer) for output in outputs):
            return 0
        return min(streams.block_of(output.shape) for output in outputs)

    def _stream(self, loop: RowLoop, row: Index, block: int) -> None:
        """The columns of large roots, block by block."""
        stream = streams.Streams(self.k, [self.k.outputs[root] for root, _ in loop.roots], block)
        roots, place = [self.roots[root] for root, _ in loop.roots], loop.roots[0][1]
        sizes = [*loop.sizes[:-1], loop.sizes[-1] // block]

        def one(column: Index) -> None:
            (number,) = reshape_index(self.b, column, sizes, [prod(sizes)])
            self._fetch(loop, row, number)
            first = (*column[:-1], self.b.mul(column[-1], i64(block)))
            index = self.index(roots[0], place, row, first)
            stream.fill(index, lambda at: [self.k.body.evaluate(self.k, *root, at) for root in roots])

        self.k.loop_nest(sizes, one)

    @cached_property
    def _next_row(self) -> NextRow | None:
        return next_row(self.k, self.stages, self.roots, [self._streamed_block(loop) for loop in self.stages.loops])

    def _segments(self, loop: RowLoop) -> int:
        """In how many pieces a loop goes through the columns, fetching some of the next row; 0 if it does not."""
        return self._next_row.segments[self.stages.loops.index(loop)] if self._next_row is not None else 0

    def _fetch(self, loop: RowLoop, row: Index, segment: Value) -> None:
        """The part of the next row that belongs to a segment of a loop."""
        if self._segments(loop):
            place = self._next_row.place
            first = self.index(self._next_row.root, place, row, [index_constant(0)] * len(place.columns))
            self._next_row.fetch(self.b, self.stages.loops.index(loop), first, segment)


class _StripWriter(RowWriter):
    """Writes the code for rows side by side, whose running values are held in scratch.

    Where values of a row are bound, they are those of the row at `place`, where the builder is.
    """

    def __init__(self, k: KernelContext, stages: RowStages, roots: Sequence[Leaf]):
        super().__init__(k, stages, roots)
        self.strip = Strip(k, stages.strip, stages.width)
        lanes = prod(self.strip.dims)
        self.at: Index = ()
        self.held: dict[Leaf, ArrayRef] = {}
        self.running: dict[Instruction, Row] = {}
        offset = 0
        for leaf in stages.held:
            dtype = shape_of(leaf).dtype
            self.held[leaf] = self.strip.held(dtype, k.scratch, offset)
            offset += held_bytes(dtype, lanes)
        for reduce in [reduce for loop in stages.loops for reduce, _ in loop.reduces]:
            reducer = reducer_of(reduce)
            self.running[reduce] = Row(self.strip, reducer, k.scratch, offset)
            offset += row_bytes(reducer, lanes)

    def write_all(self) -> None:
        """Strip after strip."""
        outer = self.stages.space.sizes[: len(self.stages.space.sizes) - len(self.stages.strip)]
        self.k.loop_nest(outer, lambda row: self.strip.run(lambda: self.write(row)))

    def _along(self, row: Index, body: Callable[[Index], object]) -> None:
        """Runs body(row) for each row of the strip; `row` has the dimensions outside of it."""

        def one(at: Index, place: Index) -> None:
            self.at = place
            body((*row, *at))

        self.strip.along(one)

    def _values(self, level: int, row: Index) -> None:
        """Stores what is held, and roots, in one loop along the strip."""
        held = [leaf for leaf in self.stages.values[level] if leaf in self.held]

        def one(row: Index) -> None:
            made = [self.value(leaf, row) for leaf in held]
            for leaf, value in zip(held, made, strict=True):
                self.held[leaf].store(self.at, value)
            self.store_row_roots(level, row)

        if held or self.stages.row_roots[level]:
            self._along(row, one)
        for leaf in held:
            self.k.body.bind(leaf, lambda index, leaf=leaf: self.held[leaf].load(self.at))

    def _loop(self, loop: RowLoop, row: Index) -> None:
        initial = [self.initial(reduce) for reduce, _ in loop.reduces]
        if initial:
            self._along(row, lambda row: self._start(loop, initial))
        last = loop.sizes[-1] if loop.sizes else 1
        whole = last // _TOGETHER * _TOGETHER if initial and not loop.roots else 0

        def columns(before: Index, carried: list[Register]) -> list[Register]:
            if whole:
                with self.b.for_loop(i64(0), i64(whole), _TOGETHER, unroll=False) as first:
                    self._columns(loop, row, before, first, _TOGETHER)
            with self.b.for_loop(i64(whole), i64(last), unroll=False) as first:
                self._columns(loop, row, before, first, 1)
            return carried

        self.k.reduce_loop(loop.sizes[:-1], [], columns)
        for reduce, _ in loop.reduces:
            for number, (leaf, _) in enumerate(reduce.shape.leaves()):
                self.k.body.bind((reduce, leaf), partial(self._total, reduce, number))

    def _start(self, loop: RowLoop, initial: Values) -> None:
        for (reduce, _), values in zip(loop.reduces, initial, strict=True):
            self.running[reduce].put(self.at, values)

    def _columns(self, loop: RowLoop, row: Index, before: Index, first: Value, count: int) -> None:
        """Folds some columns into the running values of all rows, and stores those of the roots."""
        tail = [self.b.add(first, i64(number)) for number in range(count)]
        columns = [(*before, number) for number in tail] if loop.sizes else [()]

        def one(row: Index) -> None:
            for reduce, place in loop.reduces:
                groups = [self.folded(reduce, place, row, column) for column in columns]
                self.running[reduce].fold(self.at, groups)
            for column in columns:
                self.store_roots(loop, [(row, column)])

        self._along(row, one)

    def _total(self, reduce: Instruction, number: int, index: Index) -> Register:
        row = self.running[reduce]
        return row.reducer.narrow(self.b, row.get(self.at))[number]


def _reducer(reduce: Instruction) -> Reducer:
    """How a row's reduce folds: loosely the greatest one of a softmax, whose powers tell of NaNs."""
    reducer = reducer_of(reduce)
    return replace(reducer, numbers=True) if reducer.sums[0].is_float and tells_nans_by_powers(reduce) else reducer


def _given(value: Register, index: Index) -> Register:
    return value
