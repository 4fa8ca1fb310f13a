"""Running values of many threads: what each of them has folded, and how that becomes one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.codegen import scalar
from hloc.codegen.arrays import Register, flattened, grouped
from hloc.codegen.folds import Values
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.intrinsics import WARP
from hloc.codegen.llvm import Builder, Constant, Value, bit_width, integer
from hloc.codegen.reducers import Reducer
from hloc.codegen.routines import i64
from hloc.codegen.scalar_types import register_type
from hloc.ir.dtypes import DType

_ALIGNMENT = 16


def running_types(reducers: Sequence[Reducer]) -> list[str]:
    """The LLVM types of the running values of reducers side by side, as `Running` has them."""
    types: list[str] = []
    for reducer in reducers:
        if reducer.operation is None:
            types.append("i1")
        for dtype in reducer.sums:
            types += register_types(dtype)
    return types


def register_types(dtype: DType) -> list[str]:
    """The LLVM types of an element's register value: one, or two."""
    return [register_type(dtype)] * (2 if dtype.is_complex else 1)


def slots_bytes(types: Sequence[str], count: int) -> int:
    """The bytes of `Slots` for `count` places."""
    return sum(_component_bytes(type, count) for type in types)


def _component_bytes(type: str, count: int) -> int:
    return -(-max(1, bit_width(type) // 8) * count // _ALIGNMENT) * _ALIGNMENT


class Running:
    """Running values of reducers side by side, as a flat list of LLVM values.

    Before those of a reducer that is no known operation stands an i1, whether there are any yet: no value leaves
    others unchanged. Values are merged in order, so that such a reducer has to be associative only.
    """

    def __init__(self, k: GpuContext, reducers: Sequence[Reducer]):
        self.k, self.b, self.reducers = k, k.b, reducers
        self.types = running_types(reducers)
        self.is_commutative = all(reducer.operation is not None for reducer in reducers)
        self._like: Values = [[scalar.zero(dtype) for dtype in reducer.sums] for reducer in reducers]

    def nothing(self) -> list[Value]:
        """The running values of no elements."""
        flat: list[Value] = []
        for reducer, zeros in zip(self.reducers, self._like, strict=True):
            if reducer.operation is None:
                flat += [integer("i1", 0), *flattened(zeros)]
            else:
                flat += flattened(reducer.identity())
        return flat

    def single(self, values: Values) -> list[Value]:
        """The running values of one element, which is given widened, reducer by reducer."""
        flat: list[Value] = []
        for reducer, parts in zip(self.reducers, values, strict=True):
            flat += [*([integer("i1", 1)] if reducer.operation is None else []), *flattened(parts)]
        return flat

    def merge(self, left: Sequence[Value], right: Sequence[Value]) -> list[Value]:
        """Those of the elements on the left followed by those on the right."""
        merged: list[Value] = []
        pairs = zip(self.reducers, self._parts(left), self._parts(right), strict=True)
        for reducer, (left_has, left_values), (right_has, right_values) in pairs:
            if left_has is None or right_has is None:
                merged += flattened(reducer.apply(self.k, left_values, right_values, regroup=False))
            elif _is_known(left_has, False):
                merged += [right_has, *flattened(right_values)]
            elif _is_known(right_has, False):
                merged += [left_has, *flattened(left_values)]
            else:
                both = flattened(reducer.apply(self.k, left_values, right_values))
                chosen = self.choose(right_has, both, flattened(left_values))
                chosen = self.choose(left_has, chosen, flattened(right_values))
                merged += [self.b.or_(left_has, right_has), *chosen]
        return merged

    def finish(self, initial: Values, totals: Sequence[Value]) -> Values:
        """The reducers' results: the initial values, given widened, followed by all elements; as elements."""
        return self.narrow(self.merge(self.single(initial), totals))

    def narrow(self, totals: Sequence[Value]) -> Values:
        """Running values of some elements at least, as elements."""
        parts = self._parts(totals)
        return [reducer.narrow(self.b, values) for reducer, (_, values) in zip(self.reducers, parts, strict=True)]

    def choose(self, condition: Value, these: Sequence[Value], others: Sequence[Value]) -> list[Value]:
        """These if the condition holds."""
        return [self.b.select(condition, this, other) for this, other in zip(these, others, strict=True)]

    def _parts(self, flat: Sequence[Value]) -> list[tuple[Value | None, list[Register]]]:
        """Reducer by reducer whether there are values, None if that does not matter, and the values."""
        parts: list[tuple[Value | None, list[Register]]] = []
        at = 0
        for reducer, like in zip(self.reducers, self._like, strict=True):
            has = None
            if reducer.operation is None:
                has, at = flat[at], at + 1
            count = len(flattened(like))
            parts.append((has, grouped(flat[at : at + count], like)))
            at += count
        return parts

    # Of several threads

    def across_lanes(self, values: Sequence[Value], width: int) -> list[Value]:
        """Those of each `width` neighbouring lanes of a warp, a power of two, merged; all of these have the result."""
        values = list(values)
        step = 1
        while step < width:
            others = [self.k.gpu.shuffle("xor", value, integer("i32", step)) for value in values]
            left, right = values, others
            if not self.is_commutative:
                bit = self.b.and_(self.k.gpu.lane(), integer("i32", step))
                is_right = self.b.icmp_signed("!=", bit, integer("i32", 0))
                left, right = self.choose(is_right, others, values), self.choose(is_right, values, others)
            values = self.merge(left, right)
            step *= 2
        return values

    def before_lane(self, values: Sequence[Value], width: int) -> tuple[list[Value], list[Value]]:
        """Of each `width` neighbouring lanes, a power of two: those before this one merged, and with it."""
        b, gpu = self.b, self.k.gpu
        lane = b.and_(gpu.lane(), integer("i32", width - 1))
        values = list(values)
        step = 1
        while step < width:
            others = [gpu.shuffle("up", value, integer("i32", step)) for value in values]
            has = b.icmp_unsigned(">=", lane, integer("i32", step))
            values = self.choose(has, self.merge(others, values), values)
            step *= 2
        before = [gpu.shuffle("up", value, integer("i32", 1)) for value in values]
        is_first = b.icmp_unsigned("==", lane, integer("i32", 0))
        return self.choose(is_first, self.nothing(), before), values

    def across_block(self, values: Sequence[Value], threads: int, slots: Slots) -> list[Value]:
        """Those of all threads of a block of one dimension, a power of two; all of them have the result.

        `slots` in shared memory have a place for each warp. A barrier has to come before they are used again.
        """
        values = self.across_lanes(values, min(threads, WARP))
        warps = threads // WARP
        if warps <= 1:
            return values
        b, gpu = self.b, self.k.gpu
        with b.if_then(b.icmp_signed("==", gpu.lane(), integer("i32", 0))):
            slots.put(b.zext(gpu.warp(), "i64"), values)
        gpu.barrier()
        found = slots.get(b.zext(b.and_(gpu.lane(), integer("i32", warps - 1)), "i64"))
        return self.across_lanes(found, warps)


class Slots:
    """Memory for values of some LLVM types at `count` places, component by component.

    `address(offset)` gives the address of a byte of it, aligned to 16 bytes.
    """

    def __init__(self, b: Builder, types: Sequence[str], count: int, address: Callable[[int], Value]):
        self.b, self.types = b, types
        self.starts: list[Value] = []
        offset = 0
        for type in self.types:
            self.starts.append(address(offset))
            offset += _component_bytes(type, count)

    @staticmethod
    def shared(running: Running, count: int, offset: int = 0) -> Slots:
        """For running values, in shared memory, from a byte on."""
        return Slots(running.b, running.types, count, lambda at: running.k.gpu.shared(offset + at))

    @staticmethod
    def scratch(running: Running, count: int, offset: int = 0) -> Slots:
        """For running values, in scratch, from a byte on."""
        b, scratch = running.b, running.k.scratch
        return Slots(b, running.types, count, lambda at: b.gep("i8", scratch, i64(offset + at)))

    def put(self, place: Value, values: Sequence[Value]) -> None:
        for type, start, value in zip(self.types, self.starts, values, strict=True):
            if type == "i1":
                type, value = "i8", self.b.zext(value, "i8")
            self.b.store(value, self.b.gep(type, start, place), align=bit_width(type) // 8)

    def get(self, place: Value) -> list[Value]:
        values = []
        for type, start in zip(self.types, self.starts, strict=True):
            kind = "i8" if type == "i1" else type
            value = self.b.load(kind, self.b.gep(kind, start, place), align=bit_width(kind) // 8)
            values.append(self.b.trunc(value, "i1") if type == "i1" else value)
        return values


def _is_known(value: Value, is_true: bool) -> bool:
    return isinstance(value, Constant) and bool(value.number) == is_true
