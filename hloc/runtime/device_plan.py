"""The commands of a device program with the addresses of one run in them: a tree of steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.codegen.device_program import (
    ARENA,
    ARGUMENT,
    CONSTANT,
    CONTEXT,
    EXTERNAL,
    RESULT,
    Call,
    Choice,
    Command,
    Copy,
    DeviceCode,
    Fill,
    HostCall,
    Launch,
    Location,
    Loop,
    Meeting,
)
from hloc.records import NamedTuple


class LaunchStep(NamedTuple):
    """A kernel on these addresses."""

    launch: Launch
    arguments: tuple[int, ...]


class CopyStep(NamedTuple):
    """Bytes copied within device memory."""

    target: int
    source: int
    size: int


class FillStep(NamedTuple):
    """Bytes set to one value."""

    target: int
    byte: int
    size: int


class LoopStep(NamedTuple):
    """`body` as long as `condition` leaves a byte that is not 0 at `verdict`."""

    condition: Steps
    body: Steps
    verdict: int
    instruction: str


class ChoiceStep(NamedTuple):
    """One of the branches, by a byte (the first if it is not 0) or an s32 at `selector`."""

    selector: int
    by_pred: bool
    branches: tuple[Steps, ...]
    instruction: str


class HostStep(NamedTuple):
    """A call of a function of the host's."""

    external: int
    operands: tuple[int, ...]
    results: tuple[int, ...]
    instruction: str


class MeetingStep(NamedTuple):
    """Launches that read from all devices' sources; arguments that do are (member, number of its source)."""

    sources: tuple[int, ...]
    launches: tuple[tuple[Launch, tuple[int | tuple[int, int], ...]], ...]
    instruction: str


class Stretch(NamedTuple):
    """Steps that the device can record as a whole, and how often they were done: [times, recording]."""

    steps: Steps
    state: list


Step = LaunchStep | CopyStep | FillStep | LoopStep | ChoiceStep | HostStep | MeetingStep | Stretch
Steps = tuple[Step, ...]


class Places(NamedTuple):
    """Where a computation's memory lies."""

    arguments: tuple[int, ...]
    results: tuple[int, ...]
    arena: int
    constants: int
    context: int

    def address(self, location: Location) -> int:
        """Where a location lies. EXTERNAL ones are known only when devices meet."""
        kind, number = location
        if kind == ARENA:
            return self.arena + number
        if kind == ARGUMENT:
            return self.arguments[number]
        if kind == RESULT:
            return self.results[number]
        if kind == CONSTANT:
            return self.constants + number
        assert kind == CONTEXT, f"{location} outside of a meeting"
        return self.context + number

    def addresses(self, locations: Sequence[Location]) -> tuple[int, ...]:
        return tuple([self.address(location) for location in locations])

    def called(self, call: Call) -> Places:
        """Where a callee's memory lies."""
        arguments, results = self.addresses(call.arguments), self.addresses(call.results)
        return self._replace(arguments=arguments, results=results, arena=self.arena + call.arena)


def bind(code: DeviceCode, places: Places) -> Steps:
    """The steps of a program whose entry's memory lies at these places."""
    return _bound(code, code.computations[-1].commands, places)


def _bound(code: DeviceCode, commands: Sequence[Command], places: Places) -> Steps:
    steps: list[Step] = []
    for command in commands:
        if isinstance(command, Call):
            steps += _callee(code, command, places)
        else:
            steps.append(_step(code, command, places))
    return tuple(steps)


def _callee(code: DeviceCode, call: Call, places: Places) -> Steps:
    return _bound(code, code.computations[call.computation].commands, places.called(call))


def _step(code: DeviceCode, command: Command, places: Places) -> Step:
    if isinstance(command, Launch):
        return LaunchStep(command, places.addresses(command.arguments))
    if isinstance(command, Copy):
        return CopyStep(places.address(command.target), places.address(command.source), command.size)
    if isinstance(command, Fill):
        return FillStep(places.address(command.target) + command.offset, command.byte, command.size)
    if isinstance(command, Loop):
        condition, body = (_callee(code, call, places) for call in (command.condition, command.body))
        return LoopStep(condition, body, places.address(command.verdict), command.instruction)
    if isinstance(command, Choice):
        branches = tuple(_callee(code, call, places) for call in command.branches)
        return ChoiceStep(places.address(command.selector), command.by_pred, branches, command.instruction)
    if isinstance(command, HostCall):
        operands, results = places.addresses(command.operands), places.addresses(command.results)
        return HostStep(command.external, operands, results, command.instruction)
    return _meeting(command, places)


def _meeting(meeting: Meeting, places: Places) -> MeetingStep:
    count = max(len(meeting.sources), 1)

    def argument(location: Location) -> int | tuple[int, int]:
        return divmod(location.number, count) if location.kind == EXTERNAL else places.address(location)

    launches = tuple((launch, tuple(map(argument, launch.arguments))) for launch in meeting.launches)
    return MeetingStep(places.addresses(meeting.sources), launches, meeting.instruction)


def choose(selector: bytes, by_pred: bool, branches: int) -> int:
    """The number of the branch that a Choice takes."""
    if by_pred:
        return 0 if selector[0] else 1
    number = int.from_bytes(selector, "little", signed=True)
    return number if 0 <= number < branches else branches - 1


def stretches(steps: Steps, can_record: Callable[[Step], bool]) -> Steps:
    """The steps with those that follow each other and can be recorded in one Stretch, inside of loops as well."""
    found: list[Step] = []
    stretch: list[Step] = []

    def end() -> None:
        if stretch:
            found.append(Stretch(tuple(stretch), [0, None]))
            stretch.clear()

    for step in steps:
        if can_record(step):
            stretch.append(step)
            continue
        end()
        if isinstance(step, LoopStep):
            step = step._replace(
                condition=stretches(step.condition, can_record), body=stretches(step.body, can_record)
            )
        elif isinstance(step, ChoiceStep):
            step = step._replace(branches=tuple(stretches(branch, can_record) for branch in step.branches))
        found.append(step)
    end()
    return tuple(found)
