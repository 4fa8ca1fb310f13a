"""Rules of maxima, minima, clamps and comparisons."""

from __future__ import annotations

from hloc.ir.instruction import Instruction
from hloc.passes.algebraic.facts import integer_range, is_plain_float
from hloc.passes.algebraic.rules import rule
from hloc.passes.emit import Emit, dense
from hloc.passes.patterns import bind, constant, is_splat, one_use, op, splat_value, unknown

x, y = bind("x"), bind("y")
c, d = constant("c"), constant("d")


def _is_whole(instruction: Instruction) -> bool:
    """Whether an array is of integers or of pred."""
    dtype = instruction.shape.dtype
    return dtype.is_integer or dtype.kind == "predicate"


@rule(op("maximum|minimum", x, x))
def same_operand(instruction: Instruction, x: Instruction) -> Instruction | None:
    """max(x, x) = min(x, x) = x"""
    return x


@rule("maximum", "minimum")
def beyond_infinity(instruction: Instruction) -> Instruction | None:
    """max(x, -inf) = min(x, inf) = x, NaN included"""
    least = float("-inf") if instruction.opcode == "maximum" else float("inf")
    left, right = instruction.operands
    if is_splat(right, least):
        return left
    return right if is_splat(left, least) else None


@rule("maximum", "minimum")
def decided_bound(instruction: Instruction) -> Instruction | None:
    """max(x, y) = x and min(x, y) = y for integers, where x is known never to be below y"""
    left, right = instruction.operands
    if not _is_whole(left):
        return None
    (a, b), (p, q) = integer_range(left), integer_range(right)
    if a < q and p < b:
        return None
    greater, less = (left, right) if a >= q else (right, left)
    return greater if instruction.opcode == "maximum" else less


@rule(
    op("maximum", x, op("minimum", x, y)),
    op("minimum", x, op("maximum", x, y)),
    op("and", x, op("or", x, y)),
    op("or", x, op("and", x, y)),
)
def absorbed(instruction: Instruction, x: Instruction, y: Instruction) -> Instruction | None:
    """max(x, min(x, y)) = min(x, max(x, y)) = x, as x & (x | y) = x | (x & y) = x; not for floats: y may be NaN"""
    return x if _is_whole(x) else None


@rule(op("minimum", one_use(op("maximum", unknown("x"), c)), d))
def clamp_of_bounds(
    instruction: Instruction, x: Instruction, c: Instruction, d: Instruction
) -> Instruction | None:
    """min(max(x, c), d) = clamp(c, x, d); the bounds apply in this order, and NaN stays NaN"""
    if instruction.shape.dtype.kind == "predicate" or splat_value(c) > splat_value(d):
        return None
    return Emit.at(instruction).op("clamp", dense(instruction.shape), (c, x, d))


@rule("clamp")
def clamp_between_equals(instruction: Instruction) -> Instruction | None:
    """clamp(-inf, x, inf) = x, NaN included; clamp(a, x, b) = x for integers known to lie between a and b"""
    low, value, high = instruction.operands
    if is_plain_float(value.shape.dtype):
        return value if is_splat(low, float("-inf")) and is_splat(high, float("inf")) else None
    if not _is_whole(value):
        return None
    least, most = integer_range(value)
    return value if integer_range(low)[1] <= least and most <= integer_range(high)[0] else None


_NEVER_BELOW = {
    "LT": lambda a, b, p, q: True if b < p else False if a >= q else None,
    "LE": lambda a, b, p, q: True if b <= p else False if a > q else None,
    "EQ": lambda a, b, p, q: True if a == b == p == q else False if b < p or q < a else None,
}
"""direction -> the answer of comparing what lies in [a, b] with what lies in [p, q], where it is known."""
_REVERSED = {"GT": "LT", "GE": "LE"}


@rule("compare")
def decided_compare(instruction: Instruction) -> Instruction | None:
    """x < y = true for integers, where x is known always to be below y, and so on; x == x, x <= x, x < x"""
    left, right = instruction.operands
    if not _is_whole(left):
        return None
    direction = instruction.attributes["direction"]
    if direction in _REVERSED:
        left, right, direction = right, left, _REVERSED[direction]
    name = "EQ" if direction == "NE" else direction
    if left is right:
        answer = name != "LT"
    else:
        answer = _NEVER_BELOW[name](*integer_range(left), *integer_range(right))
    if answer is None:
        return None
    return Emit.at(instruction).full(answer is not (direction == "NE"), instruction.shape)


@rule(op("compare", unknown("x"), c))
def compare_with_truth(instruction: Instruction, x: Instruction, c: Instruction) -> Instruction | None:
    """x == true, x != false is x; x != true, x == false is !x, for pred"""
    direction = instruction.attributes["direction"]
    if x.shape.dtype.kind != "predicate" or direction not in ("EQ", "NE"):
        return None
    same = bool(splat_value(c)) is (direction == "EQ")
    return x if same else Emit.at(instruction).map("not", x)


@rule(op("compare", op("convert", x), c))
def compare_converted_pred(instruction: Instruction, x: Instruction, c: Instruction) -> Instruction | None:
    """convert(p) == 1, convert(p) != 0 is p; convert(p) != 1, convert(p) == 0 is !p, for p of pred"""
    direction, known = instruction.attributes["direction"], splat_value(c)
    if x.shape.dtype.kind != "predicate" or direction not in ("EQ", "NE") or known not in (0, 1):
        return None
    same = bool(known) is (direction == "EQ")
    return x if same else Emit.at(instruction).map("not", x)


_SWAPPED = {"LT": "GT", "GT": "LT", "LE": "GE", "GE": "LE", "EQ": "EQ", "NE": "NE"}


@rule(op("compare", c, unknown("x")))
def compare_constant_last(instruction: Instruction, c: Instruction, x: Instruction) -> Instruction | None:
    """c < x = x > c, and so on: the constant on the right, where other rules and cse look for it"""
    attributes = dict(instruction.attributes)
    attributes["direction"] = _SWAPPED[attributes["direction"]]
    return Emit.at(instruction).op("compare", dense(instruction.shape), (x, c), **attributes)


@rule(op("compare", one_use(op("add", unknown("x"), c)), d))
def compare_sum(
    instruction: Instruction, x: Instruction, c: Instruction, d: Instruction
) -> Instruction | None:
    """x + c == d is x == d - c for integers, which wrap both ways; orders would not survive the wrap"""
    if not x.shape.dtype.is_integer or instruction.attributes["direction"] not in ("EQ", "NE"):
        return None
    emit = Emit.at(instruction)
    return emit.op("compare", dense(instruction.shape), (x, emit.map("subtract", d, c)), **instruction.attributes)
