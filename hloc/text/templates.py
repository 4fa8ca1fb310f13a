"""Attribute lists that recur: read once by the grammar's rules, then remembered by their text.

Only lists whose meaning does not depend on the place are remembered: computations and instructions are left as names,
literals and bodies are not taken at all.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

from hloc.ir.attributes import Metadata
from hloc.ir.instruction import CALLERS
from hloc.ir.opcodes import COMPUTATION, COMPUTATIONS, LITERAL, OPS
from hloc.records import NamedTuple
from hloc.text.async_lines import STEPS
from hloc.text.attribute_values import quick_metadata
from hloc.text.lenient_shapes import PEER_OPCODES
from hloc.text.lexer import KIND_OF_NAME
from hloc.text.literal_values import Elision
from hloc.text.meaning import Meaning
from hloc.text.patterns import Patterns
from hloc.text.syntax import Attribute, Body
from hloc.text.tokens import Fault, Token

# Remembered texts are dropped together when there are this many.
MOST_REMEMBERED = 20_000

_PLACEHOLDER = "%_"

# Opcodes whose attributes `scope.adjust` may change, or whose shape is not what it is declared to be.
PECULIAR = frozenset(("compare", "map", "custom-call", "reshape", "tuple", *PEER_OPCODES))

_NEVER_SIMPLE = (PECULIAR - {"compare", "reshape", "custom-call"}) | {"parameter", "constant"}
_STEPS = frozenset(STEPS.values())


class Template(NamedTuple):
    """What an attribute list says of an op: its own attributes, the common ones, and which of them name computations.

    `references` has rows (attribute, number of names, whether it is a list), `names` the names in the order of the
    text, for which a line that shares the template has its own. control-predecessors, which name instructions, are
    among them. `simple` says that a line is just its operands, from `least` to `most`, its shape and these attributes.
    """

    opcode: str
    simple: bool
    own: dict[str, Any]
    common: dict[str, Any]
    references: list[tuple[str, int, bool]]
    names: tuple[str, ...]
    least: int
    most: int


class Entry(NamedTuple):
    """The attribute list of one line: a template, the names that the line gives, and its metadata."""

    template: Template
    names: tuple[str, ...]
    metadata: Metadata | None


class Templates:
    """The memory. `read` gives the attributes of a text, or raises Fault; `metadata_at` finds a METADATA terminal."""

    def __init__(
        self,
        read: Callable[[str], list[Attribute]],
        metadata_at: Callable[[str, int], re.Match[str] | None],
        pattern: Patterns,
    ):
        self.read = read
        self.metadata_at = metadata_at
        self.entries: dict[tuple[str, str], Entry] = {}
        self.templates: dict[tuple[str, str], Template] = {}
        self.metadata: dict[str, Metadata] = {}
        self.meaning = Meaning(lambda name: name, Elision())
        callees = [name for name, kind in KIND_OF_NAME.items() if kind == COMPUTATION]
        name = r"[A-Za-z_][A-Za-z0-9_.\-]*"
        callee = rf"(?<=, )((?:{'|'.join(callees)})=)({name})(?![^,])"
        self.references = pattern(rf'%({name})|{callee}|"(?:[^"\\]|\\.)*+"', re.ASCII)
        self.fields = pattern(r'([a-z_]+)=(?:"((?:[^"\\]|\\.)*+)"|([0-9]+))', re.DOTALL | re.ASCII).findall

    def forget(self) -> None:
        """Drop all remembered texts."""
        self.entries.clear()
        self.templates.clear()
        self.metadata.clear()

    def entry(self, opcode: str, attributes: str) -> Entry | None:
        """The entry of an attribute list that is not remembered yet; None if the fine rules must read it."""
        if opcode not in OPS or opcode in _STEPS:
            return None
        rest, metadata = attributes, None
        place = attributes.find(", metadata={")
        before = attributes[: max(place, 0)]
        if place >= 0 and '"' not in before and before.count("{") == before.count("}"):
            rest = before
            metadata = self.metadata.get(attributes[place + 11 :])
            if metadata is None:
                whole = self.metadata_at(attributes, place + 11)
                metadata = whole and self.metadata_of(whole[0])
                if metadata is None:
                    return None
                rest += attributes[whole.end() :]
        template, names = self._template(opcode, rest)
        if template is None or (metadata is not None and "metadata" in template.common):
            return None
        return _remember(self.entries, (opcode, attributes), Entry(template, names, metadata))

    def metadata_of(self, text: str) -> Metadata | None:
        """The metadata of a text in braces, remembered; None if it is out of the ordinary."""
        known = self.metadata.get(text)
        return known or _remember(self.metadata, text, quick_metadata(self.fields(text)))

    def _template(self, opcode: str, attributes: str) -> tuple[Template | None, tuple[str, ...]]:
        """(template, names that it refers to); (None, ()) if the fine rules must read the list."""
        key, rows = attributes, ()
        if opcode in CALLERS or "control-predecessors" in attributes:
            rows = tuple(first or last for first, _, last in self.references.findall(attributes) if first or last)
            key = self.references.sub(_without_name, attributes) if rows else attributes
        template = self.templates.get((opcode, key))
        if template is None:
            template = self._read(opcode, key)
            if template is None:
                return None, ()
            _remember(self.templates, (opcode, key), template)
        if not rows:
            return template, template.names
        return (template, rows) if len(template.names) == len(rows) else (None, ())

    def _read(self, opcode: str, attributes: str) -> Template | None:
        op = OPS[opcode]
        try:
            listed = self.read(attributes) if attributes else []
            own, common, _ = self.meaning.attributes(op, listed, {}, Token("IDENT", opcode, 0, 0))
        except Fault:
            return None
        references: list[tuple[str, int, bool]] = []
        names: list[str] = []
        for attribute in listed:
            row = op.attributes.get(attribute.name)
            kind = row.kind if row is not None else ""
            if kind == LITERAL:
                return None
            if kind in (COMPUTATION, COMPUTATIONS) or attribute.name == "control-predecessors":
                tokens = (attribute.value,) if kind == COMPUTATION else attribute.value
                if any(isinstance(token, Body) for token in tokens):
                    return None
                references.append((attribute.name, len(tokens), kind != COMPUTATION))
                names += [token.value for token in tokens]
                own.pop(attribute.name, None)
                common.pop(attribute.name, None)
        least, most = op.arity
        simple = not references and "sharding" not in common and not _is_peculiar(opcode, own)
        return Template(
            opcode, simple, own, common, references, tuple(names), least, sys.maxsize if most is None else most
        )


def _is_peculiar(opcode: str, own: dict[str, Any]) -> bool:
    """Whether a line without names of computations is more than its operands and what it says."""
    return opcode in _NEVER_SIMPLE or (opcode in PECULIAR and not own.keys().isdisjoint(("type", "inferred_dimension")))


def _without_name(found: re.Match[str]) -> str:
    """A placeholder for the name that was found; strings stay."""
    return (found[2] or "") + _PLACEHOLDER if found[1] or found[3] else found[0]


def _remember(memory: dict[Any, Any], key: Any, value: Any) -> Any:
    if value is None:
        return None
    if len(memory) >= MOST_REMEMBERED:
        memory.clear()
    memory[key] = value
    return value
