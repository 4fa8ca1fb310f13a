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
    """A test of an instruction, which enters what it binds; `opcodes` are those that can pass, None for any.

    Nothing passes without an operand of one of the opcodes `behind`, unless that is None.
    """

    __slots__ = ("opcodes", "behind", "test")

    def __init__(
        self, test: Test, opcodes: tuple[str, ...] | None = None, behind: frozenset[str] | None = None
    ):
        self.test = test
        self.opcodes = opcodes
        self.behind = behind


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

    return Pattern(test) if pattern is None else Pattern(test, pattern.opcodes, pattern.behind)


def op(opcodes: str, *operands: Pattern, **attributes: object) -> Pattern:
    """An instruction of an opcode (or one of several, between bars), with these operands and attributes.

    Without operands any will do. Names of attributes have underscores for dashes.
    """
    names = frozenset(opcodes.split("|"))
    wanted = tuple(attributes.items())
    swaps = len(operands) == 2 and all(OPS[name].has(COMMUTATIVE) for name in names)
    fits = _pair(*operands, swaps) if len(operands) == 2 else _sequence(operands) if operands else None

    def test(instruction: Instruction, found: Found) -> bool:
        if instruction.opcode not in names:
            return False
        for name, value in wanted:
            if instruction.get(name) != value:
                return False
        return fits is None or fits(instruction.operands, found)

    wanted_behind = [frozenset(operand.opcodes) for operand in operands if operand.opcodes is not None]
    return Pattern(test, tuple(opcodes.split("|")), min(wanted_behind, key=len, default=None))


Fits = Callable[[list[Instruction], Found], bool]
"""Whether operands fit; what was bound on the way is forgotten if not."""


def _pair(first: Pattern, second: Pattern, swaps: bool) -> Fits:
    """Two operands, in either order if the op is commutative. Opcodes are looked at before anything else."""
    one, other = first.opcodes, second.opcodes

    def in_order(a: Instruction, b: Instruction, found: Found) -> bool:
        if (one is not None and a.opcode not in one) or (other is not None and b.opcode not in other):
            return False
        before = len(found)
        if first.test(a, found) and second.test(b, found):
            return True
        while len(found) > before:
            found.popitem()
        return False

    def fits(operands: list[Instruction], found: Found) -> bool:
        if len(operands) != 2:
            return False
        a, b = operands
        return in_order(a, b, found) or (swaps and in_order(b, a, found))

    return fits


def _sequence(patterns: tuple[Pattern, ...]) -> Fits:
    """Any number of operands, in order."""

    def fits(operands: list[Instruction], found: Found) -> bool:
        if len(operands) != len(patterns):
            return False
        before = len(found)
        for pattern, operand in zip(patterns, operands):
            if pattern.opcodes is not None and operand.opcode not in pattern.opcodes:
                break
            if not pattern.test(operand, found):
                break
        else:
            return True
        while len(found) > before:
            found.popitem()
        return False

    return fits


_REPEATING = ("constant", "broadcast", "reshape")
"""What a known value that is the same everywhere may be made of."""


def splat(value: float, name: str | None = None) -> Pattern:
    """`value` everywhere, signs of zero told apart."""
    return where(lambda instruction: is_splat(instruction, value), name, _REPEATING)


def constant(name: str) -> Pattern:
    """A known value, the same everywhere."""
    return where(lambda instruction: splat_value(instruction) is not None, name, _REPEATING)


def unknown(name: str) -> Pattern:
    """Anything but one known value everywhere."""
    return where(lambda instruction: splat_value(instruction) is None, name)


def where(
    holds: Callable[[Instruction], bool], name: str | None = None, opcodes: tuple[str, ...] | None = None
) -> Pattern:
    """Anything for which a function holds, remembered by name if there is one; `opcodes` if it does for no other."""
    test = Pattern(lambda instruction, found: holds(instruction), opcodes)
    return test if name is None else bind(name, test)


def one_use(pattern: Pattern) -> Pattern:
    """What fits the pattern, and has no other user."""
    return Pattern(lambda i, found: has_one_use(i) and pattern.test(i, found), pattern.opcodes, pattern.behind)


# What is known of single instructions


def splat_value(instruction: Instruction) -> np.generic | None:
    """The value that all elements of the result have, where it is known: a one-element constant, repeated."""
    opcode = instruction.opcode
    while opcode == "broadcast" or opcode == "reshape":
        instruction = instruction.operands[0]
        opcode = instruction.opcode
    if opcode != "constant" or not instruction.shape.is_array or instruction.shape.count != 1:
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
