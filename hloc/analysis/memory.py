"""How much temporary memory a module needs in the order in which its instructions stand.

Temporary is what no caller gave: not the arguments, constants and results. A loop's state lies in the loop's
result; what its body only passes on stays where it is. Memory that kernels need for themselves is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hloc.analysis.flow import ComputationFlow, HloValue, Rewritten, callees, roles
from hloc.analysis.liveness import OWN, Chain, chains_of, peak
from hloc.analysis.sharing import based_on
from hloc.analysis.updates import UPDATES, in_place_update, root_leaves
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.records import NamedTuple


class OwedCopy(NamedTuple):
    """A copy that has to be made though the text has none: of `bytes`, for `instruction`, because of `reason`."""

    instruction: Instruction
    bytes: int
    reason: str


class ComputationMemory(NamedTuple):
    """The plan of a computation: instructions that run, its chains, the bytes that its callees need, its peak.

    `peak` is in bytes, with the callees', and `peak_step` the number of the step where it is reached.
    `copies` has what has to be copied, `rewritten` the arguments that it writes over or gives on.
    """

    steps: list[Instruction]
    chains: list[Chain]
    called: list[int]
    peak: int
    peak_step: int
    copies: list[OwedCopy]
    rewritten: list[Rewritten]


def memory_of(module: Module) -> dict[Computation, ComputationMemory]:
    """The plans of the entry and of all that it calls as control flow, callees first."""
    plans: dict[Computation, ComputationMemory] = {}
    rewritten: dict[Computation, list[Rewritten]] = {}
    for computation, role in roles(module).items():
        plan = plans[computation] = plan_of(ComputationFlow(computation, role, rewritten), plans)
        rewritten[computation] = plan.rewritten
    return plans


def plan_of(flow: ComputationFlow, plans: Mapping[Computation, ComputationMemory]) -> ComputationMemory:
    """The plan of one computation; `plans` has those of its callees."""
    called = called_bytes(flow.instructions, plans)
    chains = chains_of(flow.in_order())
    distinct = list(dict.fromkeys(chains.values()))
    most, where = peak(distinct, called)
    copies = list(_owed(flow, chains, plans))
    return ComputationMemory(flow.instructions, distinct, called, most, where, copies, _rewritten(flow, chains))


def peak_in_order(
    flow: ComputationFlow, order: Sequence[Instruction], plans: Mapping[Computation, ComputationMemory]
) -> int:
    """The peak in bytes if the instructions ran in another order."""
    chains = chains_of(flow.in_order(order))
    steps = set(flow.instructions)
    return peak(list(dict.fromkeys(chains.values())), called_bytes([i for i in order if i in steps], plans))[0]


def called_bytes(
    instructions: Sequence[Instruction], plans: Mapping[Computation, ComputationMemory]
) -> list[int]:
    """Temporary memory of the computations that each instruction runs."""
    return [max((plans[c].peak for c in callees(i)), default=0) for i in instructions]


def _rewritten(flow: ComputationFlow, chains: dict[HloValue, Chain]) -> list[Rewritten]:
    found = []
    results = {value: path for path, value in flow.leaves[flow.computation.root].items()}
    for chain in dict.fromkeys(chains.values()):
        given, after = chain.values[0], results.get(chain.tail)
        if chain.slot == OWN and (len(chain.values) > 1 or after is not None):
            is_cheap = len(chain.values) > 1 and not _copies_first(chain.values[1])
            found.append(Rewritten(given.instruction.attributes["number"], given.path, after, is_cheap))
    return found


def _owed(
    flow: ComputationFlow, chains: dict[HloValue, Chain], plans: Mapping[Computation, ComputationMemory]
) -> Iterator[OwedCopy]:
    """The copies that follow from the plan: values that have to be in two places."""
    for instruction, step in zip(flow.instructions, flow.steps, strict=True):
        for value in step.outputs:
            if chains[value].values[0] is value and (reason := _reason(instruction, value, plans)):
                yield OwedCopy(instruction, value.bytes, reason)
    seen: set[HloValue] = set()
    for number, value in enumerate(flow.results):
        chain = chains.get(value)
        if chain is None or chain.slot not in (number, OWN) or value in seen:
            yield OwedCopy(value.instruction, value.bytes, "a result has memory of its own")
        seen.add(value)


def _copies_first(value: HloValue) -> bool:
    """Whether what makes a value begins with a copy unless it may write over its operand."""
    opcode = value.instruction.opcode
    if opcode == "fusion":
        leaves = root_leaves(value.instruction.called[0])
        return any(path == value.path and in_place_update(root) is not None for path, root in leaves)
    return opcode == "while" or (opcode in UPDATES and value.path in [p for _, p in based_on(value.instruction)])


def _reason(
    instruction: Instruction, value: HloValue, plans: Mapping[Computation, ComputationMemory]
) -> str | None:
    """Why a value that did not get its operand's memory is a copy to begin with; None if it is not."""
    if instruction.opcode == "while":
        return "the loop changes a value that is needed as it was, or read only"
    if callees(instruction):
        rewritten = [given for callee in callees(instruction) for given in plans[callee].rewritten]
        costs = any(given.result == value.path and not given.is_cheap for given in rewritten)
        return "the callee changes a value that is needed as it was, or read only" if costs else None
    if _copies_first(value):
        return "the array to be changed is needed as it was, or read only"
    return None
