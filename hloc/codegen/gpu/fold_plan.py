"""How threads share a fold over a large index space."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from hloc.codegen.gpu.intrinsics import WARP
from hloc.codegen.gpu.running import running_types, slots_bytes
from hloc.codegen.reducers import Reducer
from hloc.records import record

THREADS = 256
_MOST_THREADS = 1024

BUSY_BLOCKS = 1024
"""Blocks that keep a large device busy."""

BUSY_THREADS = 1 << 16
"""Threads that do so."""

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
            wanted = min(self.terms // _PART, -(-BUSY_BLOCKS // self.results))
        else:
            wanted = min(self.terms // 64, BUSY_BLOCKS // -(-self.results // 128))
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


@record
class Geometry:
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


def along(
    space: FoldSpace, types: Sequence[str], itemsize: int, size: int, parts: int, in_order: bool
) -> Geometry:
    """Neighbours in memory belong to one result.

    If elements are taken in order, a thread's pieces follow each other: it should have few.
    """
    terms, results = space.terms, space.results
    run = prod(space.folded[-1]) if space.folded else 1
    width = _narrowed(space, 16 // itemsize, run, results > 1 or len(space.folded) > 1)
    pieces = -(-terms // width // parts)
    folders = min(power(-(-pieces // 4)), _MOST_THREADS if in_order else THREADS)
    if folders > WARP and pieces <= 16 * WARP and results >= BUSY_THREADS // WARP:
        folders = WARP
    while folders < pieces and results * parts * folders < BUSY_THREADS:
        folders *= 2
    folders = min(folders, _MOST_THREADS if parts == 1 else THREADS)
    groups = max(1, THREADS // folders) if folders <= WARP else 1
    groups = max(min(groups, power(results)), -(-WARP // folders))
    together = 1 if size > _LONG else max(1, min(_TOGETHER // width, 8))
    return Geometry(groups, folders, width, together, -(-results // groups), parts, True)


def across(
    space: FoldSpace, types: Sequence[str], itemsize: int, size: int, parts: int, in_order: bool
) -> Geometry:
    """Neighbours in memory belong to different results."""
    width = _narrowed(space, 16 // itemsize, space.lanes, True)
    terms = -(-space.terms // parts)
    pieces = space.results // width
    groups = min(WARP, power(pieces))
    folders = min(power(-(-terms // 4)), THREADS // groups)
    while folders < terms and folders * groups < _MOST_THREADS and pieces * parts * folders < BUSY_THREADS:
        folders *= 2
    groups = min(max(groups, THREADS // folders), power(pieces))
    if folders > 1:
        width = min(width, folders)
    while width > 1 and folders > 1 and slots_bytes(types, groups * folders * width) > _MOST_SHARED:
        width //= 2
    together = 1 if size > _LONG else max(1, min(_TOGETHER // width, 8))
    return Geometry(groups, folders, width, together, -(-(space.results // width) // groups), parts, False)


def _narrowed(space: FoldSpace, width: int, run: int, has_others: bool) -> int:
    """How many neighbours a thread takes: each piece has to be in one run, and there have to be many pieces."""
    elements = space.terms * space.results
    while width > 1 and ((has_others and run % width) or elements // width < BUSY_THREADS // 4):
        width //= 2
    return width


def power(number: int) -> int:
    """The least power of two that is not below a number."""
    return 1 << max(0, number - 1).bit_length()
