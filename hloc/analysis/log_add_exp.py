"""Computations that add numbers given by their logarithms: log(exp(a) + exp(b)), as JAX writes it."""

from __future__ import annotations

from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction


def is_log_add_exp(computation: Computation) -> bool:
    """Whether it is max(a, b) + log1p(exp(-|a - b|)) of its two parameters, perhaps a + b where a - b is NaN.

    That is a sum: values may come in any order.
    """
    if len(computation.parameters) != 2:
        return False
    root = computation.root
    if root.opcode == "select":
        condition, if_nan, root = root.operands
        if not (_is_of_both(if_nan, "add") and _says_nan(condition)):
            return False
    if root.opcode != "add":
        return False
    greater, rest = root.operands if root.operands[0].opcode == "maximum" else root.operands[::-1]
    for opcode in ("log-plus-one", "exponential", "negate", "abs"):
        if rest.opcode != opcode:
            return False
        (rest,) = rest.operands
    return _is_of_both(greater, "maximum") and _is_of_both(rest, "subtract")


def _says_nan(condition: Instruction) -> bool:
    """Whether the difference of the parameters is compared with itself, and is not the same."""
    if condition.opcode != "compare" or condition.get("direction") != "NE":
        return False
    left, right = condition.operands
    return left is right and _is_of_both(left, "subtract")


def _is_of_both(instruction: Instruction, opcode: str) -> bool:
    """Whether it is an operation of the two parameters."""
    numbers = [operand.get("number") for operand in instruction.operands if operand.opcode == "parameter"]
    return instruction.opcode == opcode and sorted(numbers) == [0, 1]
