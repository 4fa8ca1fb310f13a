"""The table of elementary functions, and how generated code calls one.

Each function is emitted at most once a module and type, as an internal `alwaysinline` function such as
`hloc.exp.f32`: a use costs one line of text, LLVM simplifies the body once and inlines it before its
vectorizer runs. Bodies have no branches and call nothing, so loops around them vectorize.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.codegen.llvm import Builder, Value, mangled

from .expression import Num

FUNCTIONS: dict[str, Callable[..., Num]] = {}

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
