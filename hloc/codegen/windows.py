"""Windows over arrays: which of a window's positions lie on elements of the base."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.codegen.llvm import Builder, Value
from hloc.codegen.routines import i64
from hloc.ir.attributes import WindowDim
from hloc.records import record


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


def _always_inside(window: WindowDim, size: int, outputs: int) -> bool:
    """Whether no window reaches over an edge, as far as sizes tell."""
    last = (outputs - 1) * window.stride - window.pad_low + window.dilated_size - 1
    return window.pad_low <= 0 and last <= (size - 1) * window.base_dilation


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
        first, end = i64(0), i64(window.size)
        if not _always_inside(window, size, space.outputs[d]):
            first, end = _range(b, window, size, start)
        return b.for_loop_carrying(first, end, carried, lambda i, values: self.position(d, start, i, values))

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
