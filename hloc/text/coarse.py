"""Reads the grammar's coarse terminals: whole instruction lines, shapes, metadata and table rows in one piece.

A piece that isn't ordinary in every way is left to the fine rules, which are then what tells a fault and its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hloc.ir.attributes import SliceDim
from hloc.ir.shapes import Shape, TupleShape
from hloc.text.attribute_values import padding
from hloc.text.lexer import KIND_OF_NAME, NO_NAMES, Lexer, Scanner
from hloc.text.shape_values import plain_array
from hloc.text.strings import int_of
from hloc.text.syntax import Attribute, Body, ComputationText
from hloc.text.templates import MOST_REMEMBERED, Entry, Templates
from hloc.text.tokens import Fault, Token

# One instruction line at [start, end) of the text, with its names still to be looked up:
# (start, end, "ROOT " or None, name, operands, shape, attributes).
CoarseLine = tuple[int, int, str | None, str, str, Shape, Entry]


class Pieces:
    """The reader of coarse terminals. `fine(text, rule)` reads a fragment by the fine rules."""

    def __init__(self, scanner: Scanner, fine: Callable[[str, str], Any]):
        self.scanner = scanner
        self.fine = fine
        self.shapes: dict[str, Shape | None] = {}
        self.templates = Templates(self._attribute_list, scanner.coarse["METADATA"].match, scanner.pattern)
        self.values: dict[str, Callable[[re.Match[str]], Any]] = {
            "COMPUTATION_OPEN": self._computation,
            "ARRAYS": self._arrays,
            "ARRAY": lambda found: self.shape(found[0]),
            "ATTRIBUTES": self._attributes,
            "METADATA": lambda found: self.templates.metadata_of(found[0]),
            "NAME_ROWS": lambda found: found[0],
            "LOCATION_ROWS": lambda found: found[0],
            "FRAME_ROWS": lambda found: found[0],
        }
        self.declared = scanner.pattern(r": ([^\]]*\])").findall
        self.close = scanner.pattern(r"\}[ \t\r\n]*+(?=[A-Za-z_%]|\Z)").match
        self.comment = scanner.pattern(r"/\*.*?\*/")
        self.attribute = scanner.pattern(
            r", ([A-Za-z_][A-Za-z0-9_.\-]*)="
            r"(?:(-?[0-9][0-9_x\-]*)|%?([A-Za-z_][A-Za-z0-9_.\-]*)|\{([0-9,\-]*|\[[^{}]*)\})",
            re.ASCII,
        )
        self.arrays = scanner.pattern(r"[a-z0-9]+\[[^\]]*\](?:\{[^}]*\})?").findall

    def forget(self) -> None:
        """Drop all remembered texts."""
        self.shapes.clear()
        self.templates.forget()

    def read(self, lexer: Lexer, kind: str) -> Token | None:
        """The coarse terminal of that kind where the lexer stands, which then moves behind it; None if there is none."""
        start = lexer.position
        if kind == "INSTRUCTIONS":
            value: Any = self._instructions(lexer.text, start, lexer.end)
            end = value[-1][1] if value else start
        elif kind == "COMPUTATIONS":
            value, end = self._computations(lexer.text, start, lexer.end)
        else:
            found = self.scanner.coarse[kind].match(lexer.text, start, lexer.end)
            value = self.values[kind](found) if found is not None else None
            end = found.end() if found is not None else start
        if value is None:
            return None
        lexer.position = end
        return Token(kind, value, start, end)

    def _instructions(self, text: str, start: int, end: int) -> list[CoarseLine] | None:
        """The plain lines from `start` on, up to the first that isn't."""
        scan = self.scanner.coarse["INSTRUCTIONS"].scanner(text, start, end).match
        shapes, entries = self.shapes, self.templates.entries
        lines = []
        while (found := scan()) is not None:
            root, name, shape_text, opcode, operands, attributes = found.groups()
            shape = shapes.get(shape_text) or self.shape(shape_text)
            entry = entries.get((opcode, attributes)) or self.templates.entry(opcode, attributes)
            if shape is None or entry is None or name in NO_NAMES:
                break
            if "/" in operands:
                operands = self.comment.sub("", operands)
                if "/" in operands:
                    break
            stop = found.end()
            lines.append((start, stop, root, name, operands, shape, entry))
            start = stop
        return lines or None

    def _computations(self, text: str, start: int, end: int) -> tuple[list[ComputationText] | None, int]:
        """(plain computations from `start` on, their end)."""
        opening, skip = self.scanner.coarse["COMPUTATION_OPEN"].match, self.scanner.skip
        computations = []
        while (found := opening(text, start, end)) is not None:
            head = self._computation(found)
            first = skip(text, found.end(), end).end()
            lines = self._instructions(text, first, end) if head is not None else None
            close = self.close(text, lines[-1][1], end) if lines else None
            if close is None:
                break
            entry, name, result = head
            body = Body(name, [Token("INSTRUCTIONS", lines, first, close.start())])
            computations.append(ComputationText(entry, name, result, body, []))
            start = close.end()
        return computations or None, start

    def _computation(self, found: re.Match[str]) -> tuple[Token | None, Token, Any] | None:
        """(ENTRY token, name token, result of the signature) as the fine rules give them."""
        entry, name, parameters, result = found.group("entry", "name", "parameters", "result")
        place = found.start("name")
        signature = None
        if result is not None:
            shape = self.shape(result)
            if shape is None or any(self.shape(text) is None for text in self.declared(parameters)):
                return None
            signature = Token("ARROW", "->", found.start("result") - 3, found.start("result") - 1), shape
        mark = Token("ENTRY", "ENTRY", *found.span("entry")) if entry else None
        start = place - (found.string[place - 1 : place] == "%")
        return mark, Token("NAME", name, start, place + len(name)), signature

    def _arrays(self, found: re.Match[str]) -> list[Shape] | None:
        shapes = [self.shape(text) for text in self.arrays(found[0])]
        return None if None in shapes else shapes

    def _attribute_list(self, text: str) -> list[Attribute]:
        """The attributes of a text. Raises Fault."""
        found = self.scanner.coarse["ATTRIBUTES"].fullmatch(text)
        listed = self._attributes(found) if found is not None else None
        return self.fine(text, "attributes") if listed is None else listed

    def shape(self, text: str) -> Shape | None:
        """The shape of a text, remembered; None if it is no shape."""
        known = self.shapes.get(text, self)
        if known is not self:
            return known
        if len(self.shapes) >= MOST_REMEMBERED:
            self.shapes.clear()
        found = self.scanner.coarse["ARRAY"].match(text)
        shape: Shape | None = plain_array(text) if found and found.end() == len(text) else None
        if text[:1] == "(":
            found = self.scanner.coarse["ARRAYS"].match(text, 1)
            elements = self._arrays(found) if found is not None and found.end() == len(text) - 1 else None
            shape = TupleShape(tuple(elements)) if elements is not None else None
        self.shapes[text] = shape
        if shape is None:  # as remembered while the fine rules read it, which come here for its parts
            shape = self.shapes[text] = self._fragment(text, "shape")
        return shape

    def _fragment(self, text: str, rule: str) -> Any:
        try:
            return self.fine(text, rule)
        except Fault:
            return None

    def _attributes(self, found: re.Match[str]) -> list[Attribute] | None:
        """The attributes of an ATTRIBUTES terminal; None if one has not the form of its kind."""
        listed = []
        for part in self.attribute.finditer(found.string, found.start(), found.end()):
            name, number, word, members = part.groups()
            kind = KIND_OF_NAME.get(name)
            value: Any = None
            if kind == "int" and number and "_" not in number:
                value = int_of(Token("INT", number, *part.span(2)))
            elif kind == "padding" and number and "_" in number:
                value = padding(Token("PADS", number, *part.span(2)))
            elif kind == "bool" and word in ("true", "false"):
                value = word == "true"
            elif kind in ("dims", "lists") and members is not None and members[:1] != "[":
                value = tuple(map(int, members.split(","))) if members else ()
            elif kind == "slice" and members and members[0] == "[":
                value = tuple(SliceDim(*map(int, bounds.split(":"))) for bounds in members[1:-1].split("], ["))
            elif kind in ("enum", "computation") and word and word not in NO_NAMES:
                start = part.start(3) - (part.string[part.start(3) - 1] == "%")
                value = Token("IDENT", word, start, part.end(3))
            if value is None:
                return None
            listed.append(Attribute(Token(_KEYS[kind], name, part.start(1), part.end(1) + 1), value))
        return listed


_KINDS = ("int", "bool", "dims", "lists", "slice", "padding", "enum", "computation")
_KEYS = {kind: f"{kind.upper()}_KEY" for kind in _KINDS}
