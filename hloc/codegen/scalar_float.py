"""Float ops. A function takes and gives arithmetic values: float or double (rows X04, X11 to X13, X15)."""

from __future__ import annotations

from collections.abc import Callable

from hloc.codegen import math
from hloc.codegen.llvm import Builder, Value, const, scalar_type
from hloc.codegen.math.expression import Num

from .scalar_types import by_lanes

Function = Callable[..., Value]

# HLO's names of elementary functions, and those of hloc.codegen.math.
ELEMENTARY = {
    "acos": "acos",
    "acosh": "acosh",
    "asin": "asin",
    "asinh": "asinh",
    "atan": "atan",
    "atan2": "atan2",
    "atanh": "atanh",
    "cbrt": "cbrt",
    "cosh": "cosh",
    "cosine": "cos",
    "erf": "erf",
    "exponential": "exp",
    "exponential-minus-one": "expm1",
    "log": "log",
    "log-plus-one": "log1p",
    "logistic": "logistic",
    "power": "power",
    "rsqrt": "rsqrt",
    "sine": "sin",
    "sinh": "sinh",
    "tan": "tan",
    "tanh": "tanh",
}


def elementary(name: str) -> Function:
    """The op of an elementary function."""

    def run(b: Builder, *operands: Value) -> Value:
        return math.call(b, name, operands)

    return run


def intrinsic(name: str) -> Function:
    """The op of an LLVM intrinsic that every target has."""

    def run(b: Builder, *operands: Value) -> Value:
        return b.intrinsic(name, operands[0].type, list(operands))

    return run


def clamp(b: Builder, low: Value, x: Value, high: Value) -> Value:
    """NaN stays, and the upper bound wins where the bounds cross."""
    above = b.intrinsic("llvm.maximum", x.type, [low, x])
    return b.intrinsic("llvm.minimum", x.type, [above, high])


def sign(b: Builder, x: Value) -> Value:
    """-1 or 1; NaN, 0 and -0 are their own."""
    n = Num(b, x)
    size = (n.abs() > 0.0).select(n.of(1.0), 0.0)
    return n.is_nan().select(n, size.copysign(n)).v


def is_finite(b: Builder, x: Value) -> Value:
    n = Num(b, x)
    return (n.abs() < float("inf")).v


def remainder(b: Builder, x: Value, y: Value) -> Value:
    """What C's fmod gives: exact, with the sign of x; NaN for infinite x or y = 0, x for infinite y."""
    if scalar_type(x.type) == "double":
        size = _remainder_of_doubles(b, Num(b, x).abs().v, Num(b, y).abs().v)
        return _finish_remainder(Num(b, x), Num(b, y), Num(b, size))
    wide_x, wide_y = Num(b, x).widen(), Num(b, y).widen()
    rest = _remainder_of_floats(wide_x.abs(), wide_y.abs())
    return _finish_remainder(Num(b, x), Num(b, y), rest.narrow())


def _finish_remainder(x: Num, y: Num, rest: Num) -> Value:
    infinity = float("inf")
    undefined = x.is_nan() | y.is_nan() | x.abs().equals(infinity) | y.equals(0.0)
    result = y.abs().equals(infinity).select(x, rest.copysign(x))
    return undefined.select(float("nan"), result).v


def _reduce_once(rest: Num, divisor: Num) -> Num:
    """rest mod divisor, 0 <= rest < 2**50 divisor: the quotient is off by one at most, the product exact."""
    quotient = (rest / divisor).intrinsic("llvm.trunc")
    rest = (-quotient).fma(divisor, rest)
    return (rest < 0.0).select(rest + divisor, rest)


def _remainder_of_floats(x: Num, y: Num) -> Num:
    """Of f32 magnitudes in doubles: the quotient is below 2**277, six steps take 48 bits each."""
    rest = x
    for exponent in (240, 192, 144, 96, 48, 0):
        rest = _reduce_once(rest, y * 2.0**exponent)
    return rest


def _remainder_of_doubles(b: Builder, x: Value, y: Value) -> Value:
    """Of magnitudes: a function with a loop that takes 48 bits of the quotient at a time."""
    symbol = "hloc.remainder.f64"
    function = b.module.functions.get(symbol) or _remainder_function(b, symbol)
    return by_lanes(b, lambda *lane: b.call(function, lane, pure=True), [x, y])


def _remainder_function(b: Builder, symbol: str):
    function = b.module.function(
        symbol,
        "double",
        [("double", "x"), ("double", "y")],
        "nounwind willreturn memory(none) noinline",
        "internal",
    )
    inner = Builder(function)
    y = Num(inner, function.args[1])

    def goes_on(values: list[Value]) -> Value:
        rest = Num(inner, values[0])
        return ((rest >= y) & (rest < float("inf")) & (y > 0.0)).v

    def step(values: list[Value]) -> list[Value]:
        rest = Num(inner, values[0])
        # The exponents' distance, less 48; a power of two that keeps y times it at or below the rest.
        distance = (rest.bits() >> 52) - (_normal(y).bits() >> 52)
        raise_by = (distance + _lift(y) - 48).max_with(0)
        first = raise_by.min_with(1000)
        scaled = y * _power(first) * _power(raise_by - first)
        return [_reduce_once(rest, scaled).v]

    inner.ret(inner.while_loop([function.args[0]], goes_on, step)[0])
    return function


def _normal(y: Num) -> Num:
    """y, times 2**60 if it is small: its exponent field is then right for subnormals too."""
    return (y < 2.0**-900).select(y * 2.0**60, y)


def _lift(y: Num) -> Num:
    sixty = Num(y.b, const("i64", 60))
    return (y < 2.0**-900).select(sixty, 0)


def _power(exponent: Num) -> Num:
    """2**exponent, from 0 to 1023."""
    return ((exponent + 1023) << 52).as_float("double")


FLOATS: dict[str, Function] = {
    "add": lambda b, x, y: b.fadd(x, y),
    "ceil": intrinsic("llvm.ceil"),
    "clamp": clamp,
    "divide": lambda b, x, y: b.fdiv(x, y),
    "floor": intrinsic("llvm.floor"),
    "maximum": intrinsic("llvm.maximum"),
    "minimum": intrinsic("llvm.minimum"),
    "multiply": lambda b, x, y: b.fmul(x, y),
    "remainder": remainder,
    "round-nearest-afz": intrinsic("llvm.round"),
    "round-nearest-even": intrinsic("llvm.rint"),
    "sign": sign,
    "sqrt": intrinsic("llvm.sqrt"),
    "subtract": lambda b, x, y: b.fsub(x, y),
    **{opcode: elementary(name) for opcode, name in ELEMENTARY.items()},
}
