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
from math import prod
from typing import NamedTuple

from hloc.codegen.folds import Values
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.intrinsics import WARP
from hloc.codegen.gpu.running import Running, Slots, running_types, slots_bytes
from hloc.codegen.gpu.pieces import neighbours
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value
from hloc.codegen.loops import Flat, linear, row_major_strides
from hloc.codegen.reducers import Reducer
from hloc.codegen.routines import i64, least
from hloc.ir.shapes import ArrayShape
from hloc.records import record

THREADS = 256
_MOST_THREADS = 1024

_BUSY_BLOCKS = 1024
"""Blocks that keep a large device busy."""

_BUSY_THREADS = 1 << 16

_PART = 8192
"""Elements that a block folds at least before a result is divided among blocks."""

_TOGETHER = 16
"""Elements that a thread loads before it folds them: so many are on their way at a time."""

_LONG = 40
"""Instructions of a fusion beyond which a thread takes one vector at a time."""

_MOST_SHARED = 32 << 10


@record
class FoldSpace:
    """What is folded: sizes of the `kept` dimensions, the major ones first, and of the `folded` ones.

    The folded dimensions come in runs of those that are neighbours in memory; none is of size 1. `lanes` is how many
    neighbours in memory belong to different results: those of the last kept dimensions; 1 if they are folded.
    """

    kept: tuple[int, ...]
    folded: tuple[tuple[int, ...], ...]
    lanes: int

    @property
    def results(self) -> int:
        return prod(self.kept)

    @property
    def terms(self) -> int:
        """Elements a result."""
        return prod(map(prod, self.folded))

    @property
    def parts(self) -> int:
        """Among how many blocks each result is divided."""
        if not self.results:
            return 1
        if self.lanes == 1:
            wanted = min(self.terms // _PART, -(-_BUSY_BLOCKS // self.results))
        else:
            wanted = min(self.terms // 64, _BUSY_BLOCKS // -(-self.results // 128))
        return wanted if wanted > 1 else 1

    def second(self) -> FoldSpace:
        """The fold of the parts."""
        lanes = 1 if self.lanes == 1 else self.results
        return FoldSpace(self.kept, ((self.parts,),), lanes)

    def scratch_bytes(self, reducers: Sequence[Reducer]) -> int:
        """Scratch for the parts."""
        if self.parts == 1:
            return 0
        return slots_bytes(running_types(reducers), self.parts * self.results)


def runs_of(dims: Sequence[int], order: Sequence[int]) -> list[list[int]]:
    """Dimensions in runs of those that follow each other in the `order` of memory."""
    runs: list[list[int]] = []
    for d in dims:
        if runs and order.index(d) == order.index(runs[-1][-1]) + 1:
            runs[-1].append(d)
        else:
            runs.append([d])
    return runs


def loaded_size(g: GpuStep, shape: ArrayShape) -> int:
    """The size of the elements loaded for those of an array: that of the widest input that is as large."""
    sizes = [view.shape.dtype.itemsize for view in g.step.inputs if view.shape.count >= shape.count]
    return max(sizes, default=shape.dtype.itemsize)


class Fold(NamedTuple):
    """How elements are had, and what is done with results, in one kernel.

    `elements(kept, folded)` gives an element widened, reducer by reducer. `finish(kept, totals)` takes the running
    values of all elements of a result, in one thread.
    """

    elements: Callable[[Index, Index], Values]
    finish: Callable[[Index, list[Value]], None]


Prepare = Callable[[GpuContext, Running], Fold]
"""Gives the Fold of a kernel that is begun."""


def fold(
    g: GpuStep, space: FoldSpace, reducers: Sequence[Reducer], prepare: Prepare, itemsize: int, scratch: int = 0
) -> None:
    """The launches of a fold; `itemsize` is the size of what is loaded, `scratch` where parts may be put."""
    if not space.results:
        return
    if not space.terms:
        _write(g, FoldSpace(space.kept, (), space.results), reducers, _of_nothing(prepare), 4)
        return
    if space.parts == 1:
        _write(g, space, reducers, prepare, itemsize)
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

        return Fold(prepare(k, running).elements, put)

    def second(k: GpuContext, running: Running) -> Fold:
        parts = slots(running)
        return Fold(lambda kept, folded: _Given(parts.get(place(k, kept, folded[0]))), prepare(k, running).finish)

    _write(g, space, reducers, first, itemsize, "parts")
    _write(g, space.second(), reducers, second, 4, "whole")


class _Given(list):
    """Running values in the place of an element."""


def _of_nothing(prepare: Prepare) -> Prepare:
    def prepared(k: GpuContext, running: Running) -> Fold:
        return Fold(lambda kept, folded: _Given(running.nothing()), prepare(k, running).finish)

    return prepared


def _write(
    g: GpuStep, space: FoldSpace, reducers: Sequence[Reducer], prepare: Prepare, itemsize: int, name: str = ""
) -> None:
    """One launch; written again if its indices needed divisions in its loops."""
    size = len(g.step.instruction.called[0]) if g.is_fused else 1
    types = running_types(reducers)
    plan = (_along if space.lanes == 1 else _across)(space, types, itemsize, size)
    for by_dimension in (False, True):
        with g.launch(plan.grid, plan.threads, plan.shared_bytes(types), name=name) as k:
            running = Running(k, reducers)
            writer = _Writer(k, space, plan, running, prepare(k, running), by_dimension)
            writer.write()
        if by_dimension or not any(flat.splits for flat in writer.flats):
            return
        g.discard()


@record
class _Geometry:
    """How threads share a fold: `folders` threads of a block fold one result, or `width` neighbours of them.

    A block has `groups` such. `width` elements are neighbours in memory; a thread takes `together` such pieces at a
    time. `parts` blocks share a result.
    """

    groups: int
    folders: int
    width: int
    together: int
    blocks: int
    parts: int
    is_along: bool

    @property
    def threads(self) -> int:
        return self.groups * self.folders

    @property
    def grid(self) -> tuple[int, int, int]:
        return self.blocks, self.parts, 1

    @property
    def places(self) -> int:
        """Running values in shared memory."""
        if self.is_along:
            return self.folders // WARP if self.folders > WARP else 0
        return self.threads * self.width if self.folders > 1 else 0

    def shared_bytes(self, types: Sequence[str]) -> int:
        return slots_bytes(types, self.places)


def _along(space: FoldSpace, types: Sequence[str], itemsize: int, size: int) -> _Geometry:
    """Neighbours in memory belong to one result."""
    terms, results, parts = space.terms, space.results, space.parts
    width = _narrowed(space, 16 // itemsize, prod(space.folded[-1]) if space.folded else 1, results > 1 or len(space.folded) > 1)
    pieces = -(-terms // width // parts)
    folders = _power(-(-pieces // 4))
    if WARP < folders and pieces <= 16 * WARP and results >= _BUSY_THREADS // WARP:
        folders = WARP
    while folders < pieces and results * parts * folders < _BUSY_THREADS:
        folders *= 2
    folders = min(folders, _MOST_THREADS if parts == 1 else THREADS)
    groups = max(1, THREADS // folders) if folders <= WARP else 1
    groups = min(groups, _power(results))
    together = 1 if size > _LONG else max(1, min(_TOGETHER // width, 4))
    return _Geometry(groups, folders, width, together, -(-results // groups), parts, True)


def _across(space: FoldSpace, types: Sequence[str], itemsize: int, size: int) -> _Geometry:
    """Neighbours in memory belong to different results."""
    width = _narrowed(space, 16 // itemsize, space.lanes, True)
    parts = space.parts
    terms = -(-space.terms // parts)
    pieces = space.results // width
    groups = min(WARP, _power(pieces))
    folders = min(_power(-(-terms // 4)), THREADS // groups)
    while folders < terms and folders * groups < _MOST_THREADS and pieces * parts * folders < _BUSY_THREADS:
        folders *= 2
    groups = min(max(groups, THREADS // folders), _power(pieces))
    if folders > 1:
        width = min(width, folders)
    while width > 1 and folders > 1 and slots_bytes(types, groups * folders * width) > _MOST_SHARED:
        width //= 2
    together = 1 if size > _LONG else max(1, min(_TOGETHER // width, 4))
    return _Geometry(groups, folders, width, together, -(-(space.results // width) // groups), parts, False)


def _narrowed(space: FoldSpace, width: int, run: int, has_others: bool) -> int:
    """How many neighbours a thread takes: each piece has to be in one run, and there have to be many pieces."""
    elements = space.terms * space.results
    while width > 1 and ((has_others and run % width) or elements // width < _BUSY_THREADS // 4):
        width //= 2
    return width


def _power(number: int) -> int:
    """The least power of two that is not below a number."""
    return 1 << max(0, number - 1).bit_length()


class _Writer:
    """Writes one kernel."""

    def __init__(
        self, k: GpuContext, space: FoldSpace, plan: _Geometry, running: Running, job: Fold, by_dimension: bool
    ):
        self.k, self.b, self.space, self.plan, self.running, self.job = k, k.b, space, plan, running, job
        self.by_dimension = by_dimension
        self.flats: list[Flat] = []

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
        result = b.select(exists, result, i64(space.results - 1)) if plan.blocks * plan.groups > space.results else result
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
            piece = b.select(exists, piece, i64(pieces - 1))
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
        return values if isinstance(values, _Given) else self.running.single(values)

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



