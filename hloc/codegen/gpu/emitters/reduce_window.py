"""reduce-window: windows folded by a computation. Padding is left out.

Windows that only grow from one end of a dimension (cumulative sums) are scans. Elsewhere a thread folds a window, or
some neighbouring ones, where these lie side by side in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from hloc.codegen.arrays import Register, flattened, grouped
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.emitters import gpu_kernel
from hloc.codegen.gpu.fold_plan import THREADS
from hloc.codegen.gpu.running import Running
from hloc.codegen.gpu.scans import Scan, ScanSpace, scan
from hloc.codegen.gpu.spread import over_elements
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value
from hloc.codegen.reducers import Reducer
from hloc.codegen.routines import i64
from hloc.codegen.windows import WindowSpace, is_trivial
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape

_LEAST_SCANNED = 4
"""Elements of windows that grow, from which on they are scanned."""


class _Plan:
    """The windows, what folds them, and the dimension that is scanned, if there is one."""

    def __init__(self, instruction: Instruction):
        self.count = len(instruction.operands) // 2
        base = instruction.operands[0].shape
        windows = instruction.get("window").dims
        self.outputs = tuple(w.output_size(size) for w, size in zip(windows, base.dims, strict=True))
        self.space = WindowSpace(windows, base.dims, self.outputs)
        self.reducer = Reducer.of(
            instruction.attributes["to_apply"], [o.shape.dtype for o in instruction.operands[: self.count]]
        )
        self.order = [d for d in reversed(base.minor_to_major) if base.dims[d] != 1]
        self.scan = self.space.scanned(self.reducer.operation is not None, _LEAST_SCANNED)
        self.itemsize = max(o.shape.dtype.itemsize for o in instruction.operands[: self.count])
        self.result = ArrayShape(base.dtype, self.outputs, base.layout)

    def scan_space(self) -> ScanSpace:
        others = [d for d in self.order if d != self.scan]
        length = self.outputs[self.scan] + max(0, self.space.entering(self.scan))
        items = max(1, 16 // self.itemsize)
        if length >= 4096 and self.reducer.operation is not None:
            items = 64 // max(4, self.itemsize)
        return ScanSpace(tuple(self.outputs[d] for d in others), length, self.order[-1:] == [self.scan], items)


def _scratch(instruction: Instruction) -> int:
    plan = _Plan(instruction)
    if plan.scan is None or 0 in plan.outputs:
        return 0
    return plan.scan_space().scratch_bytes(plan.reducer)


@gpu_kernel("reduce-window", element_operands="all", scratch=_scratch, takes_epilogue=lambda instruction: True)
def reduce_window(g: GpuStep, instruction: Instruction) -> None:
    plan = _Plan(instruction)
    if 0 in plan.outputs:
        return
    if plan.scan is None:
        _each_window(g, plan)
    else:
        scan(g, plan.scan_space(), plan.reducer, lambda k, running: _Line(k, plan, running).scan(), plan.itemsize)


class _Windows:
    """What both forms read and write."""

    def __init__(self, k: GpuContext, plan: _Plan):
        self.k, self.b, self.plan, self.reducer = k, k.b, plan, plan.reducer
        self.initial = plan.reducer.widen(k.b, [k.input(plan.count + number)(()) for number in range(plan.count)])

    def elements(self, index: Sequence[Value]) -> list[Register]:
        return self.reducer.widen(self.b, [self.k.input(number)(tuple(index)) for number in range(self.plan.count)])


# Each window on its own


def _each_window(g: GpuStep, plan: _Plan) -> None:
    """Neighbours that have the same window along all dimensions but their own are folded side by side."""
    shape = plan.result
    minor = plan.order[-1] if plan.order else None
    width = 1
    if minor is not None and is_trivial(plan.space.windows[minor]):
        width = max(1, 16 // plan.itemsize)
        while width > 1 and (shape.dims[minor] % width or shape.count // width < 1 << 16):
            width //= 2
    with g.launch(-(-shape.count // (width * THREADS)), THREADS) as k:
        windows = _Windows(k, plan)

        def together(indices: list[Index]) -> None:
            def fold(place: list[Value], inside: list[Value], carried: list[Value]) -> list[Value]:
                running = grouped(carried, windows.initial * len(indices))
                size, found = len(windows.initial), []
                for number, index in enumerate(indices):
                    if number:
                        place = [*place[:minor], index[minor], *place[minor + 1 :]]
                    values = running[number * size : (number + 1) * size]
                    found += plan.reducer.apply(k, values, windows.elements(place))
                return flattened(found)

            start = flattened(windows.initial * len(indices))
            totals = grouped(plan.space.fold(k.b, indices[0], start, fold), windows.initial * len(indices))
            for number, index in enumerate(indices):
                values = totals[number * len(windows.initial) : (number + 1) * len(windows.initial)]
                k.store(index, plan.reducer.narrow(k.b, values))

        over_elements(k, k.global_index(), shape, width, together, by_rows=True)


# Windows that grow from one end


class _Line(_Windows):
    """A scan's places are results, the first of which may be before the array of results, if windows begin large.

    They count from the end where windows begin.
    """

    def __init__(self, k: GpuContext, plan: _Plan, running: Running):
        super().__init__(k, plan)
        self.running = running
        self.d: int = plan.scan
        self.size, self.outputs = plan.space.sizes[self.d], plan.outputs[self.d]
        self.is_forward = plan.space.grows_forward(self.d)
        self.entering = plan.space.entering(self.d)
        self.others = [d for d in plan.order if d != self.d]

    def scan(self) -> Scan:
        return Scan(self.load, self.one, self.store, [self.initial])

    def index(self, line: Index, at: Value, size: int) -> list[Value]:
        """An index, counted from the other end if windows begin there."""
        index = [i64(0)] * len(self.plan.outputs)
        for dimension, value in zip(self.others, line, strict=True):
            index[dimension] = value
        index[self.d] = at if self.is_forward else self.b.sub(i64(size - 1), at)
        return index

    def load(self, line: Index, places: Sequence[Value]) -> list[list[Value]]:
        return [self.one(line, place) for place in places]

    def one(self, line: Index, place: Value) -> list[Value]:
        """The element that comes in at a place: none, if results begin before elements or end behind them."""
        b = self.b
        at = b.add(place, i64(min(0, self.entering)))
        last = self.outputs - 1 + self.entering
        if self.entering >= 0 and last < self.size:
            return self.running.single([self.elements(self.index(line, at, self.size))])
        if not self.size:
            return self.running.nothing()
        exists = b.icmp_unsigned("<", at, i64(self.size))
        at = b.select(exists, at, i64(0))
        values = self.running.single([self.elements(self.index(line, at, self.size))])
        return self.running.choose(exists, values, self.running.nothing())

    def store(self, line: Index, place: Value, values: list[Value]) -> None:
        at = self.b.sub(place, i64(max(0, self.entering)))
        (results,) = self.running.narrow(values)

        def put() -> None:
            self.k.store(tuple(self.index(line, at, self.outputs)), results)

        if self.entering > 0:
            with self.b.if_then(self.b.icmp_signed(">=", at, i64(0))):
                put()
        else:
            put()
