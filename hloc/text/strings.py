"""Quoted strings: C escapes to text and numbers out of tokens."""

from __future__ import annotations

import re

from hloc.text.patterns import Later
from hloc.text.tokens import Token, fault_at

_SIMPLE = {"n": 10, "r": 13, "t": 9, "\\": 92, "'": 39, '"': 34, "?": 63, "a": 7, "b": 8, "f": 12, "v": 11}
_ESCAPE = Later(
    r"\\(?:([0-7]{1,3})|x([0-9a-fA-F]+)|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([nrt\\'\"?abfv]))|(\\.?)", re.DOTALL
)

INT64 = range(-(2**63), 2**63)


def string_of(token: Token) -> str:
    """The text of a quoted STRING token. Escaped bytes make UTF-8; those that don't become surrogate escapes."""
    body = token.value[1:-1]
    return body if "\\" not in body else unescape(body, token)


def unescape(body: str, token: Token) -> str:
    """Replace the C escapes of a string's body; a Fault at `token` for what is none."""
    data, last = bytearray(), 0
    for found in _ESCAPE.finditer(body):
        data += body[last : found.start()].encode("utf-8", "surrogateescape")
        data += _bytes_of(found, token)
        last = found.end()
    data += body[last:].encode("utf-8", "surrogateescape")
    return data.decode("utf-8", "surrogateescape")


def _bytes_of(found: re.Match[str], token: Token) -> bytes:
    octal, hexadecimal, short, long, simple, wrong = found.groups()
    if simple:
        return bytes([_SIMPLE[simple]])
    if wrong:
        raise fault_at(token, f"{wrong!r} is not an escape of a string")
    code = int(octal, 8) if octal else int(hexadecimal or short or long, 16)
    if octal or hexadecimal:
        if code > 255:
            raise fault_at(token, f"{found[0]!r} is more than a byte")
        return bytes([code])
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        raise fault_at(token, f"{found[0]!r} is not a character")
    return chr(code).encode()


def int_of(token: Token) -> int:
    """The value of an INT token, which must fit 64 bits."""
    text = token.value
    if len(text) > 20 or (value := int(text)) not in INT64:
        raise fault_at(token, f"{_short(text)} does not fit a 64-bit integer")
    return value


def float_of(token: Token) -> float:
    """The value of a number token: INT, DECIMAL, INF or NEGATIVE_INF."""
    text = token.value
    if "nan" in text:
        return float("-nan" if text[0] == "-" else "nan")
    value = float(text)
    if value in (float("inf"), float("-inf")) and "inf" not in text:
        raise fault_at(token, f"{_short(text)} is out of range for a 64-bit float")
    return value


def _short(text: str) -> str:
    return text if len(text) <= 30 else f"{text[:20]}... ({len(text)} characters)"
