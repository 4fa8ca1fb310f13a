"""Literals: the text of a constant's value and its shape, to a Literal.

An array is handed to NumPy in one piece once its brackets, commas and characters are seen to be regular. Anything
else (a NaN payload, a missing comma, a fault) is read element by element, which is also what finds the place of a
fault.
"""

from __future__ import annotations

import re
import warnings
from math import prod

import numpy as np

from hloc.ir.dtypes import PRED, U64, DType
from hloc.ir.literals import Literal, bits_of
from hloc.ir.shapes import ArrayShape, Shape, TupleShape
from hloc.records import replace
from hloc.text.tokens import Fault

# A literal that the text elides has no more bytes than this: a short text cannot fill the memory.
MOST_ELIDED_BYTES = 2**31

# NumPy's limit.
MOST_DIMENSIONS = 64

_COMMENT = re.compile(r"//[^\r\n]*|/\*.*?\*/", re.DOTALL)
_PIECE = re.compile(
    r"""(?P<space>[ \t\r\n,]+|//[^\r\n]*|/\*(?s:.*?)\*/)|(?P<bracket>[{}()])|(?P<dots>\.\.\.)"""
    r"""|(?P<nan>-?nan)(?:\(0x(?P<payload>[0-9a-fA-F]+)\))?(?![\w.])|(?P<word>-?inf|true|false)(?![\w.])"""
    r"""|(?P<decimal>(?:-?[0-9]+\.[0-9]*|-\.[0-9]+)(?:[eE][+-]?[0-9]+)?|-?[0-9]+[eE][+-]?[0-9]+)(?![\w.])"""
    r"""|(?P<int>-?[0-9]+)(?![\w.])""",
    re.ASCII,
)
# Numbers that are plain in every way, one after the other.
_NUMBER = r"-?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?(?![\w.])"
_RUN = re.compile(rf"{_NUMBER}(?:[ \t\r\n]*,[ \t\r\n]*{_NUMBER}){{31,}}+", re.ASCII)
_NAN = re.compile(rb"(-?)nan(?:\(0x([0-9a-fA-F]+)\))?")
_FLAT = bytes.maketrans(b"{}(),\t\r\n", b"        ")
_REAL_CHARACTERS = b"0123456789+-.eEinfa \t\r\n"
_INT_CHARACTERS = b"0123456789- \t\r\n"
_NOT_SKELETON = bytes(sorted(set(range(256)) - set(b"{}(),")))


class Elision:
    """The values of `{...}`: XLA counts up through all elided constants of a process; here, of a module."""

    def __init__(self) -> None:
        self._word = 0
        self._byte = 0

    def fill(self, dtype: DType, dims: tuple[int, ...]) -> np.ndarray:
        """An array whose 32-bit words count on from the last one's. Bytes past the last whole word are XLA's too."""
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
    reader = _Reader(text, start, elision)
    literal = reader.literal(_plain(shape)) if text[:1] in ("{", "(") else reader.bare(_plain(shape))
    reader.finish()
    return literal


def _plain(shape: Shape) -> Shape:
    if isinstance(shape, TupleShape):
        return TupleShape(tuple(map(_plain, shape.elements)))
    if not isinstance(shape, ArrayShape) or (not shape.is_dynamic and not (shape.layout and shape.layout.element_bits)):
        return shape
    layout = shape.layout and replace(shape.layout, element_bits=0)
    return ArrayShape(shape.dtype, shape.dims, layout)


class _Reader:
    """Reads a literal from left to right. `place` is an offset in `text`, which lies at `start` of the source."""

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
        flat = found[0].encode().translate(_FLAT)
        array = _floats(flat, dtype, {}) if dtype.is_float else _integers(flat, dtype)
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
        value = _float_element(found, dtype) if dtype.is_float else _int_element(found, dtype)
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


def _int_element(found: re.Match[str], dtype: DType) -> object:
    """The value of an element of pred or an integer type; a message if it has none."""
    digits = found["int"]
    if dtype is PRED and found["word"] in ("true", "false"):
        return found["word"] == "true"
    if digits is None:
        return f"expected a value of {dtype.name}, got {found[0]}"
    if len(digits) > 25:
        return f"an integer of {len(digits)} digits is out of range for {dtype.name}"
    value = int(digits)
    if dtype is PRED:
        return value != 0
    if dtype is U64 and -(2**63) <= value < 0:
        return value + 2**64  # XLA reads the 64 bits of either kind of integer
    low, high = _int_range(dtype)
    if not low <= value <= high:
        return f"{value} is out of range for {dtype.name}, which goes from {low} to {high}"
    return value


def _int_range(dtype: DType) -> tuple[int, int]:
    return (-(2 ** (dtype.bits - 1)), 2 ** (dtype.bits - 1) - 1) if dtype.is_signed else (0, 2**dtype.bits - 1)


def _float_element(found: re.Match[str], dtype: DType) -> object:
    """The value of an element of a float type, as a NumPy scalar; a message if it has none."""
    if found["nan"]:
        return _nan(found["nan"][0] == "-", found["payload"], dtype)
    if found["word"] in ("true", "false"):
        return f"expected a value of {dtype.name}, got {found[0]}"
    exact = np.float64(found[0])
    with np.errstate(all="ignore"):
        value = exact.astype(dtype.numpy)
    if found["word"] is None and not np.isfinite(value.astype(np.float64)):
        return f"{found[0][:40]} is out of range for {dtype.name}"
    return value


def _nan(negative: bool, payload: str | None, dtype: DType) -> object:
    if payload is None:
        return np.float64("-nan" if negative else "nan").astype(dtype.numpy)
    bits = int(payload, 16) if len(payload) <= 16 else -1
    if not 0 < bits < 2**52:
        return f"a NaN payload lies between 0x1 and {2**52 - 1:#x}"
    if not _has_payload(dtype):
        return f"NaNs of {dtype.name} have no payload"
    if bits == 2**51:
        bits = 2 ** (dtype.mantissa_bits - 1)
    if bits >= 2**dtype.mantissa_bits:
        return f"the NaN payload {bits:#x} is out of range for {dtype.name}"
    whole = (negative << (dtype.bits - 1)) | ((2**dtype.exponent_bits - 1) << dtype.mantissa_bits) | bits
    return np.array(whole, f"u{dtype.bits // 8}").view(dtype.numpy)[()]


def _has_payload(dtype: DType) -> bool:
    """Whether all of the exponent being ones means infinity and NaN, as in IEEE formats."""
    return dtype.bits >= 16 or dtype.name in ("f8e5m2", "f8e4m3", "f8e3m4")


def regular_array(shape: ArrayShape, text: str) -> np.ndarray | None:
    """The array by way of NumPy's reader; None if the text is short or irregular in any way."""
    dtype, dims = shape.dtype, shape.dims
    if not dims or 0 in dims or len(text) < 64 or not text.isascii():
        return None
    data = (_COMMENT.sub(" ", text) if "/" in text else text).encode()
    payloads: dict[int, np.generic] = {}
    if b"n" in data and (b"nan(" in data or b"-nan" in data):
        data = _without_payloads(data, dtype.real_part, payloads)
    if data is None or data.translate(None, _NOT_SKELETON) != _skeleton(dims, dtype.is_complex):
        return None
    flat = b" " + data.translate(_FLAT)
    if dtype is PRED:
        flat = flat.replace(b"true", b"1").replace(b"false", b"0")
    is_float = dtype.is_float or dtype.is_complex
    array = _floats(flat, dtype, payloads) if is_float else _integers(flat, dtype)
    return array.reshape(dims) if array is not None and array.size == prod(dims) else None


def _without_payloads(data: bytes, dtype: DType, payloads: dict[int, np.generic]) -> bytes | None:
    """NaNs with sign or payload become plain ones; `payloads` gets them by place, which is the commas before them."""
    place, last = 0, 0
    for found in _NAN.finditer(data):
        payload = found[2] and found[2].decode()
        value = _nan(found[1] == b"-", payload, dtype) if dtype.is_float else ""
        if isinstance(value, str):
            return None
        place += data.count(b",", last, found.start())
        last = found.start()
        payloads[place] = value
    return _NAN.sub(b"nan", data)


def _skeleton(dims: tuple[int, ...], is_complex: bool) -> bytes:
    """The brackets and commas of an array."""
    part = b"(,)" if is_complex else b""
    for size in reversed(dims):
        part = b"{" + (part + b",") * (size - 1) + part + b"}"
    return part


def _numbers(flat: bytes, dtype: type) -> np.ndarray | None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return np.fromstring(flat, dtype, sep=" ")
        except (DeprecationWarning, ValueError):
            return None


def _integers(flat: bytes, dtype: DType) -> np.ndarray | None:
    if flat.translate(None, _INT_CHARACTERS) or re.search(rb"[0-9]{19}|-[^0-9]", flat):
        return None
    values = _numbers(flat, np.int64)
    if values is None or dtype is PRED:
        return None if values is None else values != 0
    low, high = _int_range(dtype)
    if values.size and (int(values.min()) < low or int(values.max()) > high):
        return None
    return values.astype(dtype.numpy)


def _floats(flat: bytes, dtype: DType, payloads: dict[int, np.generic]) -> np.ndarray | None:
    """The numbers in the order of the text, real and imaginary parts joined; None if one is out of range."""
    if flat.translate(None, _REAL_CHARACTERS) or b" ." in flat or (b"+" in flat and b" +" in flat):
        return None
    values = _numbers(flat, np.float64)
    if values is None:
        return None
    with np.errstate(all="ignore"):
        array = values.astype(dtype.real_part.numpy)
    finite = np.isfinite(values)
    words = flat.count(b"inf") + flat.count(b"nan") if b"n" in flat else 0
    if words != values.size - np.count_nonzero(finite):
        return None
    if not np.isfinite(array.astype(np.float64)[finite]).all():
        return None
    for place, value in payloads.items():
        array[place] = value
    return array.view(dtype.numpy) if dtype.is_complex else array
