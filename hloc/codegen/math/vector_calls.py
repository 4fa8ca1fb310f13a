"""Functions that vector loops call: one way for what nearly all operands are, another if any lane holds something else.

LLVM's loop vectorizer keeps no branch that some lanes take, but it puts a function's variant for vectors in the place
of its calls, as the call's attribute says (LLVM's "vector function ABI" names it). The variants are written here, for
whole vectors and for half ones, which loops over elements of twice the width want. None is inlined: a call costs little
beside the body, which stays one copy however much a loop is interleaved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.codegen.llvm import Builder, Function, Module, Value, lane_count, mangled, vector_type

from .expression import Num

ATTRIBUTES = "noinline nounwind willreturn memory(none) mustprogress nosync nofree"
Emit = Callable[..., Num]
Usual = Callable[..., tuple[Num, Num]]


class LaneFunction:
    """A function of scalars that loops vectorize: by `usual` if that says of all lanes that it holds, or by `other`.

    For loops that work on several vectors at a time there is a variant that takes all of these. It computes `together`
    of them in one body, where they hide the latency of one another's operations and share constants, as far as there
    are registers. The module says how wide vectors are, in `vector_bytes`.
    """

    def __init__(self, module: Module, symbol: str, args: Sequence[Value], way: tuple[Usual, int], other: Emit):
        self.module, self.symbol, self.type, self.arity = module, symbol, args[0].type, len(args)
        (self.usual, self.together), self.other = way, other
        self.lanes = module.vector_bytes // (8 if self.type == "double" else 4)

    def variant(self, lanes: int) -> Function:
        """The function of so many lanes, or of a scalar for 0, written at first need."""
        symbol = f"{self.symbol}.v{lanes}" if lanes else self.symbol
        known = self.module.functions.get(symbol)
        if known is not None:
            return known
        if lanes < self.lanes:
            # LLVM vectorizes after it removed what nothing calls: the function of a scalar calls that of half a vector.
            half = self.lanes // 2
            return self._through(symbol, lanes, self.variant(self.lanes if lanes or half < 2 else half))
        if lanes > self.lanes * self.together:
            return self._in_parts(symbol, lanes, self.variant(self.lanes * self.together))
        return self._whole(symbol, lanes, self.variant(self.lanes) if lanes > self.lanes else self._rest())

    def _function(self, symbol: str, lanes: int) -> Function:
        type = vector_type(self.type, lanes) if lanes else self.type
        params = [(type, f"x{index}") for index in range(self.arity)]
        attributes = f"{ATTRIBUTES} {self.module.vector_attributes}"
        function = self.module.function(symbol, type, params, attributes, "internal")
        function.settled = True
        return function

    def _rest(self) -> Function:
        function = self._function(f"{self.symbol}.rest", self.lanes)
        b = Builder(function)
        b.ret(self.other(*[Num(b, arg) for arg in function.args]).v)
        return function

    def _whole(self, symbol: str, lanes: int, fallback: Function) -> Function:
        """A variant that computes; `fallback` does so, in parts maybe, where `usual` does not hold of all lanes."""
        function = self._function(symbol, lanes)
        b = Builder(function)
        value, holds = self.usual(*[Num(b, arg) for arg in function.args])
        fails = ~holds
        any_fails = b.intrinsic("llvm.vector.reduce.or", "i1", [fails.v], overloads=[fails.type])
        b.ret(b.if_else(any_fails, lambda: _by_parts(b, fallback), lambda: value.v))
        return function

    def _in_parts(self, symbol: str, lanes: int, part: Function) -> Function:
        function = self._function(symbol, lanes)
        b = Builder(function)
        b.ret(_by_parts(b, part))
        return function

    def _through(self, symbol: str, count: int, wide: Function) -> Function:
        """A variant of fewer lanes, or the function of a scalar, that asks a wider one with its operands repeated."""
        function = self._function(symbol, count)
        b, lanes = Builder(function), lane_count(wide.return_type)

        def repeated(x: Value) -> Value:
            return b.shufflevector(x, None, [lane % count for lane in range(lanes)]) if count else b.splat(x, lanes)

        results = b.call(wide, [repeated(arg) for arg in function.args], pure=True)
        b.ret(b.shufflevector(results, None, list(range(count))) if count else b.extractelement(results, 0))
        return function


def _by_parts(b: Builder, part: Function) -> Value:
    """The results of a function of fewer lanes, side by side."""
    count, lanes = lane_count(part.return_type), lane_count(b.function.return_type)
    results = []
    for start in range(0, lanes, count):
        places = list(range(start, start + count))
        results.append(b.call(part, [b.shufflevector(arg, None, places) for arg in b.function.args], pure=True))
    while len(results) > 1:
        pairs = zip(results[::2], results[1::2], strict=True)
        results = [b.shufflevector(*pair, list(range(2 * lane_count(pair[0].type)))) for pair in pairs]
    return results[0]


def call_by_lanes(builder: Builder, name: str, args: Sequence[Value], way: tuple[Usual, int], other: Emit) -> Value:
    """The value of a `LaneFunction`, in a loop that may work on several vectors at a time."""
    module, known = builder.module, builder.function
    function = LaneFunction(module, f"hloc.{name}.{mangled(args[0].type)}", args, way, other)
    scalar, counts = function.variant(0), [function.lanes, function.lanes // 2]
    module.variants[scalar.name] = function.variant
    module.keep(scalar)  # LLVM would take out a parameter that is the same in all calls, which the variants still have
    if known.interleave:
        known.lanes = max(known.lanes, function.lanes * known.interleave)
        counts.insert(0, function.lanes * known.interleave)
        module.keep(function.variant(counts[0]))
    variants = ",".join(
        [f"_ZGV_LLVM_N{n}{'v' * len(args)}_{scalar.name}({scalar.name}.v{n})" for n in counts if n > 1]
    )
    attributes = f'nounwind willreturn memory(none) "vector-function-abi-variant"="{variants}"'
    return builder.call(scalar, args, pure=True, attributes=module.attribute_group(attributes))
