"""The pass that applies all families of rules."""

from __future__ import annotations

from hloc.ir.module import Module
from hloc.passes.algebraic import arithmetic, contractions, conversions, data_movement, logic, slices
from hloc.passes.algebraic.rules import RULES
from hloc.passes.rewriter import rewrite

FAMILIES = (arithmetic, contractions, conversions, data_movement, logic, slices)


def run(module: Module) -> bool:
    """Applies algebraic rules until none fires: fewer ops, never more work, and exactly the same numbers.

    A rule on floats holds for every value, NaN, infinities and the signs of zero included; only a denormal
    may be kept where it would have been flushed.

    Requires: nothing; it does most after layout_removal.
    Ensures: no rule of `algebraic/` fires.
    Leaves: branches of a conditional that was decided as calls, for call_inliner.
    """
    return rewrite(module, RULES)
