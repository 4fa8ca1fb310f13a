"""Which values share which memory.

Values that one step may turn into each other in place form a chain; a chain lies in one buffer: a result's
memory, if it ends as a result, or a piece of the arena, which other chains reuse when it is dead. In a loop's
body the arguments' memory is the results' memory: a result may be written there only when the argument is no
longer needed, otherwise it is made elsewhere and copied at the end.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from hloc.codegen.program import ALIGNMENT
from hloc.codegen.schedule import Schedule
from hloc.codegen.values import ARGUMENT, Step, Value, View

ARENA, RESULT, STACK = "arena", "result", "stack"

SMALL_BYTES = 16
"""Values so small lie on the stack, where LLVM sees all that is done to them and keeps them in registers."""

LONG = 500
"""Steps of a computation from which on LLVM is spared: its passes take more than linear time."""


class Place(NamedTuple):
    """Where a value lies: argument, result or stack slot `number`, or at offset `number` of the arena."""

    kind: str
    number: int


class Buffers:
    """The plan of one computation.

    `places` of all values but constants; `scratch` the arena offset of each step's temporary memory;
    `stack_slots` of SMALL_BYTES each;
    `copies` (view, result number, arena offset or None) to be done at the end: those with an offset pass
    through the arena, since their source is overwritten by another copy.
    """

    def __init__(self) -> None:
        self.places: dict[Value, Place] = {}
        self.scratch: list[int] = []
        self.copies: list[tuple[View, int, int | None]] = []
        self.arena_bytes = 0
        self.stack_slots = 0


class _Chain:
    """Values that follow each other in one buffer; `slot` is the result whose memory that is."""

    __slots__ = ("tail", "start", "bytes", "slot")

    def __init__(self, value: Value):
        self.tail = value
        self.start = value.defined
        self.bytes = value.bytes
        self.slot: int | None = None


def assign(plan: Schedule, temporary: Sequence[int], in_place: bool) -> Buffers:
    """Buffers for all values of a computation.

    `temporary` is the bytes that each step needs beside its inputs and outputs; `in_place` says that argument
    and result `i` are the same memory.
    """
    _find_lifetimes(plan)
    chains = _chains(plan, in_place)
    small = SMALL_BYTES if len(plan.steps) <= LONG else 0
    _give_results(plan, chains, in_place, small)
    buffers = Buffers()
    _lay_out(plan, chains, temporary, buffers, small)
    for view in () if in_place else plan.arguments:
        buffers.places[view.value] = Place(ARGUMENT, view.value.number)
    _plan_copies(plan, buffers)
    return buffers


def _find_lifetimes(plan: Schedule) -> None:
    for number, step in enumerate(plan.steps):
        for view in step.outputs:
            view.value.defined = number
        for view in (*step.inputs, *step.outputs):
            view.value.last_use = number
    for view in plan.results:
        view.value.last_use = len(plan.steps)


def _wanted(plan: Schedule, pairs: list[list[tuple[int, int]]]) -> dict[Value, int]:
    """The result that a value, or what is made of it in place, will be."""
    wanted: dict[Value, int] = {}
    for number, view in enumerate(plan.results):
        wanted.setdefault(view.value, number)
    for number in reversed(range(len(plan.steps))):
        step = plan.steps[number]
        for i, o in pairs[number]:
            before, after = step.inputs[i].value, step.outputs[o].value
            if after in wanted and before.last_use == number:
                wanted.setdefault(before, wanted[after])
    return wanted


def _chains(plan: Schedule, in_place: bool) -> dict[Value, _Chain]:
    """The chain of every value that a step makes, and of the arguments where these may be written over."""
    pairs = [step.pairs() for step in plan.steps]
    wanted = _wanted(plan, pairs)
    chains: dict[Value, _Chain] = {}
    for number, view in enumerate(plan.arguments if in_place else ()):
        chains[view.value] = _Chain(view.value)
        chains[view.value].slot = number
    for number, step in enumerate(plan.steps):
        for output, view in enumerate(step.outputs):
            inputs = [i for i, o in pairs[number] if o == output]
            chain = next(_continued(step, inputs, view.value, chains, wanted), None) or _Chain(view.value)
            chain.tail = view.value
            chains[view.value] = chain
    return chains


def _continued(
    step: Step, inputs: list[int], after: Value, chains: dict[Value, _Chain], wanted: dict[Value, int]
) -> Iterator[_Chain]:
    """Chains that `after` may continue: it may be written over their ends, which nothing else needs then."""
    for before in [step.inputs[i].value for i in inputs]:
        chain = chains.get(before)
        if chain is None or chain.tail is not before or before.last_use != after.defined:
            continue
        if before.bytes != after.bytes:
            continue
        if chain.slot is not None and wanted.get(after, chain.slot) != chain.slot:
            continue
        if all(i in inputs for i, view in enumerate(step.inputs) if view.value is before):
            yield chain


def _give_results(plan: Schedule, chains: dict[Value, _Chain], in_place: bool, small: int) -> None:
    """Lets chains that end as a result lie in the result's memory, where that is free from their start on.

    The results of a loop's body may be on the stack themselves; others are copied from there at the end.
    """
    free_from = [-1] * len(plan.results)
    if in_place:
        free_from = [chains[view.value].tail.last_use for view in plan.arguments]
    taken: set[int] = set()
    for number, view in enumerate(plan.results):
        chain = chains.get(view.value)
        if chain is None or chain.slot is not None or number in taken or chain.start <= free_from[number]:
            continue
        if chain.bytes <= small and not in_place:
            continue
        chain.slot = number
        taken.add(number)


def _lay_out(
    plan: Schedule, chains: dict[Value, _Chain], temporary: Sequence[int], buffers: Buffers, small: int
) -> None:
    """Places for all other chains and for the steps' temporary memory, in the arena by time of need."""
    starting: dict[int, list[_Chain]] = {}
    for value, chain in chains.items():
        if chain.slot is None and chain.start == value.defined:
            starting.setdefault(chain.start, []).append(chain)
    arena = _Arena()
    places: dict[_Chain, Place] = {}
    for number, size in enumerate(temporary):
        for chain in starting.get(number, ()):
            if chain.bytes <= small:
                places[chain] = Place(STACK, buffers.stack_slots)
                buffers.stack_slots += 1
            else:
                places[chain] = Place(ARENA, arena.take(number, chain.tail.last_use, chain.bytes))
        buffers.scratch.append(arena.take(number, number, size))
    for value, chain in chains.items():
        buffers.places[value] = places[chain] if chain.slot is None else Place(RESULT, chain.slot)
    buffers.arena_bytes = arena.bytes


def _plan_copies(plan: Schedule, buffers: Buffers) -> None:
    """What has to be copied into the results at the end."""
    missing = [
        (number, view) for number, view in enumerate(plan.results)
        if buffers.places.get(view.value) != Place(RESULT, number)
    ]
    overwritten = {Place(RESULT, number) for number, _ in missing}
    for number, view in missing:
        offset = None
        if buffers.places.get(view.value) in overwritten:
            offset = buffers.arena_bytes
            buffers.arena_bytes += aligned(view.value.bytes)
        buffers.copies.append((view, number, offset))


def aligned(size: int) -> int:
    """The size rounded up to whole cache lines."""
    return -(-size // ALIGNMENT) * ALIGNMENT


class _Arena:
    """Hands out offsets: the tightest free piece that fits, the lowest of these; else new memory."""

    def __init__(self):
        self.bytes = 0
        self._free: list[tuple[int, int]] = []  # (offset, size), by offset
        self._ends: list[tuple[int, int, int]] = []  # heap of (last use, offset, size)

    def take(self, start: int, last_use: int, size: int) -> int:
        """An offset for memory in use from step `start` to step `last_use`; starts must not decrease."""
        while self._ends and self._ends[0][0] < start:
            _, offset, freed = heappop(self._ends)
            self._release(offset, freed)
        size = aligned(size)
        if size == 0:
            return 0
        offset = self._fit(size)
        heappush(self._ends, (last_use, offset, size))
        return offset

    def _fit(self, size: int) -> int:
        fits = [(free, offset) for offset, free in self._free if free >= size]
        if fits:
            free, offset = min(fits)
            self._free.remove((offset, free))
            if free > size:
                insort(self._free, (offset + size, free - size))
            return offset
        offset = self.bytes
        if self._free and sum(self._free[-1]) == self.bytes:  # grow the free piece at the end
            offset = self._free.pop()[0]
        self.bytes = offset + size
        return offset

    def _release(self, offset: int, size: int) -> None:
        """Joins the piece with the free ones on both sides."""
        at = bisect_left(self._free, (offset, size))
        if at < len(self._free) and self._free[at][0] == offset + size:
            size += self._free.pop(at)[1]
        if at and sum(self._free[at - 1]) == offset:
            before = self._free.pop(at - 1)
            offset, size = before[0], before[1] + size
        insort(self._free, (offset, size))
