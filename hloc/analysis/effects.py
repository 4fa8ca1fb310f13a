"""What an instruction does besides giving a value: side effects, impurity, communication; calls included."""

from __future__ import annotations

from hloc.ir.computation import Computation
from hloc.ir.instruction import CALLERS, Instruction
from hloc.ir.module import call_order
from hloc.ir.opcodes import CALLS, COLLECTIVE, IMPURE, OPS, SIDE_EFFECT

ORDERING = ("after-all", "add-dependency", "opt-barrier", "domain")
"""Ops that speak of order or place and do nothing themselves: removable when unused, never merged."""

_RUNNING = ("custom-call", "reduce", "reduce-window", "scatter", "select-and-scatter", "sort", "map", "scan")
_NONE: frozenset[str] = frozenset()

_TRAITS = {name: op.traits & {SIDE_EFFECT, IMPURE, COLLECTIVE} for name, op in OPS.items()}

_CALLING = frozenset(name for name, op in OPS.items() if op.has(CALLS) or name in _RUNNING)
_CONCERNED = frozenset(name for name, traits in _TRAITS.items() if traits or name in CALLERS) | {"custom-call"}
"""The ops that may have effects; all others have none."""


class Effects:
    """Answers about instructions, remembering what it found out of the computations that they call.

    An answer stays right while computations lose instructions or gain pure ones.
    """

    def __init__(self) -> None:
        self._computations: dict[Computation, frozenset[str]] = {}

    def of(self, instruction: Instruction) -> frozenset[str]:
        """The traits among SIDE_EFFECT, IMPURE and COLLECTIVE of an instruction and what it calls."""
        if instruction.opcode not in _CONCERNED:
            return _NONE
        found = _own(instruction)
        if instruction.opcode in _CALLING:
            for callee in instruction.called:
                found |= self.inside(callee)
        return found

    def inside(self, computation: Computation) -> frozenset[str]:
        """The traits of all instructions of a computation together."""
        if computation not in self._computations:
            inner = {callee for i in computation.call_sites for callee in i.called}
            is_last = inner <= self._computations.keys()
            for callee in (computation,) if is_last else call_order(computation):
                if callee not in self._computations:
                    concerned = [i for i in callee.instructions if i.opcode in _CONCERNED]
                    self._computations[callee] = _NONE.union(*map(self._with_known, concerned))
        return self._computations[computation]

    def _with_known(self, instruction: Instruction) -> frozenset[str]:
        own = _own(instruction)
        if instruction.opcode not in CALLERS:
            return own
        return own.union(*(self._computations[callee] for callee in instruction.called))

    def must_stay(self, instruction: Instruction) -> bool:
        """Whether an instruction has to run even if nobody uses its value."""
        return SIDE_EFFECT in self.of(instruction)

    def is_repeatable(self, instruction: Instruction) -> bool:
        """Whether running it twice, or once in place of twice, makes no difference."""
        return instruction.opcode not in ORDERING and not self.of(instruction)


def _own(instruction: Instruction) -> frozenset[str]:
    if instruction.opcode in ORDERING:
        return _NONE
    traits = _TRAITS[instruction.opcode]
    if instruction.opcode == "custom-call" and instruction.get("custom_call_has_side_effect"):
        traits |= {SIDE_EFFECT}
    return traits
