"""Computes at compile time what does not depend on any argument."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from hloc.analysis.cost import work
from hloc.analysis.effects import Effects
from hloc.errors import HloError
from hloc.ir.instruction import Instruction
from hloc.ir.literals import Literal
from hloc.ir.module import Module, call_order
from hloc.ir.opcodes import CALLS
from hloc.lazy import lazy
from hloc.passes.emit import Emit, replace
from hloc.passes.report import Remark

evaluator = lazy("hloc.reference.evaluate")

_GENERATORS = ("iota", "broadcast")
"""Ops whose results are cheaper to compute where they are used than to store."""

_KNOWN = frozenset({"constant", *_GENERATORS})

_NEVER = (
    *("parameter", "constant", "tuple", "get-tuple-element", "partition-id", "replica-id", "custom-call"),
    "copy-start",  # its copy-done takes nothing else
)

_SMALL_BYTES = 4096
"""What follows from an iota or a broadcast alone, element by element, is stored up to this size."""


@dataclass
class ConstantFolding:
    """Replaces instructions with constant operands by their value, as the reference evaluator gives it.

    No constant of more than `result_bytes` is made, and no more than `work` scalar operations are spent on
    the module, all runs together; `seconds` is a guard for what `work` misjudges. Remarks tell what was left for
    these reasons.
    Never folded are loops and other calls, custom calls, random numbers, collectives, side effects and
    barriers. Iotas and broadcasts stay as they are, and large arrays that follow from them alone as well.

    Requires: nothing.
    Ensures: no scalar instruction of constants, within the budget.
    Leaves: operands that nobody uses any more, for dce.
    """

    result_bytes: int = 64 * 1024
    work: int = 20_000_000
    seconds: float = 10.0
    remarks: list[Remark] = field(default_factory=list, init=False)
    spent: float = field(default=0.0, init=False)
    spent_seconds: float = field(default=0.0, init=False)

    def run(self, module: Module) -> int:
        start = time.monotonic()
        folder = _Folder(self, start + self.seconds - self.spent_seconds)
        folded = 0
        for computation in call_order(module.entry):
            for instruction in computation.instructions:
                if instruction.operands and instruction.operands[0].opcode in _KNOWN:
                    folded += folder.visit(instruction)
        self.spent_seconds += time.monotonic() - start
        return folded


class _Folder:
    def __init__(self, budget: ConstantFolding, end: float):
        self.budget = budget
        self.end = end
        self.effects = Effects()
        self.generated: dict[Instruction, Literal | None] = {}

    def visit(self, instruction: Instruction) -> bool:
        if not self._is_candidate(instruction) or self._is_over_budget(instruction):
            return False
        operands = [self._value(operand) for operand in instruction.operands]
        if any(operand is None for operand in operands):
            return False
        literal = self._folded(instruction, operands)
        if literal is None:
            return False
        emit = Emit.at(instruction)
        if literal.is_tuple:
            replace(instruction, emit.tuple([emit.literal(part) for part in literal.value]))
        else:
            replace(instruction, emit.literal(literal))
        return True

    def _is_candidate(self, instruction: Instruction) -> bool:
        if not all(map(_is_constant, instruction.operands)):
            return False
        if instruction.opcode in _NEVER or instruction.opcode in _GENERATORS or instruction.op.has(CALLS):
            return False
        leaves = list(instruction.shape.leaves())
        if any(not leaf.is_array or leaf.is_dynamic or len(index) > 1 for index, leaf in leaves):
            return False
        if not self.effects.is_repeatable(instruction):
            return False
        spread = any(operand.opcode in _GENERATORS for operand in instruction.operands)
        in_place = instruction.op.is_elementwise or instruction.opcode in ("reshape", "transpose", "reverse")
        return not (spread and in_place and instruction.shape.byte_size > _SMALL_BYTES)

    def _is_over_budget(self, instruction: Instruction) -> bool:
        size = sum(leaf.byte_size for _, leaf in instruction.shape.leaves())
        needed = work(instruction) + sum(o.shape.count for o in instruction.operands)
        budget = self.budget
        if size > budget.result_bytes:
            reason = f"its {size} bytes are over the limit of {budget.result_bytes}"
            self._remark(instruction, reason, limit="result_bytes", bytes=size)
        elif budget.spent + needed > budget.work:
            reason = f"{needed:.0f} operations would pass the limit of {budget.work} for the module"
            self._remark(instruction, reason, limit="work", operations=round(needed), spent=round(budget.spent))
        elif time.monotonic() > self.end:
            self._remark(instruction, f"the time of {budget.seconds} s is over", limit="seconds")
        else:
            budget.spent += needed
            return False
        return True

    def _remark(self, instruction: Instruction, reason: str, **data: object) -> None:
        text = f"{instruction.opcode} of constants, left unfolded: {reason}"
        remark = Remark("constant_folding", instruction.name, text, {"opcode": instruction.opcode, **data})
        self.budget.remarks.append(remark)

    def _value(self, instruction: Instruction) -> Literal | None:
        if instruction.opcode == "constant":
            return instruction.attributes["literal"]
        if instruction not in self.generated:
            operands = [self._value(operand) for operand in instruction.operands]
            known = all(operand is not None for operand in operands)
            self.generated[instruction] = self._folded(instruction, operands) if known else None
        return self.generated[instruction]

    def _folded(self, instruction: Instruction, operands: list[Literal]) -> Literal | None:
        try:
            return evaluator.fold(instruction, operands)
        except HloError as error:
            self._remark(instruction, error.message, limit="evaluator")
            return None


def _is_constant(instruction: Instruction) -> bool:
    """A constant array, or what an iota or a broadcast makes of one."""
    while instruction.opcode == "broadcast":
        instruction = instruction.operands[0]
    return instruction.opcode in ("constant", "iota") and instruction.shape.is_array
