"""What the verifier asks of work that is begun by one instruction and finished by another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hloc.errors import HloError
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module

# The ops that may take what an op begins, which has exactly one user.
_TAKEN_BY = {
    "all-reduce-start": ("all-reduce-done",),
    "async-start": ("async-update", "async-done"),
    "async-update": ("async-update", "async-done"),
    "collective-permute-start": ("collective-permute-done",),
    "copy-start": ("copy-done",),
    "recv": ("recv-done", "tuple"),
    "send": ("send-done", "tuple"),
}
# The ops from which an op may take what was begun. Pipelined loops carry transfers in tuples.
_TAKES = {
    "all-reduce-done": ("all-reduce-start",),
    "async-done": ("async-start", "async-update"),
    "async-update": ("async-start", "async-update"),
    "collective-permute-done": ("collective-permute-start",),
    "copy-done": ("copy-start",),
    "recv-done": ("recv", "get-tuple-element"),
    "send-done": ("send", "get-tuple-element"),
}
_CHAIN = ("async-start", "async-update", "async-done")
_TRANSFERS = {"send": "send-done", "recv": "recv-done"}
# The ops whose computations run on the thread of the instruction itself.
_SAME_THREAD = frozenset({"fusion", "while", "conditional"})
_CONCERNED = frozenset({*_TAKEN_BY, *_TAKES, *_CHAIN, *_SAME_THREAD})


def async_faults(module: Module, instructions: Sequence[Instruction]) -> Iterator[HloError]:
    for instruction in instructions:
        opcode = instruction.opcode
        if opcode not in _CONCERNED:
            continue
        if opcode in _TAKEN_BY:
            yield from _user_faults(instruction)
        if opcode in _TAKES and instruction.operands:
            yield from _operand_faults(instruction)
        if opcode in _TRANSFERS:
            yield from _channel_faults(instruction)
        if opcode in _CHAIN or opcode in _SAME_THREAD:
            yield from _thread_faults(instruction)


def _fault(instruction: Instruction, message: str, label: str) -> HloError:
    return HloError(f"{instruction.opcode}: {message}", instruction.span, label=label)


def _user_faults(instruction: Instruction) -> Iterator[HloError]:
    if instruction.opcode in _TRANSFERS and instruction.is_root and not instruction.users:
        return  # the body of an async computation
    users = list(instruction.users)
    expected = " or ".join(_TAKEN_BY[instruction.opcode])
    if len(users) != 1:
        yield _fault(
            instruction, f"%{instruction.name} has {len(users)} users, expected one {expected}", "PAIR_C1"
        )
    elif users[0].opcode not in _TAKEN_BY[instruction.opcode]:
        message = (
            f"%{instruction.name} is taken by %{users[0].name}, a {users[0].opcode}, expected {expected}"
        )
        yield _fault(instruction, message, "PAIR_C1")


def _operand_faults(instruction: Instruction) -> Iterator[HloError]:
    operand = instruction.operands[0]
    if operand.opcode not in _TAKES[instruction.opcode]:
        expected = " or ".join(_TAKES[instruction.opcode])
        message = f"operand 0 (%{operand.name}) is a {operand.opcode}, expected {expected}"
        yield _fault(instruction, message, "PAIR_C2")
        return
    if instruction.opcode in _CHAIN:
        ours, begun = instruction.attributes.get("calls"), operand.attributes.get("calls")
        if ours is not None and begun is not None and ours is not begun:
            message = f"calls=%{ours.name}, but operand 0 (%{operand.name}) began %{begun.name}"
            yield _fault(instruction, message, "PAIR_C3")


def _channel_faults(instruction: Instruction) -> Iterator[HloError]:
    """A transfer and its end agree on channel and partner."""
    for user in instruction.users:
        if user.opcode != _TRANSFERS[instruction.opcode]:
            continue
        for attribute in ("channel_id", "is_host_transfer"):
            ours, theirs = instruction.get(attribute), user.get(attribute)
            if ours != theirs:
                message = f"{attribute} is {ours}, but that of %{user.name} is {theirs}"
                yield _fault(instruction, message, "CHANNEL_C1")


def _thread_faults(instruction: Instruction) -> Iterator[HloError]:
    if instruction.opcode in _CHAIN:
        thread = instruction.get("async_execution_thread")
        label = "THREAD_C1"
    else:
        thread = instruction.computation.execution_thread if instruction.computation is not None else "main"
        label = "THREAD_C2"
    for callee in instruction.called:
        if callee.execution_thread != thread:
            message = f"%{callee.name} runs on the thread {callee.execution_thread!r}, expected {thread!r}"
            yield _fault(instruction, message, label)
