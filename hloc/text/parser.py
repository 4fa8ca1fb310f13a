"""Reads HLO text into modules."""

from __future__ import annotations

import re
from functools import cache, partial
from typing import Any

from hloc import collection
from hloc.errors import HloError, Source, Span
from hloc.ir.module import Module
from hloc.ir.shapes import Shape
from hloc.text.build import ModuleBuilder
from hloc.text.coarse import Pieces
from hloc.text.engine import Engine, Unexpected
from hloc.text.grammar import keep_tables, load_tables
from hloc.text.lexer import Lexer, Scanner
from hloc.text.messages import unexpected
from hloc.text.patterns import Later, Patterns
from hloc.text.syntax import Callbacks, Line, ModuleText
from hloc.text.tokens import Fault

# A line that starts so separates the modules of one text.
_SEPARATOR = Later(r"^// -----.*$", re.MULTILINE)


def parse(text: str, name: str = "<string>") -> Module:
    """The module that a text holds; `name` stands for the text in messages.

    Raises HloError at the first fault, with its place.
    """
    return _parse(Source(text, name), 0, len(text))


def parse_many(text: str, name: str = "<string>") -> list[Module]:
    """The modules that a text holds between lines `// -----`; blank parts are passed over.

    Places are those in the whole text. Raises HloError at the first fault.
    """
    source = Source(text, name)
    ends = [*((found.start(), found.end()) for found in _SEPARATOR.finditer(text)), (len(text), len(text))]
    modules, start = [], 0
    for end, following in ends:
        if text[start:end].strip():
            modules.append(_parse(source, start, end))
        start = following
    return modules


def parse_finely(text: str, name: str = "<string>") -> Module:
    """What `parse` gives, without its coarse terminals: slower, and the measure of what they must mean."""
    return _parse(Source(text, name), 0, len(text), coarse=False)


def _parse(source: Source, start: int, end: int, coarse: bool = True) -> Module:
    language = _language()
    try:
        with collection.paused():
            builder = ModuleBuilder(source, partial(language.instruction, source.text), parse)
            # The tree has no name here, so that it is gone before Python searches for garbage again.
            return builder.build(language.module(source.text, start, end, coarse))
    except Fault as fault:
        raise _error(fault, source) from None


def parse_shape(text: str) -> Shape:
    """The shape that a text such as `f32[2,3]{1,0}` holds. Raises HloError."""
    try:
        return _language().fragment(text, "shape")
    except Fault as fault:
        raise _error(fault, Source(text)) from None


def forget() -> None:
    """Drop the texts (shapes, attribute lists) that were remembered for the next module."""
    _language().pieces.forget()


def _error(fault: Fault, source: Source) -> HloError:
    return HloError(fault.message, Span(source, fault.start, fault.end), hint=fault.hint)


class Language:
    """The grammar with its lexer and callbacks, ready to read."""

    def __init__(self) -> None:
        tables = load_tables()
        self.engine = Engine(tables, Callbacks())
        patterns = Patterns(tables["patterns"])
        self.scanner = Scanner(tables, self.engine, patterns)
        self.pieces = Pieces(self.scanner, self.fragment)
        if patterns.is_new:
            keep_tables(tables)
        fixed = {**self.scanner.words, **self.scanner.marks}
        self.texts = {name: text for text, names in fixed.items() for name in names}

    def module(self, text: str, start: int, end: int, coarse: bool) -> ModuleText:
        """The syntax tree of text[start:end]. Raises Fault."""
        zero = text.find("\0", start, end)
        if zero >= 0:
            raise Fault("unexpected NUL character", zero, zero + 1)
        return self._run(Lexer(self.scanner, text, start, end, self.pieces if coarse else None), "module")

    def instruction(self, text: str, start: int, end: int) -> Line:
        """The instruction at [start, end) of a text, by the fine rules. Raises Fault."""
        return self._run(Lexer(self.scanner, text, start, end), "instruction")

    def fragment(self, text: str, rule: str) -> Any:
        """The value of a rule for a text of its own. Raises Fault."""
        return self._run(Lexer(self.scanner, text, pieces=self.pieces), rule)

    def _run(self, lexer: Lexer, rule: str) -> Any:
        try:
            return self.engine.parse(lexer, rule)
        except Unexpected as error:
            raise unexpected(error.token, error.expected, error.values, lexer.text, self.texts) from None


@cache
def _language() -> Language:
    return Language()
