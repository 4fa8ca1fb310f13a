"""The pass that applies all families of rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from hloc.ir.module import Module
from hloc.passes.algebraic import (
    arithmetic,
    bounds,
    conversions,
    data_movement,
    dots,
    indexing,
    integers,
    joins,
    logic,
    motion,
    powers,
    reductions,
    results,
    slices,
    windows,
)
from hloc.passes.algebraic.rules import RULES
from hloc.passes.report import Remark
from hloc.passes.rewriter import Rewriter

FAMILIES = (
    arithmetic,
    powers,
    integers,
    bounds,
    logic,
    conversions,
    data_movement,
    motion,
    slices,
    joins,
    indexing,
    dots,
    reductions,
    windows,
    results,
)


@dataclass
class AlgebraicSimplifier:
    """Applies algebraic rules until none fires: fewer ops, never more work, and exactly the same numbers.

    A rule on floats holds for every value, NaN, infinities and the signs of zero included, or is one that
    XLA applies by default and says so; a denormal may be kept where it would have been flushed. With `limit`
    rules are applied so many times at most, which finds the one at fault. Remarks tell by rule how often it was.

    Requires: no dynamic shape (dynamic_padding), else it does nothing; it does most after layout_removal.
    Ensures: no rule of `algebraic/` fires.
    Leaves: branches of a conditional that was decided as calls, for call_inliner.
    """

    limit: int | None = None
    remarks: list[Remark] = field(default_factory=list, init=False)

    def run(self, module: Module) -> int:
        shapes = {id(i.shape): i.shape for computation in module for i in computation.instructions}
        if any(leaf.is_dynamic for shape in shapes.values() for _, leaf in shape.leaves()):
            return 0  # rules think that sizes are what shapes say
        rewriter = self._rewriter
        before = rewriter.fired.copy()
        done = rewriter.run(module)
        for rule, name in rewriter.last.items():
            times = rewriter.fired[rule] - before[rule]
            if times:
                figures = {"rule": rule, "times": times}
                self.remarks.append(Remark("algebraic", name, f"{times} x {rule}, last at %{name}", figures))
        return done

    @cached_property
    def _rewriter(self) -> Rewriter:
        return Rewriter(RULES, self.limit)
