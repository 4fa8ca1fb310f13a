"""What the lexer yields and how faults travel until the source is at hand to place them."""

from __future__ import annotations


class Token:
    """A terminal of the grammar at [start, end) of the text; `value` is its text, or what a coarse one holds."""

    __slots__ = ("type", "value", "start", "end")

    def __init__(self, type: str, value: object, start: int, end: int):
        self.type = type
        self.value = value
        self.start = start
        self.end = end

    def __repr__(self) -> str:
        return f"{self.type}({self.value!r})"


class Fault(Exception):
    """A fault at [start, end) of the text; the parser makes an HloError of it."""

    def __init__(self, message: str, start: int, end: int, hint: str | None = None):
        super().__init__(message)
        self.message = message
        self.start = start
        self.end = end
        self.hint = hint


def fault_at(token: Token, message: str, hint: str | None = None) -> Fault:
    """A fault that points at a token."""
    return Fault(message, token.start, token.end, hint)
