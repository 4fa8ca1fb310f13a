"""Windows over arrays: which of a window's positions lie on elements of the base."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.codegen.llvm import Builder, Value
from hloc.codegen.routines import i64
from hloc.ir.attributes import WindowDim


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


def _range(b: Builder, window: WindowDim, size: int, start: Value) -> tuple[Value, Value]:
    """The window indices whose positions lie in the (dilated) base, given the position of index 0."""
    spread = (size - 1) * window.base_dilation + 1 if size else 0
    step = window.window_dilation
    first = _floor_div(b, b.add(b.sub(i64(0), start), i64(step - 1)), step)
    end = _floor_div(b, b.add(b.sub(i64(spread), start), i64(step - 1)), step)
    return _limit(b, first, window.size), _limit(b, end, window.size)


def _always_inside(window: WindowDim, size: int, outputs: int) -> bool:
    """Whether no window reaches over an edge, as far as sizes tell."""
    last = (outputs - 1) * window.stride - window.pad_low + window.dilated_size - 1
    return window.pad_low <= 0 and last <= (size - 1) * window.base_dilation


def fold_window(
    b: Builder,
    windows: Sequence[WindowDim],
    sizes: Sequence[int],
    outputs: Sequence[int],
    index: Sequence[Value],
    initial: Sequence[Value],
    body: Callable[[list[Value], list[Value], list[Value]], Sequence[Value]],
) -> list[Value]:
    """Runs body(base index, index in the window, carried) for the elements under one window, in row-major
    order.

    Gives the last carried values. `sizes` are those of the base, `outputs` of the array of windows, `index`
    is the window's. What lies on padding or between elements is left out.
    """
    place: list[Value] = [i64(0)] * len(windows)
    inside: list[Value] = [i64(0)] * len(windows)

    def level(dimension: int, carried: list[Value]) -> list[Value]:
        if dimension == len(windows):
            return list(body(list(place), list(inside), carried))
        window, size = windows[dimension], sizes[dimension]
        if is_trivial(window):
            place[dimension] = index[dimension]
            return level(dimension + 1, carried)
        start = b.sub(b.mul(index[dimension], i64(window.stride)), i64(window.pad_low))
        first, end = i64(0), i64(window.size)
        if not _always_inside(window, size, outputs[dimension]):
            first, end = _range(b, window, size, start)
        return b.for_loop_carrying(
            first, end, carried, lambda i, values: position(dimension, start, i, values)
        )

    def position(dimension: int, start: Value, i: Value, carried: list[Value]) -> list[Value]:
        dilation = windows[dimension].base_dilation
        at = b.add(start, b.mul(i, i64(windows[dimension].window_dilation)))
        place[dimension], inside[dimension] = at, i
        if dilation == 1:
            return level(dimension + 1, carried)
        place[dimension] = b.udiv(at, i64(dilation))
        on_element = b.icmp_signed("==", b.urem(at, i64(dilation)), i64(0))
        if not carried:
            with b.if_then(on_element):
                level(dimension + 1, carried)
            return []
        return b.if_else(on_element, lambda: level(dimension + 1, carried), lambda: carried)

    return level(0, list(initial))
