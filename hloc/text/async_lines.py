"""Asynchronous operations: `op-start`, `op-update` and `op-done` for any op become async-start with a computation of
that one operation, async-update and async-done; the generic forms are checked the same way."""

from __future__ import annotations

from typing import Any

from hloc.errors import Span
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import call_order
from hloc.ir.opcodes import OPS, STRING, Op
from hloc.ir.opcodes import Attribute as Row
from hloc.ir.shapes import Shape, TupleShape
from hloc.text.messages import suggest
from hloc.text.tokens import Token, fault_at

STEPS = {"-start": "async-start", "-update": "async-update", "-done": "async-done"}

# What a wrapped operation's line may say besides the operation's own attributes.
STEP_ATTRIBUTES = {
    "async_execution_thread": Row("async_execution_thread", STRING, default="main"),
    "output_to_operand_aliasing": OPS["async-start"].attributes["output_to_operand_aliasing"],
}

# Common attributes of a step that the root of its computation carries too; the last step that has one decides.
_SHARED = ("metadata", "origin", "backend_config", "frontend_attributes", "statistics")

_NOT_WRAPPED = frozenset(("parameter", "constant", *STEPS.values()))


def step_of(opcode: Token) -> tuple[str, Op]:
    """(async opcode, row of the wrapped op) of `slice-start` and the like; a Fault if it isn't one."""
    text = opcode.value
    for suffix, step in STEPS.items():
        wrapped = text.removesuffix(suffix)
        if wrapped != text and wrapped in OPS and wrapped not in _NOT_WRAPPED:
            return step, OPS[wrapped]
    raise fault_at(opcode, f"unknown opcode {text!r}", suggest(text, OPS))


def check_start(shape: Shape | None, opcode: Token) -> TupleShape:
    """The shape of a start, which must be ((operands), results, ...)."""
    if isinstance(shape, TupleShape) and len(shape.elements) >= 2 and isinstance(shape.elements[0], TupleShape):
        return shape
    raise fault_at(opcode, f"expected the shape ((operands), result, ...) of {opcode.value}, got {shape!r}")


def start_of(step: Instruction) -> Instruction:
    """The async-start of a chain."""
    while step.opcode != "async-start":
        step = step.operands[0]
    return step


def check_step(name: str, operands: list[Instruction], shape: Shape | None, opcode: Token) -> Instruction:
    """The async-start that an update or done continues; a Fault if its operand is no asynchronous operation."""
    before = operands[0] if operands else None
    count_is_right = len(operands) == 1 or (name == "async-update" and operands)
    if not count_is_right or before.opcode not in ("async-start", "async-update"):
        raise fault_at(opcode, f"{opcode.value} takes an asynchronous operation that is not done")
    if name == "async-update" and shape is not None and shape != before.shape:
        raise fault_at(opcode, f"expected the shape of the operand, {before.shape!r}, got {shape!r}")
    return start_of(before)


def check_inherited(start: Instruction, own: dict[str, Any], opcode: Token) -> None:
    """What an update or done repeats of its start must be the same; then it is dropped."""
    thread = start.get("async_execution_thread")
    if own.pop("async_execution_thread", thread) != thread:
        raise fault_at(opcode, f"expected the thread of the start, {thread!r}")
    if own.pop("calls", start.attributes["calls"]) is not start.attributes["calls"]:
        raise fault_at(opcode, f"expected the computation of the start, {start.attributes['calls'].name}")


def wrap(op: Op, start: TupleShape, own: dict[str, Any], span: Span) -> Computation:
    """The computation `async_wrapped` of one operation, on parameters and with a result as the start's shape says."""
    computation = Computation("async_wrapped", span)
    operands, result = start.elements[:2]
    parameters = []
    for number, shape in enumerate(operands.elements):
        parameter = Instruction("parameter", shape, [], {"number": number}, name="async_param", span=span)
        parameters.append(computation.add(parameter))
    root = Instruction(op.name, result, parameters, own, name=op.name, span=span)
    computation.root = computation.add(root)
    return computation


def share(computation: Computation, common: dict[str, Any]) -> None:
    """Let the root carry what a step says of it."""
    root = computation.root
    root.annotations.update((name, common[name]) for name in _SHARED if name in common)


def set_thread(computation: Computation, thread: str) -> None:
    """An async-start decides on which thread its computation runs, and all that it calls."""
    for callee in call_order(computation):
        callee.execution_thread = thread
