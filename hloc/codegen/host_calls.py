"""Calls of functions outside of a program that take arrays: those registered by name, the host's queues."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hloc.codegen.arrays import ArrayRef
from hloc.codegen.kernel import KernelContext, index_constant
from hloc.codegen.llvm import Value, integer
from hloc.codegen.program import External, external_failed
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape, Shape, TupleShape


def operand_arrays(k: KernelContext, instruction: Instruction, number: int) -> list[ArrayRef]:
    """The leaves of an operand, where they lie."""
    leaves = instruction.operands[number].shape.leaves()
    return [k.input_array(number, leaf) for leaf, shape in leaves if shape.is_array]


def shape_in_memory(shape: Shape, leaves: Iterator[ArrayShape]) -> Shape:
    """The shape with its leaves as they do lie."""
    if isinstance(shape, TupleShape):
        return TupleShape(tuple(shape_in_memory(element, leaves) for element in shape.elements))
    return next(leaves) if shape.is_array else shape


def call_external(
    k: KernelContext, external: External, operands: Sequence[Value], results: Sequence[Value]
) -> None:
    """Calls the function with the addresses of its arrays; sets the kernel's status if it fails.

    Floats behave there as the C language has them, denormals included.
    """
    b = k.b
    number, function = k.external(external)
    config = external.config.encode()
    text = b.module.constant_bytes(config + b"\0", align=1)
    status = b.alloca("i32")
    b.store(integer("i32", 0), status)
    arguments = [_table(k, results), _table(k, operands), text, index_constant(len(config)), status]
    before = k.target.enter_exact(b)
    b.call(function, arguments, "void")
    k.target.leave_flushing(b, before)
    failed = b.icmp_signed("!=", b.load("i32", status), integer("i32", 0))
    k.status = b.select(failed, integer("i32", external_failed(number)), integer("i32", 0))


def _table(k: KernelContext, pointers: Sequence[Value]) -> Value:
    """An array of pointers on the stack."""
    table = k.b.alloca("ptr", max(len(pointers), 1))
    for i, pointer in enumerate(pointers):
        k.b.store(pointer, k.b.gep("ptr", table, index_constant(i)))
    return table
