"""Ops whose result element depends on the operands' elements at its index alone, by the scalar table."""

from __future__ import annotations

from hloc.codegen import scalar
from hloc.codegen.kernel import Element, Index, KernelContext, Register, element, index_constant
from hloc.codegen.program import CONTEXT_FIELDS
from hloc.ir.instruction import Instruction
from hloc.ir.opcodes import OPS


def _at(instruction: Instruction, operands: list[Element], index: Index) -> list[Register]:
    """The operands' elements at an index; a scalar operand (of select, clamp) counts at every index."""
    return [
        operand(index if given.shape.dims or not index else ())
        for operand, given in zip(operands, instruction.operands, strict=True)
    ]


@element(*[name for name in scalar.TABLE if OPS[name].is_elementwise])
def elementwise(
    k: KernelContext, instruction: Instruction, operands: list[Element], index: Index
) -> Register:
    values = _at(instruction, operands, index)
    types = [operand.shape.dtype for operand in instruction.operands]
    result = instruction.shape.dtype
    try:
        return scalar.emit(k.b, instruction.opcode, values, types, result, instruction.attributes)
    except scalar.UnsupportedScalar as error:
        raise k.error(str(error), instruction) from None


@element("map")
def map_(k: KernelContext, instruction: Instruction, operands: list[Element], index: Index) -> Register:
    (value,) = k.apply(instruction.attributes["to_apply"], [operand(index) for operand in operands])
    return value


@element("replica-id", "partition-id")
def device_number(
    k: KernelContext, instruction: Instruction, operands: list[Element], index: Index
) -> Register:
    field = CONTEXT_FIELDS.index(instruction.opcode.replace("-", "_"))
    number = k.b.load("i64", k.b.gep("i64", k.context, index_constant(field)))
    return k.b.trunc(number, "i32")
