"""Fixes the order in which a module's instructions run."""

from __future__ import annotations

from hloc.analysis.effects import Effects
from hloc.ir.module import Module
from hloc.passes.ordering import reorder


def run(module: Module) -> bool:
    """Orders every computation so that updates can happen in place, and marks the module as scheduled.

    Operands come before users and side effects keep their order. What reads an array comes before what
    changes it in place, where that is possible; other than that the order stays as it was.

    Requires: nothing.
    Ensures: `is_scheduled`; the order of the text is the order of execution.
    Leaves: everything but the order.
    """
    changed = not module.is_scheduled
    module.is_scheduled = True
    effects = Effects()
    for computation in module:
        changed |= reorder(computation, effects)
    return changed
