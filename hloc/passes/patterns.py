"""Patterns: what an instruction and those behind its operands must look like, as plain Python values.

    x, y = bind("x"), bind("y")
    found = match(instruction, op("add", x, op("negate", y)))   # {"x": ..., "y": ...}, or None

A pattern is a tree of what is here: `bind` takes anything and remembers it by name, `op` wants an opcode with
operands of its own patterns, `splat` one value everywhere, `constant` any one value everywhere, `one_use`
something that nobody else uses, `where` something for which a function holds. Operands of a commutative op
match in either order. A name that stands twice means the same instruction twice. Looked at is the first way in
which a pattern fits; where several would, the order written comes first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hloc.ir.instruction import Instruction
from hloc.ir.opcodes import COMMUTATIVE, OPS

Found = dict[str, Instruction]
Test = Callable[[Instruction, Found], bool]


class Pattern:
    """A test of an instruction, which enters what it binds; `opcodes` are those that can pass, None for any."""

    __slots__ = ("opcodes", "test")

    def __init__(self, test: Test, opcodes: tuple[str, ...] | None = None):
        self.test = test
        self.opcodes = opcodes


def match(instruction: Instruction, pattern: Pattern) -> Found | None:
    """What the names of the pattern stand for, if the instruction fits it."""
    found: Found = {}
    return found if pattern.test(instruction, found) else None


def bind(name: str, pattern: Pattern | None = None) -> Pattern:
    """Anything (that fits the pattern), remembered by name."""

    def test(instruction: Instruction, found: Found) -> bool:
        if name in found:
            return found[name] is instruction
        if pattern is not None and not pattern.test(instruction, found):
            return False
        found[name] = instruction
        return True

    return Pattern(test, None if pattern is None else pattern.opcodes)


def op(opcodes: str, *operands: Pattern, **attributes: object) -> Pattern:
    """An instruction of an opcode (or one of several, between bars), with these operands and attributes.

    Without operands any will do. Names of attributes have underscores for dashes.
    """
    names = tuple(opcodes.split("|"))
    tests = tuple(pattern.test for pattern in operands)
    swaps = len(tests) == 2 and all(OPS[name].has(COMMUTATIVE) for name in names)

    def test(instruction: Instruction, found: Found) -> bool:
        if instruction.opcode not in names:
            return False
        for name, value in attributes.items():
            if instruction.get(name) != value:
                return False
        given = instruction.operands
        if not tests:
            return True
        return _all_fit(tests, given, found) or (swaps and _all_fit(tests, given[::-1], found))

    return Pattern(test, names)


def _all_fit(tests: tuple[Test, ...], operands: list[Instruction], found: Found) -> bool:
    """Whether each operand fits; what was bound on the way is forgotten if not."""
    before = len(found)
    if len(tests) == len(operands) and all(
        test(operand, found) for test, operand in zip(tests, operands, strict=True)
    ):
        return True
    while len(found) > before:
        found.popitem()
    return False


def splat(value: float, name: str | None = None) -> Pattern:
    """`value` everywhere, signs of zero told apart."""
    return where(lambda instruction: is_splat(instruction, value), name)


def constant(name: str) -> Pattern:
    """A known value, the same everywhere."""
    return where(lambda instruction: splat_value(instruction) is not None, name)


def unknown(name: str) -> Pattern:
    """Anything but one known value everywhere."""
    return where(lambda instruction: splat_value(instruction) is None, name)


def where(holds: Callable[[Instruction], bool], name: str | None = None) -> Pattern:
    """Anything for which a function holds, remembered by name if there is one."""
    test = Pattern(lambda instruction, found: holds(instruction))
    return test if name is None else bind(name, test)


def one_use(pattern: Pattern) -> Pattern:
    """What fits the pattern, and has no other user."""
    return Pattern(lambda i, found: has_one_use(i) and pattern.test(i, found), pattern.opcodes)


# What is known of single instructions


def splat_value(instruction: Instruction) -> np.generic | None:
    """The value that all elements of the result have, where it is known: a one-element constant, repeated."""
    while instruction.opcode == "broadcast" or instruction.opcode == "reshape":
        instruction = instruction.operands[0]
    if instruction.opcode != "constant" or not instruction.shape.is_array or instruction.shape.count != 1:
        return None
    return instruction.attributes["literal"].array.reshape(-1)[0]


def is_splat(instruction: Instruction, value: float) -> bool:
    """Whether all elements are known to be `value`, signs of zero told apart."""
    known = splat_value(instruction)
    if known is None or known != value:
        return False
    return instruction.shape.dtype.is_complex or bool(
        np.signbit(np.float64(known)) == np.signbit(np.float64(value))
    )


def scalar_source(instruction: Instruction) -> Instruction | None:
    """The rank-0 value that a result repeats everywhere; the instruction itself if it is of rank 0."""
    if not instruction.shape.is_array:
        return None
    while instruction.shape.rank and instruction.opcode == "broadcast":
        instruction = instruction.operands[0]
    return instruction if instruction.shape.rank == 0 else None


def has_one_use(instruction: Instruction) -> bool:
    """Whether one instruction alone uses it, and it is not the result of the computation."""
    return len(instruction.users) == 1 and not instruction.is_root


def wide_dims(dims: tuple[int, ...]) -> list[int]:
    """The numbers of the dimensions that are not of size 1."""
    return [number for number, size in enumerate(dims) if size != 1]
