"""Strings as text: C escapes, and the dictionaries that are written without quotes."""

from __future__ import annotations

import re

_SIMPLE = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "'": "\\'", "\\": "\\\\"}
_BYTES = [_SIMPLE.get(chr(b)) or (chr(b) if 32 <= b < 127 else f"\\{b:03o}") for b in range(256)]
_PLAIN = re.compile(r"[ !#-&(-\[\]-~]*")

_STRING = r'"(?:[^"\\]|\\.)*"'
_DICT_PART = re.compile(rf'{_STRING}|[{{}}]|[^"{{}}]+', re.DOTALL)
_BLANK = re.compile(r"(?:[ \t\r\n]|/\*.*?\*/|//[^\n]*)*", re.DOTALL)


def escape(text: str) -> str:
    """C escapes for quotes, backslashes and control characters; other bytes of its UTF-8 in octal."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(map(_BYTES.__getitem__, text.encode("utf-8", "surrogateescape")))


def quote(text: str) -> str:
    return f'"{escape(text)}"'


def is_dictionary(text: str) -> bool:
    """Whether the text is one pair of balanced braces (those in quotes aside): it is written as it is."""
    if not text.startswith("{"):
        return False
    depth = 0
    place = 0
    while part := _DICT_PART.match(text, place):
        place = part.end()
        depth += {"{": 1, "}": -1}.get(part[0], 0)
        if depth == 0:
            return _BLANK.fullmatch(text, place) is not None
    return False


def quote_unless_dictionary(text: str) -> str:
    return text if is_dictionary(text) else quote(text)
