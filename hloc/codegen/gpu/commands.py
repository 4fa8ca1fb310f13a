"""Scheduled computations as commands for the host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hloc.codegen import device_program as device
from hloc.codegen.buffers import Buffers, Place, assign
from hloc.codegen.computations import ConstantPool, Variant, variants_of
from hloc.codegen.device_program import Call, Command, DeviceComputation, Launch, Location
from hloc.codegen.gpu.kernels import GpuKernels
from hloc.codegen.gpu.step import CopyTemplate, FillTemplate, HostTemplate, LaunchTemplate, MeetingTemplate, Template
from hloc.codegen.guarded_arena import rooms
from hloc.codegen.kernel_steps import KernelStep
from hloc.codegen.memory_plan import memory_plan
from hloc.codegen.program import CONTEXT_FIELDS, MemoryPlan
from hloc.codegen.schedule import Schedule
from hloc.codegen.values import CONSTANT, CallStep, Step, View
from hloc.ir.dtypes import PRED
from hloc.records import record


@record
class Commanded:
    """A computation's commands, its number among all, and the plan of its memory."""

    computation: DeviceComputation
    number: int
    memory: MemoryPlan


class ComputationCommands:
    """The commands of one computation, being made."""

    def __init__(
        self, plan: Schedule, kernels: GpuKernels, constants: ConstantPool, callees: dict[Variant, Commanded]
    ):
        self.plan, self.kernels, self.constants, self.callees = plan, kernels, constants, callees
        self.temporary = [self._temporary_bytes(step) for step in plan.steps]
        self.buffers: Buffers = assign(plan, self.temporary, stack=False)

    def made(self) -> Commanded:
        """All of the computation."""
        commands: list[Command] = []
        for number, step in enumerate(self.plan.steps):
            if isinstance(step, KernelStep):
                commands += self._kernel(step, number)
            elif isinstance(step, CallStep):
                commands += self._call_step(step, self.buffers.scratch[number])
        commands += self._final_copies()
        memory = self._memory()
        computation = DeviceComputation(self.plan.computation.name, tuple(commands), memory.arena_bytes)
        return Commanded(computation, len(self.callees), memory)

    def _memory(self) -> MemoryPlan:
        callees = [
            tuple(callee.number for callee in self._callees(step)) if isinstance(step, CallStep) else ()
            for step in self.plan.steps
        ]
        return memory_plan(self.plan, self.buffers, self.temporary, callees)

    def _callees(self, step: CallStep) -> list[Commanded]:
        return [self.callees[variant] for variant in variants_of(step)]

    # Memory

    def _temporary_bytes(self, step: Step) -> int:
        return step.scratch_bytes if isinstance(step, KernelStep) else self._rooms(step)[1]

    def _rooms(self, step: CallStep) -> tuple[list[int], int]:
        """Where a step's callees have their arenas in its temporary memory, and a loop's verdict; the bytes of all."""
        sizes = [callee.computation.arena_bytes for callee in self._callees(step)]
        return rooms(sizes, 1 if step.is_loop else 0, "")

    def _location(self, view: View) -> Location:
        if view.value.kind == CONSTANT:
            return Location(device.CONSTANT, self.constants.offset(view))
        place = self.buffers.places[view.value]
        return Location(place.kind, place.number)

    def _locations(self, views: Sequence[View]) -> tuple[Location, ...]:
        return tuple(map(self._location, views))

    def _copy(self, view: View, target: Location) -> Iterator[Command]:
        if view.value.bytes:
            yield device.Copy(target, self._location(view), view.value.bytes)

    def _final_copies(self) -> Iterator[Command]:
        """Results that lie elsewhere; those whose memory is overwritten here go aside first."""
        for view, _, offset in self.buffers.copies:
            if offset is not None:
                yield from self._copy(view, Location(device.ARENA, offset))
        for view, number, offset in self.buffers.copies:
            target = Location(device.RESULT, number)
            if offset is None:
                yield from self._copy(view, target)
            elif view.value.bytes:
                yield device.Copy(target, Location(device.ARENA, offset), view.value.bytes)

    # Kernels

    def _kernel(self, step: KernelStep, number: int) -> Iterator[Command]:
        places = self.buffers.places
        outputs: dict[Place, int] = {places[view.value]: output for output, view in enumerate(step.outputs)}
        shared = {
            i: outputs[places[view.value]]
            for i, view in enumerate(step.inputs)
            if view.value.kind != CONSTANT and view.value.bytes and places[view.value] in outputs
        }
        for template in self.kernels.templates(step, shared):
            yield self._command(template, step, shared, self.buffers.scratch[number])

    def _command(self, template: Template, step: KernelStep, shared: dict[int, int], scratch: int) -> Command:
        name = step.instruction.name
        if isinstance(template, LaunchTemplate):
            own = [view for number, view in enumerate(step.inputs) if number not in shared]
            return self._launch(template, own, step, scratch)
        if isinstance(template, CopyTemplate):
            target, source = step.outputs[template.output], step.inputs[template.input]
            return device.Copy(self._location(target), self._location(source), target.value.bytes)
        if isinstance(template, FillTemplate):
            place = Location(device.ARENA, scratch) if template.output is None else self._location(
                step.outputs[template.output]
            )
            return device.Fill(Location(place.kind, place.number), template.offset, template.byte, template.size)
        if isinstance(template, HostTemplate):
            operands = self._locations([step.inputs[number] for number in template.inputs])
            results = self._locations([step.outputs[number] for number in template.outputs])
            return device.HostCall(template.external, operands, results, name)
        assert isinstance(template, MeetingTemplate)
        shown = [step.inputs[number] for number in template.inputs]
        launches = tuple(self._meeting_launch(one, shown, template.devices, step, scratch) for one in template.launches)
        return device.Meeting(self._locations(shown), launches, name)

    def _launch(
        self, template: LaunchTemplate, inputs: Sequence[View], step: KernelStep, scratch: int
    ) -> Launch:
        views = [*inputs, *step.outputs]
        arguments = [*self._locations(views), Location(device.ARENA, scratch), Location(device.CONTEXT)]
        sizes = [*(view.value.bytes for view in views), step.scratch_bytes, 8 * len(CONTEXT_FIELDS)]
        return Launch(
            template.kernel, template.grid, template.block, template.shared_bytes,
            tuple(arguments), tuple(sizes), template.scalars, step.instruction.name, template.maps,
        )

    def _meeting_launch(
        self, template: LaunchTemplate, shown: Sequence[View], devices: int, step: KernelStep, scratch: int
    ) -> Launch:
        """What all devices show, one device after the other, takes the place of the step's own inputs."""
        launch = self._launch(template, [], step, scratch)
        others = tuple(Location(device.EXTERNAL, number) for number in range(devices * len(shown)))
        sizes = tuple(view.value.bytes for view in shown) * devices
        return launch._replace(arguments=others + launch.arguments, sizes=sizes + launch.sizes)

    # Control flow

    def _call_step(self, step: CallStep, arena: int) -> Iterator[Command]:
        yield from self._carry(step)
        if step.is_loop:
            yield self._loop(step, arena)
            return
        calls = [
            Call(callee.number, self._locations(views), self._locations(step.outputs), arena + room)
            for callee, views, room in zip(self._callees(step), step.operands, self._rooms(step)[0], strict=False)
        ]
        if step.instruction.opcode == "conditional":
            selector = step.inputs[0]
            yield device.Choice(
                self._location(selector), selector.shape.dtype is PRED, tuple(calls), step.instruction.name
            )
        else:
            yield calls[0]

    def _carry(self, step: CallStep) -> Iterator[Command]:
        """Puts what callees change where it has to be."""
        for before, after in step.carried:
            source, target = step.inputs[before], step.outputs[after]
            if self.buffers.places.get(source.value) != self.buffers.places[target.value]:
                yield from self._copy(source, self._location(target))

    def _loop(self, step: CallStep, arena: int) -> Command:
        """The changing state lies in the outputs: the condition reads it there, the body changes it there."""
        condition, body = self._callees(step)
        rooms, _ = self._rooms(step)
        state = self._locations(step.operands[0])
        verdict = Location(device.ARENA, arena + rooms[2])
        return device.Loop(
            Call(condition.number, state, (verdict,), arena + rooms[0]),
            Call(body.number, state, state, arena + rooms[1]),
            verdict,
            step.instruction.name,
        )
