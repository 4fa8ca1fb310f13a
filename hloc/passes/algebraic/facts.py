"""What is known of values without computing them."""

from __future__ import annotations

from math import isfinite

from hloc.ir.computation import Computation
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.passes.emit import Emit
from hloc.passes.patterns import is_splat, scalar_source, splat_value, wide_dims

_DEPTH = 5
"""How far facts are followed upward."""

_MOVING = frozenset(("broadcast", "reshape", "transpose", "slice", "reverse", "copy", "dynamic-slice", "gather"))
_PLAIN_FLOATS = ("f16", "bf16", "f32", "f64")


def is_plain_float(dtype: DType) -> bool:
    """Whether a float type has infinities, and signs of zero, as IEEE 754 has them."""
    return dtype.name in _PLAIN_FLOATS


def limits(dtype: DType) -> tuple[int, int]:
    """The least and the greatest value of an integer type, or of pred."""
    if dtype.kind == "predicate":
        return 0, 1
    top = 2 ** (dtype.bits - dtype.is_signed) - 1
    return (-top - 1 if dtype.is_signed else 0), top


def is_never_negative(instruction: Instruction, depth: int = _DEPTH) -> bool:
    """Whether every element is +0, above, or NaN."""
    opcode, operands, dtype = instruction.opcode, instruction.operands, instruction.shape.dtype
    if not dtype.is_float:
        return not dtype.is_complex and integer_range(instruction)[0] >= 0
    if opcode in ("abs", "exponential", "logistic", "iota"):
        return True
    if depth == 0:
        return False
    if opcode in _MOVING or opcode in ("add", "multiply"):
        if opcode == "multiply" and operands[0] is operands[1]:
            return True
        of = operands[:1] if opcode in _MOVING else operands
        return all(is_never_negative(operand, depth - 1) for operand in of)
    known = splat_value(instruction)
    return known is not None and float(known) >= 0 and not str(known).startswith("-")


def integer_range(instruction: Instruction, depth: int = _DEPTH) -> tuple[int, int]:
    """Bounds of all elements of an integer or pred array, both included: those of the type if no more is known."""
    full = limits(instruction.shape.dtype)
    known = splat_value(instruction)
    if known is not None:
        return int(known), int(known)
    if depth == 0:
        return full
    found = _range_by_op(instruction, depth - 1)
    if found is None or found[0] < full[0] or found[1] > full[1]:  # it may have wrapped
        return full
    return found


def _range_by_op(instruction: Instruction, depth: int) -> tuple[int, int] | None:
    opcode, operands = instruction.opcode, instruction.operands
    if opcode == "iota":
        return 0, max(0, instruction.shape.dims[instruction.attributes["iota_dimension"]] - 1)
    if opcode in _MOVING:
        return integer_range(operands[0], depth)
    if opcode == "select":
        return _hull(integer_range(operands[1], depth), integer_range(operands[2], depth))
    if opcode == "convert" and not (operands[0].shape.dtype.is_float or operands[0].shape.dtype.is_complex):
        return integer_range(operands[0], depth)
    combine = _COMBINED.get(opcode)
    if combine is None:
        return None
    return combine(*(integer_range(operand, depth) for operand in operands))


Range = tuple[int, int]


def _hull(a: Range, b: Range) -> Range:
    return min(a[0], b[0]), max(a[1], b[1])


def _product(a: Range, b: Range) -> Range:
    corners = [x * y for x in a for y in b]
    return min(corners), max(corners)


def _remainder(a: Range, b: Range) -> Range | None:
    if b[0] <= 0 or a[0] < 0:
        return None
    return 0, min(a[1], b[1] - 1)


def _quotient(a: Range, b: Range) -> Range | None:
    return (a[0] // b[1], a[1] // b[0]) if b[0] > 0 and a[0] >= 0 else None


_COMBINED = {
    "add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "subtract": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "multiply": _product,
    "minimum": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "maximum": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "clamp": lambda a, b, c: (min(max(a[0], b[0]), c[0]), min(max(a[1], b[1]), c[1])),
    "and": lambda a, b: (0, min(a[1], b[1])) if a[0] >= 0 and b[0] >= 0 else None,
    "remainder": _remainder,
    "divide": _quotient,
}


def is_normal(value: float, dtype: DType) -> bool:
    """Whether a number, computed in double precision, is well inside of what a float type holds."""
    top = 2.0 ** (2 ** (dtype.exponent_bits - 1) - 3)
    return isfinite(value) and 1 / top < abs(value) < top


def as_scalar(emit: Emit, instruction: Instruction) -> Instruction:
    """The rank-0 value that a known value repeats."""
    found = scalar_source(instruction)
    return emit.scalar(splat_value(instruction), instruction.shape.dtype) if found is None else found


def holds_all(wide: DType, narrow: DType) -> bool:
    """Whether every value of `narrow` is one of `wide`, infinities and NaN included."""
    if narrow.kind == "predicate":
        return wide.name not in ("s1", "f8e8m0fnu") and (wide.is_integer or wide.is_float)
    if narrow.is_integer and wide.is_integer:
        signs = narrow.is_signed == wide.is_signed or (wide.is_signed and narrow.bits < wide.bits)
        return signs and narrow.bits <= wide.bits
    if narrow.is_integer and wide.is_float:
        return wide.name in ("f16", "bf16", "f32", "f64") and narrow.bits <= wide.mantissa_bits + 1
    if narrow.is_float and wide.is_float:
        more = narrow.exponent_bits <= wide.exponent_bits and narrow.mantissa_bits <= wide.mantissa_bits
        return more and wide.name in ("f16", "f32", "f64") and wide.bits > narrow.bits
    return False


def is_identity(opcode: str, instruction: Instruction) -> bool:
    """Whether a known value leaves the other operand of a binary op as it is; of sums, but for signs of zero."""
    known, dtype = splat_value(instruction), instruction.shape.dtype
    if known is None or dtype.is_complex:
        return False
    if opcode in ("add", "or", "xor"):
        return known == 0
    if opcode == "multiply":
        return known == 1
    if opcode == "and":
        return bool(known) if dtype.kind == "predicate" else int(known) in (-1, 2**dtype.bits - 1)
    if opcode not in ("maximum", "minimum"):
        return False
    if dtype.is_float:
        return is_splat(instruction, float("-inf") if opcode == "maximum" else float("inf"))
    return int(known) == limits(dtype)[opcode == "minimum"]


def binary_opcode(computation: Computation) -> str | None:
    """The op of a computation that only applies a binary op to its two parameters, in order."""
    root = computation.root
    simple = len(root.operands) == 2 and root.op.is_elementwise and not root.attributes and root.shape.is_array
    if not simple or [o.opcode for o in root.operands] != ["parameter", "parameter"]:
        return None
    numbers = [operand.attributes["number"] for operand in root.operands]
    same_type = all(operand.shape.dtype is root.shape.dtype for operand in root.operands)
    return root.opcode if numbers == [0, 1] and same_type else None


def known_starts(instruction: Instruction, sizes: tuple[int, ...]) -> list[int] | None:
    """Where a dynamic-slice or dynamic-update-slice of these sizes begins, clamped so that it fits; None if unknown.

    Where it has all of a dimension it begins at 0 whatever it is told.
    """
    whole = instruction.operands[0].shape.dims
    indices = instruction.operands[len(instruction.operands) - len(whole) :]
    first = 1 if instruction.opcode == "dynamic-slice" else 2
    if len(instruction.operands) != first + len(whole):
        return None
    found = []
    for index, size, limit in zip(indices, sizes, whole):
        known = splat_value(index)
        if known is None and size != limit:
            return None
        found.append(0 if known is None else min(max(int(known), 0), limit - size))
    return found


def common_factors(first: tuple[int, ...], second: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """The least runs of dimensions of two shapes with as many elements each, sizes of 1 left out."""
    groups: list[tuple[list[int], list[int]]] = []
    left, right = wide_dims(first), wide_dims(second)
    while left:
        own, other = [left.pop(0)], [right.pop(0)]
        a, b = first[own[0]], second[other[0]]
        while a != b:
            if a < b:
                own.append(left.pop(0))
                a *= first[own[-1]]
            else:
                other.append(right.pop(0))
                b *= second[other[-1]]
        groups.append((own, other))
    return groups
