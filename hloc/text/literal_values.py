"""Literals: the text of a constant's value and its shape, to a Literal.

A regular array is read in one piece. Anything else (a missing comma, a tuple, a fault) is read element by
element, which is also what finds the place of a fault.
"""

from __future__ import annotations

import re
from contextlib import suppress
from math import prod

import numpy as np

from hloc.ir.dtypes import F32, F64, PRED, DType
from hloc.ir.literals import Literal, bits_of
from hloc.ir.shapes import ArrayShape, Layout, Shape, TupleShape
from hloc.records import replace
from hloc.text.literal_arrays import regular_array, run_of_numbers
from hloc.text.literal_elements import float_element, int_element, int_range
from hloc.text.patterns import Later
from hloc.text.tokens import Fault

# A literal that the text elides has no more bytes than this: a short text cannot fill the memory.
MOST_ELIDED_BYTES = 2**31

# NumPy's limit.
MOST_DIMENSIONS = 64

_PIECE = Later(
    r"""(?P<space>[ \t\r\n,]+|//[^\r\n]*|/\*(?s:.*?)\*/)|(?P<bracket>[{}()])|(?P<dots>\.\.\.)"""
    r"""|(?P<nan>-?nan)(?:\(0x(?P<payload>[0-9a-fA-F]+)\))?(?![\w.])|(?P<word>-?inf|true|false)(?![\w.])"""
    r"""|(?P<decimal>(?:-?[0-9]+\.[0-9]*|-\.[0-9]+)(?:[eE][+-]?[0-9]+)?|-?[0-9]+[eE][+-]?[0-9]+)(?![\w.])"""
    r"""|(?P<int>-?[0-9]+)(?![\w.])""",
    re.ASCII,
)
# Numbers that are plain in every way, one after the other.
_NUMBER = r"-?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?(?![\w.])"
_RUN = Later(rf"{_NUMBER}(?:[ \t\r\n]*,[ \t\r\n]*{_NUMBER}){{31,}}+", re.ASCII)
_DECIMAL_CHARACTERS = "-+.0123456789eE"

_NO_ORDER = Layout.default(0)


class Elision:
    """The values of `{...}`: XLA counts up through all elided constants of a process; here, of a module."""

    def __init__(self) -> None:
        self._word = 0
        self._byte = 0

    def fill(self, dtype: DType, dims: tuple[int, ...]) -> np.ndarray:
        """The next array. Whole 32-bit words count on from the last array, and so do the bytes after them."""
        size = prod(dims) * dtype.itemsize
        words, rest = divmod(size, 4)
        mask = 0x01010101 if dtype is PRED else 0xFFFFFFFF
        raw = np.zeros(size, np.uint8)
        count = np.arange(words, dtype=np.uint32)
        count += np.uint32(self._word)
        count &= np.uint32(mask)
        raw[: 4 * words] = count.view(np.uint8)
        self._word = (self._word + words) & 0xFFFFFFFF
        for place in range(words, words + rest):
            raw[place] = self._byte & mask & 0xFF
            self._byte = (self._byte + 1) & 0xFF
        if dtype.is_integer and dtype.bits < 8:
            return (raw & (2**dtype.bits - 1)).view(np.int8).astype(dtype.numpy).reshape(dims)
        return raw.view(dtype.numpy).reshape(dims)


def literal_of(shape: Shape, text: str, start: int, elision: Elision) -> Literal:
    """The literal of `shape` that `text`, at offset `start` of the source, holds.

    As in XLA, a literal is static, and an element of it takes what its type needs: bounds and `E(...)` go.
    """
    literal = _plain_scalar(shape, text)
    if literal is not None:
        return literal
    reader = _Reader(text, start, elision)
    literal = reader.literal(_plain(shape)) if text[:1] in ("{", "(") else reader.bare(_plain(shape))
    reader.finish()
    return literal


def _plain_scalar(shape: Shape, text: str) -> Literal | None:
    """A decimal number of a common type, as most constants are; None if it is anything else."""
    if shape.__class__ is not ArrayShape or shape.dims or shape.layout is not _NO_ORDER:
        return None
    dtype = shape.dtype
    value: float | int | None = None
    if dtype is F32 or dtype is F64:
        if text[:1] not in "+." and not text.strip(_DECIMAL_CHARACTERS):
            with suppress(ValueError):
                value = float(text)
        if value is not None and abs(value) > 1e38:
            return None
    elif dtype.is_integer and text.isascii() and text.isdecimal() and len(text) < 20:
        value = int(text)
        if value > int_range(dtype)[1]:
            return None
    return None if value is None else Literal(shape, np.array(value, dtype.numpy))


def _plain(shape: Shape) -> Shape:
    if isinstance(shape, TupleShape):
        return TupleShape(tuple(map(_plain, shape.elements)))
    if not isinstance(shape, ArrayShape) or (not shape.is_dynamic and not (shape.layout and shape.layout.element_bits)):
        return shape
    layout = shape.layout and replace(shape.layout, element_bits=0)
    return ArrayShape(shape.dtype, shape.dims, layout)


class _Reader:
    """Reads a literal from left to right. `place` is an offset in `text`, which starts at `start`."""

    def __init__(self, text: str, start: int, elision: Elision):
        self.text = text
        self.start = start
        self.elision = elision
        self.place = 0
        self.next: re.Match[str] | None = None

    def bare(self, shape: Shape) -> Literal:
        """A value without braces: a scalar, the one element of an array, or zero for all elements of one.

        XLA takes any value for an array, as its first element, and leaves the rest zero; that is no meaning.
        """
        if not isinstance(shape, ArrayShape) or not shape.dims:
            return self.literal(shape)
        self._check(shape)
        element = self._array(ArrayShape(shape.dtype))
        if shape.count != 1 and bits_of(element).any():
            message = f"expected {shape.rank} levels of braces, as {shape!r} has, or 0 for all elements"
            raise Fault(message, self.start, self.start + len(self.text))
        return Literal(shape, np.full(shape.dims, element, shape.dtype.numpy))

    def literal(self, shape: Shape) -> Literal:
        """The next literal."""
        if isinstance(shape, TupleShape):
            return Literal.tuple_of(self._tuple(shape))
        self._check(shape)
        if self.place == 0:
            array = regular_array(shape, self.text)
            if array is not None:
                self.place = len(self.text)
                return Literal(shape, array)
        return Literal(shape, self._array(shape))

    def _check(self, shape: Shape) -> None:
        if not isinstance(shape, ArrayShape) or not shape.is_array:
            raise self._fault(f"a constant cannot have the shape {shape!r}")
        if any(size < 0 for size in shape.dims):
            raise self._fault("a constant has no unbounded dimensions")
        if shape.rank > MOST_DIMENSIONS:
            raise self._fault(f"a constant has at most {MOST_DIMENSIONS} dimensions")

    def _tuple(self, shape: TupleShape) -> list[Literal]:
        self._expect("(", "a tuple literal")
        elements = [self.literal(element) for element in shape.elements]
        self._expect(")", f"the end of {len(elements)} elements")
        return elements

    def finish(self) -> None:
        """Nothing may follow the literal."""
        if self._advance() is not None:
            raise self._fault("expected the end of the literal")

    def _array(self, shape: ArrayShape) -> np.ndarray:
        rank, dims, dtype = len(shape.dims), shape.dims, shape.dtype
        values: list[object] = []
        seen = [0] * rank
        depth = 0
        while True:
            found = self._advance()
            if found is None:
                raise self._fault(f"the literal of shape {shape!r} is not complete")
            bracket = found["bracket"]
            if depth == rank > 0 and (found["int"] or found["decimal"]) and self._run(values, seen, shape):
                continue
            if bracket == "}":
                depth = self._close(depth, seen, dims)
            elif bracket == "{":
                depth = self._open(depth, seen, dims)
            elif found["dots"]:
                if depth != 1 or values:
                    raise self._fault("expected '...' alone in the outermost braces")
                if shape.byte_size > MOST_ELIDED_BYTES:
                    raise self._fault(f"an elided constant of {shape.byte_size} bytes is too large to fill in")
                self._take()
                self._expect("}", "the end of an elided literal")
                return self.elision.fill(dtype, dims)
            else:
                if depth != rank:
                    raise self._fault(f"expected elements in {rank} levels of braces, as {shape!r} has, got {depth}")
                if rank:
                    seen[-1] += 1
                    if seen[-1] > dims[-1]:
                        raise self._fault(f"expected {dims[-1]} elements in the innermost braces, got more")
                values.append(self._complex(dtype) if dtype.is_complex else self._element(dtype))
            if depth == 0:
                return _array_of(values, dtype, dims)

    def _run(self, values: list[object], seen: list[int], shape: ArrayShape) -> bool:
        """Take a long run of plain elements at once; False if there is none, or a fault in it."""
        dtype, start = shape.dtype, self.next.start()
        found = _RUN.match(self.text, start) if not dtype.is_complex else None
        if found is None:
            return False
        array = run_of_numbers(found[0], dtype)
        if array is None or seen[-1] + array.size > shape.dims[-1]:
            return False
        values.extend(array)
        seen[-1] += array.size
        self._take()
        self.place = found.end()
        return True

    def _open(self, depth: int, seen: list[int], dims: tuple[int, ...]) -> int:
        if depth == len(dims):
            raise self._fault(f"expected {len(dims)} levels of braces, got more")
        if depth:
            seen[depth - 1] += 1
            if seen[depth - 1] > dims[depth - 1]:
                raise self._fault(f"expected {dims[depth - 1]} parts at level {depth}, got more")
        self._take()
        return depth + 1

    def _close(self, depth: int, seen: list[int], dims: tuple[int, ...]) -> int:
        if depth == 0:
            raise self._fault("unexpected '}'")
        depth -= 1
        if seen[depth] != dims[depth]:
            raise self._fault(f"expected {dims[depth]} elements at level {depth + 1}, got {seen[depth]}")
        seen[depth] = 0
        self._take()
        return depth

    def _complex(self, dtype: DType) -> tuple[np.ndarray, np.ndarray]:
        self._expect("(", "a complex number (real, imaginary)")
        parts = self._element(dtype.real_part), self._element(dtype.real_part)
        self._expect(")", "the end of a complex number")
        return parts

    def _element(self, dtype: DType) -> object:
        found = self._advance()
        if found is None or found["bracket"] or found["dots"]:
            raise self._fault(f"expected a value of {dtype.name}")
        value = float_element(found, dtype) if dtype.is_float else int_element(found, dtype)
        if isinstance(value, str):
            raise self._fault(value)
        self._take()
        return value

    def _expect(self, bracket: str, what: str) -> None:
        found = self._advance()
        if found is None or found["bracket"] != bracket:
            raise self._fault(f"expected {bracket!r}, {what}")
        self._take()

    def _advance(self) -> re.Match[str] | None:
        """The next piece that is no space or comma; None at the end."""
        while self.next is None and self.place < len(self.text):
            found = _PIECE.match(self.text, self.place)
            if found is None:
                raise self._fault(f"unexpected {self.text[self.place]!r} in a literal")
            if found["space"] is None:
                self.next = found
            self.place = found.end()
        return self.next

    def _take(self) -> None:
        self.next = None

    def _fault(self, message: str) -> Fault:
        found = self.next
        first, last = found.span() if found else (self.place, self.place + 1)
        return Fault(message, self.start + first, self.start + last)


def _array_of(values: list[object], dtype: DType, dims: tuple[int, ...]) -> np.ndarray:
    if dtype.is_complex:
        parts = [part for pair in values for part in pair]  # type: ignore[attr-defined]
        return np.array(parts, dtype.real_part.numpy).view(dtype.numpy).reshape(dims)
    return np.array(values, dtype.numpy).reshape(dims)
