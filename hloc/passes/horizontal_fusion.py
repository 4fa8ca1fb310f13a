"""Puts small kernels that have nothing to do with each other into one."""

from __future__ import annotations

from dataclasses import dataclass, field

from hloc.analysis.call_graph import CallGraph
from hloc.analysis.effects import Effects
from hloc.ir.clone import clone_instruction
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.passes.emit import Emit
from hloc.passes.fusion_cost import SLACK
from hloc.passes.fusion_rules import is_element_op, is_free
from hloc.passes.inlining import inline
from hloc.passes.ordering import changed_in_place, reorder
from hloc.passes.report import Remark

_ALIKE = 2
"""Kernels of one form that may be written out; more of them are better called, as equal kernels are made once."""


@dataclass
class HorizontalFusion:
    """Joins loops over few elements, so that one kernel does what many did: the updates of small parameters, say.

    A kernel over so few elements that calling it costs more than its work (`elements`) joins the ones before it, if
    none of them is needed to compute it and none reads what it reads at full size, which could be written in place
    then. Each keeps a loop nest of its own. Kernels of one form beyond the second stay alone: their code is made once.

    Requires: kernels (fusion); layouts.
    Ensures: nothing that other passes rely on.
    Leaves: arrays that an op changes in place, and their readers; ops with loops of their own.
    """

    instructions: int = 250
    operands: int = 64
    elements: int = SLACK
    remarks: list[Remark] = field(default_factory=list, init=False)

    def run(self, module: Module) -> bool:
        effects = Effects()
        changed = False
        for computation in CallGraph(module).with_kernels():
            batches = [batch for batch in self._batches(computation, effects) if len(batch) > 1]
            for batch in batches:
                self._write(computation, batch)
            if batches:
                reorder(computation, effects)
                changed = True
        if changed:
            module.order_computations()
        return changed

    def _batches(self, computation: Computation, effects: Effects) -> list[list[Instruction]]:
        """Kernels to join, each batch's first one behind all that the one before it may wait for."""
        touched = {array for instruction in computation for array in changed_in_place(instruction)}
        forms: dict[str, int] = {}
        batches: list[list[Instruction]] = [[]]
        behind: set[Instruction] = set()
        size, values = 0, set()
        last_effect: tuple[Instruction, ...] = ()  # the next one comes after it, as `reorder` has it
        for instruction in computation:
            waits_for = (*instruction.operands, *instruction.control_predecessors)
            if effects.must_stay(instruction):
                waits_for, last_effect = (*waits_for, *last_effect), (instruction,)
            depends = any(earlier in behind for earlier in waits_for)
            if not self._is_candidate(instruction, touched):
                behind |= {instruction} if depends else set()
                continue
            form = _form(instruction)
            forms[form] = forms.get(form, 0) + 1
            if forms[form] > _ALIKE:
                behind |= {instruction} if depends else set()
                continue
            members = len(instruction.called[0]) if instruction.opcode == "fusion" else 1
            wide = {o for o in instruction.operands if o.shape.is_array and o.shape.rank}
            outside = len(values | set(instruction.operands)) + len(batches[-1]) + 1
            is_full = size + members > self.instructions or outside > self.operands
            if depends or is_full or wide & values:
                batches.append([])
                behind, size, values = set(), 0, set()
            batches[-1].append(instruction)
            behind.add(instruction)
            size += members
            values |= set(instruction.operands)
        return batches

    def _is_candidate(self, instruction: Instruction, touched: set[Instruction]) -> bool:
        if instruction.control_predecessors or instruction.control_successors:
            return False
        if instruction in touched or any(operand in touched for operand in instruction.operands):
            return False
        if any(not leaf.is_array or leaf.count > self.elements for _, leaf in instruction.shape.leaves()):
            return False
        if instruction.opcode != "fusion":
            return is_element_op(instruction) and instruction.opcode != "constant" and not is_free(instruction)
        body = instruction.called[0]
        inner = (i for i in body if i.opcode != "parameter" and not (i is body.root and i.opcode == "tuple"))
        return all(is_element_op(i) for i in inner)

    def _write(self, computation: Computation, batch: list[Instruction]) -> None:
        """One fusion in the place of the batch's last kernel."""
        operands = list(dict.fromkeys(operand for kernel in batch for operand in kernel.operands))
        body = Computation("fused_side_by_side")
        emit = Emit(body)
        values = {operand: emit.parameter(number, operand.shape) for number, operand in enumerate(operands)}
        results: list[Instruction] = []
        for kernel in batch:
            copy = body.add(clone_instruction(kernel, [values[operand] for operand in kernel.operands]))
            body.root = copy
            made = inline(copy, kernel.called[0]) if kernel.opcode == "fusion" else copy
            results += made.operands if made.opcode == "tuple" else [made]
        body.root = emit.tuple(results)
        computation.module.add_computation(body)
        outside = Emit(computation, before=batch[-1])
        fusion = outside.op("fusion", body.root.shape, operands, kind="kLoop", calls=body)
        taken = 0
        for kernel in batch:
            count = len(kernel.shape.elements) if kernel.shape.is_tuple else 1
            parts = [outside.element(fusion, number) for number in range(taken, taken + count)]
            value = outside.tuple(parts) if kernel.shape.is_tuple else parts[0]
            computation.replace_uses(kernel, value)
            taken += count
            figures = {"kernel": fusion.name, "kernels": len(batch), "elements": _count(kernel)}
            self.remarks.append(Remark("horizontal_fusion", kernel.name, f"shares %{fusion.name}", figures))
        for kernel in batch:
            computation.remove(kernel)


def _form(instruction: Instruction) -> str:
    """Alike for kernels that are probably equal."""
    inside = instruction.called[0] if instruction.opcode == "fusion" else (instruction,)
    return " ".join(f"{i.opcode}{i.shape!r}" for i in inside)


def _count(kernel: Instruction) -> int:
    return sum(leaf.count for _, leaf in kernel.shape.leaves())
