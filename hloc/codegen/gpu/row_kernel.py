"""Fused computations that go by rows: a row in one block, or several rows, if they are short.

The threads that share a row take pieces of it, each the same ones in every loop. If there are few, the loops are
written piece by piece: what was loaded and computed for one loop is there, in registers, for the next. Rows too long
for that are gone through by loops; what is kept for later ones is in shared memory. Where rows lie side by side in
memory, or are few and long, see `row_launches`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from hloc.codegen.arrays import ArrayRef
from hloc.codegen.bodies import Leaf
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.fold_plan import THREADS, power
from hloc.codegen.gpu.intrinsics import WARP
from hloc.codegen.gpu.pieces import neighbours, without_divisions
from hloc.codegen.gpu.row_launches import RowLaunches
from hloc.codegen.gpu.running import Running, Slots, running_types, slots_bytes
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.graphs import shape_of
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value
from hloc.codegen.loops import Flat
from hloc.codegen.routines import i64, least
from hloc.codegen.row_kernel import RowParts
from hloc.codegen.row_stages import RowLoop, RowStages, kept_bytes, reducer_of
from hloc.ir.shapes import ArrayShape
from hloc.records import record

_ENOUGH_ROWS, _LONG_ROW = 128, 1 << 14
"""Fewer rows than these are divided among blocks if they are longer than that."""

_IN_REGISTERS = 16
"""Elements of a row that a thread holds at most."""

_LONG = 60
"""Instructions of a fusion beyond which it holds fewer."""

_MOST_SHARED = 96 << 10
"""Bytes of a row that are kept in shared memory: two blocks of such share a multiprocessor."""


@record
class _Plan:
    """`threads` share a row, and a block has `groups` rows. A piece are `width` neighbours.

    `pieces` is how many of them a thread holds in registers, 0 if loops go through them. `in_order` says that a thread
    takes pieces that follow each other.
    """

    threads: int
    groups: int
    width: int
    pieces: int
    in_order: bool


def write_rows(g: GpuStep, stages: RowStages, roots: Sequence[Leaf]) -> None:
    """The launches of a computation whose outputs are `roots`."""
    plan = _plan(g, stages)
    if plan is None:
        RowLaunches(g, stages, roots).write()
        return
    kept, slots, shared = _shared(g, stages, plan)
    launches = RowLaunches(g, stages, roots)

    def write(by_dimension: bool) -> list[Flat]:
        with g.launch(-(-stages.space.count // plan.groups), plan.threads * plan.groups, shared) as k:
            writer = _Writer(k, stages, roots, plan, launches, by_dimension, bool(g.shared))
            writer.place(kept, slots)
            writer.write_row()
        return writer.flats

    without_divisions(g, write)
    if stages.totals:
        launches.fold_totals()


def _plan(g: GpuStep, stages: RowStages) -> _Plan | None:
    """None if a block a row is not the way."""
    rows, sizes = stages.space.count, {loop.sizes for loop in stages.loops}
    if stages.space.lanes != 1 or len(sizes) != 1:
        return None
    columns = prod(*sizes)
    if columns == 1 or (rows < _ENOUGH_ROWS and columns > _LONG_ROW):
        return None
    inputs = [view.shape.dtype.itemsize for view in g.step.inputs if view.shape.count >= rows * columns]
    width = max(1, 16 // max(inputs, default=4))
    while columns % width:
        width //= 2
    pieces = columns // width
    size = len(g.step.instruction.called[0]) if g.is_fused else 1
    most = max(_IN_REGISTERS if size <= _LONG else _IN_REGISTERS // 2, width)
    threads = power(-(-columns // most))
    if threads == 2048:
        threads = 1024
    while threads * rows < 1 << 15 and threads < pieces and threads < THREADS:
        threads *= 2
    in_order = not all(reducer_of(reduce).operation for loop in stages.loops for reduce, _ in loop.reduces)
    held = -(-pieces // threads) * width * (len(inputs) + 1)
    if threads > 1024 or held > (64 if threads == 1024 else 80):
        return _Plan(1024 if columns > 1 << 16 else 512, 1, width, 0, in_order)
    groups = max(1, THREADS // threads) if threads <= WARP else 1
    groups = max(min(groups, power(rows)), -(-WARP // threads))
    return _Plan(threads, groups, width, -(-pieces // threads), in_order)


def _shared(g: GpuStep, stages: RowStages, plan: _Plan) -> tuple[dict[Leaf, int], list[int], int]:
    """Where in shared memory kept values are, if they are, and each loop's running values; and the bytes of all."""
    kept: dict[Leaf, int] = {}
    slots: list[int] = []
    total = 0
    warps = plan.threads // WARP if plan.threads > WARP else 0
    for loop in stages.loops:
        slots.append(total)
        total += slots_bytes(running_types([reducer_of(reduce) for reduce, _ in loop.reduces]), warps)
    for loop in stages.loops if plan.pieces == 0 else ():
        for leaf, _ in loop.kept:
            size = kept_bytes(loop, leaf)
            if total + size <= min(_MOST_SHARED, g.device.shared_bytes):
                kept[leaf] = total
                total += size
    return kept, slots, total


class _Writer(RowParts):
    """Writes the kernel as a thread runs it."""

    def __init__(
        self,
        k: GpuContext,
        stages: RowStages,
        roots: Sequence[Leaf],
        plan: _Plan,
        launches: RowLaunches,
        by_dimension: bool,
        is_in_place: bool,
    ):
        super().__init__(k, stages, roots)
        self.is_in_place = is_in_place
        self.gpu, self.plan, self.launches, self.by_dimension = k.gpu, plan, launches, by_dimension
        self.flats: list[Flat] = []
        self.slots: list[int] = []
        (self.sizes,) = {loop.sizes for loop in stages.loops}
        self.count = prod(self.sizes) // plan.width
        b, self.thread, row = self.b, k.thread_index(), k.block_index()
        if plan.groups > 1:
            shift = i64(plan.threads.bit_length() - 1)
            row = b.add(b.mul(row, i64(plan.groups)), b.lshr(self.thread, shift))
            self.thread = b.and_(self.thread, i64(plan.threads - 1))
        rows = stages.space.count
        self.exists = b.icmp_unsigned("<", row, i64(rows)) if rows % plan.groups else None
        self.number = row if self.exists is None else b.select(self.exists, row, i64(rows - 1))
        self.held = [self._held(number) for number in range(plan.pieces)]

    def place(self, kept: dict[Leaf, int], slots: list[int]) -> None:
        """Says where in shared memory values are kept, and running values are merged."""
        self.slots = slots
        for loop in self.stages.loops:
            for leaf, place in loop.kept:
                if leaf in kept:
                    shape = ArrayShape(shape_of(leaf).dtype, loop.sizes)
                    self.kept[leaf] = ArrayRef(self.b, shape, self.gpu.shared(kept[leaf])), place

    def write_row(self) -> None:
        sizes = self.stages.space.sizes
        self.write(tuple(Flat(self.b, self.number, sizes).parts()) if sizes else ())

    # Pieces

    def _held(self, number: int) -> tuple[list[Index], Value | None]:
        """The columns of a piece that is held in registers, and whether there is such, None if there is always."""
        b, plan = self.b, self.plan
        if plan.in_order:
            piece = b.add(b.mul(self.thread, i64(plan.pieces)), i64(number))
            always = plan.pieces * plan.threads <= self.count
        else:
            piece = b.add(self.thread, i64(number * plan.threads))
            always = (number + 1) * plan.threads <= self.count
        if always:
            return self._columns(piece), None
        exists = b.icmp_unsigned("<", piece, i64(self.count))
        return self._columns(b.select(exists, piece, i64(self.count - 1))), exists

    def _columns(self, piece: Value) -> list[Index]:
        found, flats = neighbours(self.b, piece, self.plan.width, [self.sizes], self.by_dimension)
        self.flats += flats
        return found

    def _own(self) -> tuple[Value, int, Value]:
        """Of pieces that loops go through: the thread's first one, the step to its next, and their number."""
        b, plan = self.b, self.plan
        if plan.in_order:
            each = -(-self.count // plan.threads)
            first = least(b, b.mul(self.thread, i64(each)), i64(self.count))
            return first, 1, least(b, i64(each), b.sub(i64(self.count), first))
        if self.count % plan.threads == 0:
            return self.thread, plan.threads, i64(self.count // plan.threads)
        behind = b.sub(i64(self.count + plan.threads - 1), self.thread)
        return self.thread, plan.threads, b.lshr(behind, i64(plan.threads.bit_length() - 1))

    # What is done with a row

    def _values(self, level: int, row: Index) -> None:
        for leaf in self.stages.values[level]:
            self.value(leaf, row)
        if self.stages.row_roots[level]:
            with self.b.if_then(self._with_row(self.b.icmp_unsigned("==", self.thread, i64(0)))):
                self.store_row_roots(level, row)

    def _with_row(self, condition: Value) -> Value:
        return condition if self.exists is None else self.b.and_(condition, self.exists)

    def _loop(self, loop: RowLoop, row: Index) -> None:
        running = Running(self.k, [reducer_of(reduce) for reduce, _ in loop.reduces])
        totals = self._held_pieces(loop, row, running) if self.plan.pieces else self._loops(loop, row, running)
        if loop.reduces:
            self._merge(loop, row, running, totals)
        self.bind_kept(loop, row)

    def _folded_at(self, loop: RowLoop, row: Index, column: Index, running: Running) -> list[Value]:
        return running.single([self.folded(reduce, place, row, column) for reduce, place in loop.reduces])

    def _held_pieces(self, loop: RowLoop, row: Index, running: Running) -> list[Value]:
        totals = running.nothing()
        if loop.reduces and self.is_in_place:
            for columns, exists in self.held:
                totals = running.merge(totals, self._owned_piece(loop, row, columns, exists, running))
        elif loop.reduces:
            found = [
                [self._folded_at(loop, row, column, running) for column in columns] for columns, _ in self.held
            ]
            for elements, (_, exists) in zip(found, self.held, strict=True):
                piece = self._merged(elements, running)
                if exists is not None:
                    piece = running.choose(exists, piece, running.nothing())
                totals = running.merge(totals, piece)
        for columns, exists in self.held if loop.roots else ():
            is_there = self.exists if exists is None else self._with_row(exists)
            at = [(row, column) for column in columns]
            if is_there is None:
                self.store_roots(loop, at)
            else:
                with self.b.if_then(is_there):
                    self.store_roots(loop, at)
        return totals

    def _owned_piece(
        self, loop: RowLoop, row: Index, columns: list[Index], exists: Value | None, running: Running
    ) -> list[Value]:
        """What is folded of a piece. One that is not the thread's is not read: its owner may be writing over it."""

        def own() -> list[Value]:
            return self._merged([self._folded_at(loop, row, column, running) for column in columns], running)

        is_there = self.exists if exists is None else self._with_row(exists)
        return own() if is_there is None else self.b.if_else(is_there, own, running.nothing)

    def _merged(self, elements: list[list[Value]], running: Running) -> list[Value]:
        piece = elements[0]
        for element in elements[1:]:
            piece = running.merge(piece, element)
        return piece

    def _loops(self, loop: RowLoop, row: Index, running: Running) -> list[Value]:
        first, step, own = self._own()

        def piece(number: Value, totals: list[Value]) -> list[Value]:
            columns = self._columns(self.b.add(first, self.b.mul(number, i64(step))))
            at = [(row, column) for column in columns]
            elements = [self._folded_at(loop, row, column, running) for column in columns] if loop.reduces else []
            self.keep(loop, at)
            self.store_roots(loop, at)
            for element in elements:
                totals = running.merge(totals, element)
            return totals

        return self.b.for_loop_carrying(i64(0), own, running.nothing() if loop.reduces else [], piece)

    def _merge(self, loop: RowLoop, row: Index, running: Running, totals: list[Value]) -> None:
        """What all threads of a row have folded; every one of them has the results."""
        plan = self.plan
        if plan.threads <= WARP:
            totals = running.across_lanes(totals, plan.threads)
        else:
            offset = self.slots[self.stages.loops.index(loop)]
            totals = running.across_block(totals, plan.threads, Slots.shared(running, plan.threads // WARP, offset))
        reduces = [reduce for reduce, _ in loop.reduces]
        results = running.finish([self.initial(reduce) for reduce in reduces], totals)
        if self.stages.totals:
            with self.b.if_then(self._with_row(self.b.icmp_unsigned("==", self.thread, i64(0)))):
                self.launches.store_results(self, reduces, row, results)
        self.bind(reduces, results)
