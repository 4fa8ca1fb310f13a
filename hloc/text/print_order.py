"""The orders in which XLA prints computations, and the instructions of computations that have no schedule."""

from __future__ import annotations

from collections.abc import Iterable

from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.text.print_instruction import is_sugar


def computations_in_order(module: Module) -> list[Computation]:
    """Callees before callers: for each one that nothing calls, in the order of the module, what it reaches.

    Computations that are one operation of an async instruction are left out: its opcode tells of them. XLA
    prints a computation that an instruction calls next to another one, which calls it as well, behind that
    other one, so that its text does not parse; here it comes first.
    """
    called = {callee for instruction in module.instructions() for callee in instruction.called}
    hidden = {
        instruction.attributes["calls"]
        for instruction in module.instructions()
        if instruction.opcode == "async-start" and is_sugar(instruction)
    }
    order: dict[Computation, None] = {}
    for computation in module:
        if computation not in called:
            order.update(dict.fromkeys(_reached(computation)))
    order.update(dict.fromkeys(module))  # those of a cycle of calls, which the verifier refuses
    return [computation for computation in _callees_first(order) if computation not in hidden]


def _reached(start: Computation) -> list[Computation]:
    """What `start` calls, directly or not, callees first, and `start` itself. Without recursion.

    All callees of an instruction are marked as seen at once and then worked on one after the other, so one
    that is reached below the first of them as well still comes after it, as in XLA.
    """
    order: list[Computation] = []
    seen = {start}
    stack = [(start, iter(start))]
    while stack:
        computation, rest = stack[-1]
        callees = next((found for found in map(_callees, rest) if found), None)
        if callees is None:
            stack.pop()
            order.append(computation)
            continue
        fresh = [callee for callee in dict.fromkeys(reversed(callees)) if callee not in seen]
        seen.update(fresh)
        stack += [(callee, iter(callee)) for callee in fresh]
    return order


def _callees_first(order: Iterable[Computation]) -> dict[Computation, None]:
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
                callees = {c: None for i in computation for c in _callees(i) if c not in entered}
            stack += reversed(callees)
            if not callees:
                done[stack.pop()] = None
    return done


def _callees(instruction: Instruction) -> list[Computation]:
    """The computations an instruction calls; XLA has a loop's body before its condition."""
    called = instruction.called
    return called[::-1] if instruction.opcode == "while" else called


def instructions_in_order(computation: Computation, scheduled: bool) -> list[Instruction]:
    """The schedule if there is one, else operands before users as `Computation.post_order` has them."""
    return computation.instructions if scheduled else computation.post_order()


def fusion_computations(module: Module) -> set[Computation]:
    """The bodies of fusions: a schedule does not order them."""
    return {c for i in module.instructions() if i.opcode == "fusion" for c in i.called}
