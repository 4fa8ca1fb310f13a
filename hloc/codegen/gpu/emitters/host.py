"""Ops that the host does while devices wait: custom-call, infeed, outfeed, send and recv.

Routines of LAPACK, and checks of live sizes, are left to the evaluator, on copies of the operands.
"""

from __future__ import annotations

from hloc.codegen.emitters.custom_calls import lapack_recipe, registered_external
from hloc.codegen.emitters.host import channel_name
from hloc.codegen.gpu.emitters import gpu_kernel
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.graphs import operand_leaves
from hloc.codegen.host_calls import shape_in_memory
from hloc.codegen.program import EVALUATED, INFEED, OUTFEED, RECV, SEND, External
from hloc.host.custom_calls import registered
from hloc.ir.builder import Builder
from hloc.ir.clone import clone_instruction
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape, Shape
from hloc.reference.custom_calls import SIZE_CHECK
from hloc.text.printer import print_module


def _leaves(g: GpuStep, number: int) -> list[ArrayShape]:
    """An operand's leaves as they lie in memory."""
    return [g.input_shape(n, leaf) for n, leaf, _ in operand_leaves(g.instruction) if n == number]


def _lying(g: GpuStep, number: int) -> Shape:
    """An operand's shape as it lies in memory."""
    return shape_in_memory(g.instruction.operands[number].shape, iter(_leaves(g, number)))


@gpu_kernel("custom-call")
def custom_call(g: GpuStep, instruction: Instruction) -> None:
    target = instruction.get("custom_call_target")
    if registered(target) is not None:
        leaves = [_leaves(g, number) for number in range(len(instruction.operands))]
        g.host_call(registered_external(instruction, leaves))
        return
    if target != SIZE_CHECK:
        lapack_recipe(instruction)  # finds what does not fit
    operands = tuple(_lying(g, number) for number in range(len(instruction.operands)))
    g.host_call(External(EVALUATED, target, operands, instruction.shape, _program(instruction)))


def _program(instruction: Instruction) -> str:
    """The text of a program that is one op of its parameters."""
    b = Builder("call")
    parameters = [b.parameter(operand.shape) for operand in instruction.operands]
    return print_module(b.build(b.computation.add(clone_instruction(instruction, parameters))))


@gpu_kernel("infeed")
def infeed(g: GpuStep, instruction: Instruction) -> None:
    g.host_call(External(INFEED, "", (), instruction.shape.elements[0]))


@gpu_kernel("outfeed")
def outfeed(g: GpuStep, instruction: Instruction) -> None:
    g.host_call(External(OUTFEED, "", (_lying(g, 0),)), [0])


@gpu_kernel("send")
def send(g: GpuStep, instruction: Instruction) -> None:
    leaves = [leaf for number, leaf, _ in operand_leaves(instruction) if number == 0]
    for output, leaf in enumerate(leaves):
        g.copy(0, output, leaf)
    g.fill(len(leaves), 0, g.step.outputs[len(leaves)].shape.byte_size)
    g.host_call(External(SEND, channel_name(instruction), (_lying(g, 0),)), [0], [])


@gpu_kernel("recv")
def recv(g: GpuStep, instruction: Instruction) -> None:
    for output, view in enumerate(g.step.outputs):
        g.fill(output, 0, view.shape.byte_size)


@gpu_kernel("recv-done")
def recv_done(g: GpuStep, instruction: Instruction) -> None:
    g.host_call(External(RECV, channel_name(instruction), (), instruction.shape.elements[0]), [])


@gpu_kernel("send-done")
def send_done(g: GpuStep, instruction: Instruction) -> None:
    """The value went to the host when it was sent."""
