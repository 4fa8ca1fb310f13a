"""Windows over arrays: which of a window's positions lie on elements of the base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd
from typing import TYPE_CHECKING

from hloc.codegen import scalar
from hloc.codegen.arrays import Register, flattened, grouped
from hloc.codegen.llvm import Builder, Value, integer
from hloc.codegen.loops import Index
from hloc.codegen.routines import i64
from hloc.ir.attributes import WindowDim
from hloc.ir.instruction import Instruction
from hloc.records import record

if TYPE_CHECKING:
    from hloc.codegen.kernel import KernelContext


def is_trivial(window: WindowDim) -> bool:
    """Whether each window position along the dimension is one element, the one at the same index."""
    return (
        window.size == 1
        and window.stride == 1
        and window.pad_low == window.pad_high == 0
        and window.base_dilation == 1
    )


def _floor_div(b: Builder, value: Value, divisor: int) -> Value:
    """value // divisor, toward minus infinity."""
    if divisor == 1:
        return value
    quotient = b.sdiv(value, i64(divisor))
    rest = b.sub(value, b.mul(quotient, i64(divisor)))
    return b.select(b.icmp_signed("<", rest, i64(0)), b.sub(quotient, i64(1)), quotient)


def _limit(b: Builder, value: Value, most: int) -> Value:
    """value within 0 .. most."""
    value = b.select(b.icmp_signed("<", value, i64(0)), i64(0), value)
    return b.select(b.icmp_signed(">", value, i64(most)), i64(most), value)


def _spread(window: WindowDim, size: int) -> int:
    """The size of the dilated base."""
    return (size - 1) * window.base_dilation + 1 if size else 0


def _range(b: Builder, window: WindowDim, size: int, start: Value) -> tuple[Value, Value]:
    """The window indices whose positions lie in the (dilated) base, given the position of index 0."""
    spread = _spread(window, size)
    step = window.window_dilation
    first = _floor_div(b, b.add(b.sub(i64(0), start), i64(step - 1)), step)
    end = _floor_div(b, b.add(b.sub(i64(spread), start), i64(step - 1)), step)
    return _limit(b, first, window.size), _limit(b, end, window.size)


def _elements(b: Builder, window: WindowDim, size: int, start: Value) -> tuple[Value, Value]:
    """The elements of a dilated base that lie under a window without gaps, given the position of its index 0."""
    step, ahead = window.base_dilation, max(-(-window.pad_low // window.base_dilation), 0)

    def above(position: Value) -> Value:
        """The first element at or behind a position; positions are counted from `ahead` elements before the base."""
        number = b.udiv(b.add(position, i64(ahead * step + step - 1)), i64(step))
        return _limit(b, b.sub(number, i64(ahead)), size)

    return above(start), above(b.add(start, i64(window.size)))


def _always_inside(window: WindowDim, size: int, outputs: int) -> bool:
    """Whether no window reaches over an edge, as far as sizes tell."""
    last = (outputs - 1) * window.stride - window.pad_low + window.dilated_size - 1
    return window.pad_low <= 0 and last <= (size - 1) * window.base_dilation


@record
class Phase:
    """Results along a dimension: `count` of them, a `step` apart from `offset` on, and their windows."""

    window: WindowDim
    count: int
    offset: int = 0
    step: int = 1

    def inner(self, size: int) -> tuple[int, int]:
        """The first of them whose window reaches over no end of a base of this size, and where those end."""
        window = self.window
        first = max(-(-window.pad_low // window.stride), 0)
        end = (size - window.dilated_size + window.pad_low) // window.stride + 1
        return first, max(min(end, self.count), first)

    def result(self, b: Builder, number: Value) -> Value:
        return b.add(b.mul(number, i64(self.step)), i64(self.offset))


def phases(window: WindowDim, outputs: int) -> list[Phase]:
    """All results; of a dilated base those that lie equally to its elements, which alone are counted.

    Windows over a dilated base have no gaps.
    """
    dilation = window.base_dilation
    if dilation == 1:
        return [Phase(window, outputs)]
    common, found = gcd(window.stride, dilation), []
    step, stride = dilation // common, window.stride // common
    for offset in range(min(step, outputs)):
        start = offset * window.stride - window.pad_low
        first, end = (-(-(start + size) // dilation) for size in (0, window.size))
        window_of_elements = WindowDim(end - first, stride, -first)
        found.append(Phase(window_of_elements, -(-(outputs - offset) // step), offset, step))
    return found


WindowBody = Callable[[list[Value], list[Value], list[Value]], Sequence[Value]]
"""body(index in the base, index in the window, carried values) gives the next carried values."""


@record
class WindowSpace:
    """Windows over a base of some `sizes`; `outputs` are the sizes of the array of windows."""

    windows: Sequence[WindowDim]
    sizes: Sequence[int]
    outputs: Sequence[int]

    def fold(
        self, b: Builder, index: Sequence[Value], initial: Sequence[Value], body: WindowBody
    ) -> list[Value]:
        """Runs `body` for the elements under the window at `index`, in row-major order; the last carried.

        What lies on padding or between elements is left out.
        """
        return _WindowLoops(b, self, index, body).level(0, list(initial))

    def grows_forward(self, d: int) -> bool:
        """Whether every window along a dimension starts at or before the first element."""
        return self._is_dense(d) and self.outputs[d] - 1 <= self.windows[d].pad_low

    def grows_backward(self, d: int) -> bool:
        """Whether every window along a dimension ends at or after the last element."""
        window = self.windows[d]
        return self._is_dense(d) and window.size - window.pad_low >= self.sizes[d]

    def _is_dense(self, d: int) -> bool:
        window = self.windows[d]
        return window.stride == window.base_dilation == window.window_dilation == 1

    def scanned(self, either_end: bool, least: int = 2) -> int | None:
        """The dimension of windows that grow from an end, if all other windows are single elements.

        From the last element only if `either_end`: the elements then come in the reverse order. None for windows of
        fewer than `least` elements.
        """
        wide = [d for d, window in enumerate(self.windows) if not is_trivial(window)]
        if len(wide) != 1 or self.windows[wide[0]].size < least:
            return None
        (d,) = wide
        return d if self.grows_forward(d) or (either_end and self.grows_backward(d)) else None

    def entering(self, d: int) -> int:
        """Of windows that grow: the number of the element that the first result ends with, from where they begin."""
        window = self.windows[d]
        if self.grows_forward(d):
            return window.size - 1 - window.pad_low
        return self.sizes[d] - self.outputs[d] + window.pad_low

    def holders(self, b: Builder, place: Value, d: int) -> tuple[Value, Value]:
        """The first window along a dimension that may hold a place of the base, and the one behind the last."""
        window = self.windows[d]
        at = b.add(b.mul(place, i64(window.base_dilation)), i64(window.pad_low))
        before = b.add(at, i64(window.stride - window.dilated_size))
        first = _limit(b, _floor_div(b, before, window.stride), self.outputs[d])
        return first, _limit(b, b.add(_floor_div(b, at, window.stride), i64(1)), self.outputs[d])

    def position(
        self, b: Builder, index: Sequence[Value], window: Sequence[Value]
    ) -> tuple[list[Value], Value | None]:
        """Where in the base the window at `index` has its position `window`, and whether there is an element there.

        None: there always is. The place means nothing where there is none.
        """
        place: list[Value] = []
        inside: Value | None = None
        for d, (shape, size) in enumerate(zip(self.windows, self.sizes, strict=True)):
            at = b.sub(b.mul(index[d], i64(shape.stride)), i64(shape.pad_low))
            at = b.add(at, b.mul(window[d], i64(shape.window_dilation)))
            tests = []
            if not _always_inside(shape, size, self.outputs[d]):
                # As unsigned numbers, places before the base are beyond it.
                tests.append(b.icmp_unsigned("<", at, i64(_spread(shape, size))))
            if shape.base_dilation > 1:
                tests.append(b.icmp_signed("==", b.urem(at, i64(shape.base_dilation)), i64(0)))
                at = b.udiv(at, i64(shape.base_dilation))
            place.append(at)
            for test in tests:
                inside = test if inside is None else b.and_(inside, test)
        return place, inside


class _WindowLoops:
    """The loops over one window, dimension by dimension."""

    def __init__(self, b: Builder, space: WindowSpace, index: Sequence[Value], body: WindowBody):
        self.b, self.space, self.index, self.body = b, space, index, body
        self.place: list[Value] = [i64(0)] * len(space.windows)
        self.inside: list[Value] = [i64(0)] * len(space.windows)

    def level(self, d: int, carried: list[Value]) -> list[Value]:
        """Everything from dimension `d` on."""
        b, space = self.b, self.space
        if d == len(space.windows):
            return list(self.body(list(self.place), list(self.inside), carried))
        window, size = space.windows[d], space.sizes[d]
        if is_trivial(window):
            self.place[d] = self.index[d]
            return self.level(d + 1, carried)
        start = b.sub(b.mul(self.index[d], i64(window.stride)), i64(window.pad_low))
        if window.base_dilation > 1 and window.window_dilation == 1:
            first, end = _elements(b, window, size, start)
            return b.for_loop_carrying(first, end, carried, lambda i, values: self.element(d, start, i, values))
        first, end = i64(0), i64(window.size)
        if not _always_inside(window, size, space.outputs[d]):
            first, end = _range(b, window, size, start)
        return b.for_loop_carrying(first, end, carried, lambda i, values: self.position(d, start, i, values))

    def element(self, d: int, start: Value, i: Value, carried: list[Value]) -> list[Value]:
        """One element of the base along dimension `d`, whatever lies between them."""
        step = i64(self.space.windows[d].base_dilation)
        self.place[d], self.inside[d] = i, self.b.sub(self.b.mul(i, step), start)
        return self.level(d + 1, carried)

    def position(self, d: int, start: Value, i: Value, carried: list[Value]) -> list[Value]:
        """One position along dimension `d`, on the (dilated) base."""
        b, window = self.b, self.space.windows[d]
        at = b.add(start, b.mul(i, i64(window.window_dilation)))
        self.place[d], self.inside[d] = at, i
        if window.base_dilation == 1:
            return self.level(d + 1, carried)
        self.place[d] = b.udiv(at, i64(window.base_dilation))
        on_element = b.icmp_signed("==", b.urem(at, i64(window.base_dilation)), i64(0))
        if not carried:
            with b.if_then(on_element):
                self.level(d + 1, carried)
            return []
        return b.if_else(on_element, lambda: self.level(d + 1, carried), lambda: carried)


def chosen(k: KernelContext, instruction: Instruction, index: Index) -> tuple[Value, Index]:
    """Whether a window has any element, and the place of the one chosen.

    The chosen one stays as long as select(chosen, next) holds; the first is chosen to begin with.
    """
    b, operand, shape = k.b, k.input(0), instruction.operands[0].shape
    windows = instruction.get("window").dims
    nothing: list[Register] = [scalar.zero(shape.dtype)]

    def better(place: list[Value], inside: list[Value], carried: list[Value]) -> list[Value]:
        found, *rest = carried
        chosen, value = grouped(rest[len(place) :], nothing)[0], operand(tuple(place))
        stays = b.and_(found, k.apply(instruction.attributes["select"], [chosen, value])[0])
        next_values = [*place, *flattened([value])]
        return [
            integer("i1", 1),
            *(b.select(stays, old, new) for old, new in zip(rest, next_values, strict=True)),
        ]

    start = [integer("i1", 0), *([i64(0)] * len(windows)), *flattened(nothing)]
    sizes, outputs = shape.dims, instruction.operands[1].shape.dims
    found, *rest = WindowSpace(windows, sizes, outputs).fold(b, index, start, better)
    return found, tuple(rest[: len(windows)])
