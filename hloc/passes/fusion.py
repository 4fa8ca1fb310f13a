"""Loop fusion: groups instructions that become one kernel."""

from __future__ import annotations

from dataclasses import dataclass, field

from hloc.analysis.call_graph import CallGraph
from hloc.analysis.effects import Effects
from hloc.ir.module import Module
from hloc.passes.fusion_planner import Planner
from hloc.passes.fusion_report import Edges
from hloc.passes.fusion_rewrite import within, write_fusions
from hloc.passes.ordering import reorder
from hloc.passes.report import Remark


@dataclass
class Fusion:
    """Puts what is computed element by element into the kernel that uses it, from the results backwards.

    A producer goes into its consumer, or into all of several consumers if computing it again costs no more
    than storing and loading it (`fusion_cost.py`); expensive ops are never computed twice, nor in the larger index
    space behind a broadcast. Consumers are loops of elementwise and data-moving ops, and ops with loops of their own,
    which take operands element by element: dots and convolutions as they pack them, reduces, scatters, sorts, ...
    A loop that goes on with each result of a dot, convolution, reduce or reduce-window is computed there, as its
    epilogue. What others need as well becomes one more result of the loop that it is in. A loop with an input in
    common with another loop over the same index space joins it. Nothing is moved across a side effect. With
    `explain`, remarks tell of each value and user whether they share a kernel, and why. With `limit` so many kernels
    are made at most.

    Requires: layouts (layout_assignment); no fusion whose body should still grow.
    Ensures: each fusion is a loop nest over one index space, or has one op that brings its own.
    Leaves: single ops as they are. A reshape or transpose that moves nothing stays outside, where it is free.
    """

    instructions: int = 300
    operands: int = 64
    explain: bool = False
    limit: int | None = None
    remarks: list[Remark] = field(default_factory=list, init=False)

    def run(self, module: Module) -> bool:
        effects = Effects()
        changed = False
        for computation in CallGraph(module).with_kernels():
            changed |= reorder(computation, effects)
            planner = Planner(computation, self.instructions, self.operands, effects)
            groups = within(self.limit, planner.plan(), self.remarks, "fusion")
            edges = Edges("fusion", computation) if self.explain else None
            changed |= write_fusions(computation, groups, effects, edges)
            if edges is not None:
                self.remarks += [*edges.fused(planner.verdicts), *edges.stored(planner.verdicts, planner.homes)]
        if changed:
            module.order_computations()
        return changed
