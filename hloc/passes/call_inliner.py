"""Inlines `call`."""

from __future__ import annotations

from dataclasses import dataclass, field

from hloc.ir.computation import Computation
from hloc.ir.module import Module, call_order
from hloc.passes.inlining import inline


@dataclass
class CallInliner:
    """Puts the instructions of called computations in the place of `call`.

    A computation with one caller is always inlined, one with several callers while the copies stay within
    `growth` instructions for the whole module. A composite call is replaced by its body, which defines it.

    Requires: nothing.
    Ensures: the calls that are left would have grown the module by more than the budget.
    Leaves: computations that nobody calls any more, for dce.
    """

    growth: int = 20_000
    notes: list[str] = field(default_factory=list, init=False)

    def run(self, module: Module) -> bool:
        callers = _call_sites(module)
        grown = 0
        changed = False
        for computation in call_order(module.entry):
            for instruction in computation:
                if instruction.opcode != "call":
                    continue
                callee = instruction.attributes["to_apply"]
                added = len(callee) if callers[callee] > 1 else 0
                if grown + added > self.growth:
                    self.notes.append(
                        f"%{instruction.name}: inlining {added} more instructions would pass the budget"
                    )
                    continue
                grown += added
                inline(instruction, callee)
                changed = True
        return changed


def _call_sites(module: Module) -> dict[Computation, int]:
    counts: dict[Computation, int] = {}
    for computation in call_order(module.entry):
        for instruction in computation:
            for callee in instruction.called:
                counts[callee] = counts.get(callee, 0) + 1
    return counts
