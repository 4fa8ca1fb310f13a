"""Decimal texts of f32 and f64 arrays, as C's `%g` writes them, without a loop over the elements.

A value times a power of ten, held as an unevaluated sum of two f64 (Dekker, "A floating-point technique
for extending the available precision", 1971), gives all digits at once; integer division takes them
apart, and one masked copy makes the text of the whole array. The few values for which that sum does not
settle the last digit (ties, the ends of the exponent range) are formatted one by one.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

# Below this many elements the one-by-one path is faster.
_FEW = 64

# Elements worked on at a time: their columns fit the caches.
_CHUNK = 8192

# Powers of ten outside of this range are left to the one-by-one path.
_LIMIT = 280

# Beyond the first a number rounds to an infinite f32; below the second f32 are denormal.
_F32_LIMIT = 2.0**128 - 2.0**103
_F32_SMALL = 2.0**-126

# How far, in units of the last digit asked for, a scaled value must lie from a decision to be trusted.
_MARGIN = 1e-6


def float_texts(flat: np.ndarray) -> list[str]:
    """The text of each element of a flat f32 or f64 array; of a NaN, `nan`.

    6 (f32) or 15 (f64) digits where they read back as the same value, else 9 or 17.
    """
    few, many = (6, 9) if flat.dtype == np.float32 else (15, 17)
    if flat.size < _FEW:
        return [_one_text(value, few, many) for value in flat]
    texts: list[str] = []
    for start in range(0, flat.size, _CHUNK):
        texts += _chunk_texts(flat[start : start + _CHUNK], few, many)
    return texts


def _chunk_texts(flat: np.ndarray, few: int, many: int) -> list[str]:
    with np.errstate(invalid="ignore"):  # a signalling NaN is no error here
        size = np.abs(flat.astype(np.float64))
    plain = (size > 10.0**-_LIMIT) & (size < 10.0**_LIMIT)
    if plain.all():
        settled, made = _settled_texts(flat, few, many)
        if settled.all():
            return made
    else:
        settled, made = _settled_texts(flat[plain], few, many)
    texts = np.full(flat.shape, "0", object)
    places = np.flatnonzero(plain)
    texts[places[settled]] = made
    zero = size == 0
    texts[zero & np.signbit(flat)] = "-0"
    plain[places[~settled]] = False
    for place in np.flatnonzero(~plain & ~zero).tolist():
        texts[place] = _one_text(flat[place], few, many)
    return texts.tolist()


def _one_text(value: np.floating, few: int, many: int) -> str:
    text = f"{value:.{few}g}"
    return text if not np.isfinite(value) or _reads_as(text, value) else f"{value:.{many}g}"


def _reads_as(text: str, value: np.floating) -> bool:
    """Whether the value of that type nearest to the number (the even one of two) is `value`."""
    read = float(text)
    if value.dtype == np.float64:
        return read == value
    nearest = np.float32(read) if abs(read) < _F32_LIMIT else np.float32(np.inf)
    low = np.float64(read).view(np.int64) & 0x1FFFFFFF
    if low != 0x10000000 and abs(read) > _F32_SMALL:  # no tie of f32: rounding twice is rounding once
        return nearest == value
    number, middle = Fraction(text), Fraction(float(value))
    even = int(np.array(value).view(np.uint32)) % 2 == 0
    neighbour = np.nextafter(value, np.float32(np.inf if number > middle else -np.inf))
    if np.isinf(neighbour):  # the gap beyond the greatest value is as wide as the one before it
        neighbour = value - np.spacing(value)
    gap = abs(Fraction(float(neighbour)) - middle)
    away = 2 * abs(number - middle)
    return away < gap or (away == gap and even)


def _powers_of_ten() -> tuple[np.ndarray, np.ndarray]:
    """10**k for k from -_LIMIT - 20 to _LIMIT + 20, as high and low parts."""
    exact = [Fraction(10) ** k for k in range(-_LIMIT - 20, _LIMIT + 21)]
    high = [float(power) for power in exact]
    low = [float(power - Fraction(part)) for power, part in zip(exact, high, strict=True)]
    return np.array(high), np.array(low)


_TEN_HIGH, _TEN_LOW = _powers_of_ten()


def _split(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a as the sum of two numbers of 26 bits each."""
    wide = a * 134217729.0
    high = wide - (wide - a)
    return high, a - high


def _scaled(size: np.ndarray, power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """size * 10**power as (high, low)."""
    ten = _TEN_HIGH[power + _LIMIT + 20]
    product = size * ten
    a, b = _split(size)
    c, d = _split(ten)
    low = ((a * c - product) + a * d + b * c) + b * d + size * _TEN_LOW[power + _LIMIT + 20]
    high = product + low
    return high, low - (high - product)


def _rounded(size: np.ndarray, exponent: np.ndarray, digits: int) -> tuple[np.ndarray, np.ndarray]:
    """(the nearest integer to size * 10**(digits - 1 - exponent), how far it lies above that)."""
    high, low = _scaled(size, digits - 1 - exponent)
    whole = np.rint(high)
    rest = (high - whole) + low
    step = np.rint(rest)
    return whole.astype(np.int64) + step.astype(np.int64), step - rest


def _settled_texts(flat: np.ndarray, few: int, many: int) -> tuple[np.ndarray, list[str]]:
    """(which elements could be settled, their texts) of finite non-zero values."""
    size = np.abs(flat.astype(np.float64))
    exponent = np.floor(np.log10(size)).astype(np.int64)
    high, _ = _scaled(size, -exponent)
    exponent += (high >= 10.0).astype(np.int64) - (high < 1.0)
    short, off = _rounded(size, exponent, few)
    is_short, settled = _reads_back(flat, exponent, few, off)
    settled &= np.abs(np.abs(off) - 0.5) > _MARGIN
    long, off = _rounded(size, exponent, many)
    settled &= is_short | (np.abs(np.abs(off) - 0.5) > _MARGIN)
    number = np.where(is_short, short * 10 ** (many - few), long)
    carried = number == 10**many
    number[carried] //= 10
    exponent += carried
    digits = np.where(is_short, few, many)
    keep = np.flatnonzero(settled)
    return settled, _assembled(flat[keep] < 0, number[keep], exponent[keep], digits[keep], many)


def _reads_back(
    flat: np.ndarray, exponent: np.ndarray, digits: int, off: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(whether the rounded decimal reads back as the element, where that is sure)."""
    power = _TEN_HIGH[digits - 1 - exponent + _LIMIT + 20]
    reach = np.spacing(np.abs(flat)).astype(np.float64) * power * 0.5
    distance = np.abs(off)
    bits = flat.view(np.uint32 if flat.dtype == np.float32 else np.uint64)
    mantissa = bits & ((1 << np.finfo(flat.dtype).nmant) - 1)
    near = np.where(mantissa, reach, reach * 0.5)  # below a power of two, values lie closer together
    slack = reach * _MARGIN
    return distance <= near, (distance < near - slack) | (distance > reach + slack)


def _assembled(
    negative: np.ndarray, number: np.ndarray, exponent: np.ndarray, digits: np.ndarray, many: int
) -> list[str]:
    """`%g` of `number` (of `many` digits) * 10**(exponent - many + 1), without trailing zeros.

    Columns: the sign, `0.0000`, each digit followed by a place for the point, `e+123`, the line's end; the
    mask tells which of them a text has.
    """
    count = number.size
    column = 7 + 2 * many
    text = np.zeros((count, column + 6), np.uint8)
    mask = np.zeros((count, column + 6), bool)
    scientific = (exponent < -4) | (exponent >= digits)
    text[:, :7] = np.frombuffer(b"-0.0000", np.uint8)
    mask[:, 0] = negative
    leading = np.where(scientific | (exponent >= 0), 0, 1 - exponent)
    for place in range(1, 7):
        mask[:, place] = place <= leading
    point = np.where(scientific, 0, exponent)
    _place_digits(text, mask, number, point, many)
    text[:, column - 1 : column + 1] = np.frombuffer(b"e+", np.uint8)
    text[exponent < 0, column] = ord("-")
    size = np.abs(exponent).astype(np.uint16)
    for place, unit in ((1, 100), (2, 10), (3, 1)):
        text[:, column + place] = size // unit % 10 + ord("0")
    mask[:, column - 1 : column + 4] = scientific[:, None]
    mask[:, column + 1] &= size >= 100
    text[:, column + 4] = ord("\n")
    mask[:, column + 4] = True
    return text[mask].tobytes().decode("ascii").split("\n")[:-1]


def _place_digits(
    text: np.ndarray, mask: np.ndarray, number: np.ndarray, point: np.ndarray, many: int
) -> None:
    """Digit i into column 7 + 2 i, the last first; a point behind digit `point` if others than 0 follow."""
    seen = np.zeros(number.shape, bool)
    rest = number.astype(np.uint32 if many == 9 else np.uint64)
    for place in range(many - 1, -1, -1):
        left = rest // 10
        digit = (rest - left * 10).astype(np.uint8)
        rest = left
        text[:, 7 + 2 * place] = digit + ord("0")
        if place < many - 1:
            text[:, 8 + 2 * place] = ord(".")
            mask[:, 8 + 2 * place] = seen & (point == place)
        seen |= digit != 0
        mask[:, 7 + 2 * place] = seen | (place <= point)
