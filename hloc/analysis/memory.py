"""How much temporary memory a module needs in the order in which its instructions stand.

Temporary is what no caller gave: not the arguments, constants and results. A loop's state lies in the loop's
result; what its body only passes on stays where it is. Memory that kernels need for themselves is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hloc.analysis.layouts import moves_nothing
from hloc.analysis.liveness import OWN, Chain, Flow, FlowStep, chains_of, peak
from hloc.analysis.sharing import UPDATES, based_on, in_place_update, root_leaves, shared_pairs
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.ir.opcodes import CALLS

Path = tuple[int, ...]

ARGUMENT, CONSTANT, MADE = "argument", "constant", "made"

RENAMING = ("bitcast", "opt-barrier", "add-dependency", "domain", "async-update")
"""Ops whose result is their first operand, maybe under another shape."""


class HloValue:
    """An array that an instruction makes: its leaf at `path`."""

    __slots__ = ("instruction", "path", "kind", "bytes", "defined", "last_use")

    def __init__(self, instruction: Instruction, path: Path, kind: str, size: int):
        self.instruction = instruction
        self.path = path
        self.kind = kind
        self.bytes = size
        self.defined = -1
        self.last_use = -1


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
    run = reached(module)
    bodies = {i.attributes["body"] for c in run for i in c if i.opcode == "while"}
    conditions = {i.attributes["condition"] for c in run for i in c if i.opcode == "while"}
    for computation in run:
        is_read_only = computation is module.entry or computation in conditions
        plans[computation] = plan_of(computation, plans, computation in bodies, is_read_only)
    return plans


def plan_of(
    computation: Computation, plans: dict[Computation, ComputationMemory], is_body: bool, is_read_only: bool
) -> ComputationMemory:
    """The plan of one computation; `plans` has those of its callees.

    A loop's body leaves its results where its arguments were. Others may write over their arguments unless
    these are read only.
    """
    flow = _FlowOf(computation, plans, is_body, is_read_only)
    called = [max((plans[c].peak for c in callees(i)), default=0) for i in flow.instructions]
    chains = chains_of(flow.flow)
    distinct = list(dict.fromkeys(chains.values()))
    most, where = peak(distinct, called)
    copies = list(_owed(flow, chains))
    return ComputationMemory(flow.instructions, distinct, called, most, where, copies, _rewritten(flow, chains))


class Rewritten(NamedTuple):
    """An argument leaf that becomes a result leaf where it lies, or (`result` None) is only written over.

    `is_cheap` says that the first op to write there could as well have written elsewhere.
    """

    parameter: int
    path: Path
    result: Path | None
    is_cheap: bool


def _rewritten(flow: _FlowOf, chains: dict[HloValue, Chain]) -> list[Rewritten]:
    found = []
    results = {value: path for path, value in flow.leaves[flow.computation.root].items()}
    for chain in dict.fromkeys(chains.values()):
        given, after = chain.values[0], results.get(chain.tail)
        if chain.slot == OWN and (len(chain.values) > 1 or after is not None):
            is_cheap = len(chain.values) > 1 and not _copies_first(chain.values[1])
            found.append(Rewritten(given.instruction.attributes["number"], given.path, after, is_cheap))
    return found


def reached(module: Module) -> list[Computation]:
    """The entry and the computations that it runs as control flow, callees first."""
    order = call_order(module.entry)
    run = {module.entry}
    for computation in reversed(order):
        if computation in run:
            run.update(callee for instruction in computation for callee in callees(instruction))
    return [computation for computation in order if computation in run]


def callees(instruction: Instruction) -> list[Computation]:
    """The computations that an instruction runs as control flow: each instruction of theirs is a step."""
    if instruction.opcode == "fusion" or not instruction.op.has(CALLS):
        return []
    return instruction.called


def passed_on(body: Computation) -> set[Path]:
    """The leaves of a loop's state that its body passes on unchanged."""
    found = set()
    for path, _ in body.parameters[0].shape.leaves():
        node, at = body.root, path
        while at and node.opcode == "tuple" or node.opcode == "get-tuple-element":
            if node.opcode == "tuple":
                node, at = node.operands[at[0]], at[1:]
            else:
                node, at = node.operands[0], (node.attributes["index"], *at)
        if node.opcode == "parameter" and at == path:
            found.add(path)
    return found


class _FlowOf:
    """The flow of a computation, as its text has it."""

    def __init__(
        self,
        computation: Computation,
        plans: dict[Computation, ComputationMemory],
        is_body: bool,
        is_read_only: bool,
    ):
        self.computation = computation
        self.plans = plans
        self.instructions: list[Instruction] = []
        self.leaves: dict[Instruction, dict[Path, HloValue]] = {}
        self.steps: list[FlowStep] = []
        arguments: list[HloValue] = []
        for parameter in computation.parameters:
            self.leaves[parameter] = _new(parameter, ARGUMENT)
            arguments += self.leaves[parameter].values()
        for instruction in computation:
            if instruction.opcode != "parameter":
                self._add(instruction)
        results = list(self.leaves[computation.root].values())
        slots: list[int | None] = [None if is_read_only else OWN] * len(arguments)
        if is_body:
            slots = list(range(len(arguments)))
        self.flow = Flow(arguments, self.steps, results, slots)

    def _add(self, instruction: Instruction) -> None:
        opcode, operands, leaves = instruction.opcode, instruction.operands, self.leaves
        if opcode == "constant":
            leaves[instruction] = _new(instruction, CONSTANT)
        elif opcode == "tuple":
            parts = enumerate(operands)
            leaves[instruction] = {(n, *p): v for n, o in parts for p, v in leaves[o].items()}
        elif opcode == "get-tuple-element":
            leaves[instruction] = self._under(operands[0], (instruction.attributes["index"],))
        elif opcode in RENAMING or is_unmoved(instruction):
            leaves[instruction] = leaves[operands[0]]
        elif opcode == "after-all":
            leaves[instruction] = {}
        elif opcode == "async-done":
            leaves[instruction] = self._under(operands[0], (1,))
        elif opcode == "copy-done":
            leaves[instruction] = self._under(operands[0], (0,))
        elif opcode.endswith("-done") and instruction.shape.is_array:
            leaves[instruction] = {(): list(leaves[operands[0]].values())[-1]}
        else:
            self._step(instruction)

    def _under(self, instruction: Instruction, prefix: Path) -> dict[Path, HloValue]:
        length = len(prefix)
        return {p[length:]: v for p, v in self.leaves[instruction].items() if p[:length] == prefix}

    def _step(self, instruction: Instruction) -> None:
        made = _new(instruction, MADE)
        for path in self._given_on(instruction, made):
            del made[path]
        inputs: list[HloValue] = []
        place: dict[tuple[int, Path], int] = {}
        for number, operand in enumerate(instruction.operands):
            for path, value in self.leaves[operand].items():
                place[number, path] = len(inputs)
                inputs.append(value)
        outputs = {path: number for number, path in enumerate(made)}
        pairs = [
            (place[number, before], outputs[after])
            for number, before, after in self._pairs(instruction)
            if (number, before) in place and after in outputs
        ]
        self.instructions.append(instruction)
        self.steps.append(FlowStep(inputs, list(made.values()), pairs))
        passed = self._passed_values(instruction)
        order = [path for path, leaf in instruction.shape.leaves() if leaf.is_array]
        self.leaves[instruction] = {path: made[path] if path in made else passed[path] for path in order}

    def _pairs(self, instruction: Instruction) -> list[tuple[int, Path, Path]]:
        if instruction.opcode == "while":
            return [(0, path, path) for path, _ in instruction.shape.leaves()]
        if callees(instruction):
            return self._pairs_of_call(instruction)
        return shared_pairs(instruction)

    def _pairs_of_call(self, instruction: Instruction) -> list[tuple[int, Path, Path]]:
        """The operands that callees turn into results where they lie."""
        pairs = []
        for place, callee in enumerate(instruction.called):
            first = 1 + place if instruction.opcode == "conditional" else 0
            for given in self.plans[callee].rewritten:
                if given.result is not None:
                    pairs.append((first + given.parameter, given.path, given.result))
        return pairs

    def _given_on(self, instruction: Instruction, made: dict[Path, HloValue]) -> list[Path]:
        return [path for path in self._passed_values(instruction) if path in made]

    def _passed_values(self, instruction: Instruction) -> dict[Path, HloValue]:
        """The leaves of a result that are leaves of an operand where they lie."""
        if instruction.opcode == "while":
            before = self.leaves[instruction.operands[0]]
            return {path: before[path] for path in before if path in passed_on(instruction.attributes["body"])}
        if instruction.opcode == "async-start":
            parts = enumerate(instruction.operands)
            return {(0, n, *p): v for n, o in parts for p, v in self.leaves[o].items()}
        if instruction.opcode == "copy-start":
            return {(1,): self.leaves[instruction.operands[0]][()]}
        return {}


def is_unmoved(instruction: Instruction) -> bool:
    """Whether an instruction is a reshape or transpose of an array as it lies."""
    return instruction.opcode in ("reshape", "transpose") and moves_nothing(instruction)


def _new(instruction: Instruction, kind: str) -> dict[Path, HloValue]:
    return {
        path: HloValue(instruction, path, kind, leaf.byte_size)
        for path, leaf in instruction.shape.leaves()
        if leaf.is_array
    }


def _owed(flow: _FlowOf, chains: dict[HloValue, Chain]) -> Iterator[OwedCopy]:
    """The copies that follow from the plan: values that have to be in two places."""
    for instruction, step in zip(flow.instructions, flow.steps, strict=True):
        for value in step.outputs:
            if chains[value].values[0] is value and (reason := _reason(instruction, value, flow.plans)):
                yield OwedCopy(instruction, value.bytes, reason)
    seen: set[HloValue] = set()
    for number, value in enumerate(flow.flow.results):
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
    instruction: Instruction, value: HloValue, plans: dict[Computation, ComputationMemory]
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
