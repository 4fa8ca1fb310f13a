"""Running folds of contiguous values by a known operation, a vector at a time.

In a vector, pairs of neighbouring groups of 1, 2, 4, ... lanes become one (Sklansky, IRE Transactions on Electronic
Computers EC-9(2), 1960): all lanes of the second group are folded with the last one of the first. When that is done for
all vectors, each is folded with what is before it: only there one has to wait for another.
"""

from __future__ import annotations

from types import SimpleNamespace

from hloc.codegen import scalar
from hloc.codegen.llvm import Builder, Function, Value, vector_type
from hloc.codegen.reducers import Reducer, combine
from hloc.codegen.routines import Routines, i64
from hloc.ir.dtypes import DType

BLOCK = 512
"""Values folded at a time, in memory that stays in the innermost cache."""


def is_by_vectors(reducer: Reducer) -> bool:
    """Whether the routine is for a reducer: of a known operation, of values that are in memory as in registers."""
    dtype = reducer.sums[0]
    if reducer.operation is None or dtype.is_complex or dtype.is_subbyte:
        return False
    return scalar.memory_type(dtype) == scalar.register_type(dtype)


def prefix_routine(routines: Routines, operation: str, dtype: DType) -> Function:
    """`prefix(values, count, before)`: each value becomes the fold of `before` and all values up to it.

    There is room for whole vectors behind the last value, with anything in it.
    """
    type = scalar.memory_type(dtype)
    lanes = max(2, routines.target.vector_bytes // dtype.itemsize)
    vector = vector_type(type, lanes)

    def within(b: Builder, values: Value) -> Value:
        group = 1
        while group < lanes:
            lasts = [(lane & -group) - 1 if lane & group else lane for lane in range(lanes)]
            folded = combine(b, operation, dtype, b.shufflevector(values, None, lasts), values)
            second = [lanes + lane if lane & group else lane for lane in range(lanes)]
            values = b.shufflevector(values, folded, second)
            group *= 2
        return values

    def write(b: Builder, p: SimpleNamespace) -> None:
        def step(first: Value, carried: list[Value]) -> list[Value]:
            (before,) = carried
            place = b.gep(type, p.values, first)
            last = b.load(type, b.gep(type, place, i64(lanes - 1)))
            values = b.load(vector, place, align=dtype.itemsize)
            b.store(combine(b, operation, dtype, before, values), place, align=dtype.itemsize)
            return [combine(b, operation, dtype, before, b.splat(last, lanes))]

        with b.for_loop(i64(0), p.count, lanes, vectorize=False, unroll=False) as first:
            place = b.gep(type, p.values, first)
            b.store(within(b, b.load(vector, place, align=dtype.itemsize)), place, align=dtype.itemsize)
        start = [b.splat(p.before, lanes)]
        b.for_loop_carrying(i64(0), p.count, start, step, lanes, vectorize=False, unroll=False)

    params = f"ptr noalias values, i64 count, {type} before"
    return routines.get(f"hloc.prefix.{operation}.{dtype.name}", params, write)
