"""The table of elementary functions, and how generated code calls one.

Each function is emitted at most once a module and type, as an internal `alwaysinline` function such as
`hloc.exp.f32`: a use costs one line of text, LLVM simplifies the body once and inlines it before its
vectorizer runs. Bodies have no branches and call nothing, so loops around them vectorize.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from hloc.codegen.llvm import Builder, Value, mangled, poison
from hloc.lazy import Table, homes

from .complex_number import Complex
from .expression import Num, scalar
from .vector_calls import call_by_lanes

_LEAST_NORMAL = {"float": 2.0**-126, "double": 2.0**-1022}

FUNCTIONS: Table[Callable[..., Num]] = Table(
    homes(
        {
            "hloc.codegen.math.error_function": "erf erf_inv",
            "hloc.codegen.math.exponential": "exp exp_of_negative expm1 logistic",
            "hloc.codegen.math.hyperbolic": "acosh asinh atanh cosh sinh tanh",
            "hloc.codegen.math.inverse_trigonometric": "acos asin atan atan2",
            "hloc.codegen.math.logarithm": "log log1p",
            "hloc.codegen.math.power": "cbrt power rsqrt sqrt",
            "hloc.codegen.math.trigonometric": "cos sin tan",
        }
    )
)
"""Functions of floats, each loaded at its first use."""

USUAL: Table[tuple[str, Callable[..., tuple[Num, Num]], int]] = Table(
    homes(
        {
            "hloc.codegen.math.error_function": "erf_inv",
            "hloc.codegen.math.logarithm": "log1p",
            "hloc.codegen.math.power": "power",
            "hloc.codegen.math.trigonometric": "cos sin",
        }
    )
)
"""Of functions that have a shorter way for usual operands: the type that has it, what gives the value and where it
holds, and for how many vectors together."""

COMPLEX_FUNCTIONS: Table[tuple[Callable, bool]] = Table(
    homes(
        {
            "hloc.codegen.math.complex_basic": "abs divide exp expm1 log log1p rsqrt sign sqrt",
            "hloc.codegen.math.complex_functions": (
                "acos acosh asin asinh atan atan2 atanh cbrt cos cosh logistic power sin sinh tan tanh"
            ),
        }
    )
)
"""Functions of complex numbers, and whether they compute in double precision, alike."""

PASSING = ("asinh", "atanh", "expm1", "log1p", "sin", "tan")
"""Functions that give small operands as they are: denormals among these are made zeros first, where they count as
zeros. (XLA's log-plus-one does the same; its sine, tan and exponential-minus-one give denormals for denormals.)"""

FLUSHING = ("log1p",)
"""Those of them that have arithmetic flush such operands, where code runs so."""

ATTRIBUTES = "alwaysinline nounwind willreturn memory(none) mustprogress nosync nofree"


def function(name: str) -> Callable:
    """Registers the emitter of an elementary function of floats, under the name that `call` takes."""

    def register(emit: Callable[..., Num]) -> Callable[..., Num]:
        FUNCTIONS.enter(name, emit)
        return emit

    return register


def usual(name: str, type: str, together: int) -> Callable:
    """Registers the shorter way to compute a function of one type, for usual operands: its value, where it is right.

    `together` is for how many vectors it is best done at a time: 1, 2, or 4.
    """

    def register(emit: Callable[..., tuple[Num, Num]]) -> Callable[..., tuple[Num, Num]]:
        USUAL.enter(name, (type, emit, together))
        return emit

    return register


def call_inlined(
    builder: Builder, symbol: str, return_type: str, args: Sequence[Value], body: Callable[[Builder], Value]
) -> Value:
    """Calls an inlined function of this name and these argument types, which `body` writes at first need.

    `body` gets a builder in the function, whose parameters are `builder.function.args`.
    """
    callee = builder.module.functions.get(symbol)
    if callee is None:
        params = [(arg.type, f"x{index}") for index, arg in enumerate(args)]
        callee = builder.module.function(symbol, return_type, params, ATTRIBUTES, "internal")
        callee.settled = True
        inner = Builder(callee)
        inner.ret(body(inner))
    return builder.call(callee, args, pure=True)


def call(builder: Builder, name: str, args: Sequence[Value]) -> Value:
    """The value of the elementary function `name`, of float or double operands, scalar or vector.

    KeyError if there is no such function.
    """
    emit, type = FUNCTIONS[name], args[0].type
    by_lanes = name in USUAL and builder.module.vector_bytes and type == USUAL[name][0]
    flushes = builder.module.flushes_denormals
    if name in PASSING and (not flushes or name not in FLUSHING) and (flushes or not by_lanes):
        emit = partial(_of_flushed, emit)
    if by_lanes:
        return call_by_lanes(builder, name, args, USUAL[name][1:], emit)

    def body(b: Builder) -> Value:
        return emit(*[Num(b, arg) for arg in b.function.args]).v

    return call_inlined(builder, f"hloc.{name}.{mangled(type)}", type, args, body)


def _of_flushed(emit: Callable[..., Num], *args: Num) -> Num:
    return emit(*[_flushed(arg) for arg in args])


def _flushed(x: Num) -> Num:
    """The number, a zero of its sign if it is denormal. LLVM's canonicalize fails for pairs of floats on x86."""
    return (x.abs() < _LEAST_NORMAL[scalar(x)]).select(x.of(0.0).copysign(x), x)


def complex_function(name: str, doubles: bool = False) -> Callable:
    """Registers a function of complex numbers; with `doubles`, single precision is computed in double."""

    def register(emit: Callable) -> Callable:
        COMPLEX_FUNCTIONS.enter(name, (emit, doubles))
        return emit

    return register


def call_complex(builder: Builder, name: str, args: Sequence[tuple[Value, Value]]) -> tuple[Value, Value]:
    """The value of a function of complex numbers, each a pair (real, imaginary). KeyError if unknown."""
    emit, doubles = COMPLEX_FUNCTIONS[name]
    type = args[0][0].type

    def body(b: Builder) -> Value:
        return _complex_body(b, emit, doubles and "float" in type)

    symbol, result_type = f"hloc.complex.{name}.{mangled(type)}", f"{{ {type}, {type} }}"
    result = call_inlined(builder, symbol, result_type, [part for arg in args for part in arg], body)
    return builder.extractvalue(result, 0, type), builder.extractvalue(result, 1, type)


def _complex_body(b: Builder, emit: Callable, in_double: bool) -> Value:
    parts = [Num(b, arg) for arg in b.function.args]
    if in_double:
        parts = [part.widen() for part in parts]
    result = emit(*[Complex(*parts[at : at + 2], in_double) for at in range(0, len(parts), 2)])
    pair = poison(b.function.return_type)
    for index, part in enumerate((result.real, result.imag)):
        pair = b.insertvalue(pair, (part.narrow() if in_double else part).v, index)
    return pair
