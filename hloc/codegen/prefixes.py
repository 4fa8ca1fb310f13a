"""Running folds of contiguous values by a known operation, and folds of all of them, by vectors.

In a vector, pairs of neighbouring groups of 1, 2, 4, ... lanes become one (Sklansky, IRE Transactions on Electronic
Computers EC-9(2), 1960): all lanes of the second group are folded with the last one of the first. Then it is folded
with what is before it: only there one vector has to wait for another. Several that become one before that take longer.
"""

from __future__ import annotations

from types import SimpleNamespace

from hloc.codegen import scalar
from hloc.codegen.llvm import Builder, Function, Value, vector_type
from hloc.codegen.reducers import Reducer, combine, identity
from hloc.codegen.routines import PLAIN, Routines, i64
from hloc.ir.dtypes import DType

BLOCK = 512
"""Values folded at a time, in memory that stays in the innermost cache."""

_FOLDS = 4
"""Folds of vectors that are made side by side where all values become one."""


def is_by_vectors(reducer: Reducer) -> bool:
    """Whether the routine is for a reducer: of a known operation, of values that are in memory as in registers."""
    dtype = reducer.sums[0]
    if reducer.operation is None or dtype.is_complex or dtype.is_subbyte:
        return False
    return scalar.memory_type(dtype) == scalar.register_type(dtype)


def prefix_routine(routines: Routines, operation: str, dtype: DType) -> Function:
    """`prefix(source, target, count, before)`: values of the target become folds, the last of which it gives.

    Each is the fold of `before` and all values of the source up to it. The two may be the same memory.
    """
    return _Prefix(routines, operation, dtype).routine()


def total_routine(routines: Routines, operation: str, dtype: DType) -> Function:
    """`total(source, count)`: the fold of some values, in an order that their number decides."""
    return _Total(routines, operation, dtype).routine()


class _Vectors:
    """What the writers of both routines share."""

    def __init__(self, routines: Routines, operation: str, dtype: DType):
        self.routines, self.operation, self.dtype = routines, operation, dtype
        self.type = scalar.memory_type(dtype)
        self.lanes = max(2, routines.target.vector_bytes // dtype.itemsize)
        self.vector = vector_type(self.type, self.lanes)

    def _folded(self, x: Value, y: Value) -> Value:
        return combine(self.b, self.operation, self.dtype, x, y)

    def _load(self, source: Value, number: int) -> Value:
        place = self.b.gep(self.type, source, i64(number * self.lanes))
        return self.b.load(self.vector, place, align=self.dtype.itemsize)


class _Prefix(_Vectors):
    def routine(self) -> Function:
        params = f"ptr source, ptr target, i64 count, {self.type} before"
        name = f"hloc.prefix.{self.operation}.{self.dtype.name}"
        return self.routines.get(name, params, self._write, self.type, PLAIN)

    def _write(self, b: Builder, p: SimpleNamespace) -> Value:
        """Whole vectors; what is left, in memory of its own."""
        self.b, lanes = b, self.lanes

        def step(first: Value, carried: list[Value]) -> list[Value]:
            return [self._step(*(b.gep(self.type, start, first) for start in (p.source, p.target)), *carried)]

        whole = b.and_(p.count, i64(-lanes))
        start = [b.splat(p.before, lanes)]
        (before,) = b.for_loop_carrying(i64(0), whole, start, step, lanes, vectorize=False, unroll=False)

        def rest() -> list[Value]:
            held = b.room("i8", lanes * self.dtype.itemsize, align=64)
            size = b.mul(b.sub(p.count, whole), i64(self.dtype.itemsize))
            b.memcpy(held, b.gep(self.type, p.source, whole), size)
            self._step(held, held, before)
            b.memcpy(b.gep(self.type, p.target, whole), held, size)
            return [b.load(self.type, b.gep(self.type, p.target, b.sub(p.count, i64(1))))]

        is_rest = b.icmp_signed("<", whole, p.count)
        return b.if_else(is_rest, rest, lambda: [b.extractelement(before, 0)])[0]

    def _step(self, source: Value, target: Value, before: Value) -> Value:
        """A vector of the target from that of the source; its last value in all lanes."""
        values = self._within(self._load(source, 0))
        self.b.store(self._folded(before, values), target, align=self.dtype.itemsize)
        return self._folded(before, self.b.shufflevector(values, None, [self.lanes - 1] * self.lanes))

    def _within(self, values: Value) -> Value:
        """Each lane folded with those before it."""
        b, lanes, group = self.b, list(range(self.lanes)), 1
        while group < self.lanes // 2:
            lasts = [(lane & -group) - 1 if lane & group else lane for lane in lanes]
            both = self._folded(b.shufflevector(values, None, lasts), values)
            second = [self.lanes + lane if lane & group else lane for lane in lanes]
            values = b.shufflevector(values, both, second)
            group *= 2
        # By halves: for lanes of no use LLVM takes those of any register, and waits for the one before.
        last = b.shufflevector(values, None, [group - 1] * group)
        first, second = (b.shufflevector(values, None, lanes[at : at + group]) for at in (0, group))
        return b.shufflevector(first, self._folded(last, second), lanes)


class _Total(_Vectors):
    def routine(self) -> Function:
        name = f"hloc.total.{self.operation}.{self.dtype.name}"
        return self.routines.get(name, "ptr source, i64 count", self._write, self.type, PLAIN)

    def _write(self, b: Builder, p: SimpleNamespace) -> Value:
        """Some folds of vectors side by side, which become one; then what is left."""
        self.b, group = b, _FOLDS * self.lanes

        def groups(first: Value, running: list[Value]) -> list[Value]:
            start = b.gep(self.type, p.source, first)
            return [self._folded(values, self._load(start, number)) for number, values in enumerate(running)]

        def single(place: Value, running: list[Value]) -> list[Value]:
            return [self._folded(running[0], b.load(self.type, b.gep(self.type, p.source, place)))]

        whole = b.and_(p.count, i64(-group))
        start = [b.splat(identity(self.operation, self.dtype), self.lanes)] * _FOLDS
        folds = b.for_loop_carrying(i64(0), whole, start, groups, group, vectorize=False, unroll=False)
        while len(folds) > 1:
            folds = [self._folded(x, y) for x, y in zip(folds[::2], folds[1::2], strict=True)]
        values, lanes = folds[0], self.lanes
        while lanes > 1:
            lanes //= 2
            low, high = (b.shufflevector(values, None, list(range(at, at + lanes))) for at in (0, lanes))
            values = self._folded(low, high)
        total = b.extractelement(values, 0)
        return b.for_loop_carrying(whole, p.count, [total], single, vectorize=False, unroll=False)[0]
