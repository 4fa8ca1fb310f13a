"""Control flow in computations of scalars: in a reducer, a comparator, a mapped function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hloc.codegen.arrays import Register, flattened, grouped
from hloc.codegen.llvm import Value, integer
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction

if TYPE_CHECKING:
    from hloc.codegen.kernel import KernelContext

CONTROL = ("while", "conditional")

Operands = Sequence[Sequence[Register]]
"""The leaves of each operand."""


def results_of(k: KernelContext, instruction: Instruction, operands: Operands) -> list[Register]:
    """The leaves of a while or a conditional over scalars."""
    if instruction.opcode == "while":
        return _while(k, instruction, operands[0])
    return _conditional(k, instruction, operands)


def _while(k: KernelContext, instruction: Instruction, initial: Sequence[Register]) -> list[Register]:
    def condition(values: list[Value]) -> Value:
        (again,) = k.apply(instruction.attributes["condition"], grouped(values, initial))
        return again

    def body(values: list[Value]) -> list[Value]:
        return flattened(k.apply(instruction.attributes["body"], grouped(values, initial)))

    return grouped(k.b.while_loop(flattened(initial), condition, body), initial)


def _conditional(k: KernelContext, instruction: Instruction, operands: Operands) -> list[Register]:
    """The chosen branch only; of an index out of range, the last."""
    branches = instruction.called
    (chosen,) = operands[0]
    like: list[Register] = []

    def run(branch: Computation, number: int) -> Callable[[], list[Value]]:
        def values() -> list[Value]:
            results = k.apply(branch, operands[number + 1])
            like[:] = results
            return flattened(results)

        return values

    def choose(number: int) -> list[Value]:
        if number == len(branches) - 1:
            return run(branches[number], number)()
        here = chosen if chosen.type == "i1" else k.b.icmp_signed("==", chosen, integer(chosen.type, number))
        return k.b.if_else(here, run(branches[number], number), lambda: choose(number + 1))

    return grouped(choose(0), like)
