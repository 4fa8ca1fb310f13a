"""The wording of syntax errors: what the parser could take, what it got, what may have been meant."""

from __future__ import annotations

from collections.abc import Iterable

from hloc.lazy import lazy
from hloc.text.tokens import Token

difflib = lazy("difflib")

_SHAPE = frozenset(("ARRAY", "TYPE", "LPAR", "BUFFER"))
_NAME = frozenset(("NAME", "IDENT"))

# How a terminal is called in a message; the others are quoted as they are written.
_WORDS = {
    "NAME": "a name",
    "IDENT": "a name",
    "STRING": "a string",
    "INT": "an integer",
    "DECIMAL": "a number",
    "INF": "a number",
    "NEGATIVE_INF": "a number",
    "TYPE": "an element type",
    "ARRAY": "a shape",
    "LITERAL": "a literal",
    "DICT": "a dictionary in braces",
    "LAYOUT_OPEN": "a layout",
    "DIM_LABELS": "dimension labels such as b01f_01io->b01f",
    "PADS": "padding such as 0_0x1_2",
    "SIZES": "sizes such as 3x3",
    "KEY": "a field name with '='",
    "METADATA": "'{'",
    "INSTRUCTIONS": "an instruction",
    "NAME_ROWS": "an integer",
    "RECORD_ROWS": "an integer",
    "CONSTANT": "an opcode",
    "PHYSICAL": "'P'",
    "DEVICE_IDS": "',' and device_ids",
    "$END": "the end of the text",
}


def suggest(word: str, known: Iterable[str]) -> str | None:
    """`did you mean ...?` if one of the known words is close."""
    close = difflib.get_close_matches(word[:100], list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else None


def describe(terminal: str, texts: dict[str, str]) -> str:
    """A terminal in words; `texts` maps fixed terminals to what is written."""
    if terminal.endswith("_KEY") and terminal not in texts:
        return "an attribute"
    if terminal in _WORDS:
        return _WORDS[terminal]
    return f"'{texts[terminal]}'" if terminal in texts else terminal.lower()


def expectation(expected: Iterable[str], texts: dict[str, str]) -> str:
    """`a name, '(' or an integer`: what a parser state takes, in few words."""
    names = set(expected)
    words = []
    if "INSTRUCTIONS" in names:
        words.append("an instruction")
        names -= {"INSTRUCTIONS", "ROOT", *_NAME}
    if {"TYPE", "BUFFER"} <= names:
        words.append("a shape")
        names -= _SHAPE
    words += sorted({describe(name, texts) for name in names})
    if not words:
        return "the end of the text"
    if len(words) > 6:
        words = [*words[:6], "..."]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


def got(token: Token, text: str) -> str:
    """What stands in the text instead."""
    if token.type == "$END":
        return "the end of the text"
    found = text[token.start : token.end]
    line = found.split("\n", 1)[0]
    return repr(line if len(line) <= 40 else line[:40] + "...")
