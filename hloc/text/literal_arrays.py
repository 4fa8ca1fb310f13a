"""Regular literals: arrays handed to NumPy in one piece, once all but the numbers is as expected."""

from __future__ import annotations

import re
from math import prod

import numpy as np

from hloc.ir.dtypes import PRED, DType
from hloc.ir.shapes import ArrayShape
from hloc.text.literal_decimals import decimals, numbers
from hloc.text.literal_elements import int_range, nan_value
from hloc.text.patterns import Later

_COMMENT = Later(r"//[^\r\n]*|/\*.*?\*/", re.DOTALL)
_NAN = Later(rb"(-?)nan(?:\(0x([0-9a-fA-F]+)\))?")
_FLAT = bytes.maketrans(b"{}(),\t\r\n", b"        ")
_REAL_CHARACTERS = b"0123456789+-.eEinfa \t\r\n"
_INT_CHARACTERS = b"0123456789- \t\r\n"
# Bytes from which on it pays to read decimals all at once.
_LONG = 4096

_NOT_SKELETON = bytes(sorted(set(range(256)) - set(b"{}(),")))


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


def run_of_numbers(text: str, dtype: DType) -> np.ndarray | None:
    """The real numbers of `text`, commas between; None if one is out of range."""
    flat = b" %b " % text.encode().translate(_FLAT)
    return _floats(flat, dtype, {}) if dtype.is_float else _integers(flat, dtype)


def _without_payloads(data: bytes, dtype: DType, payloads: dict[int, np.generic]) -> bytes | None:
    """NaNs with sign or payload become plain; `payloads` gets them by the number of commas before them."""
    place, last = 0, 0
    for found in _NAN.finditer(data):
        payload = found[2] and found[2].decode()
        value = nan_value(found[1] == b"-", payload, dtype) if dtype.is_float else ""
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


def _integers(flat: bytes, dtype: DType) -> np.ndarray | None:
    if flat.translate(None, _INT_CHARACTERS) or re.search(rb"[0-9]{19}|-[^0-9]", flat):
        return None
    values = numbers(flat, np.int64)
    if values is None or dtype is PRED:
        return None if values is None else values != 0
    low, high = int_range(dtype)
    if values.size and (int(values.min()) < low or int(values.max()) > high):
        return None
    return values.astype(dtype.numpy)


def _floats(flat: bytes, dtype: DType, payloads: dict[int, np.generic]) -> np.ndarray | None:
    """The numbers in the order of the text, real and imaginary parts joined; None if one is out of range."""
    if flat.translate(None, _REAL_CHARACTERS) or b" ." in flat or (b"+" in flat and b" +" in flat):
        return None
    values = decimals(flat) if len(flat) > _LONG and dtype.real_part.bits < 64 and b"n" not in flat else None
    if values is None:
        values = numbers(flat, np.float64)
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
