"""infeed, outfeed, send and recv: values that go to the host, or come from it, while the program runs.

A transfer that begins with `recv` is done by its `recv-done`, so that what the host has to see first can be
sent in between; `send` gives its value away at once.
"""

from __future__ import annotations

from hloc.codegen.arrays import ArrayRef
from hloc.codegen.host_calls import call_external, operand_arrays, shape_in_memory
from hloc.codegen.kernel import KernelContext, index_constant, kernel
from hloc.codegen.llvm import Value, integer
from hloc.codegen.program import INFEED, OUTFEED, RECV, SEND, External
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import Shape


def channel_name(instruction: Instruction) -> str:
    """The External's name of an op's channel."""
    return str(instruction.get("channel_id") or 0)


def _lying(instruction: Instruction, arrays: list[ArrayRef]) -> Shape:
    """The shape of what an op sends, as it lies in memory."""
    return shape_in_memory(instruction.operands[0].shape, (array.shape for array in arrays))


def _pointers(arrays: list[ArrayRef]) -> list[Value]:
    return [array.pointer for array in arrays]


def _clear(k: KernelContext, array: ArrayRef) -> None:
    k.b.memset(array.pointer, integer("i8", 0), index_constant(array.shape.byte_size))


@kernel("infeed", fails=True)
def infeed(k: KernelContext, instruction: Instruction) -> None:
    external = External(INFEED, "", (), instruction.shape.elements[0])
    call_external(k, external, [], _pointers(k.outputs))


@kernel("outfeed", fails=True)
def outfeed(k: KernelContext, instruction: Instruction) -> None:
    arrays = operand_arrays(k, instruction, 0)
    external = External(OUTFEED, "", (_lying(instruction, arrays),))
    call_external(k, external, _pointers(arrays), [])


@kernel("send", fails=True)
def send(k: KernelContext, instruction: Instruction) -> None:
    arrays = operand_arrays(k, instruction, 0)
    external = External(SEND, channel_name(instruction), (_lying(instruction, arrays),))
    for array, output in zip(arrays, k.outputs, strict=False):
        k.copy(array, output)
    _clear(k, k.outputs[-1])
    call_external(k, external, _pointers(arrays), [])


@kernel("recv")
def recv(k: KernelContext, instruction: Instruction) -> None:
    for output in k.outputs:
        _clear(k, output)


@kernel("recv-done", fails=True)
def recv_done(k: KernelContext, instruction: Instruction) -> None:
    external = External(RECV, channel_name(instruction), (), instruction.shape.elements[0])
    call_external(k, external, [], _pointers(k.outputs))


@kernel("send-done")
def send_done(k: KernelContext, instruction: Instruction) -> None:
    """The value went to the host when it was sent."""
