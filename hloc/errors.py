"""Places in a text, and the exceptions: one that every layer raises about its input, one about hloc itself."""

from __future__ import annotations

import re
from pathlib import Path

from hloc.records import NamedTuple, record


@record
class Source:
    """A text and where it came from; spans refer to it by offset."""

    text: str
    name: str = "<string>"

    def position(self, offset: int) -> tuple[int, int]:
        """The 1-based (line, column) of a character offset."""
        before = self.text.rfind("\n", 0, offset)
        return self.text.count("\n", 0, offset) + 1, offset - before

    def name_at(self, offset: int) -> Span:
        """The span of the instruction's name, with its `%` if it has one, that starts at a character offset."""
        found = re.compile(r"%?[A-Za-z_][A-Za-z0-9_.\-]*").match(self.text, offset)
        return Span(self, offset, found.end() if found is not None else offset)

    def line_at(self, offset: int) -> str:
        """The whole line that holds a character offset, without its newline."""
        start = self.text.rfind("\n", 0, offset) + 1
        end = self.text.find("\n", offset)
        return self.text[start:] if end < 0 else self.text[start:end]


class Span(NamedTuple):
    """The half-open range [start, end) of characters of a source. A tuple, as each instruction has one."""

    source: Source
    start: int
    end: int

    def __str__(self) -> str:
        line, column = self.source.position(self.start)
        return f"{self.source.name}:{line}:{column}"


# A literal or a metadata string may make a line of megabytes: show a window around the caret.
_WINDOW = 160


def _excerpt(span: Span) -> str:
    """The line of the span with a caret line below it."""
    line = span.source.line_at(span.start)
    column = span.source.position(span.start)[1] - 1
    width = max(1, min(span.end, span.start + len(line) - column) - span.start)
    if len(line) > _WINDOW:
        left = max(0, min(column - _WINDOW // 2, len(line) - _WINDOW))
        line, column = line[left : left + _WINDOW], column - left
        width = max(1, min(width, len(line) - column))
    pad = "".join("\t" if char == "\t" else " " for char in line[:column])
    return f"  {line}\n  {pad}{'^' * width}"


class HloError(Exception):
    """A fault in the input, told in one sentence and, where known, at its place in the text.

    `message` is the sentence, `span` the place (or None), `label` the verifier's name of the broken
    invariant (or None), `hint` a suggestion on a line of its own (or None).
    """

    def __init__(self, message: str, span: Span | None = None, *, label: str | None = None, hint: str | None = None):
        super().__init__(message)
        self.message = message
        self.span = span
        self.label = label
        self.hint = hint

    def __str__(self) -> str:
        label = f" [{self.label}]" if self.label else ""
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        if self.span is None:
            return f"error: {self.message}{label}{hint}"
        return f"{self.span}: error: {self.message}{label}\n{_excerpt(self.span)}{hint}"


class ArgumentError(HloError, TypeError):
    """An argument of a call that does not fit the program's parameter: expected and got."""


class InternalError(Exception):
    """A pass failed, or left a module that is not well formed: a defect of the compiler, not of the input.

    The message says whose pass it was if it was not hloc's own. `pass_name` is the pass's name, `reproducer` the file
    that holds the module as it was before the pass, `report` the `passes.report.Report` of the passes before it.
    """

    def __init__(self, message: str, pass_name: str, reproducer: Path, report: object):
        super().__init__(message)
        self.pass_name = pass_name
        self.reproducer = reproducer
        self.report = report


class HloWarning(UserWarning):
    """Something in the input that has a meaning, but hardly the one that was meant."""
