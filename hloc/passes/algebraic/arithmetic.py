"""Rules of sums, products, quotients, powers and signs."""

from __future__ import annotations

from hloc.ir.instruction import Instruction
from hloc.ir.shapes import array
from hloc.passes.algebraic.rules import rule
from hloc.passes.emit import Emit
from hloc.passes.rewriter import is_splat, scalar_source, splat


@rule("multiply")
def multiply_by_one(instruction: Instruction) -> Instruction | None:
    """x * 1 = x"""
    left, right = instruction.operands
    if instruction.shape.dtype.is_complex:  # (a + bi)(1 + 0i) computes b * 0, which may be NaN
        return None
    if is_splat(right, 1):
        return left
    return right if is_splat(left, 1) else None


@rule("divide")
def divide_by_one(instruction: Instruction) -> Instruction | None:
    """x / 1 = x"""
    if instruction.shape.dtype.is_complex:
        return None
    return instruction.operands[0] if is_splat(instruction.operands[1], 1) else None


@rule("add")
def add_zero(instruction: Instruction) -> Instruction | None:
    """x + 0 = x for integers; for floats x + -0 = x, while -0 + 0 is 0"""
    left, right = instruction.operands
    dtype = instruction.shape.dtype
    if dtype.is_complex:
        return None
    zero = -0.0 if dtype.is_float else 0
    if is_splat(right, zero):
        return left
    return right if is_splat(left, zero) else None


@rule("subtract")
def subtract_zero(instruction: Instruction) -> Instruction | None:
    """x - 0 = x; for integers x - x = 0"""
    left, right = instruction.operands
    dtype = instruction.shape.dtype
    if not dtype.is_complex and is_splat(right, 0):
        return left
    if left is right and dtype.is_integer:
        return Emit.at(instruction).full(0, instruction.shape)
    return None


@rule("multiply")
def multiply_by_zero(instruction: Instruction) -> Instruction | None:
    """x * 0 = 0 for integers; a float may be NaN or infinite"""
    if not instruction.shape.dtype.is_integer:
        return None
    if any(is_splat(operand, 0) for operand in instruction.operands):
        return Emit.at(instruction).full(0, instruction.shape)
    return None


@rule("power")
def small_power(instruction: Instruction) -> Instruction | None:
    """x ^ 1 = x; x ^ 2 = x * x, which rounds once as the power should"""
    base, exponent = instruction.operands
    if not instruction.shape.dtype.is_float:
        return None
    if is_splat(exponent, 1):
        return base
    return Emit.at(instruction).map("multiply", base, base) if is_splat(exponent, 2) else None


@rule("negate")
def negate_twice(instruction: Instruction) -> Instruction | None:
    """-(-x) = x"""
    inner = instruction.operands[0]
    return inner.operands[0] if inner.opcode == "negate" else None


@rule("abs")
def abs_of_sign(instruction: Instruction) -> Instruction | None:
    """abs(abs(x)) = abs(x); abs(-x) = abs(x)"""
    inner = instruction.operands[0]
    if inner.opcode == "abs" and inner.shape.dtype is instruction.shape.dtype:
        return inner
    if inner.opcode == "negate" and not inner.shape.dtype.is_complex:
        return Emit.at(instruction).map("abs", inner.operands[0])
    return None


@rule("add")
def add_negated(instruction: Instruction) -> Instruction | None:
    """x + -y = x - y; -x + y = y - x"""
    left, right = instruction.operands
    if right.opcode == "negate":
        return Emit.at(instruction).map("subtract", left, right.operands[0])
    if left.opcode == "negate":
        return Emit.at(instruction).map("subtract", right, left.operands[0])
    return None


@rule("subtract")
def subtract_negated(instruction: Instruction) -> Instruction | None:
    """x - -y = x + y"""
    left, right = instruction.operands
    if right.opcode != "negate":
        return None
    return Emit.at(instruction).map("add", left, right.operands[0])


@rule("maximum", "minimum")
def same_operand(instruction: Instruction) -> Instruction | None:
    """max(x, x) = min(x, x) = x"""
    left, right = instruction.operands
    return left if left is right else None


@rule("maximum", "minimum")
def beyond_infinity(instruction: Instruction) -> Instruction | None:
    """max(x, -inf) = min(x, inf) = x, NaN included"""
    least = float("-inf") if instruction.opcode == "maximum" else float("inf")
    left, right = instruction.operands
    if is_splat(right, least):
        return left
    return right if is_splat(left, least) else None


@rule("clamp")
def clamp_between_equals(instruction: Instruction) -> Instruction | None:
    """clamp(-inf, x, inf) = x, NaN included"""
    low, value, high = instruction.operands
    if not value.shape.dtype.is_float or value.shape.dtype.name not in ("f16", "bf16", "f32", "f64"):
        return None
    unbounded = is_splat(low, float("-inf")) and is_splat(high, float("inf"))
    return value if unbounded else None


_SINKING = frozenset(
    (
        *(
            "abs",
            "add",
            "and",
            "atan2",
            "cbrt",
            "ceil",
            "compare",
            "complex",
            "convert",
            "cosine",
            "divide",
            "erf",
        ),
        *(
            "exponential",
            "exponential-minus-one",
            "floor",
            "imag",
            "is-finite",
            "log",
            "log-plus-one",
            "logistic",
        ),
        *("maximum", "minimum", "multiply", "negate", "not", "or", "popcnt", "power", "real", "remainder"),
        *(
            "round-nearest-afz",
            "round-nearest-even",
            "rsqrt",
            "select",
            "shift-left",
            "shift-right-arithmetic",
        ),
        *("shift-right-logical", "sign", "sine", "sqrt", "subtract", "tan", "tanh", "xor"),
    )
)


@rule(*sorted(_SINKING))
def sink_broadcasts(instruction: Instruction) -> Instruction | None:
    """f(broadcast(x), broadcast(y)) = broadcast(f(x, y)), where both place x and y in the same way

    A scalar goes with anything, since it can be placed anyhow.
    """
    operands = instruction.operands
    if not instruction.shape.rank or any(o.opcode != "broadcast" for o in operands if o.shape.rank):
        return None
    arrays = [o for o in operands if scalar_source(o) is None]
    ways = {(o.get("dimensions"), o.operands[0].shape.dims) for o in arrays}
    if len(ways) > 1:
        return None
    dimensions, dims = ways.pop() if ways else ((), ())
    if len(dims) == instruction.shape.rank:  # a transpose in disguise, which would only change places
        return None
    emit = Emit.at(instruction)
    values = [_narrow(emit, operand, dims) for operand in operands]
    small = emit.op(
        instruction.opcode, array(instruction.shape.dtype, *dims), values, **instruction.attributes
    )
    return emit.broadcast(small, instruction.shape.dims, dimensions)


def _narrow(emit: Emit, operand: Instruction, dims: tuple[int, ...]) -> Instruction:
    scalar = scalar_source(operand)
    if scalar is None:
        return operand.operands[0]
    return emit.broadcast(scalar, dims)


@rule("shift-left", "shift-right-logical", "shift-right-arithmetic")
def shift_by_zero(instruction: Instruction) -> Instruction | None:
    """x shifted by 0 = x"""
    return instruction.operands[0] if splat(instruction.operands[1]) == 0 else None
