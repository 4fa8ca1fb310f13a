"""Inlines `call`."""

from __future__ import annotations

from dataclasses import dataclass, field

from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.passes.inlining import inline
from hloc.passes.report import Remark


@dataclass
class CallInliner:
    """Puts the instructions of called computations in the place of `call`.

    A computation with one caller is always inlined, one with several callers while the copies stay within
    `growth` instructions for the whole module, in all rounds of a pipeline together. A composite
    call is replaced by its body, which defines it.
    Calls of one that starts asynchronous computations stay: only one op may start each.
    Callers come before what they call, so that an instruction is copied once however deep its call.

    Requires: nothing.
    Ensures: the calls that are left would have grown the module by more than the budget, or start computations.
    Leaves: computations that nobody calls any more, for dce.
    """

    growth: int = 20_000
    remarks: list[Remark] = field(default_factory=list, init=False)
    _grown: int = field(default=0, init=False)

    def run(self, module: Module) -> bool:
        order = call_order(module.entry)
        sites = _call_sites(order)
        shared = {computation for computation, count in sites.items() if count > 1}
        changed = False
        for computation in reversed(order):
            if computation is not module.entry and not sites[computation]:
                continue
            instruction = next(iter(computation), None)
            while instruction is not None:
                if instruction.opcode != "call":
                    instruction = instruction.next
                    continue
                callee = instruction.attributes["to_apply"]
                if _starts_computations(callee):
                    instruction = instruction.next
                    continue
                added = len(callee) if callee in shared else 0
                if self._grown + added > self.growth:
                    text = f"left a call: inlining {added} more instructions would pass the budget"
                    data = {"callee": callee.name, "added": added, "grown": self._grown, "growth": self.growth}
                    self.remarks.append(Remark("call_inliner", instruction.name, text, data))
                    instruction = instruction.next
                    continue
                self._grown += added
                instruction = _inline(instruction, callee)
                shared |= _move_sites(sites, callee)
                changed = True
        return changed


def _starts_computations(computation: Computation) -> bool:
    return any(instruction.opcode == "async-start" for instruction in computation)


def _inline(call: Instruction, callee: Computation) -> Instruction | None:
    """Inlines a call; gives the first of the instructions that have come, or the one behind the call."""
    computation, before = call.computation, call.previous
    inline(call, callee)
    return next(iter(computation), None) if before is None else before.next


def _call_sites(order: list[Computation]) -> dict[Computation, int]:
    """How many instructions call each computation."""
    counts = dict.fromkeys(order, 0)
    for computation in order:
        for instruction in computation.call_sites:
            for callee in instruction.called:
                counts[callee] += 1
    return counts


def _move_sites(sites: dict[Computation, int], callee: Computation) -> set[Computation]:
    """Counts again after one caller got the instructions of `callee`; gives what has more callers now.

    The last caller's copy stands for the original.
    """
    sites[callee] -= 1
    more = set()
    if sites[callee]:
        for instruction in callee:
            for inner in instruction.called:
                sites[inner] += 1
                more.add(inner)
    return more
