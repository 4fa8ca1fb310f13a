"""The wording of syntax errors: what the parser could take, what it got, what may have been meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hloc.ir.dtypes import BY_NAME
from hloc.ir.opcodes import COMMON, OPS
from hloc.lazy import lazy
from hloc.text.lexer import KIND_OF_NAME
from hloc.text.tokens import Fault, Token

difflib = lazy("difflib")

_SHAPE = frozenset(("ARRAY", "TYPE", "LPAR", "BUFFER"))
# Pieces of the language that are read at once where that is possible.
_PIECES = frozenset(("INSTRUCTIONS", "COMPUTATIONS", "COMPUTATION_OPEN", "ATTRIBUTES", "ARRAYS"))
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
    "NAME_ROWS": "an integer",
    "LOCATION_ROWS": "an integer",
    "FRAME_ROWS": "an integer",
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
    names = set(expected) - _PIECES
    words = []
    if "ROOT" in names:
        words.append("an instruction")
        names -= {"ROOT", *_NAME}
    if "ENTRY" in names:
        words.append("a computation")
        names -= {"ENTRY", *_NAME}
    if {"TYPE", "BUFFER"} <= names:
        words.append("a shape")
        names -= _SHAPE
    words += sorted({describe(name, texts) for name in names})
    if not words:
        return "the end of the text"
    if len(words) > 6:
        words = [*words[:6], "..."]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


def unexpected(token: Token, expected: list[str], before: list[Any], text: str, texts: dict[str, str]) -> Fault:
    """The fault of a token that the parser cannot take; `before` is what it has read and not put together yet."""
    hint = None
    if token.type == "KEY" and "INT_KEY" in expected:
        message, hint = _unknown_attribute(token.value, before)
    elif token.type == "LSQB" and before and isinstance(before[-1], Token) and before[-1].type == "IDENT":
        token = before[-1]
        message, hint = _unknown_type(token)
    elif token.type == "IDENT" and "TYPE" in expected and text.startswith("[", token.end):
        message, hint = _unknown_type(token)
    else:
        message = f"expected {expectation(expected, texts)}, got {got(token, text)}"
        if token.type in ("IDENT", "KEY"):
            hint = suggest(token.value, [texts[name] for name in expected if name in texts])
    end = token.start + 1 if token.type in _PIECES else token.end
    return Fault(message, token.start, end, hint)


def _unknown_type(token: Token) -> tuple[str, str | None]:
    return f"unknown element type {token.value!r}", suggest(token.value, BY_NAME)


def _unknown_attribute(name: str, before: list[Any]) -> tuple[str, str | None]:
    """(message, hint) for an attribute that nothing has."""
    parts = [value[0] if isinstance(value, list) and value else value for value in before]
    operation = next((part for part in reversed(parts) if hasattr(part, "opcode")), None)
    op = OPS.get(operation.opcode.value) if operation is not None else None
    if op is None:
        return f"there is no attribute {name!r}", suggest(name, KIND_OF_NAME)
    known = [*op.attributes, *COMMON]
    return f"{op.name} has no attribute {name!r}", suggest(name, known) or f"it takes {', '.join(known)}"


def got(token: Token, text: str) -> str:
    """What stands in the text instead."""
    if token.type == "$END":
        return "the end of the text"
    found = text[token.start : token.end]
    word = found.split(None, 1)[0] if token.type in _PIECES else found.split("\n", 1)[0]
    return repr(word if len(word) <= 40 else word[:40] + "...")
