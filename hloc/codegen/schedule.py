"""A computation as steps over values in memory: which ops run, in order, and what is only another name.

Tuples, get-tuple-element, bitcasts, barriers and copies that keep the layout make no step: their leaves are
views of values made elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hloc.analysis.passing import changed_leaves, passed_on
from hloc.codegen.bodies import PASS_THROUGH, is_alias, literal_at
from hloc.codegen.forms import CPU_KERNELS, array_leaves, form_of
from hloc.codegen.graphs import is_scalar_control
from hloc.codegen.kernel import Kernels
from hloc.codegen.kernel_steps import kernel_step
from hloc.codegen.scalar_control import CONTROL
from hloc.codegen.values import (
    ARGUMENT,
    MADE,
    SMALL_BYTES,
    CallStep,
    Leaves,
    Step,
    Value,
    View,
    argument_shapes,
    constant_view,
    same_memory,
)
from hloc.errors import HloError
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.literals import Literal
from hloc.ir.shapes import ArrayShape, Shape
from hloc.records import record

_MOST_BYTES = 1 << 60


@record
class Schedule:
    """The steps of a computation, its arguments, and its results in the layouts asked for.

    `slots` says of each argument which result's memory it lies in, None if it is read only.
    """

    computation: Computation
    arguments: list[View]
    steps: list[Step]
    results: list[View]
    slots: tuple[int | None, ...]


def schedule(
    computation: Computation,
    arguments: Sequence[ArrayShape],
    results: Sequence[ArrayShape],
    slots: tuple[int | None, ...] | None = None,
    kernels: Kernels = CPU_KERNELS,
) -> Schedule:
    """The steps of a computation whose leaves come and go in these shapes; `slots` are the Schedule's.

    HloError for an op that is not among the target's `kernels`, nor supported otherwise.
    """
    scheduler = _Scheduler(computation, arguments, kernels)
    for instruction in computation:
        scheduler.add(instruction)
    plan = scheduler.finish(results, slots or (None,) * len(arguments))
    carry_into_calls(plan)
    return plan


class _Scheduler:
    def __init__(self, computation: Computation, arguments: Sequence[ArrayShape], kernels: Kernels):
        self.computation = computation
        self.kernels = kernels
        self.arguments = [View(Value(ARGUMENT, s, number), s) for number, s in enumerate(arguments)]
        self.steps: list[Step] = []
        self.leaves: dict[Instruction, Leaves] = {}
        leaves = [leaf for parameter in computation.parameters for leaf in array_leaves(parameter)]
        self._given = dict(zip(leaves, self.arguments, strict=True))

    # Names

    def add(self, instruction: Instruction) -> None:
        opcode = instruction.opcode
        for _, shape in instruction.shape.leaves():
            if shape.is_dynamic:
                message = f"{opcode} of the dynamic shape {shape!r}: dynamic_padding has to run before"
                raise HloError(message, instruction.span)
            if shape.byte_size > _MOST_BYTES:
                message = f"{shape!r} takes {shape.byte_size} bytes: no memory holds it"
                raise HloError(message, instruction.span)
        handler = _HANDLERS.get(opcode)
        if opcode in CONTROL and opcode in self.kernels.own and is_scalar_control(instruction):
            handler = None
        if handler is None and is_alias(instruction):
            handler = _Scheduler._alias
        (handler or _Scheduler._kernel)(self, instruction)

    def _parameter(self, instruction: Instruction) -> None:
        leaves = array_leaves(instruction)
        self.leaves[instruction] = {leaf: self._given[instruction, leaf] for _, leaf in leaves}

    def _constant(self, instruction: Instruction) -> None:
        made: Leaves = {}
        for _, leaf in array_leaves(instruction):
            literal = literal_at(instruction.attributes["literal"], leaf)
            made[leaf] = constant_view(literal, instruction.shape.at(leaf))
        self.leaves[instruction] = made

    def _tuple(self, instruction: Instruction) -> None:
        self.leaves[instruction] = {
            (position, *leaf): view
            for position, operand in enumerate(instruction.operands)
            for leaf, view in self.leaves[operand].items()
        }

    def _element(self, instruction: Instruction) -> None:
        self._select(instruction, (instruction.attributes["index"],))

    def _select(self, instruction: Instruction, prefix: tuple[int, ...]) -> None:
        """The leaves of the operand under an index."""
        length = len(prefix)
        leaves = self.leaves[instruction.operands[0]]
        self.leaves[instruction] = {
            leaf[length:]: view for leaf, view in leaves.items() if leaf[:length] == prefix
        }

    def _same(self, instruction: Instruction) -> None:
        self.leaves[instruction] = self.leaves[instruction.operands[0]]

    def _nothing(self, instruction: Instruction) -> None:
        self.leaves[instruction] = {}

    def _alias(self, instruction: Instruction) -> None:
        view = self.leaves[instruction.operands[0]][()]
        origin = instruction.operands[0].shape.with_default_layout()
        shape = instruction.shape.with_default_layout()
        if same_memory(view.shape, origin) and view.value.bytes == shape.byte_size:
            self.leaves[instruction] = {(): View(view.value, shape)}
        else:
            self._kernel(instruction)

    def _copy(self, instruction: Instruction) -> None:
        view = self.leaves[instruction.operands[0]][()]
        if same_memory(view.shape, instruction.shape.with_default_layout()):
            self._same(instruction)
        else:
            self._kernel(instruction)

    # Kernels

    def _kernel(self, instruction: Instruction) -> None:
        form = form_of(instruction, self.kernels)
        if form is not None:
            step = kernel_step(instruction, form, self.leaves)
            self._run(step, instruction.shape)
        elif instruction.opcode == "fusion":
            self._call(instruction)
        else:
            target = instruction.get("custom_call_target")
            what = instruction.opcode if target is None else f'{instruction.opcode} of "{target}"'
            raise HloError(f"{what} is not supported on this target yet", instruction.span)

    def _run(self, step: Step, shape: Shape) -> None:
        """Adds a step that makes the leaves of its instruction, in the layouts of `shape`."""
        made: Leaves = {}
        for leaf, part in shape.leaves():
            if part.is_array:
                part = part.with_default_layout()
                made[leaf] = View(Value(MADE, part), part)
        step.outputs = list(made.values())
        self.leaves[step.instruction] = made
        self.steps.append(step)

    def in_layout(self, view: View, shape: ArrayShape) -> View:
        """The view, or a copy of it in the layout of `shape`."""
        if same_memory(view.shape, shape):
            return View(view.value, shape)
        source_ = Instruction("parameter", view.shape, [], {"number": 0}, name="source")
        copy = Instruction("copy", shape, [source_], name="relayout")
        source_.id, copy.id = -2, -3
        self.leaves[source_] = {(): view}
        self._kernel(copy)
        return self.leaves[copy][()]

    # Control flow

    def _operand_views(self, operands: Sequence[Instruction], shapes: Sequence[ArrayShape]) -> list[View]:
        views = [view for operand in operands for view in self.leaves[operand].values()]
        return [self.in_layout(view, shape) for view, shape in zip(views, shapes, strict=True)]

    def _call(self, instruction: Instruction) -> None:
        callee = instruction.called[0]
        views = self._operand_views(instruction.operands, argument_shapes(callee))
        self._run(CallStep(instruction, views, callees=(callee,), operands=[views]), callee.root.shape)

    def _while(self, instruction: Instruction) -> None:
        """What the body only passes on stays where it is; the rest of the state lies in the outputs."""
        callees = instruction.attributes["condition"], instruction.attributes["body"]
        views = self._operand_views(instruction.operands, argument_shapes(callees[1]))
        state = [leaf for _, leaf in array_leaves(callees[1].parameters[0])]
        kept = passed_on(callees[1])
        step = CallStep(instruction, views, callees=callees, operands=[])
        made: Leaves = {}
        for number, (leaf, view) in enumerate(zip(state, views, strict=True)):
            if leaf in kept and view.value.bytes > SMALL_BYTES:
                made[leaf] = view
                continue
            made[leaf] = View(Value(MADE, view.shape), view.shape)
            step.carried.append((number, len(step.outputs)))
            step.outputs.append(made[leaf])
        step.operands = [list(made.values())] * 2
        self.leaves[instruction] = made
        self.steps.append(step)

    def _conditional(self, instruction: Instruction) -> None:
        branches = tuple(instruction.called)
        operands = [
            self._operand_views([operand], argument_shapes(branch))
            for operand, branch in zip(instruction.operands[1:], branches, strict=True)
        ]
        inputs = [self.leaves[instruction.operands[0]][()], *(view for views in operands for view in views)]
        step = CallStep(instruction, inputs, callees=branches, operands=operands)
        self._run(step, branches[0].root.shape)

    # Asynchronous ops run where they start

    def _copy_start(self, instruction: Instruction) -> None:
        view = self.leaves[instruction.operands[0]][()]
        target = self.in_layout(view, instruction.shape.at((0,)).with_default_layout())
        self.leaves[instruction] = {(0,): target, (1,): view, (2,): _zeros(instruction, (2,))}

    def _copy_done(self, instruction: Instruction) -> None:
        self._select(instruction, (0,))

    def _async_start(self, instruction: Instruction) -> None:
        """The result is ((operands), results, state...): the state is nothing, as all is done here."""
        self._call(instruction)
        made: Leaves = {(1, *leaf): view for leaf, view in self.leaves[instruction].items()}
        for number, operand in enumerate(instruction.operands):
            made |= {(0, number, *leaf): view for leaf, view in self.leaves[operand].items()}
        order = [leaf for _, leaf in array_leaves(instruction)]
        self.leaves[instruction] = {leaf: made.get(leaf) or _zeros(instruction, leaf) for leaf in order}

    def _async_done(self, instruction: Instruction) -> None:
        self._select(instruction, (1,))

    # The end

    def finish(self, results: Sequence[ArrayShape], slots: tuple[int | None, ...]) -> Schedule:
        root = self.computation.root
        views = list(self.leaves[root].values())
        views = [self.in_layout(view, shape) for view, shape in zip(views, results, strict=True)]
        return Schedule(self.computation, self.arguments, self.steps, views, slots)


def carry_into_calls(plan: Schedule) -> None:
    """Lets callees change an operand where it lies, if it is not needed afterwards."""
    calls = [step for step in plan.steps if isinstance(step, CallStep) and not step.is_loop]
    if not calls:
        return
    writable = {a.value for a, slot in zip(plan.arguments, plan.slots, strict=True) if slot is not None}
    last: dict[Value, Step | None] = {}
    for step in plan.steps:
        last.update((view.value, step) for view in step.inputs)
    last.update((view.value, None) for view in plan.results)
    for step in calls:
        for number, view in enumerate(step.inputs):
            is_free = last[view.value] is step and (view.value.kind == MADE or view.value in writable)
            output = _carried_to(step, view) if is_free and view.value.bytes > SMALL_BYTES else None
            if output is not None and all(output != taken for _, taken in step.carried):
                step.carried.append((number, output))
                after = step.outputs[output].value
                step.operands = [
                    [View(after, v.shape) if v.value is view.value else v for v in views]
                    for views in step.operands
                ]


def _carried_to(step: CallStep, view: View) -> int | None:
    """The output that a callee makes of an input by changing it, if each callee is given the input just once."""
    found = None
    for callee, views in zip(step.callees, step.operands, strict=True):
        places = [number for number, other in enumerate(views) if other.value is view.value]
        if len(places) > 1:
            return None
        made_of = changed_leaves(callee)
        for place in places:
            found = made_of.get(place) if found is None else found
    if found is None or step.outputs[found].value.bytes != view.value.bytes:
        return None
    return found


def _zeros(instruction: Instruction, leaf: tuple[int, ...]) -> View:
    shape = instruction.shape.at(leaf)
    return constant_view(Literal(shape, np.zeros(shape.dims, shape.dtype.numpy)), shape)


_HANDLERS: dict[str, Callable[[_Scheduler, Instruction], None]] = {
    "parameter": _Scheduler._parameter,
    "constant": _Scheduler._constant,
    "tuple": _Scheduler._tuple,
    "get-tuple-element": _Scheduler._element,
    **dict.fromkeys(PASS_THROUGH, _Scheduler._same),
    "after-all": _Scheduler._nothing,
    "copy": _Scheduler._copy,
    "copy-start": _Scheduler._copy_start,
    "copy-done": _Scheduler._copy_done,
    "call": _Scheduler._call,
    "while": _Scheduler._while,
    "conditional": _Scheduler._conditional,
    "async-start": _Scheduler._async_start,
    "async-update": _Scheduler._same,
    "async-done": _Scheduler._async_done,
}
