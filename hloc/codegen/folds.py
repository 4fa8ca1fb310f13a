"""Loops that fold values into running ones held in registers, for one reducer or several side by side.

LLVM splits the running values of known operations into several, so that the loops vectorize. Sums of floats are made
of sums of at most about CHUNK elements, which bounds their rounding errors. Choices of values and their places look for
the place of the value that is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from math import prod

from hloc.codegen import scalar
from hloc.codegen.arrays import Register, flattened, grouped
from hloc.codegen.extremes import LEAST, MOST, Extreme
from hloc.codegen.kernel import Index, KernelContext
from hloc.codegen.llvm import Value, const
from hloc.codegen.reducers import Reducer
from hloc.codegen.routines import i64

CHUNK = 4096
"""Elements that are summed before the sum is added to a longer one."""

_BESIDE = 2
"""Vectors of a short loop that are folded with the last one."""

Values = list[list[Register]]
"""For each reducer its running values, or elements widened to their types."""


class Folds:
    """Folds over an index space of `sizes`, the last one fastest.

    `elements(index)` gives what to fold at an index, reducer by reducer. A reducer may stand several times. They are
    `repeatable` if they may be asked for again.
    """

    def __init__(
        self,
        k: KernelContext,
        reducers: Sequence[Reducer],
        sizes: Sequence[int],
        elements: Callable[[Index], Values],
        repeatable: bool = False,
    ):
        self.k, self.b, self.reducers, self.elements = k, k.b, reducers, elements
        self.sizes = list(sizes)
        self.repeatable = repeatable

    def run(self, initial: Values) -> Values:
        """The running values after all elements, beginning with the `initial` ones."""
        is_choice = all(reducer.choice is not None for reducer in self.reducers)
        if is_choice and self.repeatable and len(self.sizes) == 1 and LEAST <= self.sizes[0] <= MOST:
            return self._choices(initial)
        if not any(reducer.is_float_sum for reducer in self.reducers) or prod(self.sizes) <= CHUNK:
            return self._loop(self.sizes, initial, lambda index: index)
        split = len(self.sizes) - 1
        while split > 0 and prod(self.sizes[split - 1 :]) <= CHUNK:
            split -= 1

        def chunk(outer: Index, totals: Values) -> Values:
            if self.sizes[split] <= CHUNK:
                return self._chunk(self.sizes[split:], totals, lambda index: (*outer, *index))
            return self._chunks_of_last(outer, totals)

        return self._carrying(self.sizes[:split], initial, chunk)

    def in_segments(self, initial: Values, count: int, before: Callable[[Value], object]) -> Values:
        """As `run` for one dimension, gone through in so many segments; `before(number)` comes first in each."""
        size = self.sizes[0] // count

        def segment(number: Index, totals: Values) -> Values:
            before(number[0])
            first = self.b.mul(number[0], i64(size))
            return self._chunk([size], totals, lambda i: (self.b.add(first, i[0]),))

        return self._carrying([count], initial, segment)

    def in_vectors(
        self, initial: Values, lanes: int, last: Callable[[Index, Value], Values], is_stored: bool
    ) -> Values:
        """As `run` for one dimension and known operations, with loops through whole vectors.

        What is left over is part of a last vector, the rest of which has been folded: `last(index, is_new)` gives
        its elements. It is folded together with the others if these are few, unless something `is_stored`: in one
        loop, elements would wait for those that they overlap with.
        """
        (size,) = self.sizes
        rest, whole = size % lanes, size // lanes
        beside = range(0 if is_stored or whole > _BESIDE else whole)

        def step(inner: Value, carried: list[Value]) -> list[Value]:
            places = [self.b.add(inner, i64(vector * lanes)) for vector in beside]
            is_new = self.b.icmp_signed(">=", inner, i64(lanes - rest))
            values = [self.elements((place,)) for place in places]
            new = last((self.b.add(inner, i64(size - lanes)),), is_new)
            values.append([self._where(is_new, v, r) for v, r in zip(new, self.reducers, strict=True)])
            # Together first: LLVM knows a running value by the one operation on it.
            running = _divided(grouped(carried, _joined(initial)), initial)
            return flattened(_joined(self._applied(running, reduce(self._applied, values))))

        def whole_vectors(inner: Value, carried: list[Value]) -> list[Value]:
            running = _divided(grouped(carried, _joined(initial)), initial)
            return flattened(_joined(self._applied(running, self.elements((inner,)))))

        carried = flattened(_joined(initial))
        if not beside:
            carried = self.b.for_loop_carrying(0, size - rest, carried, whole_vectors)
        carried = self.b.for_loop_carrying(0, lanes, carried, step)
        return _divided(grouped(carried, _joined(initial)), initial)

    def _where(self, condition: Value, values: list[Register], reducer: Reducer) -> list[Register]:
        """Values if a condition holds, otherwise what changes no fold."""
        pairs = zip(flattened(values), flattened(reducer.identity()), strict=True)
        return grouped([self.b.select(condition, value, other) for value, other in pairs], values)

    def _applied(self, running: Values, values: Values) -> Values:
        return [r.apply(self.k, old, new) for r, old, new in zip(self.reducers, running, values, strict=True)]

    def alone(self) -> Values:
        """The folds of the elements without initial values, of known operations and choices."""
        if self.reducers[0].operation is not None:
            return self.run([reducer.identity() for reducer in self.reducers])
        if LEAST <= self.sizes[0] <= MOST:
            return Extreme(self.k, self.reducers[0], self.sizes[0], self._each()).run()
        # A choice between an element and itself is that element.
        return self._loop(self.sizes, self.elements((i64(0),)), lambda index: index)

    def _each(self) -> list[Callable[[Value], list[Register]]]:
        """The elements of each fold of one dimension."""
        return [lambda i, number=number: self.elements((i,))[number] for number in range(len(self.reducers))]

    def _choices(self, initial: Values) -> Values:
        """Choices by the same reducer; where zeros that are chosen may differ in sign, in order."""
        reducer, b = self.reducers[0], self.b
        found = Extreme(self.k, reducer, self.sizes[0], self._each()).run()
        results = [reducer.apply(self.k, start, chosen) for start, chosen in zip(initial, found, strict=True)]
        if not reducer.choice.ties_apart:
            return results
        wide = [scalar.widen(b, reducer.dtypes[0], chosen[0]) for chosen in found]
        zeros = [b.fcmp_ordered("==", value, const(value.type, 0)) for value in wide]

        def in_order(number: int) -> list[Register]:
            return self._loop(self.sizes, initial, lambda index: index)[number]

        return [
            b.if_else(is_zero, lambda number=number: in_order(number), lambda result=result: result)
            for number, (is_zero, result) in enumerate(zip(zeros, results, strict=True))
        ]

    def _chunks_of_last(self, outer: Index, totals: Values) -> Values:
        """The last dimension, longer than a chunk, in chunks of equal length and a rest."""
        count, rest = divmod(self.sizes[-1], CHUNK)

        def chunk(number: Index, totals: Values) -> Values:
            first = self.b.mul(number[0], i64(CHUNK))
            return self._chunk([CHUNK], totals, lambda i: (*outer, self.b.add(first, i[0])))

        totals = self._carrying([count], totals, chunk)
        if rest:
            first = i64(count * CHUNK)
            totals = self._chunk([rest], totals, lambda i: (*outer, self.b.add(i[0], first)))
        return totals

    def _chunk(self, sizes: list[int], totals: Values, index: Callable[[Index], Index]) -> Values:
        """Adds sums of their own to the totals of sums; goes on with those of other reducers."""
        sums = [r.is_float_sum for r in self.reducers]
        parts = zip(self.reducers, totals, sums, strict=True)
        start = [reducer.identity() if is_sum else total for reducer, total, is_sum in parts]
        done = zip(self.reducers, totals, self._loop(sizes, start, index), sums, strict=True)
        return [r.apply(self.k, t, part, regroup=False) if is_sum else part for r, t, part, is_sum in done]

    def _loop(self, sizes: list[int], start: Values, index: Callable[[Index], Index]) -> Values:
        def step(inner: Index, running: Values) -> Values:
            return self._applied(running, self.elements(index(inner)))

        return self._carrying(sizes, start, step)

    def _carrying(self, sizes: list[int], start: Values, body: Callable[[Index, Values], Values]) -> Values:
        def step(index: Index, flat: list[Register]) -> list[Register]:
            return _joined(body(index, _divided(flat, start)))

        return _divided(self.k.reduce_loop(sizes, _joined(start), step), start)


def _joined(values: Values) -> list[Register]:
    """The values of all reducers, one after the other."""
    return [value for some in values for value in some]


def _divided(joined: Sequence[Register], like: Values) -> Values:
    """The inverse of `_joined`, for as many of each reducer as in `like`."""
    given = iter(joined)
    return [[next(given) for _ in values] for values in like]
