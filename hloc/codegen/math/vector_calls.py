"""Functions that vector loops call: one way for what nearly all operands are, another if any lane holds something else.

LLVM's loop vectorizer keeps no branch that some lanes take, but it puts a function's variant for vectors in the place
of its calls, as the call's attribute says (LLVM's "vector function ABI" names it). The variants are written here, for
whole vectors and for half ones, which loops over elements of twice the width want. None is inlined: a call costs little
beside the body, which stays one copy however much a loop is interleaved.
"""

from __future__ import annotations

from collections.abc import Callable

from hloc.codegen.llvm import Builder, Function, Module, Value, lane_count, mangled, vector_type

from .expression import Num

ATTRIBUTES = "noinline nounwind willreturn memory(none) mustprogress nosync nofree"
Emit = Callable[[Num], Num]


def call_by_lanes(builder: Builder, name: str, x: Value, below: float, usual: Emit, other: Emit) -> Value:
    """A function of a scalar that loops vectorize: by `usual` where all lanes are smaller than `below`, or by `other`.

    The module says how wide vectors are, in `vector_bytes`.
    """
    module, symbol = builder.module, f"hloc.{name}.{mangled(x.type)}"
    lanes = module.vector_bytes // (8 if x.type == "double" else 4)
    counts = [count for count in (lanes, lanes // 2) if count > 1]
    function = module.functions.get(symbol)
    if function is None:
        function = _whole(module, f"{symbol}.v{lanes}", vector_type(x.type, lanes), below, usual, other)
        for count in (*counts[1:], 0):
            shorter = f"{symbol}.v{count}" if count else symbol
            function = _through(module, shorter, vector_type(x.type, count), function)
    variants = ",".join([f"_ZGV_LLVM_N{count}v_{symbol}({symbol}.v{count})" for count in counts])
    attributes = f'nounwind willreturn memory(none) "vector-function-abi-variant"="{variants}"'
    return builder.call(function, [x], pure=True, attributes=module.attribute_group(attributes))


def _function(module: Module, symbol: str, type: str) -> Function:
    return module.function(symbol, type, [(type, "x")], f"{ATTRIBUTES} {module.vector_attributes}", "internal")


def _whole(module: Module, symbol: str, type: str, below: float, usual: Emit, other: Emit) -> Function:
    """The variant that computes."""
    rest = _function(module, f"{symbol}.rest", type)
    b = Builder(rest)
    b.ret(other(Num(b, rest.args[0])).v)
    function = _function(module, symbol, type)
    b = Builder(function)
    x = Num(b, function.args[0])
    is_other = ~(x.abs() < below)
    any_other = b.intrinsic("llvm.vector.reduce.or", "i1", [is_other.v], overloads=[is_other.type])
    b.ret(b.if_else(any_other, lambda: b.call(rest, [x.v], pure=True), lambda: usual(x).v))
    return function


def _through(module: Module, symbol: str, type: str, wide: Function) -> Function:
    """A variant of fewer lanes, or the scalar function, that asks a wider one with its operands repeated."""
    function = _function(module, symbol, type)
    b, x, lanes, count = Builder(function), function.args[0], lane_count(wide.return_type), lane_count(type)
    repeated = b.shufflevector(x, None, [lane % count for lane in range(lanes)]) if count else b.splat(x, lanes)
    results = b.call(wide, [repeated], pure=True)
    b.ret(b.shufflevector(results, None, list(range(count))) if count else b.extractelement(results, 0))
    return function
