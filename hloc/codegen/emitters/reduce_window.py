"""reduce-window: windows folded by a computation. Padding is left out.

Windows that only grow from one end of a dimension (cumulative sums) are folded in linear time, each from the
one before it, by vectors if the operation is known. Elsewhere each result is a loop over its window; where the fastest
dimensions have windows of one element, a row of results at a time. Windows over the fastest dimension are folded a row
of results at a time, too, a position of the window after the other, but those that reach over its ends. Where the base
is dilated, such a row is that of every so many results, whose windows have equally many elements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from hloc.analysis.log_add_exp import is_log_add_exp
from hloc.codegen.arrays import ArrayRef, Register, flattened, grouped
from hloc.codegen.kernel import Index, KernelContext, kernel
from hloc.codegen.llvm import Value
from hloc.codegen.loops import delinearize
from hloc.codegen.parts import Parts
from hloc.codegen.prefixes import is_by_vectors
from hloc.codegen.reducers import Reducer
from hloc.codegen.routines import i64
from hloc.codegen.rows import Row, Strip, row_bytes, row_dimensions
from hloc.codegen.scans import Line, Scan, parts_of
from hloc.codegen.windows import Phase, WindowSpace, is_trivial, phases
from hloc.ir.attributes import WindowDim
from hloc.ir.instruction import Instruction

Step = Callable[[Value, list[Value]], list[Value]]
"""Takes the element at a place along the scanned dimension into the carried values."""

Store = Callable[[Value, list[Value]], None]
"""Stores the carried values as the result at a place along the scanned dimension."""

_FEW = 4
"""Rows shorter than this are not held together."""

_LEAST_ACROSS = 8
"""Windows that lie in one row of the base are folded together if there are so many."""

_MOST_PHASES = 8
"""Rows of results over a dilated dimension, at most."""

_TOGETHER = 8
"""Positions of a window that such results take in one loop."""

_LEAST_SCANNED = 32
"""Windows that grow are folded by vectors if there are so many."""

_SHORT, _SHORT_OTHER = 16, 8
"""Of up to so many windows that grow, the loop is written out, and those around it are vectorized: where the operation
is known, and where it is not.
"""


class _Plan:
    """The windows, the form to use, and the dimensions held together."""

    def __init__(self, instruction: Instruction):
        self.count = len(instruction.operands) // 2
        base = instruction.operands[0].shape
        self.sizes = base.dims
        self.windows: tuple[WindowDim, ...] = instruction.get("window").dims
        self.outputs = tuple(w.output_size(size) for w, size in zip(self.windows, self.sizes, strict=True))
        self.reducer = Reducer.of(
            instruction.attributes["to_apply"], [o.shape.dtype for o in instruction.operands[: self.count]]
        )
        self.order = base.minor_to_major[::-1]
        self.space = WindowSpace(self.windows, self.sizes, self.outputs)
        self.scan = self.space.scanned(either_end=self._in_any_order)
        trailing: list[int] = []
        for dimension in reversed(self.order):
            if not is_trivial(self.windows[dimension]):
                break
            trailing.insert(0, dimension)
        self.row = row_dimensions(self.sizes, trailing)
        if prod(self.sizes[d] for d in self.row) < _FEW or self.is_short:
            self.row = []
        self.across = self._across()

    @property
    def _in_any_order(self) -> bool:
        """Whether elements may be folded in another order than they come in windows."""
        return self.reducer.operation is not None or is_log_add_exp(self.reducer.computation)

    def _across(self) -> int | None:
        """The fastest dimension, if its windows are to be folded a row of results at a time."""
        if self.row or self.scan is not None or not self.order:
            return None
        across = self.order[-1]
        window = self.windows[across]
        if 0 in self.outputs or (window.base_dilation > 1 and window.window_dilation > 1):
            return None
        # A window is gone through in row-major order: a computation that is not known may tell the difference.
        if self.reducer.operation is None and any(not is_trivial(w) for w in self.windows[across + 1 :]):
            return None
        counts = self._counts(across)
        return across if min(counts) >= _LEAST_ACROSS and len(counts) <= _MOST_PHASES else None

    def _counts(self, across: int) -> list[int]:
        """How many results of each row have windows that reach over no end."""
        rows = phases(self.windows[across], self.outputs[across])
        return [end - first for first, end in (phase.inner(self.sizes[across]) for phase in rows)]

    @property
    def is_short(self) -> bool:
        """Whether there are few windows that grow."""
        most = _SHORT_OTHER if self.reducer.operation is None else _SHORT
        return self.scan is not None and max(self.sizes[self.scan], self.outputs[self.scan]) <= most

    @property
    def lines(self) -> list[int]:
        """The sizes of the results across the scanned dimension."""
        return [1 if d == self.scan else size for d, size in enumerate(self.outputs)]

    @property
    def is_by_vectors(self) -> bool:
        """Whether windows that grow are folded by vectors, line by line."""
        return self.scan is not None and not self.row and is_by_vectors(self.reducer)

    @property
    def parts(self) -> Parts | None:
        """The parts of each line, if there are so few lines that threads share them: a result for each element."""
        if not self.is_by_vectors or self.space.entering(self.scan) or self.outputs != self.sizes:
            return None
        return parts_of(self.sizes[self.scan], prod(self.lines))

    @property
    def scratch_bytes(self) -> int:
        parts = self.parts
        if parts is not None:
            return prod(self.lines) * parts.count * self.reducer.sums[0].itemsize
        if self.across is not None:
            return row_bytes(self.reducer, max(self._counts(self.across)))
        return row_bytes(self.reducer, prod(self.sizes[d] for d in self.row)) if self.row else 0


@kernel(
    "reduce-window",
    element_operands="all",
    scratch=lambda instruction: _Plan(instruction).scratch_bytes,
    takes_epilogue=lambda instruction: True,
    is_loop=True,
    common_scratch=lambda instruction, is_fused: _Plan(instruction).parts is not None,
    turns=lambda instruction: 1 if _Plan(instruction).parts is None else 2,
)
def reduce_window(k: KernelContext, instruction: Instruction) -> None:
    plan = _Plan(instruction)
    if 0 not in plan.outputs:
        _ReduceWindow(k, plan).write()


class _ReduceWindow:
    """Writes the loops of one reduce-window."""

    def __init__(self, k: KernelContext, plan: _Plan):
        self.k, self.b, self.plan, self.reducer = k, k.b, plan, plan.reducer
        self.inputs = [k.input(i) for i in range(plan.count)]
        self.initial = self.reducer.widen(k.b, [k.input(plan.count + i)(()) for i in range(plan.count)])

    def write(self) -> None:
        plan = self.plan
        if plan.parts is not None:
            self._in_parts(plan.parts)
            return
        dims = list(plan.outputs)
        if plan.across is not None:
            dims[plan.across] = 1
            self.k.loop_nest(dims, self._across, plan.order)
            return
        for dimension in [*plan.row, *([plan.scan] if plan.scan is not None else [])]:
            dims[dimension] = 1
        if not plan.row:
            self.k.loop_nest(dims, self._result if plan.scan is None else self._scan, plan.order)
            return
        row = Row(Strip(self.k, [plan.sizes[d] for d in plan.row]), self.reducer, self.k.scratch)
        body = self._row_result if plan.scan is None else self._row_scan
        self.k.loop_nest(dims, lambda index: row.strip.run(lambda: body(row, index)), plan.order)

    def _elements(self, index: Sequence[Value]) -> list[Register]:
        return self.reducer.widen(self.b, [element(tuple(index)) for element in self.inputs])

    def _store(self, index: Sequence[Value], totals: Sequence[Register]) -> None:
        self.k.store(tuple(index), self.reducer.narrow(self.b, totals))

    def _in_row(self, index: Sequence[Value], at: Index) -> list[Value]:
        """An index with the row's dimensions set."""
        result = list(index)
        for dimension, value in zip(self.plan.row, at, strict=True):
            result[dimension] = value
        return result

    # Each window on its own

    def _result(self, index: Index) -> None:
        def fold(place: list[Value], inside: list[Value], carried: list[Value]) -> list[Value]:
            return flattened(
                self.reducer.apply(self.k, grouped(carried, self.initial), self._elements(place))
            )

        totals = self._windows(index, flattened(self.initial), fold)
        self._store(index, grouped(totals, self.initial))

    def _row_result(self, row: Row, index: Index) -> None:
        def fold(place: list[Value], inside: list[Value], carried: list[Value]) -> list[Value]:
            row.strip.along(lambda at, held: row.fold(held, [self._elements(self._in_row(place, at))]))
            return []

        row.start(self.initial)
        self._windows(index, [], fold)
        row.finish(lambda at, totals: self._store(self._in_row(index, at), totals))

    def _windows(self, index: Index, initial: list[Value], body) -> list[Value]:
        return self.plan.space.fold(self.b, index, initial, body)

    # Windows over the fastest dimension

    def _across(self, index: Index) -> None:
        """All results along the fastest dimension."""
        plan, d = self.plan, self.plan.across
        for phase in phases(plan.windows[d], plan.outputs[d]):
            first, end = phase.inner(plan.sizes[d])
            for begin, behind in ((0, first), (end, phase.count)):
                with self.b.for_loop(begin, behind, unroll=False) as number:
                    self._result((*index[:d], phase.result(self.b, number), *index[d + 1 :]))
            row = Row(Strip(self.k, [end - first]), self.reducer, self.k.scratch)
            row.strip.run(lambda row=row, phase=phase: self._across_row(row, phase, index))

    def _across_row(self, row: Row, phase: Phase, index: Index) -> None:
        """Those of windows that reach over no end, in a strip."""
        plan, b, d = self.plan, self.b, self.plan.across
        window, first = phase.window, phase.inner(plan.sizes[d])[0]

        def number(at: Index) -> Value:
            return b.add(at[0], i64(first))

        def element(place: Sequence[Value], at: Index, position: Value) -> list[Register]:
            start = b.sub(b.mul(number(at), i64(window.stride)), i64(window.pad_low))
            there = b.add(start, b.mul(position, i64(window.window_dilation)))
            return self._elements((*place[:d], there, *place[d + 1 :]))

        def take(place: Sequence[Value], position: Value, count: int) -> None:
            positions = [b.add(position, i64(j)) for j in range(count)]
            row.strip.along(lambda at, held: row.fold(held, [element(place, at, p) for p in positions]))

        def fold(place: list[Value], inside: list[Value], carried: list[Value]) -> list[Value]:
            place = list(place)
            rest = window.size % _TOGETHER
            with b.for_loop(0, window.size - rest, _TOGETHER, unroll=False) as position:
                take(place, position, _TOGETHER)
            if rest:
                take(place, i64(window.size - rest), rest)
            return []

        others = tuple(WindowDim(1) if n == d else w for n, w in enumerate(plan.windows))
        row.start(self.initial)
        WindowSpace(others, plan.sizes, plan.outputs).fold(b, index, [], fold)
        row.finish(
            lambda at, totals: self._store((*index[:d], phase.result(b, number(at)), *index[d + 1 :]), totals)
        )

    # Windows that grow from one end

    def _scan(self, index: Index) -> None:
        def add(at: Value, carried: list[Value]) -> list[Value]:
            values = self._elements(self._along(index, at))
            return flattened(self.reducer.apply(self.k, grouped(carried, self.initial), values))

        def store(at: Value, carried: list[Value]) -> None:
            self._store(self._along(index, at), grouped(carried, self.initial))

        self._steps(flattened(self.initial), add, store, self._line(index) if self.plan.is_by_vectors else None)

    def _in_parts(self, parts: Parts) -> None:
        """All lines, by vectors."""
        lines = self.plan.lines

        def line(number: Value) -> Line:
            return self._line(tuple(delinearize(self.b, number, lines)))

        Scan(self.k, self.reducer).in_parts(parts, prod(lines), line, self.initial[0])

    def _line(self, index: Index) -> Line:
        """The elements, numbered as they come into windows, and the results, as these grow."""
        plan, k, dtype = self.plan, self.k, self.reducer.sums[0]

        def element(i: Value) -> Value:
            return self._elements(self._along(index, self._coming_in(i)))[0]

        def put(o: Value, total: Value) -> None:
            self._store(self._along(index, self._going_out(o)), [total])

        def addresses(array: ArrayRef | None) -> Callable[[Value], Value] | None:
            """Those along the line, if it lies there forward and dense, as running values."""
            if array is None or array.shape.dtype is not dtype or array.shape.strides[plan.scan] != 1:
                return None
            return lambda at: array.address(tuple(self._along(index, at)))

        if not plan.space.grows_forward(plan.scan):
            return Line(element, put, None, None)
        source = k.input_array(0) if k.is_in_memory(0) else None
        return Line(element, put, addresses(source), addresses(k.outputs[0] if k.finisher is None else None))

    def _row_scan(self, row: Row, index: Index) -> None:
        def add(at: Value, carried: list[Value]) -> list[Value]:
            row.strip.along(
                lambda place, held: row.fold(
                    held, [self._elements(self._in_row(self._along(index, at), place))]
                )
            )
            return []

        def store(at: Value, carried: list[Value]) -> None:
            row.finish(lambda place, totals: self._store(self._in_row(self._along(index, at), place), totals))

        row.start(self.initial)
        self._steps([], add, store)

    def _along(self, index: Index, at: Value) -> list[Value]:
        result = list(index)
        result[self.plan.scan] = at
        return result

    def _coming_in(self, i: Value) -> Value:
        """Where the element is that comes in as number i."""
        plan = self.plan
        return i if plan.space.grows_forward(plan.scan) else self.b.sub(i64(plan.sizes[plan.scan] - 1), i)

    def _going_out(self, o: Value) -> Value:
        """Where the result is that goes out as number o."""
        plan = self.plan
        return o if plan.space.grows_forward(plan.scan) else self.b.sub(i64(plan.outputs[plan.scan] - 1), o)

    def _steps(self, carried: list[Value], add: Step, store: Store, line: Line | None = None) -> None:
        """Goes through the results as windows grow: an element comes in, a result goes out.

        `o` counts results and `o + entering` elements in that direction. The first results may be of windows
        with no element yet, the last ones of windows with all. The others are made by vectors if there is a `line`.
        """
        plan = self.plan
        size, outputs = plan.sizes[plan.scan], plan.outputs[plan.scan]
        entering = plan.space.entering(plan.scan)
        begin = min(max(-entering, 0), outputs)
        end = max(min(size - entering, outputs), begin)

        def put(o: Value, carried: list[Value]) -> list[Value]:
            store(self._going_out(o), carried)
            return carried

        def add_and_put(o: Value, carried: list[Value]) -> list[Value]:
            return put(o, add(self._coming_in(self.b.add(o, i64(entering))), carried))

        for first, last, step in (
            (0, min(max(entering, 0), size), lambda i, carried: add(self._coming_in(i), carried)),
            (0, begin, put),
            (begin, end, add_and_put),
            (end, outputs, put),
        ):
            if first >= last:
                continue
            if step is add_and_put and line is not None and last - first >= _LEAST_SCANNED:
                behind = line.behind(self.b, i64(entering))
                carried = [Scan(self.k, self.reducer).results(behind, i64(first), last - first, *carried)]
            else:
                carried = self.b.for_loop_carrying(i64(first), i64(last), carried, step, flat=plan.is_short)
