"""Choices of values and their places: greatest or least values first, then the place of the one that is chosen.

Greatest values are found as loops of any reduction vectorize, block by block; of which block the greatest is, is known
at the end. In that one, which is in a near cache, its place is looked for. NaNs are only noticed on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.codegen import scalar
from hloc.codegen.arrays import Register
from hloc.codegen.kernel import KernelContext
from hloc.codegen.llvm import Value, integer
from hloc.codegen.loops import Index
from hloc.codegen.reducers import Reducer, identity
from hloc.codegen.routines import i64
from hloc.ir.dtypes import F32, F64, PRED, U8

_BLOCK = 512
"""Elements of a block."""

LEAST = 64
"""Elements from which on looking for a place pays."""

MOST = 1 << 31
"""Elements at most: their numbers have 32 bits."""


Elements = Callable[[Value], list[Register]]
"""Gives the value and the place at an index."""


class Extreme:
    """Writes folds side by side, each of elements 0 .. `size` - 1, LEAST to MOST of them, by the choice of a reducer.

    As places grow, only the place that is chosen is asked for.
    """

    def __init__(self, k: KernelContext, reducer: Reducer, size: int, folds: Sequence[Elements]):
        self.k, self.b, self.size, self.folds = k, k.b, size, folds
        self.dtype, self.choice = reducer.dtypes[0], reducer.choice
        self.key_dtype = self.dtype
        if self.dtype.is_float:
            self.key_dtype = F64 if self.dtype is F64 else F32
        elif self.dtype is PRED:
            self.key_dtype = U8

    def run(self) -> list[list[Register]]:
        """The pairs that are chosen."""
        b, block = self.b, min(_BLOCK, self.size)
        start = [identity(self.choice.operation, self.key_dtype), i64(0), integer("i1", 0)] * len(self.folds)

        def step(number: Index, known: list[Value]) -> list[Value]:
            return self._and_block(known, b.mul(number[0], i64(block)), block)

        known = self.k.reduce_loop([self.size // block], start, step)
        rest = self.size % block
        if rest:
            known = self._and_block(known, i64(self.size - rest), rest)
        return [self._chosen(fold, known[3 * i : 3 * i + 3], block) for i, fold in enumerate(self.folds)]

    def _and_block(self, known: list[Value], first: Value, count: int) -> list[Value]:
        """For each fold the best value, where the block of it begins, and whether there is a NaN: with one more block.

        NaNs are counted in lanes as wide as values, which need no packing.
        """
        b, bits = self.b, f"i{self.key_dtype.bits}"
        none = [identity(self.choice.operation, self.key_dtype), *([integer(bits, 0)] if self.dtype.is_float else [])]

        def step(index: Index, running: list[Value]) -> list[Value]:
            result = []
            for number, fold in enumerate(self.folds):
                greatest, *nans = running[number * len(none) : (number + 1) * len(none)]
                key = self._key(fold, b.add(first, index[0]))
                result += [self._greater(greatest, key), *(b.add(n, b.zext(self._is_nan(key), bits)) for n in nans)]
            return result

        found = self.k.reduce_loop([count], none * len(self.folds), step)
        result = []
        for number in range(len(self.folds)):
            best, where, is_nan = known[3 * number : 3 * number + 3]
            greatest, *nans = found[number * len(none) : (number + 1) * len(none)]
            relation = ">" if self.choice.operation == "maximum" else "<"
            is_better = self._is(greatest, relation if self.choice.first else f"{relation}=", best)
            for nan in nans:
                is_nan = b.or_(is_nan, b.icmp_signed("!=", nan, integer(bits, 0)))
            result += [b.select(is_better, greatest, best), b.select(is_better, first, where), is_nan]
        return result

    def _chosen(self, fold: Elements, known: list[Value], block: int) -> list[Register]:
        """The pair that is chosen, given what is known of all blocks."""
        b, (best, where, is_nan) = self.b, known
        where = b.select(b.icmp_signed(">", where, i64(self.size - block)), i64(self.size - block), where)

        def found() -> list[Value]:
            return [self._place(fold, where, block, lambda key: self._is(key, "==", best), self.choice.first)]

        def found_nan() -> list[Value]:
            return [self._place(fold, i64(0), self.size, self._is_nan, self.choice.first_nan)]

        return fold(b.if_else(is_nan, found_nan, found)[0] if self.dtype.is_float else found()[0])

    def _place(
        self, fold: Elements, first: Value, count: int, is_one: Callable[[Value], Value], earliest: bool
    ) -> Value:
        """The number of the first or last of some elements that is one of those wanted; there is one."""
        b, none = self.b, integer("i32", -1)
        closer = "llvm.umin" if earliest else "llvm.smax"

        def step(index: Index, running: list[Value]) -> list[Value]:
            is_here = is_one(self._key(fold, b.add(first, index[0])))
            return [b.intrinsic(closer, "i32", [*running, b.select(is_here, b.trunc(index[0], "i32"), none)])]

        return b.add(first, b.zext(self.k.reduce_loop([count], [none], step)[0], "i64"))

    def _key(self, fold: Elements, place: Value) -> Value:
        """An element's value, as it is compared."""
        return scalar.convert(self.b, fold(place)[0], self.dtype, self.key_dtype)

    def _greater(self, x: Value, y: Value) -> Value:
        """The greater, or lesser, one of two; of NaNs anything."""
        b, name = self.b, self.choice.operation[:3]
        if self.key_dtype.is_float:
            return b.intrinsic(f"llvm.{name}num", x.type, [x, y], flags="nnan nsz")
        return b.intrinsic(f"llvm.{'s' if self.key_dtype.is_signed else 'u'}{name}", x.type, [x, y])

    def _is(self, x: Value, relation: str, y: Value) -> Value:
        if self.key_dtype.is_float:
            return self.b.fcmp_ordered(relation, x, y)
        compare = self.b.icmp_signed if self.key_dtype.is_signed else self.b.icmp_unsigned
        return compare(relation, x, y)

    def _is_nan(self, key: Value) -> Value:
        return self.b.fcmp_unordered("uno", key, key)
