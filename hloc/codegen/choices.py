"""Computations that choose one of two (value, place) pairs, as argmax and argmin do: found by what they decide.

Such a computation asks nothing but how the two values and the two places compare. So it is known from a table: which
value and which place it takes where the left value is less, equal or greater, or either is NaN, and the left place is
less, equal or greater. The table tells whether a fold may be split in parts, however the computation is written.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from hloc.codegen.bodies import source
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.records import record

Symbol = str | bool
"""What a scalar is in one case: one of SIDES, or a truth value."""

SIDES = ("v0", "i0", "v1", "i1")
"""Parameters: the left value and place, the right ones."""

_DIRECTIONS = {"EQ": "=", "NE": "<>u", "LT": "<", "GT": ">", "LE": "<=", "GE": ">="}
_VALUES, _PLACES = ("<", "=", ">", "left", "right", "both"), ("<", "=", ">")
_LOGIC: dict[str, Callable[[bool, bool], bool]] = {
    "and": lambda x, y: x and y,
    "or": lambda x, y: x or y,
    "xor": lambda x, y: x != y,
}


@record
class Choice:
    """A choice whose fold may be split in parts, if the places grow in the order of the fold.

    Of two parts, the one of lesser place is the left. It takes the greater value (`operation` "maximum") or the lesser
    one, of equal ones the `first` place or the last, and any NaN, the first of several if `first_nan`. `ties_apart`: of
    equal values it takes another one than the one that it takes the place of; then the sign of a zero depends on the
    order of all.
    """

    operation: str
    first: bool
    first_nan: bool
    ties_apart: bool

    @staticmethod
    def of(reduce: Instruction) -> Choice | None:
        """That of a reduce; None if it is no such choice, or the places do not grow."""
        if len(reduce.operands) != 4 or len(reduce.get("dimensions")) != 1:
            return None
        if not _grows(reduce.operands[1], reduce.get("dimensions")[0]):
            return None
        return choice_of(reduce.attributes["to_apply"])


def choice_of(computation: Computation) -> Choice | None:
    """The choice that a computation of two pairs is; None if it is none, or may not be split."""
    value = computation.parameters[0].shape
    if not value.is_array or value.dtype.is_complex:
        return None
    table = {}
    for case in product(_VALUES if value.dtype.is_float else _VALUES[:3], _PLACES):
        table[case] = taken = _taken(computation.root, *case)
        if taken not in tuple(product(("v0", "v1"), ("i0", "i1"))):
            return None
    left, right = ("v0", "i0"), ("v1", "i1")

    def always(values: str, wanted: tuple[str, str]) -> bool:
        return all(table[values, places] == wanted for places in _PLACES)

    is_extreme = any(always(">", x) and always("<", y) for x, y in ((left, right), (right, left)))
    equal = [table["=", places] for places in _PLACES]
    if not is_extreme or len({taken_value for taken_value, _ in equal}) > 1:
        return None
    if value.dtype.is_float:
        keeps_nan = always("left", left) and always("right", right) and (always("both", left) or always("both", right))
        if not keeps_nan:
            return None
    operation = "maximum" if always(">", left) else "minimum"
    first, ties_apart = equal[0][1] == "i0", value.dtype.is_float and equal[0] not in (left, right)
    return Choice(operation, first, value.dtype.is_float and always("both", left), ties_apart)


def _grows(places: Instruction, dimension: int) -> bool:
    """Whether integers grow along a dimension, from what they are made of."""
    size = places.shape.dims[dimension]
    while True:
        places, leaf = source(places, ())
        if leaf or not places.shape.is_array:
            return False
        if places.opcode == "broadcast" and dimension in places.get("dimensions"):
            dimension = places.get("dimensions").index(dimension)
            places = places.operands[0]
            continue
        dtype = places.shape.dtype
        is_counted = places.opcode == "iota" and places.get("iota_dimension") == dimension
        return is_counted and dtype.is_integer and size <= 1 << (dtype.bits - dtype.is_signed)


def _taken(root: Instruction, values: str, places: str) -> tuple[Symbol, ...] | None:
    """What is taken in one case: how the left value compares with the right one, and so the places."""
    if root.opcode != "tuple":
        return None
    known: dict[Instruction, Symbol | None] = {}
    pending = list(root.operands)
    while pending:
        instruction = pending[-1]
        missing = [operand for operand in instruction.operands if operand not in known]
        if instruction in known or not missing:
            pending.pop()
            operands = [known[operand] for operand in instruction.operands]
            known[instruction] = None if None in operands else _symbol(instruction, operands, values, places)
        pending += missing
    taken = tuple(known[operand] for operand in root.operands)
    return None if None in taken else taken


def _symbol(instruction: Instruction, operands: list[Symbol], values: str, places: str) -> Symbol | None:
    """One scalar of a computation; None if it is none that a table is made for."""
    opcode = instruction.opcode
    if opcode == "parameter":
        return SIDES[instruction.get("number")]
    if opcode == "compare":
        is_total = instruction.get("type") == "TOTALORDER" or instruction.get("order") == "TOTAL"
        relation = None if is_total else _relation(*operands, values, places)
        return None if relation is None else relation in _DIRECTIONS[instruction.get("direction")]
    if opcode == "select":
        condition, yes, no = operands
        return (yes if condition else no) if isinstance(condition, bool) else None
    if not all(isinstance(operand, bool) for operand in operands) or not operands:
        return None
    if opcode == "not":
        return not operands[0]
    return _LOGIC[opcode](*operands) if opcode in _LOGIC else None


def _relation(x: Symbol, y: Symbol, values: str, places: str) -> str | None:
    """How two symbols compare: `<`, `=`, `>`, or `u` where one is NaN; None if they are not of a kind."""
    if isinstance(x, bool) or isinstance(y, bool) or x[0] != y[0]:
        return None
    if x[0] == "v":
        nans = {"left": ("v0",), "right": ("v1",), "both": ("v0", "v1")}.get(values, ())
        if x in nans or y in nans:
            return "u"
        if values not in ("<", "=", ">"):  # of a number with itself
            return "="
    found = values if x[0] == "v" else places
    if x == y:
        return "="
    return found if x[1] == "0" else {"<": ">", ">": "<"}.get(found, found)
