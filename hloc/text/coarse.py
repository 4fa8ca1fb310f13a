"""Reads the grammar's coarse terminals: whole instruction lines, shapes, metadata and table rows in one piece.

Texts that recur (shapes, attribute lists) are read once by the fine rules and remembered. A piece that the fine
rules don't take is left to them: then they are what tells the fault and its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hloc.ir.attributes import Metadata
from hloc.ir.opcodes import COMPUTATION, COMPUTATIONS, LITERAL, OPS
from hloc.ir.shapes import Shape
from hloc.text.attribute_values import quick_metadata
from hloc.text.lexer import KIND_OF_NAME, NO_NAMES, Lexer, Scanner
from hloc.text.literal_values import Elision
from hloc.text.meaning import Meaning
from hloc.text.shape_values import plain_array
from hloc.text.syntax import Attribute, Body
from hloc.text.tokens import Fault, Token

# Remembered texts are dropped together when there are this many.
MOST_REMEMBERED = 20_000

_PLACEHOLDER = "%_"


class Template:
    """What an attribute list says: the op's own attributes, the common ones, and which of them name computations.

    `references` has rows (attribute, number of names, whether it is a list), `names` the names in the order of the
    text, for which a line that shares the template has its own.
    """

    __slots__ = ("own", "common", "references", "names")

    def __init__(self, own: dict[str, Any], common: dict[str, Any], references: list[tuple[str, int, bool]], names: Any):
        self.own = own
        self.common = common
        self.references = references
        self.names: tuple[str, ...] = names


class CoarseLine:
    """One instruction line at [start, end) of the text, with its parts still to be looked up."""

    __slots__ = ("start", "end", "root", "name", "shape", "opcode", "operands", "template", "names", "metadata")

    def __init__(self, *parts: Any):
        (self.start, self.end, self.root, self.name, self.shape, self.opcode, self.operands, self.template, self.names,
         self.metadata) = parts  # fmt: skip


class Pieces:
    """The reader of coarse terminals. `fine(text, rule)` reads a fragment by the fine rules."""

    def __init__(self, scanner: Scanner, fine: Callable[[str, str], Any]):
        self.scanner = scanner
        self.fine = fine
        self.shapes: dict[str, Shape | None] = {}
        self.templates: dict[tuple[str, str], Template] = {}
        self.metadata: dict[str, Metadata | None] = {}
        self.meaning = Meaning(lambda name: name, Elision())
        self.values: dict[str, Callable[[re.Match[str]], Any]] = {
            "COMPUTATION_OPEN": self._computation,
            "ARRAYS": self._arrays,
            "ARRAY": lambda found: self.shape(found[0]),
            "METADATA": lambda found: self.metadata_of(found[0]),
            "NAME_ROWS": lambda found: found[0],
            "LOCATION_ROWS": lambda found: found[0],
            "FRAME_ROWS": lambda found: found[0],
        }
        self.declared = re.compile(r": ([^\]]*\])").findall
        self.arrays = re.compile(r"[a-z0-9]+\[[^\]]*\](?:\{[^}]*\})?").findall
        callees = [name for name, kind in KIND_OF_NAME.items() if kind == COMPUTATION]
        name = r"[A-Za-z_][A-Za-z0-9_.\-]*"
        self.references = re.compile(rf"%({name})|(?<=, )((?:{'|'.join(callees)})=)({name})(?![^,])", re.ASCII)
        self.fields = re.compile(r'([a-z_]+)=(?:"((?:[^"\\]|\\.)*+)"|([0-9]+))', re.DOTALL | re.ASCII).findall

    def forget(self) -> None:
        """Drop all remembered texts."""
        self.shapes.clear()
        self.templates.clear()
        self.metadata.clear()

    def read(self, lexer: Lexer, kind: str) -> Token | None:
        """The coarse terminal of that kind at the lexer's position, which then moves behind it; None if there is none."""
        if kind == "INSTRUCTIONS":
            return self._instructions(lexer)
        start = lexer.position
        found = self.scanner.coarse[kind](lexer.text, start, lexer.end)
        value = self.values[kind](found) if found is not None else None
        if value is None:
            return None
        lexer.position = found.end()
        return Token(kind, value, start, found.end())

    def _computation(self, found: re.Match[str]) -> tuple[Token | None, Token, Any] | None:
        """(ENTRY token, name token, result of the signature) as the fine rules give them."""
        entry, name, parameters, result = found.group("entry", "name", "parameters", "result")
        place = found.start("name")
        signature = None
        if result is not None:
            for text in self.declared(parameters):
                if self.shape(text) is None:
                    return None
            shape = self.shape(result)
            if shape is None:
                return None
            signature = Token("ARROW", "->", found.start("result") - 3, found.start("result") - 1), shape
        mark = Token("ENTRY", "ENTRY", place - 6, place - 1) if entry else None
        return mark, Token("IDENT", name, place, place + len(name)), signature

    def _arrays(self, found: re.Match[str]) -> list[Shape] | None:
        shapes = [self.shape(text) for text in self.arrays(found[0])]
        return None if None in shapes else shapes

    def _instructions(self, lexer: Lexer) -> Token | None:
        text, end, match = lexer.text, lexer.end, self.scanner.coarse["INSTRUCTIONS"]
        first = position = lexer.position
        lines = []
        while (found := match(text, position, end)) is not None:
            root, name, shape_text, opcode, operands, attributes = found.groups()
            shape = self.shapes.get(shape_text) or self.shape(shape_text)
            if shape is None or opcode not in OPS or name in NO_NAMES:
                break
            metadata = None
            if attributes:
                place = attributes.find(", metadata={")
                if place >= 0:
                    whole = self.scanner.coarse["METADATA"](attributes, place + 11)
                    metadata = whole and self.metadata_of(whole[0])
                    if metadata is None:
                        break
                    attributes = attributes[:place] + attributes[whole.end() :]
            template = self.templates.get((opcode, attributes))
            if template is not None:
                names = template.names
            else:
                template, names = self._template(opcode, attributes)
                if template is None:
                    break
            if "/" in operands:
                operands = self._without_comments(operands)
                if operands is None:
                    break
            start, position = found.start("name"), found.end()
            lines.append(CoarseLine(start, position, root, name, shape, opcode, operands, template, names, metadata))
        if not lines:
            return None
        lexer.position = position
        return Token("INSTRUCTIONS", lines, first, position)

    def _without_comments(self, operands: str) -> str | None:
        operands = re.sub(r"/\*.*?\*/", "", operands)
        return None if "/" in operands else operands

    def shape(self, text: str) -> Shape | None:
        """The shape of a text, remembered; None if it is no shape."""
        if text not in self.shapes:
            if len(self.shapes) >= MOST_REMEMBERED:
                self.shapes.clear()
            found = self.scanner.coarse["ARRAY"](text)
            self.shapes[text] = shape = plain_array(text) if found and found.end() == len(text) else None
            if shape is None:
                self.shapes[text] = self._try(text, "shape")
        return self.shapes[text]

    def metadata_of(self, text: str) -> Metadata | None:
        """The metadata of a text in braces, remembered; None if it is out of the ordinary."""
        if text not in self.metadata:
            if len(self.metadata) >= MOST_REMEMBERED:
                self.metadata.clear()
            self.metadata[text] = quick_metadata(self.fields(text))
        return self.metadata[text]

    def _template(self, opcode: str, attributes: str) -> tuple[Template | None, tuple[str, ...]]:
        """(template, names that it refers to) of an attribute list; (None, ()) if the fine rules must read it."""
        rows = () if '"' in attributes else self.references.findall(attributes)
        if not rows:
            template = self._remember(opcode, attributes)
            return template, template.names if template is not None else ()
        key = self.references.sub(lambda found: (found[2] or "") + _PLACEHOLDER, attributes)
        template = self.templates.get((opcode, key)) or self._remember(opcode, key)
        if template is None or len(template.names) != len(rows):
            return None, ()
        return template, tuple(first or last for first, _, last in rows)

    def _remember(self, opcode: str, attributes: str) -> Template | None:
        template = self._read_template(opcode, attributes)
        if template is not None:
            if len(self.templates) >= MOST_REMEMBERED:
                self.templates.clear()
            self.templates[opcode, attributes] = template
        return template

    def _read_template(self, opcode: str, attributes: str) -> Template | None:
        listed: list[Attribute] | None = self._try(attributes, "attributes")
        if listed is None:
            return None
        op = OPS[opcode]
        try:
            own, common, _ = self.meaning.attributes(op, listed, {}, Token("IDENT", opcode, 0, 0))
        except Fault:
            return None
        references, names = [], []
        for attribute in listed:
            row = op.attributes.get(attribute.name)
            kind = row.kind if row is not None else ""
            if kind == LITERAL or attribute.name == "control-predecessors":
                return None
            if kind in (COMPUTATION, COMPUTATIONS):
                tokens = attribute.value if kind == COMPUTATIONS else (attribute.value,)
                if any(isinstance(token, Body) for token in tokens):
                    return None
                references.append((attribute.name, len(tokens), kind == COMPUTATIONS))
                names += [token.value for token in tokens]
                own.pop(attribute.name, None)
        return Template(own, common, references, tuple(names))

    def _try(self, text: str, rule: str) -> Any:
        try:
            return self.fine(text, rule)
        except Fault:
            return None
