"""Row kernels: how a fused computation with reduces inside is computed row by row.

A row goes through loops over its columns. A loop computes all reduces that can be had by then, and keeps in a row of
scratch what a later loop wants again and would take longer to compute than to load. Between two loops, values with one
element a row are computed, once. So each input is read from memory once, as long as its row stays in a cache.

Everything is found from the computation itself: see `hloc.analysis.row_space` for when it may be done.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from math import prod

from hloc.analysis.cost import weight
from hloc.analysis.row_space import (
    LEAST_LANES,
    MOST_STRIP_BYTES,
    WHOLE,
    Rows,
    RowSpace,
    column_dims,
    is_row_value,
    memory_order,
    row_space,
    rows_reduced,
    rows_through,
)
from hloc.codegen.bodies import INLINED, Leaf
from hloc.codegen.graphs import are_elements, keeps_index, operands_of, post_order, shape_of
from hloc.codegen.reducers import Reducer
from hloc.codegen.rows import MOST, held_bytes, row_bytes, row_dimensions
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.records import record, replace

KEEP_WORK = 8
"""Work for one element, in units of `cost.weight`, from which on it is kept and not done again."""

_NEAR_BYTES, _NEAR_LANES = 1 << 25, 256
"""Bytes of inputs that stay in the last cache, of which longer pieces are read sooner: strips have so many rows."""

_MOST_KEPT = 1 << 18
"""Bytes of a row that are kept at most: about what the second cache holds beside the inputs."""


@record
class Place:
    """How the dimensions of a value count: `rows`, and `columns` as a loop nests them. Size 1 is left out."""

    rows: Rows
    columns: tuple[int, ...]


@record
class RowLoop:
    """One loop over the columns of a row.

    `sizes` are those of the columns' dimensions, the outermost first. The loop folds the operands of `reduces`, keeps
    values, and stores the roots of the given numbers. The results of all loops of lower levels are there before it.
    """

    level: int
    sizes: tuple[int, ...]
    reduces: tuple[tuple[Instruction, Place], ...]
    roots: tuple[tuple[int, Place], ...]
    kept: tuple[tuple[Leaf, Place], ...] = ()

    @property
    def reducers(self) -> list[Reducer]:
        return [reducer_of(reduce) for reduce, _ in self.reduces]


@record
class RowStages:
    """What is done with a row: at each level first `values`, the leaves with one element a row, then `loops`.

    `rows` are the rows of the values; `row_roots`, level by level, the numbers of the roots among them. If neighbours
    in memory belong to different rows, those of a `strip` are gone through together, its sizes the last ones of the
    rows; `width` of them at a time, if it has one dimension. `held` are the values that later levels and loops want.
    `totals` are reduces of such values over all rows, and `whole_roots` the roots that are made of their results.
    """

    space: RowSpace
    rows: dict[Leaf, Rows]
    loops: tuple[RowLoop, ...]
    values: tuple[tuple[Leaf, ...], ...]
    row_roots: tuple[tuple[int, ...], ...]
    strip: tuple[int, ...] = ()
    width: int = MOST
    held: tuple[Leaf, ...] = ()
    totals: tuple[Instruction, ...] = ()
    whole_roots: tuple[int, ...] = ()

    @property
    def scratch_bytes(self) -> int:
        """Temporary memory for what is kept, or of a strip of rows for running values and what is made of them."""
        if not self.strip:
            return sum(kept_bytes(loop, leaf) for loop in self.loops for leaf, _ in loop.kept)
        lanes = prod(self.strip)
        running = sum(row_bytes(reducer_of(reduce), lanes) for loop in self.loops for reduce, _ in loop.reduces)
        return running + sum(held_bytes(shape_of(leaf).dtype, lanes) for leaf in self.held)


def kept_bytes(loop: RowLoop, leaf: Leaf) -> int:
    """Scratch for a row of a kept value, in whole cache lines."""
    return -(-shape_of(leaf).dtype.itemsize * prod(loop.sizes) // 64) * 64


def inputs_of(reduce: Instruction) -> list[Leaf]:
    """The arrays that a reduce folds."""
    return operands_of((reduce, ()))[: len(reduce.operands) // 2]


def reducer_of(reduce: Instruction) -> Reducer:
    """How a reduce folds."""
    return Reducer.of_reduce(reduce)


def loop_works(stages: RowStages, roots: Sequence[Leaf]) -> list[float]:
    """Work of each loop for one column, in units of `cost.weight`, with what loads, folds and stores take."""
    at_hand = {leaf for level in stages.values for leaf in level}
    works = []
    for loop in stages.loops:
        pending = [leaf for reduce, _ in loop.reduces for leaf in inputs_of(reduce)]
        pending += [roots[number] for number, _ in loop.roots]
        work, seen = 2.0 + len(loop.reduces) + 2 * len(loop.roots), set(at_hand)
        while pending:
            leaf = pending.pop()
            if leaf not in seen and leaf[0].opcode not in ("parameter", "constant", "reduce"):
                seen.add(leaf)
                work += weight(leaf[0])
                pending += operands_of(leaf)
        at_hand |= {leaf for leaf, _ in loop.kept}
        works.append(work)
    return works


def row_stages(body: Computation, roots: Sequence[Leaf]) -> RowStages | None:
    """The plan of a fused computation; None if it cannot be computed row by row."""
    order = post_order(roots, ())
    reduces = list(dict.fromkeys(node[0] for node in order if node[0].opcode == "reduce"))
    if not reduces or any(shape_of(node).count == 0 for node in order):
        return None
    space = row_space(reduces[0])
    rows = _all_rows(order, space)
    if rows is None or not _is_evaluable(reduces, roots, len(body)):
        return None
    for root in roots:
        if root not in rows and not _give_rows(root, reduces, rows):
            return None
    return _Planner(order, reduces, roots, space, rows).plan()


def _is_evaluable(reduces: list[Instruction], roots: Sequence[Leaf], size: int) -> bool:
    """Whether all but the reduces can be had element by element."""
    made = {(reduce, leaf) for reduce in reduces for leaf, _ in reduce.shape.leaves()}
    wanted = [operand for reduce in reduces for operand in operands_of((reduce, ()))]
    return are_elements(list(dict.fromkeys([*wanted, *roots])), size, made)


def _all_rows(order: list[Leaf], space: RowSpace) -> dict[Leaf, Rows] | None:
    """The rows of what depends on reduces; None if they get mixed up."""
    known: dict[Leaf, Rows] = {}
    for node in order:
        instruction = node[0]
        given = {n: known[operand] for n, operand in enumerate(operands_of(node)) if operand in known}
        if instruction.opcode == "reduce" and not given:
            own = row_space(instruction)
            if own.count != space.count or (own.lanes == 1) != (space.lanes == 1):
                return None
            given = {0: rows_reduced(instruction)}
        if not given:
            continue
        found = {rows_through(instruction, number, rows) for number, rows in given.items()}
        if len(found) > 1 or None in found:
            return None
        known[node] = found.pop()
        if known[node] == WHOLE and space.lanes != 1:
            return None
    return known


def _give_rows(root: Leaf, reduces: list[Instruction], rows: dict[Leaf, Rows]) -> bool:
    """Lets a root that depends on no reduce go along with one that folds an array of the same dimensions."""
    for reduce in reduces:
        operand = inputs_of(reduce)[0]
        if shape_of(operand).dims == shape_of(root).dims:
            rows[root] = rows.get(operand) or rows_reduced(reduce)
            return True
    return False


class _Planner:
    """Puts the parts of a row's work into loops."""

    def __init__(
        self,
        order: list[Leaf],
        reduces: list[Instruction],
        roots: Sequence[Leaf],
        space: RowSpace,
        rows: dict[Leaf, Rows],
    ):
        whole = {node[0] for node in order if rows.get(node) == WHOLE}
        self.totals = tuple(reduce for reduce in reduces if reduce in whole)
        self.reduces = [reduce for reduce in reduces if reduce not in whole]
        self.roots, self.space, self.rows = roots, space, rows
        self.level: dict[Leaf, int] = {}
        for node in order:
            before = [self.level[operand] for operand in operands_of(node)]
            self.level[node] = max(before, default=0) + (node[0].opcode == "reduce")
        # With one element a row: those that depend on a reduce, and roots.
        self.values = {n: None for n in order if n in rows and is_row_value(shape_of(n), rows[n])}

    def plan(self) -> RowStages:
        row_roots = [number for number, root in enumerate(self.roots) if root in self.values]
        whole_roots = [number for number, root in enumerate(self.roots) if self.rows[root] == WHOLE]
        levels = range(max(self.level.values()) + 1)
        loops = self._with_kept(list(self._loops({*row_roots, *whole_roots})))
        return RowStages(
            self.space,
            self.rows,
            tuple(loops),
            tuple(tuple(value for value in self.values if self.level[value] == level) for level in levels),
            tuple(tuple(n for n in row_roots if self.level[self.roots[n]] == level) for level in levels),
            *self._strip(loops),
            self.totals,
            tuple(whole_roots),
        )

    def _strip(self, loops: list[RowLoop]) -> tuple[tuple[int, ...], int, tuple[Leaf, ...]]:
        """The strip, its width, and the values held for it."""
        if self.space.lanes == 1:
            return (), MOST, ()
        sizes, behind = self.space.sizes, list(range(len(self.space.sizes)))
        while len(behind) > 1 and prod(sizes[d] for d in behind[1:]) >= self.space.lanes:
            del behind[0]
        width = MOST
        if len({loop.level for loop in loops}) > 1:
            shapes = [shape_of(leaf) for leaf in self.level if leaf[0].opcode == "parameter"]
            row = sum(shape.byte_size for shape in shapes if len(shape.dims) > 1) // self.space.count
            least = LEAST_LANES
            if row * self.space.count <= _NEAR_BYTES:
                least = max(least, min(_NEAR_LANES, self.space.lanes))
            width = max(least, min(MOST, MOST_STRIP_BYTES // max(1, row) // LEAST_LANES * LEAST_LANES))
        return tuple(sizes[d] for d in row_dimensions(sizes, behind, width)), width, tuple(self._held())

    def _held(self) -> Iterator[Leaf]:
        """Values with one element a row that are wanted by others than values of the same level."""
        wanted = {operand for node in self.level if node not in self.values for operand in operands_of(node)}
        for node in self.values:
            wanted |= {operand for operand in operands_of(node) if self.level[operand] < self.level[node]}
        made = [value for value in self.values if self.level[value] > 0 and value[0].opcode != "reduce"]
        return (value for value in made if value in wanted)

    def _loops(self, others: set[int]) -> Iterator[RowLoop]:
        """The loops in order, without what they keep; `others` are the roots that no loop stores."""
        found: dict[tuple[int, tuple[int, ...]], tuple[list, list]] = {}

        def enter(level: int, leaf: Leaf, place: Place, kind: int, what: object) -> None:
            sizes = tuple(shape_of(leaf).dims[d] for d in place.columns)
            found.setdefault((level, sizes), ([], []))[kind].append((what, place))

        for reduce in self.reduces:
            level = max(self.level[leaf] for leaf in operands_of((reduce, ())))
            enter(level, inputs_of(reduce)[0], self._place_folded(reduce), 0, reduce)
        for number, root in enumerate(self.roots):
            if number not in others:
                rows = self.rows[root]
                enter(self.level[root], root, Place(rows, tuple(column_dims(shape_of(root), rows))), 1, number)
        for (level, sizes), (reduces, roots) in sorted(found.items(), key=lambda item: item[0][0]):
            yield RowLoop(level, sizes, tuple(reduces), tuple(roots))

    def _place_folded(self, reduce: Instruction) -> Place:
        """The folded dimensions in the order of memory, if the order does not matter."""
        folded, inputs = reduce.get("dimensions"), inputs_of(reduce)
        shape = shape_of(inputs[0])
        order = memory_order(shape) if reducer_of(reduce).operation is not None else range(shape.rank)
        dependent = [self.rows[leaf] for leaf in inputs if self.level[leaf] > 0]
        rows = dependent[0] if dependent else rows_reduced(reduce)
        return Place(rows, tuple(d for d in order if d in folded and shape.dims[d] != 1))

    # What is kept

    def _with_kept(self, loops: list[RowLoop]) -> list[RowLoop]:
        """The loops with what they keep for later ones."""
        first: dict[tuple[Leaf, Place], int] = {}
        kept: dict[tuple[Leaf, Place], int] = {}
        room = _MOST_KEPT if self.space.lanes == 1 else 0
        for number, loop in enumerate(loops):
            pending, seen = self._wanted(loop), set()
            while pending:
                leaf, place = part = pending.pop()
                if part in seen or part in kept or self._is_at_hand(leaf):
                    continue
                seen.add(part)
                earlier = first.setdefault(part, number)
                size = kept_bytes(loop, leaf)
                is_again = earlier < number and loops[earlier].sizes == loop.sizes
                can_be_kept = size <= room and leaf[0].opcode not in INLINED and all(leaf != other for other, _ in kept)
                if is_again and can_be_kept and self._is_worth_keeping(leaf, kept):
                    room -= size
                    kept[part] = earlier
                else:
                    pending += _operands_at(leaf, place)
        return [
            replace(loop, kept=tuple(part for part in kept if kept[part] == number))
            for number, loop in enumerate(loops)
        ]

    def _wanted(self, loop: RowLoop) -> list[tuple[Leaf, Place]]:
        folded = [(leaf, place) for reduce, place in loop.reduces for leaf in inputs_of(reduce)]
        return folded + [(self.roots[number], place) for number, place in loop.roots]

    def _is_at_hand(self, leaf: Leaf) -> bool:
        return leaf in self.values or leaf[0].opcode in ("parameter", "constant", "reduce")

    def _is_worth_keeping(self, leaf: Leaf, kept: Collection[tuple[Leaf, Place]]) -> bool:
        """Whether computing it again takes longer than storing and loading it."""
        work, seen, pending = 0.0, {other for other, _ in kept}, [leaf]
        while pending and work < KEEP_WORK:
            leaf = pending.pop()
            if leaf not in seen and not self._is_at_hand(leaf):
                seen.add(leaf)
                work += weight(leaf[0])
                pending += operands_of(leaf)
        return work >= KEEP_WORK


def _operands_at(leaf: Leaf, place: Place) -> list[tuple[Leaf, Place]]:
    """The operands of which an element is made of the one at the same index, but for dimensions of size 1."""
    operands = operands_of(leaf)
    if leaf[0].opcode != "reshape":
        return [(operand, place) for operand in operands if keeps_index(leaf, operand)]
    after, before = ([d for d, size in enumerate(shape_of(end).dims) if size != 1] for end in (leaf, operands[0]))
    if [shape_of(leaf).dims[d] for d in after] != [shape_of(operands[0]).dims[d] for d in before]:
        return []
    there = dict(zip(after, before, strict=True))
    return [(operands[0], Place(*(tuple(there[d] for d in dims) for dims in (place.rows, place.columns))))]


def in_place(stages: RowStages, roots: Sequence[Leaf], bound: Collection[Leaf]) -> Iterator[tuple[Leaf, int]]:
    """Which inputs an output may lie over: (input, root number).

    A row's elements of the output are stored in one loop over the columns. The input must not be read after it, nor
    from another row, nor at another column in that loop itself.
    """
    reads = _reads(stages, roots, set(bound))
    for number, loop in enumerate(stages.loops):
        for root, place in loop.roots:
            for leaf, found in reads.items():
                if all(at <= number and read == place for at, read in found):
                    yield leaf, root


def _reads(
    stages: RowStages, roots: Sequence[Leaf], bound: set[Leaf]
) -> dict[Leaf, set[tuple[int, Place | None]]]:
    """For each input the loops that read it, and where: None if that is not only at the loop's own index."""
    reads: dict[Leaf, set[tuple[int, Place | None]]] = {}
    late = len(stages.loops)
    pending: list[tuple[Leaf, int, Place | None]] = []
    for number, loop in enumerate(stages.loops):
        for reduce, place in loop.reduces:
            pending += [(leaf, number, place) for leaf in inputs_of(reduce)]
            pending += [(leaf, late, None) for leaf in operands_of((reduce, ()))[len(inputs_of(reduce)) :]]
        pending += [(roots[root], number, place) for root, place in loop.roots]
    pending += [(roots[root], late, None) for level in stages.row_roots for root in level]
    pending += [(roots[root], late, None) for root in stages.whole_roots]
    pending += [(leaf, late, None) for total in stages.totals for leaf in operands_of((total, ()))]
    seen = set()
    while pending:
        part = leaf, number, place = pending.pop()
        if part in seen or leaf[0].opcode == "reduce":
            continue
        seen.add(part)
        if leaf in bound:
            reads.setdefault(leaf, set()).add((number, place))
            continue
        known = {} if place is None else dict(_operands_at(leaf, place))
        pending += [(operand, number, known.get(operand)) for operand in operands_of(leaf)]
    return reads
