"""Several devices at once: each runs until it must meet others, then those that have met go on.

One after the other and always in the same order, so a run is the same every time; when no device can go on
and not all have come to their end, that is an error that says who waits where for whom.
"""

from __future__ import annotations

from collections.abc import Generator

from hloc.errors import HloError
from hloc.reference.collectives import RESULTS
from hloc.reference.context import Exchange
from hloc.reference.machine import Machine, cause, located
from hloc.reference.values import Value


def run_together(runs: list[Generator[Exchange, Value, Value]], machines: list[Machine]) -> list[Value]:
    """The results of all devices' runs."""
    waiting: dict[int, Exchange] = {}
    results: dict[int, Value] = {}
    answers: dict[int, Value] = dict.fromkeys(range(len(runs)))
    while answers:
        for device, answer in answers.items():
            try:
                waiting[device] = runs[device].send(answer)
            except StopIteration as end:
                results[device] = end.value
        answers = _meetings(waiting, machines)
        if not answers and waiting:
            raise _stuck(waiting, len(runs))
    return [results[device] for device in range(len(runs))]


def _meetings(waiting: dict[int, Exchange], machines: list[Machine]) -> dict[int, Value]:
    """Every group that is complete gets its results and waits no more."""
    answers: dict[int, Value] = {}
    for device in sorted(waiting):
        here = waiting.get(device)
        if here is None or not all(_meets(waiting.get(member), here) for member in here.members):
            continue
        operands = [waiting.pop(member).operands for member in here.members]
        try:
            given = RESULTS[here.instruction.opcode](here.instruction, operands, machines[device])
        except Exception as error:
            raise located(error, here.instruction) from cause(error)
        answers |= zip(here.members, given, strict=True)
    return dict(sorted(answers.items()))


def _meets(other: Exchange | None, here: Exchange) -> bool:
    return other is not None and other.meeting == here.meeting and other.members == here.members


def _stuck(waiting: dict[int, Exchange], count: int) -> HloError:
    device = min(waiting)
    here = waiting[device]
    reasons = []
    for member in here.members:
        other = waiting.get(member)
        if not 0 <= member < count:
            reasons.append(f"there is no device {member} among {count}")
        elif other is None:
            reasons.append(f"device {member} has come to its end")
        elif not _meets(other, here):
            reasons.append(f"device {member} waits at %{other.instruction.name}")
    place = f"%{here.instruction.name} = {here.instruction.opcode}"
    return HloError(f"device {device} waits forever at {place}: {', '.join(reasons)}", here.instruction.span)
