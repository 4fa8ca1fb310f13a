"""What the steps of a computation read and make: its Flow as its text has it, for any order of its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hloc.analysis.liveness import OWN, Flow, FlowStep
from hloc.analysis.passing import RENAMING, Path, is_unmoved, passed_on
from hloc.analysis.sharing import shared_pairs
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.ir.opcodes import CALLS
from hloc.records import NamedTuple

ENTRY, BODY, CALLEE = "entry", "body", "callee"
"""Roles of a computation: the entry may not write over its arguments, nor may a loop's condition; a loop's body
leaves its results where its arguments were; other callees may write over arguments."""


class HloValue:
    """An array: the leaf of an instruction's result at `path`."""

    __slots__ = ("instruction", "path", "bytes", "defined", "last_use")

    def __init__(self, instruction: Instruction, path: Path, size: int):
        self.instruction = instruction
        self.path = path
        self.bytes = size
        self.defined = -1
        self.last_use = -1


class Rewritten(NamedTuple):
    """An argument leaf that becomes a result leaf where it lies, or (`result` None) is only written over.

    `is_cheap` says that the first op to write there could as well have written elsewhere.
    """

    parameter: int
    path: Path
    result: Path | None
    is_cheap: bool


def roles(module: Module) -> dict[Computation, str]:
    """The entry and the computations that it runs as control flow, callees first, with their roles."""
    order = call_order(module.entry)
    found = {module.entry: ENTRY}
    for computation in reversed(order):
        for instruction in computation.call_sites if computation in found else ():
            for callee in callees(instruction):
                is_condition = instruction.opcode == "while" and callee is instruction.attributes["condition"]
                role = ENTRY if is_condition else BODY if instruction.opcode == "while" else CALLEE
                found[callee] = ENTRY if found.get(callee, role) != role else role
    return {computation: found[computation] for computation in order if computation in found}


def callees(instruction: Instruction) -> list[Computation]:
    """The computations that an instruction runs as control flow: each instruction of theirs is a step."""
    if instruction.opcode == "fusion" or not instruction.op.has(CALLS):
        return []
    return instruction.called


class ComputationFlow:
    """The steps of a computation: `instructions` that run, in order, and `steps`, what each reads and makes.

    `leaves` has the values of every instruction's leaves. `rewritten` are those of the callees.
    """

    def __init__(self, computation: Computation, role: str, rewritten: Mapping[Computation, Sequence[Rewritten]]):
        self.computation = computation
        self.role = role
        self.instructions: list[Instruction] = []
        self.leaves: dict[Instruction, dict[Path, HloValue]] = {}
        self.steps: list[FlowStep] = []
        self.arguments: list[HloValue] = []
        self._rewritten = rewritten
        for parameter in computation.parameters:
            self.leaves[parameter] = _new(parameter)
            self.arguments += self.leaves[parameter].values()
        for instruction in computation:
            if instruction.opcode != "parameter":
                self._add(instruction)
        self.results = list(self.leaves[computation.root].values())

    def in_order(self, order: Sequence[Instruction] | None = None) -> Flow:
        """The flow if the instructions run in this order; in the order that they have, if none is given."""
        steps = self.steps
        if order is not None:
            known = dict(zip(self.instructions, steps, strict=True))
            steps = [known[instruction] for instruction in order if instruction in known]
        slots: list[int | None] = [None if self.role == ENTRY else OWN] * len(self.arguments)
        if self.role == BODY:
            slots = list(range(len(self.arguments)))
        return Flow(self.arguments, steps, self.results, slots)

    def _add(self, instruction: Instruction) -> None:
        opcode, operands, leaves = instruction.opcode, instruction.operands, self.leaves
        if opcode == "constant":
            leaves[instruction] = _new(instruction)
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
        passed = self._passed(instruction)
        made = {path: value for path, value in _new(instruction).items() if path not in passed}
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
        if instruction.opcode == "while":  # one array may be the start of several leaves, the first of them in place
            pairs = [(i, after) for before, after in pairs for i, _ in pairs if inputs[i] is inputs[before]]
        self.instructions.append(instruction)
        self.steps.append(FlowStep(inputs, list(made.values()), pairs))
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
            for given in self._rewritten[callee]:
                if given.result is not None:
                    pairs.append((first + given.parameter, given.path, given.result))
        return pairs

    def _passed(self, instruction: Instruction) -> dict[Path, HloValue]:
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


def _new(instruction: Instruction) -> dict[Path, HloValue]:
    return {
        path: HloValue(instruction, path, leaf.byte_size)
        for path, leaf in instruction.shape.leaves()
        if leaf.is_array
    }
