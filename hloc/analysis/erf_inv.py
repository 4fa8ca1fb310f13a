"""The inverse of the error function, of f32, as programs spell it: there is no opcode of its own.

Both its polynomials are of M. Giles, "Approximating the erfinv function" (2010), with every coefficient chosen by a
select before the one evaluation:

    w = -log-plus-one(x * -x)    near = w < 5    z = select(near, w - 2.5, sqrt(w) - 3)
    select(abs(x) == 1, x * inf, x * p(z)),    p(z) = c0 + (c1 + (... c8 * z) ...) * z,    ci = select(near, ai, bi)
"""

from __future__ import annotations

import numpy as np

from hloc.ir.dtypes import F32
from hloc.ir.instruction import Instruction

_COEFFICIENTS = (
    (1.50140941, 2.83297682),
    (0.246640727, 1.00167406),
    (-0.00417768164, 0.00943887047),
    (-0.00125372503, -0.0076224613),
    (0.00021858087, 0.00573950773),
    (-4.39150654e-06, -0.00367342844),
    (-3.5233877e-06, 0.00134934322),
    (3.43273939e-07, 0.000100950558),
    (2.81022636e-08, -0.000200214257),
)
"""Of the polynomials for w below 5, and of the others, lowest degree first."""


def operand_of_erf_inv(root: Instruction) -> Instruction | None:
    """x, if the instruction gives its inverse error function, in f32; None if not."""
    if root.opcode != "select" or root.shape.dtype is not F32:
        return None
    is_one, infinite, product = root.operands
    if is_one.opcode != "compare" or is_one.operands[0].opcode != "abs" or not _is(is_one.operands[1], 1.0):
        return None
    (x,) = is_one.operands[0].operands
    p = _other(product, "multiply", x)
    if is_one.get("direction") != "EQ" or not _is(_other(infinite, "multiply", x), np.inf) or p is None:
        return None
    return x if _is_polynomial(p, x) else None


def _is_polynomial(p: Instruction, x: Instruction) -> bool:
    """Whether p is the polynomial that x is multiplied by."""
    z = near = None
    for pair in _COEFFICIENTS[:-1]:
        if p.opcode != "add":
            return False
        coefficient, rest = sorted(p.operands, key=lambda operand: operand.opcode == "multiply")
        near = near or _condition(coefficient)
        if rest.opcode != "multiply" or not _is_choice(coefficient, near, pair):
            return False
        z = z or rest.operands[1]
        p = _other(rest, "multiply", z)
        if p is None:
            return False
    return _is_choice(p, near, _COEFFICIENTS[-1]) and _is_variable(z, near, x)


def _is_variable(z: Instruction, near: Instruction, x: Instruction) -> bool:
    """Whether z is the polynomials' variable, and `near` what chooses among them."""
    if z.opcode != "select" or z.operands[0] is not near or near.opcode != "compare" or near.get("direction") != "LT":
        return False
    w, limit = near.operands
    below, above = z.operands[1:]
    if not _is(limit, 5.0) or w.opcode != "negate" or w.operands[0].opcode != "log-plus-one":
        return False
    square = w.operands[0].operands[0]
    if not (_is_less(below, w, 2.5) and above.operands and _is_less(above, above.operands[0], 3.0)):
        return False
    opposite = _other(square, "multiply", x)
    is_opposite = opposite is not None and opposite.opcode == "negate" and opposite.operands[0] is x
    return is_opposite and above.operands[0].opcode == "sqrt" and above.operands[0].operands[0] is w


def _condition(choice: Instruction) -> Instruction | None:
    return choice.operands[0] if choice.opcode == "select" else None


def _is_choice(choice: Instruction, condition: Instruction | None, pair: tuple[float, float]) -> bool:
    """Whether the instruction selects one of two constants by the condition."""
    if choice.opcode != "select" or choice.operands[0] is not condition:
        return False
    return all(_is(operand, number) for operand, number in zip(choice.operands[1:], pair, strict=True))


def _is_less(difference: Instruction, value: Instruction, number: float) -> bool:
    """Whether the instruction is a value less a number."""
    if difference.opcode != "subtract" or difference.operands[0] is not value:
        return False
    return _is(difference.operands[1], number)


def _other(instruction: Instruction, opcode: str, operand: Instruction) -> Instruction | None:
    """The other operand of an instruction of that opcode; None if it has another one, or not this operand."""
    if instruction.opcode != opcode or operand not in instruction.operands:
        return None
    first, second = instruction.operands
    return second if first is operand else first


def _is(value: Instruction | None, number: float) -> bool:
    """Whether all elements are this f32 number."""
    while value is not None and value.opcode == "broadcast":
        (value,) = value.operands
    if value is None or value.opcode != "constant" or value.shape.dtype is not F32 or value.shape.count != 1:
        return False
    return value.attributes["literal"].array.reshape(-1)[0] == np.float32(number)
