"""When values live, and which of them follow each other in one piece of memory.

A Flow says what steps read and make. Values that one step may turn into each other in place form a chain; a
chain lies in one piece of memory from its first value's start to its last value's end. What ends as a result
lies in the result's memory, if that is free for so long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from hloc.records import NamedTuple

Pairs = Sequence[tuple[int, int]]
"""(input, output) numbers of a step that may share memory, if no later step needs the input's value."""


class Value(Protocol):
    """One content of memory. `defined` and `last_use` are set here; -1 stands for what no step makes.

    The number of steps as `last_use` stands for the end.
    """

    bytes: int
    defined: int
    last_use: int


class FlowStep(NamedTuple):
    """What a step reads, what it makes, and which of these may be the same memory.

    A step that `calls` a computation may read there what it makes.
    """

    inputs: list[Value]
    outputs: list[Value]
    pairs: Pairs
    calls: bool = False


OWN = -1
"""The slot of an argument that may be written over, and whose memory is none of the results'."""


class Flow(NamedTuple):
    """The steps of a computation in order.

    `slots` says of each argument which result's memory it lies in: OWN for none, None if it is read only.
    """

    arguments: list[Value]
    steps: list[FlowStep]
    results: list[Value]
    slots: list[int | None]


class Chain:
    """Values that follow each other in one piece of memory.

    `slot` is the result whose memory that is; OWN says that it is an argument's, None that it is nobody's yet.
    """

    __slots__ = ("values", "slot")

    def __init__(self, value: Value, slot: int | None = None):
        self.values = [value]
        self.slot = slot

    @property
    def tail(self) -> Value:
        return self.values[-1]

    @property
    def bytes(self) -> int:
        return self.values[0].bytes

    @property
    def start(self) -> int:
        return self.values[0].defined

    @property
    def end(self) -> int:
        return self.values[-1].last_use


def chains_of(flow: Flow, least_result: int = 0) -> dict[Value, Chain]:
    """The chain of every value that a step makes, and of the arguments where these may be written over.

    Results of fewer than `least_result` bytes do not give their memory to values before them, unless they are
    arguments too; nor do such values lie there that are read again.
    """
    find_lifetimes(flow)
    chains = _chains(flow)
    _give_results(flow, chains, least_result)
    return chains


def find_lifetimes(flow: Flow) -> None:
    """Sets when each value is made and when it is needed for the last time."""
    for number, step in enumerate(flow.steps):
        for value in step.outputs:
            value.defined = number
        for value in step.inputs:
            value.last_use = number
        for value in step.outputs:
            value.last_use = number
    for value in flow.results:
        value.last_use = len(flow.steps)


def _wanted(flow: Flow) -> dict[Value, int]:
    """The result that a value, or what is made of it in place, will be."""
    wanted: dict[Value, int] = {}
    for number, value in enumerate(flow.results):
        wanted.setdefault(value, number)
    for number in reversed(range(len(flow.steps))):
        step = flow.steps[number]
        for i, o in step.pairs:
            before, after = step.inputs[i], step.outputs[o]
            if after in wanted and before.last_use == number:
                wanted.setdefault(before, wanted[after])
    return wanted


def _chains(flow: Flow) -> dict[Value, Chain]:
    wanted = _wanted(flow)
    chains: dict[Value, Chain] = {}
    owners: dict[int, Value] = {}
    for value, slot in zip(flow.arguments, flow.slots, strict=True):
        if slot is not None:
            chains[value] = Chain(value, slot)
            owners[slot] = value
    for step in flow.steps:
        for output, value in enumerate(step.outputs):
            inputs = [i for i, o in step.pairs if o == output]
            goal = wanted.get(value)
            found = _continued(step, inputs, value, chains)
            fitting = (chain for chain in found if _suits(chain, goal, chains.get(owners.get(goal))))
            chain = next(fitting, None)
            if chain is None:
                chain = Chain(value)
            else:
                chain.values.append(value)
            chains[value] = chain
    return chains


def _suits(chain: Chain, goal: int | None, owner: Chain | None) -> bool:
    """Whether a chain may go on to the result `goal`, in whose memory lies what `owner` holds."""
    if chain.slot is None:
        return owner is None or chain.start > owner.end
    return goal is not None if chain.slot == OWN else goal in (None, chain.slot)


def _continued(step: FlowStep, inputs: list[int], after: Value, chains: dict[Value, Chain]) -> Iterator[Chain]:
    """Chains that `after` may continue: it may be written over their ends, which nothing else needs then."""
    for before in [step.inputs[i] for i in inputs]:
        chain = chains.get(before)
        if chain is None or chain.tail is not before or before.last_use != after.defined:
            continue
        if before.bytes == after.bytes and all(i in inputs for i, v in enumerate(step.inputs) if v is before):
            yield chain


def _give_results(flow: Flow, chains: dict[Value, Chain], least: int) -> None:
    """Lets chains that end as a result lie in the result's memory, where that is free from their start on."""
    free_from = [-1] * len(flow.results)
    owned = [False] * len(flow.results)
    for value, slot in zip(flow.arguments, flow.slots, strict=True):
        if slot is not None and slot != OWN:
            free_from[slot], owned[slot] = chains[value].end, True
    taken: set[int] = set()
    read = {value for step in flow.steps for value in (*step.inputs, *(step.outputs if step.calls else ()))}
    for number, value in enumerate(flow.results):
        chain = chains.get(value)
        if chain is None or chain.slot is not None or number in taken or chain.start <= free_from[number]:
            continue
        if chain.bytes < least and not owned[number] and not read.isdisjoint(chain.values):
            continue
        chain.slot = number
        taken.add(number)


def peak(chains: Sequence[Chain], extra: Sequence[int]) -> tuple[int, int]:
    """(bytes, step) where chains outside of results, and `extra` bytes of each step, need most together.

    Step -1 stands for no steps at all.
    """
    steps = len(extra)
    change = [0] * (steps + 2)
    for chain in chains:
        if chain.slot is None:
            change[max(0, chain.start)] += chain.bytes
            change[min(chain.end, steps) + 1] -= chain.bytes
    best, live = (0, -1), 0
    for number, more in enumerate(extra):
        live += change[number]
        if live + more > best[0]:
            best = live + more, number
    return best
