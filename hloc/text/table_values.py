"""The tables of places behind the header, as text and as rows by number."""

from __future__ import annotations

import re

from hloc.text.patterns import Later
from hloc.text.strings import string_of
from hloc.text.tokens import Token

NAMES = ("FileNames", "FunctionNames")

_NAME = Later(r'(\d+)\s+("(?:[^"\\]|\\.)*+"|\'(?:[^\'\\]|\\.)*+\')', re.DOTALL)
_RECORD = Later(r"(\d+)\s*\{([^}]*)\}")
_FIELD = Later(r"(\w+)\s*=\s*(-?\d+)")


def read_table(section: str, text: str) -> dict[int, str] | dict[int, dict[str, int]]:
    """The rows of a section that the grammar has accepted: `1 "a.py"`, or `1 {file_name_id=1 line=3}`."""
    if section in NAMES:
        return {int(number): string_of(Token("STRING", name, 0, 0)) for number, name in _NAME.findall(text)}
    return {int(number): _fields(fields) for number, fields in _RECORD.findall(text)}


def _fields(text: str) -> dict[str, int]:
    return {key: int(value) for key, value in _FIELD.findall(text)}
