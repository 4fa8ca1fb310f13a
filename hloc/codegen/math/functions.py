"""The table of elementary functions, and how generated code calls one.

Each function is emitted at most once a module and type, as an internal `alwaysinline` function such as
`hloc.exp.f32`: a use costs one line of text, LLVM simplifies the body once and inlines it before its
vectorizer runs. Bodies have no branches and call nothing, so loops around them vectorize.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.codegen.llvm import Builder, Value, mangled, poison

from .complex_number import Complex
from .expression import Num

FUNCTIONS: dict[str, Callable[..., Num]] = {}
COMPLEX_FUNCTIONS: dict[str, tuple[Callable, bool]] = {}

ATTRIBUTES = "alwaysinline nounwind willreturn memory(none) mustprogress nosync nofree"


def function(name: str) -> Callable:
    """Registers the emitter of an elementary function of floats, under the name that `call` takes."""

    def register(emit: Callable[..., Num]) -> Callable[..., Num]:
        FUNCTIONS[name] = emit
        return emit

    return register


def call(builder: Builder, name: str, args: Sequence[Value]) -> Value:
    """The value of the elementary function `name`, of float or double operands, scalar or vector.

    KeyError if there is no such function.
    """
    type = args[0].type
    symbol = f"hloc.{name}.{mangled(type)}"
    callee = builder.module.functions.get(symbol)
    if callee is None:
        params = [(arg.type, f"x{index}") for index, arg in enumerate(args)]
        callee = builder.module.function(symbol, type, params, ATTRIBUTES, "internal")
        inner = Builder(callee)
        inner.ret(FUNCTIONS[name](*[Num(inner, arg) for arg in callee.args]).v)
    return builder.call(callee, args, pure=True)


def complex_function(name: str, doubles: bool = False) -> Callable:
    """Registers a function of complex numbers; with `doubles`, single precision is computed in double."""

    def register(emit: Callable) -> Callable:
        COMPLEX_FUNCTIONS[name] = (emit, doubles)
        return emit

    return register


def call_complex(builder: Builder, name: str, args: Sequence[tuple[Value, Value]]) -> tuple[Value, Value]:
    """The value of a function of complex numbers, each a pair (real, imaginary). KeyError if unknown."""
    type = args[0][0].type
    symbol = f"hloc.complex.{name}.{mangled(type)}"
    result_type = f"{{ {type}, {type} }}"
    callee = builder.module.functions.get(symbol)
    if callee is None:
        params = [(type, f"{part}{index}") for index in range(len(args)) for part in ("real", "imag")]
        callee = builder.module.function(symbol, result_type, params, ATTRIBUTES, "internal")
        _complex_body(Builder(callee), name, type)
    result = builder.call(callee, [part for arg in args for part in arg], pure=True)
    return builder.extractvalue(result, 0, type), builder.extractvalue(result, 1, type)


def _complex_body(b: Builder, name: str, type: str) -> None:
    emit, doubles = COMPLEX_FUNCTIONS[name]
    parts = [Num(b, arg) for arg in b.function.args]
    narrow = doubles and "float" in type
    if narrow:
        parts = [part.widen() for part in parts]
    result = emit(*[Complex(*parts[at : at + 2]) for at in range(0, len(parts), 2)])
    values = [part.narrow() if narrow else part for part in (result.real, result.imag)]
    pair = poison(b.function.return_type)
    for index, value in enumerate(values):
        pair = b.insertvalue(pair, value.v, index)
    b.ret(pair)
