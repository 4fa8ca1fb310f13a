"""Where a computation's values lie and when they live, as records that outlast the compile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hloc.analysis.liveness import Chain
from hloc.codegen.buffers import ARENA, Buffers, Place
from hloc.codegen.forms import array_leaves
from hloc.codegen.kernel_steps import KernelStep
from hloc.codegen.program import LiveBuffer, MadeCopy, MemoryCall, MemoryPlan
from hloc.codegen.schedule import Schedule
from hloc.codegen.values import ARGUMENT, CONSTANT, SMALL_BYTES, CallStep, Step, Value, View
from hloc.ir.instruction import Instruction

_END = "results"
"""What stands for the end of a computation among its steps."""


def memory_plan(
    plan: Schedule, buffers: Buffers, temporary: Sequence[int], callees: Sequence[tuple[int, ...]]
) -> MemoryPlan:
    """The record of a computation's buffers; `callees` are for each step the numbers of those that it calls."""
    owners = {v.value: (step, n) for step in plan.steps for n, v in enumerate(step.outputs)}
    chains = dict.fromkeys(buffers.chains.values())
    live = [_live(chain, owners, buffers.places[chain.tail]) for chain in chains if chain.values[0] in owners]
    calls = []
    for number, step in enumerate(plan.steps):
        if isinstance(step, CallStep):
            calls.append(MemoryCall(number, buffers.scratch[number], callees[number]))
        elif temporary[number]:
            live.append(_scratch(step, number, temporary[number], buffers.scratch[number]))
    return MemoryPlan(
        name=plan.computation.name,
        steps=tuple(step.instruction.name for step in plan.steps),
        arena_bytes=buffers.arena_bytes,
        buffers=tuple(live),
        calls=tuple(calls),
        copies=tuple(copy for copy in _copies(plan, buffers) if copy.bytes > SMALL_BYTES),
    )


def _copies(plan: Schedule, buffers: Buffers) -> Iterator[MadeCopy]:
    yield from _copies_on_the_way(plan, buffers)
    yield from _copies_at_the_end(plan, buffers)


def _live(chain: Chain, owners: dict[Value, tuple[Step, int]], place: Place) -> LiveBuffer:
    step, output = owners[chain.values[0]]
    names = tuple(dict.fromkeys(owners[value][0].instruction.name for value in chain.values))
    shape = step.outputs[output].shape
    return LiveBuffer(names, shape, _op_name(step.instruction), *place, chain.bytes, chain.start, chain.end)


def _scratch(step: Step, number: int, size: int, offset: int) -> LiveBuffer:
    """What a kernel needs for itself while it runs."""
    instruction = step.instruction
    return LiveBuffer((instruction.name,), None, _op_name(instruction), ARENA, offset, size, number, number)


def _op_name(instruction: Instruction) -> str:
    metadata = instruction.metadata
    return (metadata.op_name if metadata is not None else None) or ""


def _copies_on_the_way(plan: Schedule, buffers: Buffers) -> Iterator[MadeCopy]:
    for step in plan.steps:
        name = step.instruction.name
        if step.instruction.id < 0:
            yield MadeCopy("copy", step.outputs[0].value.bytes, "the user needs another layout")
        elif isinstance(step, CallStep):
            what = "the loop" if step.is_loop else "the callee"
            for before, after in step.carried:
                source, target = step.inputs[before], step.outputs[after]
                if buffers.places.get(source.value) != buffers.places[target.value]:
                    reason = f"{what} changes this, and {_why_not_there(source, plan)}"
                    yield MadeCopy(name, target.value.bytes, reason)
        elif isinstance(step, KernelStep):
            yield from _copies_of_kernel(step, plan, buffers)


def _copies_of_kernel(step: KernelStep, plan: Schedule, buffers: Buffers) -> Iterator[MadeCopy]:
    """An array that an update changes in a few places is copied first, unless it is changed where it lies."""
    own = step.form.own
    if own is None or own.opcode not in ("dynamic-update-slice", "scatter"):
        return
    for operand, output in step.form.row.in_place(own):
        target = step.outputs[output].value
        if buffers.chains[target].values[0] is target:
            base = _base(step, own.operands[operand])
            why = "it is computed here" if base is None else _why_not_there(base, plan)
            yield MadeCopy(step.instruction.name, target.bytes, f"the update changes this, and {why}")


def _base(step: KernelStep, operand: Instruction) -> View | None:
    leaves = array_leaves(operand)
    return next((view for leaf, view in zip(step.bound, step.inputs, strict=True) if leaf in leaves), None)


def _why_not_there(view: View, plan: Schedule) -> str:
    """Why a value cannot be changed where it lies."""
    value = view.value
    if value.kind == CONSTANT:
        return "it is a constant"
    if value.kind == ARGUMENT and plan.slots[value.number] is None:
        return "it is an argument of the caller's"
    return "it is needed as it was, or its memory is promised to a result"


def _copies_at_the_end(plan: Schedule, buffers: Buffers) -> Iterator[MadeCopy]:
    for view, number, _ in buffers.copies:
        if view.value.kind == CONSTANT:
            reason = "the result is a constant"
        elif view.value.kind == ARGUMENT:
            reason = "the result is an argument"
        elif any(other.value is view.value for other in plan.results[:number]):
            reason = "the result is another one too"
        else:
            reason = "the result's memory was still needed when this was made"
        yield MadeCopy(f"{_END}[{number}]", view.value.bytes, reason)
