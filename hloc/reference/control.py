"""Control flow, asynchronous wrappers, and the host's side.

Ops that run computations are generators (see context.py).
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np

from hloc.errors import HloError
from hloc.host.queues import HostQueues
from hloc.host.values import given_leaves, structured
from hloc.ir.instruction import Instruction
from hloc.reference.context import Call, Context
from hloc.reference.values import TOKEN, Value, zeros

Run = Generator[Call, Value, Value]


def call(instruction: Instruction, operands: list[Value], context: Context) -> Run:
    return (yield Call(instruction.get("to_apply"), operands, instruction))


def fusion(instruction: Instruction, operands: list[Value], context: Context) -> Run:
    """A fusion means what its body means, whatever kernel it stands for."""
    return (yield Call(instruction.get("calls"), operands, instruction))


def while_(instruction: Instruction, operands: list[Value], context: Context) -> Run:
    state = operands.pop()
    condition, body = instruction.get("condition"), instruction.get("body")
    while bool((yield Call(condition, [state], instruction))):
        state = yield Call(body, [state], instruction)
    return state


def conditional(instruction: Instruction, operands: list[Value], context: Context) -> Run:
    """The branch of a pred (true, false) or of an index, out of range the last one (X20)."""
    branches = instruction.get("branch_computations")
    if branches:
        index = int(operands[0])
        if operands[0].dtype == bool:
            index = 1 - index
        index = index if 0 <= index < len(branches) else len(branches) - 1
    else:
        branches = (instruction.get("true_computation"), instruction.get("false_computation"))
        index = 0 if bool(operands[0]) else 1
    return (yield Call(branches[index], [operands[1 + index]], instruction))


def async_start(instruction: Instruction, operands: list[Value], context: Context) -> Run:
    """Runs the computation at once: ((operands), result, state...)."""
    result = yield Call(instruction.get("calls"), list(operands), instruction)
    rest = instruction.shape.elements[2:] if instruction.shape.is_tuple else ()
    return (tuple(operands), result, *(zeros(shape) for shape in rest))


def async_update(instruction: Instruction, operands: list[Value], context: Context) -> Value:
    return operands[0]


def async_done(instruction: Instruction, operands: list[Value], context: Context) -> Value:
    return operands[0][1]


def _queues(instruction: Instruction, context: Context) -> HostQueues:
    if context.queues is None:
        raise HloError(
            f"{instruction.opcode} needs a host on the other side: give HostQueues", instruction.span
        )
    return context.queues


def infeed(instruction: Instruction, operands: list[Value], context: Context) -> tuple:
    queue = _queues(instruction, context).infeed
    if queue.empty():
        raise HloError("the host's infeed queue is empty", instruction.span)
    return _from_host(queue.get(), instruction), TOKEN


def outfeed(instruction: Instruction, operands: list[Value], context: Context) -> Value:
    _queues(instruction, context).outfeed.put(operands[0])
    return TOKEN


def send(instruction: Instruction, operands: list[Value], context: Context) -> tuple:
    channel = instruction.get("channel_id") or 0
    _queues(instruction, context).channel(channel).from_device.put(operands[0])
    return operands[0], np.zeros((), np.uint32), TOKEN


def recv(instruction: Instruction, operands: list[Value], context: Context) -> tuple:
    """The value comes with `recv-done`."""
    return zeros(instruction.shape.elements[0]), np.zeros((), np.uint32), TOKEN


def send_done(instruction: Instruction, operands: list[Value], context: Context) -> Value:
    return TOKEN


def recv_done(instruction: Instruction, operands: list[Value], context: Context) -> tuple:
    channel = instruction.get("channel_id") or 0
    queue = _queues(instruction, context).channel(channel).to_device
    if queue.empty():
        raise HloError(f"the host has nothing to send on channel {channel}", instruction.span)
    return _from_host(queue.get(), instruction), TOKEN


def _from_host(value: object, instruction: Instruction) -> Value:
    """A value that the host gave, held against the op's data."""
    shape = instruction.shape.elements[0]
    leaves = iter(given_leaves(f"the host, for {instruction.opcode},", value, shape))
    return structured(shape, leaves, TOKEN)


GENERATORS: dict[str, Callable] = {
    "async-start": async_start,
    "call": call,
    "conditional": conditional,
    "fusion": fusion,
    "while": while_,
}

TABLE: dict[str, Callable] = {
    "async-done": async_done,
    "async-update": async_update,
    "infeed": infeed,
    "outfeed": outfeed,
    "recv": recv,
    "recv-done": recv_done,
    "send": send,
    "send-done": send_done,
}
