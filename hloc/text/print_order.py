"""The orders in which XLA prints computations, and the instructions of computations that have no schedule."""

from __future__ import annotations

from collections.abc import Iterable

from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.text.print_instruction import CALLING, is_sugar

Calls = dict[Computation, list[list[Computation]]]


def computations_in_order(module: Module) -> list[Computation]:
    """Callees before callers: for each one that nothing calls, in the order of the module, what it reaches.

    Computations that are one operation of an async instruction are left out: its opcode tells of them. XLA
    prints a computation that an instruction calls next to another one, which calls it as well, behind that
    other one, so that its text does not parse; here it comes first.
    """
    calls = {computation: _calls(computation) for computation in module}
    called = {callee for groups in calls.values() for group in groups for callee in group}
    order: dict[Computation, None] = {}
    for computation in module:
        if computation not in called:
            order.update(dict.fromkeys(_reached(computation, calls)))
    order.update(dict.fromkeys(module))  # those of a cycle of calls, which the verifier refuses
    hidden = _named_by_opcodes(module)
    return [computation for computation in _callees_first(order, calls) if computation not in hidden]


def _calls(computation: Computation) -> list[list[Computation]]:
    """What each instruction calls, of those that call; XLA has a loop's body before its condition."""
    calling = [instruction for instruction in computation if instruction.opcode in CALLING]
    return [i.called[::-1] if i.opcode == "while" else i.called for i in calling]


def _named_by_opcodes(module: Module) -> set[Computation]:
    """The bodies of async instructions whose opcode tells of them."""
    starts = [i for i in module.instructions() if i.opcode == "async-start"]
    return {start.attributes["calls"] for start in starts if is_sugar(start)}


def _reached(start: Computation, calls: Calls) -> list[Computation]:
    """What `start` calls, directly or not, callees first, and `start` itself. Without recursion.

    All callees of an instruction are marked as seen at once and then worked on one after the other, so one
    that is reached below the first of them as well still comes after it, as in XLA.
    """
    order: list[Computation] = []
    seen = {start}
    stack = [(start, iter(calls[start]))]
    while stack:
        computation, rest = stack[-1]
        callees = next(rest, None)
        if callees is None:
            stack.pop()
            order.append(computation)
            continue
        fresh = [callee for callee in dict.fromkeys(reversed(callees)) if callee not in seen]
        seen.update(fresh)
        stack += [(callee, iter(calls[callee])) for callee in fresh]
    return order


def _callees_first(order: Iterable[Computation], calls: Calls) -> dict[Computation, None]:
    """The same order, but for computations that stand before what they call."""
    done: dict[Computation, None] = {}
    entered: set[Computation] = set()
    for start in order:
        stack = [start]
        while stack:
            computation = stack[-1]
            callees: dict[Computation, None] = {}
            if computation not in entered:
                entered.add(computation)
                callees = {c: None for group in calls[computation] for c in group if c not in entered}
            stack += reversed(callees)
            if not callees:
                done[stack.pop()] = None
    return done


def instructions_in_order(computation: Computation, scheduled: bool) -> list[Instruction]:
    """The schedule if there is one, else operands before users as `Computation.post_order` has them."""
    return computation.instructions if scheduled else computation.post_order()


def fusion_computations(module: Module) -> set[Computation]:
    """The bodies of fusions: a schedule does not order them."""
    return {c for i in module.instructions() if i.opcode == "fusion" for c in i.called}
