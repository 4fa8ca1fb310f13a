"""Calls of functions outside of a program that take arrays: those registered by name, the host's queues."""

from __future__ import annotations

from collections.abc import Sequence

from hloc.codegen.kernel import KernelContext, index_constant
from hloc.codegen.llvm import Value, integer
from hloc.codegen.program import External, external_failed


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
