"""Folds over large index spaces, spread over threads.

A space has `kept` dimensions, which count the results, and `folded` ones. Where elements that are neighbours in memory
belong to one result ("along"), neighbouring threads fold parts of one result and merge them by shuffles, and through
shared memory if there are several warps. Where they belong to different results ("across"), a thread folds some
neighbouring results, and the threads of a block that have others of their elements merge them in shared memory. If
there are too few results to keep a device busy, blocks fold parts of them, which go to scratch; a second launch folds
these. The order is always the same, and that of the elements for all but known (commutative) operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.fold_plan import FoldSpace, Geometry, across, along
from hloc.codegen.gpu.intrinsics import WARP
from hloc.codegen.gpu.pieces import neighbours, without_divisions
from hloc.codegen.gpu.running import Running, Slots, running_types
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value
from hloc.codegen.loops import Flat, linear, row_major_strides
from hloc.codegen.reducers import Reducer
from hloc.codegen.routines import i64, least
from hloc.ir.shapes import ArrayShape
from hloc.records import NamedTuple


def loaded_size(g: GpuStep, shape: ArrayShape) -> int:
    """The size of the elements loaded for those of an array: that of the widest input that is as large."""
    sizes = [view.shape.dtype.itemsize for view in g.step.inputs if view.shape.count >= shape.count]
    return max(sizes, default=shape.dtype.itemsize)


class Fold(NamedTuple):
    """How elements are had, and what is done with results, in one kernel.

    `elements(kept, folded)` gives an element widened, reducer by reducer, or running values if it `is_running`.
    `finish(kept, totals)` takes the running values of all elements of a result, in one thread. `visit`, if there is
    one, takes the indices of some elements after they were read, each once.
    """

    elements: Callable[[Index, Index], Any]
    finish: Callable[[Index, list[Value]], None]
    is_running: bool = False
    visit: Callable[[list[tuple[Index, Index]]], None] | None = None


Prepare = Callable[[GpuContext, Running], Fold]
"""Gives the Fold of a kernel that is begun."""


def fold(
    g: GpuStep, space: FoldSpace, reducers: Sequence[Reducer], prepare: Prepare, itemsize: int, scratch: int = 0
) -> None:
    """The launches of a fold; `itemsize` is the size of what is loaded, `scratch` where parts may be put."""
    if not space.results:
        return
    if not space.terms:
        fold_once(g, FoldSpace(space.kept, (), space.results), reducers, _of_nothing(prepare), 4)
        return
    if space.parts == 1:
        fold_once(g, space, reducers, prepare, itemsize)
        return

    def slots(running: Running) -> Slots:
        return Slots.scratch(running, space.parts * space.results, scratch)

    def place(k: GpuContext, kept: Index, part: Value) -> Value:
        result = linear(k.b, kept, space.kept, row_major_strides(space.kept))
        if space.lanes == 1:
            return k.b.add(k.b.mul(result, i64(space.parts)), part)
        return k.b.add(k.b.mul(part, i64(space.results)), result)

    def first(k: GpuContext, running: Running) -> Fold:
        part = k.block_index("y")

        def put(kept: Index, totals: list[Value]) -> None:
            slots(running).put(place(k, kept, part), totals)

        return prepare(k, running)._replace(finish=put)

    def second(k: GpuContext, running: Running) -> Fold:
        parts = slots(running)
        return Fold(lambda kept, folded: parts.get(place(k, kept, folded[0])), prepare(k, running).finish, True)

    fold_once(g, space, reducers, first, itemsize, space.parts, "parts")
    fold_once(g, space.second(), reducers, second, 4, name="whole")


def _of_nothing(prepare: Prepare) -> Prepare:
    def prepared(k: GpuContext, running: Running) -> Fold:
        return Fold(lambda kept, folded: running.nothing(), prepare(k, running).finish, True)

    return prepared


def fold_once(
    g: GpuStep,
    space: FoldSpace,
    reducers: Sequence[Reducer],
    prepare: Prepare,
    itemsize: int,
    parts: int = 1,
    name: str = "",
) -> None:
    """One launch of a fold; with several `parts`, block y of the grid folds part y of each result."""
    size = len(g.step.instruction.called[0]) if g.is_fused else 1
    types = running_types(reducers)
    in_order = not all(reducer.operation for reducer in reducers)
    plan = (along if space.lanes == 1 else across)(space, types, itemsize, size, parts, in_order)

    def write(by_dimension: bool) -> list[Flat]:
        with g.launch(plan.grid, plan.threads, plan.shared_bytes(types), name=name) as k:
            running = Running(k, reducers)
            writer = _Writer(k, space, plan, running, prepare(k, running), by_dimension)
            writer.write()
        return writer.flats

    without_divisions(g, write)


class _Writer:
    """Writes one kernel."""

    def __init__(
        self, k: GpuContext, space: FoldSpace, plan: Geometry, running: Running, job: Fold, by_dimension: bool
    ):
        self.k, self.b, self.space, self.plan, self.running, self.job = k, k.b, space, plan, running, job
        self.by_dimension = by_dimension
        self.flats: list[Flat] = []
        self.exists: Value | None = None

    def write(self) -> None:
        if self.plan.is_along:
            self._write_along()
        else:
            self._write_across()

    # Neighbours in memory of one result

    def _write_along(self) -> None:
        b, plan, space = self.b, self.plan, self.space
        thread, result = self.k.thread_index(), self.k.block_index()
        if plan.groups > 1:
            shift = i64(plan.folders.bit_length() - 1)
            result = b.add(b.mul(result, i64(plan.groups)), b.lshr(thread, shift))
            thread = b.and_(thread, i64(plan.folders - 1))
        exists = b.icmp_unsigned("<", result, i64(space.results))
        if plan.blocks * plan.groups > space.results:
            result, self.exists = b.select(exists, result, i64(space.results - 1)), exists
        kept = tuple(Flat(b, result, space.kept).parts()) if space.kept else ()
        pieces, tail = divmod(space.terms, plan.width)
        (totals,) = self._fold_pieces([kept], pieces, thread, self._terms_at)
        if tail:
            totals = self._with_tail(kept, totals, thread, pieces * plan.width)
        totals = self._merged(totals)
        is_first = b.icmp_unsigned("==", thread, i64(0))
        with b.if_then(b.and_(is_first, exists)):
            self.job.finish(kept, totals)

    def _terms_at(self, piece: Value) -> list[Index]:
        """The folded indices of a piece."""
        found, flats = neighbours(self.b, piece, self.plan.width, self.space.folded, self.by_dimension)
        self.flats += flats
        return found

    def _with_tail(self, kept: Index, totals: list[Value], thread: Value, first: int) -> list[Value]:
        """What is left after whole pieces: the last thread's."""
        b = self.b
        is_last = b.icmp_unsigned("==", thread, i64(self.plan.folders - 1))
        if self.plan.parts > 1:
            is_last = b.and_(is_last, b.icmp_unsigned("==", self.k.block_index("y"), i64(self.plan.parts - 1)))

        def with_rest() -> list[Value]:
            found = totals
            for position in range(first, self.space.terms):
                folded = tuple(Flat(b, i64(position), self.space.folded[0]).parts())
                found = self.running.merge(found, self._element(kept, folded))
                self._visit([(kept, folded)])
            return found

        return b.if_else(is_last, with_rest, lambda: totals)

    def _merged(self, totals: list[Value]) -> list[Value]:
        plan = self.plan
        if plan.folders <= WARP:
            return self.running.across_lanes(totals, plan.folders)
        return self.running.across_block(totals, plan.folders, Slots.shared(self.running, plan.places))

    # Neighbours in memory of different results

    def _write_across(self) -> None:
        b, plan, space = self.b, self.plan, self.space
        thread = self.k.thread_index()
        group = b.and_(thread, i64(plan.groups - 1))
        folder = b.lshr(thread, i64(plan.groups.bit_length() - 1))
        pieces = space.results // plan.width
        piece = b.add(b.mul(self.k.block_index(), i64(plan.groups)), group)
        exists = b.icmp_unsigned("<", piece, i64(pieces))
        if plan.blocks * plan.groups > pieces:
            piece, self.exists = b.select(exists, piece, i64(pieces - 1)), exists
        kept, flats = neighbours(b, piece, plan.width, self._kept_runs(), self.by_dimension)
        self.flats += flats
        totals = self._fold_pieces(kept, space.terms, folder, self._term_at)
        if plan.folders == 1:
            with b.if_then(exists):
                for index, values in zip(kept, totals, strict=True):
                    self.job.finish(index, values)
            return
        self._merge_folders(totals, thread, group, folder)

    def _kept_runs(self) -> list[tuple[int, ...]]:
        """The kept dimensions, those of the lanes apart."""
        kept, first, lanes = self.space.kept, len(self.space.kept), 1
        while lanes < self.space.lanes:
            first -= 1
            lanes *= kept[first]
        return [kept[:first], kept[first:]]

    def _term_at(self, position: Value) -> list[Index]:
        found, flats = neighbours(self.b, position, 1, self.space.folded, False)
        self.flats += flats if len(self.space.folded) == 1 else []
        return found

    def _merge_folders(self, totals: list[list[Value]], thread: Value, group: Value, folder: Value) -> None:
        """What the folders of a block have of each of its results, merged in order by a thread a result."""
        b, plan = self.b, self.plan
        results = plan.groups * plan.width
        slots = Slots.shared(self.running, plan.places)
        first = b.add(b.mul(folder, i64(results)), b.mul(group, i64(plan.width)))
        for number, values in enumerate(totals):
            slots.put(b.add(first, i64(number)), values)
        self.k.gpu.barrier()
        result = b.add(b.mul(self.k.block_index(), i64(results)), thread)
        mine = b.icmp_unsigned("<", thread, i64(results))
        with b.if_then(b.and_(mine, b.icmp_unsigned("<", result, i64(self.space.results)))):
            values = slots.get(thread)
            for number in range(1, plan.folders):
                values = self.running.merge(values, slots.get(b.add(thread, i64(number * results))))
            self.job.finish(tuple(Flat(b, result, self.space.kept).parts()) if self.space.kept else (), values)

    # A thread's own

    def _element(self, kept: Index, folded: Index) -> list[Value]:
        values = self.job.elements(kept, folded)
        return values if self.job.is_running else self.running.single(values)

    def _visit(self, at: list[tuple[Index, Index]]) -> None:
        if self.job.visit is None:
            return
        if self.exists is None:
            self.job.visit(at)
            return
        with self.b.if_then(self.exists):
            self.job.visit(at)

    def _fold_pieces(
        self, kept: Sequence[Index], pieces: int, folder: Value, terms: Callable[[Value], list[Index]]
    ) -> list[list[Value]]:
        """What a thread folds of the pieces of its part, for each of some results.

        The folders of a result take turns, or, if the order matters, each takes neighbouring pieces.
        """
        b, plan = self.b, self.plan
        first, count = self._part(pieces)
        if self.running.is_commutative:
            start, step = b.add(first, folder), plan.folders
            behind = b.sub(b.add(count, i64(plan.folders - 1)), folder)
            own = b.lshr(behind, i64(plan.folders.bit_length() - 1))
        else:
            each = b.udiv(b.add(count, i64(plan.folders - 1)), i64(plan.folders))
            begin = b.mul(folder, each)
            start, step = b.add(first, begin), 1
            own = least(b, each, b.sub(count, least(b, begin, count)))
        if plan.parts == 1 and pieces % plan.folders == 0:
            own = i64(pieces // plan.folders)
        return self._loops(kept, start, step, own, terms)

    def _part(self, pieces: int) -> tuple[Value, Value]:
        """The first piece of the block's part, and their number."""
        if self.plan.parts == 1:
            return i64(0), i64(pieces)
        b, each = self.b, -(-pieces // self.plan.parts)
        first = least(b, b.mul(self.k.block_index("y"), i64(each)), i64(pieces))
        return first, least(b, i64(each), b.sub(i64(pieces), first))

    def _loops(
        self, kept: Sequence[Index], start: Value, step: int, own: Value, terms: Callable[[Value], list[Index]]
    ) -> list[list[Value]]:
        """Several pieces at a time, then one by one. Each result has a few running values, merged at the end."""
        b, together, running = self.b, self.plan.together, self.running
        several = min(4, self.plan.width) if self.plan.is_along and running.is_commutative else 1
        size = len(running.types)

        def pieces_at(number: Value, count: int, flat: list[Value]) -> list[Value]:
            indices = [
                index
                for offset in range(count)
                for index in terms(b.add(start, b.mul(b.add(number, i64(offset)), i64(step))))
            ]
            found = [[self._element(at, index) for index in indices] for at in kept]
            self._visit([(at, index) for index in indices for at in kept])
            sums = [flat[at : at + size] for at in range(0, len(flat), size)]
            for result, elements in enumerate(found):
                for position, element in enumerate(elements):
                    place = result * several + position % several
                    sums[place] = running.merge(sums[place], element)
            return [value for values in sums for value in values]

        flat = running.nothing() * (several * len(kept))
        whole = b.mul(b.udiv(own, i64(together)), i64(together))
        if together > 1:
            flat = b.for_loop_carrying(
                i64(0), whole, flat, lambda i, values: pieces_at(i, together, values), together, unroll=False
            )
        else:
            whole = i64(0)
        flat = b.for_loop_carrying(whole, own, flat, lambda i, values: pieces_at(i, 1, values), unroll=False)
        results = []
        for first in range(0, len(flat), several * size):
            total = flat[first : first + size]
            for at in range(first + size, first + several * size, size):
                total = running.merge(total, flat[at : at + size])
            results.append(total)
        return results


