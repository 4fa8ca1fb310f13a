"""Which values share which memory.

Values that one step may turn into each other in place form a chain; a chain lies in one buffer: a result's
memory, if it ends as a result, or a piece of the arena, which other chains reuse when it is dead. In a loop's
body the arguments' memory is the results' memory: a result may be written there only when the argument is no
longer needed, otherwise it is made elsewhere and copied at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

from hloc.analysis.liveness import Chain, Flow, FlowStep, chains_of
from hloc.codegen.arena import Need, aligned, pack
from hloc.codegen.guarded_arena import GuardedArena, pack_guarded
from hloc.codegen.schedule import Schedule
from hloc.codegen.values import ARGUMENT, SMALL_BYTES, CallStep, Value, View
from hloc.records import NamedTuple

ARENA, RESULT, STACK = "arena", "result", "stack"

LONG = 500
"""Steps of a computation from which on LLVM is spared: its passes take more than linear time."""


class Place(NamedTuple):
    """Where a value lies: argument, result or stack slot `number`, or at offset `number` of the arena."""

    kind: str
    number: int


class Buffers:
    """The plan of one computation.

    `places` of all values but constants, `chains` of those that steps make; `scratch` the arena offset of each
    step's temporary memory; `stack_slots` of SMALL_BYTES each;
    `copies` (view, result number, arena offset or None) to be done at the end: those with an offset pass
    through the arena, since their source is overwritten by another copy.
    """

    def __init__(self) -> None:
        self.places: dict[Value, Place] = {}
        self.chains: dict[Value, Chain] = {}
        self.scratch: list[int] = []
        self.copies: list[tuple[View, int, int | None]] = []
        self.arena_bytes = 0
        self.stack_slots = 0


def assign(plan: Schedule, temporary: Sequence[int], guard: str = "", stack: bool = True) -> Buffers:
    """Buffers for all values of a computation; `temporary` is the bytes that each step needs for itself.

    `guard` is that of `Options.guard_pages`: then nothing lies on the stack, where no page guards it, nor without
    a `stack`.
    """
    steps = [
        FlowStep(
            [view.value for view in step.inputs],
            [view.value for view in step.outputs],
            step.pairs(),
            isinstance(step, CallStep),
        )
        for step in plan.steps
    ]
    arguments = [view.value for view in plan.arguments]
    flow = Flow(arguments, steps, [view.value for view in plan.results], plan.slots)
    small = (SMALL_BYTES if len(steps) <= LONG and not guard else 0) if stack else -1
    buffers = Buffers()
    chains = buffers.chains = chains_of(flow, small + 1)
    _lay_out(chains, temporary, buffers, small, guard)
    for value, slot in zip(arguments, plan.slots, strict=True):
        if slot is None:
            buffers.places[value] = Place(ARGUMENT, value.number)
    _plan_copies(plan, buffers, guard)
    return buffers


def _lay_out(
    chains: dict[Value, Chain], temporary: Sequence[int], buffers: Buffers, small: int, guard: str
) -> None:
    """Places for all chains and for the steps' temporary memory, in the arena by time of need."""
    needs: list[Need] = []
    places: dict[Chain, Place] = {}
    numbers: dict[Chain, int] = {}
    starting: dict[int, list[Chain]] = {}
    for chain in dict.fromkeys(chains.values()):
        if chain.slot is None:
            starting.setdefault(chain.start, []).append(chain)
    for number, size in enumerate(temporary):
        for chain in starting.get(number, ()):
            if chain.bytes <= small:
                places[chain] = Place(STACK, buffers.stack_slots)
                buffers.stack_slots += 1
            else:
                numbers[chain] = len(needs)
                needs.append(Need(number, chain.end, chain.bytes if guard else aligned(chain.bytes)))
        needs.append(Need(number, number, aligned(size)))
    offsets, buffers.arena_bytes = pack_guarded(needs, guard) if guard else pack(needs)
    placed = set(numbers.values())
    buffers.scratch = [offset for number, offset in enumerate(offsets) if number not in placed]
    places |= {chain: Place(ARENA, offsets[number]) for chain, number in numbers.items()}
    for value, chain in chains.items():
        buffers.places[value] = places[chain] if chain.slot is None else Place(RESULT, chain.slot)


def _plan_copies(plan: Schedule, buffers: Buffers, guard: str) -> None:
    """What has to be copied into the results at the end."""
    missing = [
        (number, view) for number, view in enumerate(plan.results)
        if buffers.places.get(view.value) != Place(RESULT, number)
    ]
    overwritten = {Place(RESULT, number) for number, _ in missing}
    for number, view in missing:
        offset = None
        if buffers.places.get(view.value) in overwritten:
            offset, buffers.arena_bytes = _behind(buffers.arena_bytes, view.value.bytes, guard)
        buffers.copies.append((view, number, offset))


def _behind(used: int, size: int, guard: str) -> tuple[int, int]:
    """An offset for memory behind all that is used, and how much is used then."""
    if not guard:
        return used, used + aligned(size)
    arena = GuardedArena(guard, used)
    return arena.take(0, 0, size), arena.bytes
