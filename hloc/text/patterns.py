"""Regular expressions without the time that it takes to compile them, a third of a millisecond each.

Those of the lexer, which every text needs, are kept with the parser's tables in the form that Python's own compiler
gives them; the others wait until they are used.
"""

from __future__ import annotations

import re
from typing import Any

Compiled = tuple[int, list[int], int, dict[str, int], tuple[str | None, ...]]
"""What `_sre.compile` takes besides the text: flags, code, number of groups, numbers by name, names by number."""


class Patterns:
    """Compiles patterns, or takes them from `kept`, which it fills; `is_new` says that it has. Plain data of this very
    Python: whoever keeps it must see to that."""

    def __init__(self, kept: dict[tuple[str, int], Compiled | None]):
        self.kept = kept
        self.is_new = False

    def __call__(self, text: str, flags: int = 0) -> re.Pattern[str]:
        """What `re.compile` gives."""
        key = text, int(flags)
        if key not in self.kept:
            self.is_new = True
            self.kept[key] = _compiled(*key)
        known = self.kept[key]
        return re.compile(text, flags) if known is None else _made(text, known)


def _compiled(text: str, flags: int) -> Compiled | None:
    """A pattern as plain data; None if this Python does it in another way than is known here."""
    try:
        from re import _compiler, _parser

        tree = _parser.parse(text, flags)
        numbers = dict(tree.state.groupdict)
        names: list[str | None] = [None] * tree.state.groups
        for name, number in numbers.items():
            names[number] = name
        code = list(map(int, _compiler._code(tree, flags)))
        known = int(flags | tree.state.flags), code, tree.state.groups - 1, numbers, tuple(names)
        return known if _made(text, known) == re.compile(text, flags) else None
    except (ImportError, AttributeError, TypeError, ValueError, RuntimeError):
        return None


def _made(text: str, known: Compiled) -> re.Pattern[str]:
    import _sre

    return _sre.compile(text, *known)


class Later:
    """A pattern that is compiled when the first of its methods is asked for."""

    def __init__(self, text: str | bytes, flags: int = 0):
        self._made_of = text, flags

    def __getattr__(self, method: str) -> Any:
        found = getattr(re.compile(*self._made_of), method)
        setattr(self, method, found)
        return found
