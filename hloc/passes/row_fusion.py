"""Row fusion: softmax, normalizations and the like as one kernel that reads a row from memory once."""

from __future__ import annotations

from dataclasses import dataclass, field

from hloc.analysis.call_graph import CallGraph
from hloc.analysis.effects import Effects
from hloc.ir.module import Module
from hloc.passes.fusion_report import Edges
from hloc.passes.fusion_rewrite import within, write_fusions
from hloc.passes.ordering import reorder
from hloc.passes.report import Remark
from hloc.passes.row_fusion_planner import RowPlanner


@dataclass
class RowFusion:
    """Joins reduces of the same rows with what is computed from them row by row, and with what goes into them.

    A kernel goes through its rows one after the other. In a row, reduces follow on each other (the maximum, then the
    sum of exponentials, then the quotients); the row is in the cache from the second of them on, so that each input
    is read from memory once. What lies between is not stored, unless others need it; those compute it again where
    that costs less than loading it. A reduce of one element a row to one in all (a mean loss) goes along. Nothing is
    moved across a side effect. With `limit` so many kernels are made at most.

    Requires: layouts (layout_assignment).
    Ensures: each of its fusions has reduces inside, and can be computed row by row (`hloc.analysis.row_space`).
    Leaves: reduces that nothing follows on in their rows; what would read a row again that no cache holds.
    """

    instructions: int = 250
    operands: int = 64
    explain: bool = False
    limit: int | None = None
    remarks: list[Remark] = field(default_factory=list, init=False)

    def run(self, module: Module) -> bool:
        effects = Effects()
        changed = False
        for computation in CallGraph(module).with_kernels():
            if not any(instruction.opcode == "reduce" for instruction in computation):
                continue
            changed |= reorder(computation, effects)
            planner = RowPlanner(computation, self.instructions, self.operands, effects)
            edges = Edges("row_fusion", computation) if self.explain else None
            groups = within(self.limit, planner.plan(), self.remarks, "row_fusion")
            changed |= write_fusions(computation, groups, effects, edges)
            self.remarks += [*planner.remarks, *(edges.fused() if edges is not None else ())]
        if changed:
            module.order_computations()
        return changed
