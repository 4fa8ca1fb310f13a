"""Removes what calls give and take for nothing."""

from __future__ import annotations

from hloc.analysis.effects import Effects
from hloc.ir.builder import make
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.passes.emit import Emit, replace
from hloc.passes.tuples import move_reads, set_root, sweep


def run(module: Module) -> int:
    """Takes out parameters that a called computation does not use, and results that none of its callers reads.

    Results are the elements of a `tuple` that all callers take apart. Computations that are named by
    anything but plain calls keep what they have. Gives how many parameters and results went.

    Requires: nothing.
    Ensures: computations that are only called use all their parameters.
    Leaves: what was only a dead argument, for dce.
    """
    callers: dict[Computation, list[Instruction]] = {}
    for instruction in module.instructions():
        for callee in instruction.called:
            callers.setdefault(callee, []).append(instruction)
    effects = Effects()
    removed = 0
    for computation in reversed(call_order(module.entry)):
        # Calls from computations before this one may be gone with what was dead there.
        calls = [call for call in callers.get(computation, []) if call.computation is not None]
        if calls and all(map(_is_plain_call, calls)):
            removed += _drop_dead(computation, calls, effects)
    return removed


def _is_plain_call(instruction: Instruction) -> bool:
    edges = instruction.control_predecessors or instruction.control_successors
    return instruction.opcode == "call" and not instruction.get("is_composite") and not edges


def _drop_dead(computation: Computation, calls: list[Instruction], effects: Effects) -> int:
    results = _kept_results(computation, calls)
    if results is not None:
        set_root(computation, [computation.root.operands[number] for number in results])
        sweep(computation, effects)
    parameters = computation.parameters
    kept = [n for n, parameter in enumerate(parameters) if parameter.users or parameter.is_root]
    if results is None and len(kept) == len(parameters):
        return 0
    removed = len(parameters) - len(kept)
    _keep_parameters(computation, kept)
    for call in calls:
        emit = Emit.at(call)
        operands = [call.operands[number] for number in kept]
        new = emit.op("call", computation.root.shape, operands, **call.attributes)
        if results is None:
            replace(call, new)
        else:
            removed += (len(call.shape.elements) - len(results)) * (call is calls[0])
            move_reads(call, new, {number: place for place, number in enumerate(results)})
            call.computation.remove(call)
    return removed


def _kept_results(computation: Computation, calls: list[Instruction]) -> list[int] | None:
    """The numbers of the results that callers read, one at least; None if that is all of them."""
    if computation.root.opcode != "tuple" or not computation.root.operands:
        return None
    read = set()
    for call in calls:
        if call.is_root or any(user.opcode != "get-tuple-element" for user in call.users):
            return None
        read |= {user.attributes["index"] for user in call.users if user.users or user.is_root}
    kept = sorted(read) or [0]
    return kept if len(kept) < len(computation.root.operands) else None


def _keep_parameters(computation: Computation, kept: list[int]) -> None:
    """Leave only some of the parameters, and number them anew."""
    old = list(computation.parameters)
    if len(kept) == len(old):
        return
    for parameter in old:
        if parameter.attributes["number"] in kept:
            number = kept.index(parameter.attributes["number"])
            new = make(
                computation,
                "parameter",
                [],
                {"number": number},
                shape=parameter.shape,
                before=parameter,
                like=parameter,
                name=parameter.name,
            )
            computation.replace_uses(parameter, new)
        computation.remove(parameter)
    del computation.parameters[len(kept) :]
