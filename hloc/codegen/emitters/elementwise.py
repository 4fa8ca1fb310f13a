"""Ops whose result element depends on the operands' elements at its index alone, by the scalar table."""

from __future__ import annotations

from hloc.analysis.erf_inv import operand_of_erf_inv
from hloc.analysis.row_softmax import is_power, is_weight
from hloc.codegen import math, scalar
from hloc.codegen.kernel import Element, Index, KernelContext, Register, element, index_constant
from hloc.codegen.llvm import const
from hloc.codegen.program import CONTEXT_FIELDS
from hloc.ir.dtypes import F32, F64
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
    if instruction.opcode == "select" and k.b.module.vector_bytes and instruction is not k.instruction:
        x = operand_of_erf_inv(instruction)
        if x is not None:
            return math.call(k.b, "erf_inv", [k.body.evaluate(k, x, (), index)])
    values = _at(instruction, operands, index)
    types = [operand.shape.dtype for operand in instruction.operands]
    result = instruction.shape.dtype
    if k.b.module.vector_bytes and result in (F32, F64):
        if is_power(instruction):
            return math.call(k.b, "exp_of_negative", values)
        if is_weight(instruction):
            # Of a row's total once: a division takes as long as five products.
            return k.b.fmul(values[0], k.b.fdiv(const(values[1].type, 1), values[1]))
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
