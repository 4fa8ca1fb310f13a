"""Unique names, given out as XLA gives them."""

from __future__ import annotations


class Names:
    """The names of a module's instructions, or of its computations.

    A name is a stem and a number: `add.3`, or plain `add` for number 0. A name that is taken keeps its stem and
    gets the stem's next free number, counted from 0 (XLA's NameUniquer, which decides what names print as).
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def take(self, wanted: str) -> str:
        """Mark `wanted`, or the name it becomes, as taken, and return that."""
        if wanted not in self._taken and ".0" not in wanted:
            self._taken.add(wanted)
            return wanted
        stem, number, numbered = _split(wanted)
        key = _joined(stem, number)
        if key in self._taken:
            number = self._next.get(stem, 0)
            while (key := f"{stem}.{number}" if number else _joined(stem, number)) in self._taken:
                number += 1
            self._next[stem] = number + 1
        self._taken.add(key)
        return f"{stem}.{number}" if number or numbered else stem

    def take_all(self, wanted: list[str]) -> bool:
        """Mark names as taken if `take` would give each as it is; else return False, with none marked."""
        names = set(wanted)
        if len(names) < len(wanted) or "" in names or ".0" in "\n".join(wanted) or not self._taken.isdisjoint(names):
            return False
        self._taken |= names
        return True

    def free(self, name: str) -> None:
        """Let a name be used again."""
        if ".0" not in name:
            self._taken.discard(name)
            return
        stem, number, _ = _split(name)
        self._taken.discard(_joined(stem, number))


def _joined(stem: str, number: int) -> str:
    """How a name is kept: without the number 0, unless the stem looks numbered itself (`a.2.0` is not `a.2`)."""
    return f"{stem}.{number}" if number or _split(stem)[2] else stem


def _split(name: str) -> tuple[str, int, bool]:
    """(stem, number, whether the number is written out)."""
    stem, _, tail = name.rpartition(".")
    digits = tail.removeprefix("-")
    if stem and digits.isdecimal() and len(digits) < 19:
        return stem, int(tail), True
    return name, 0, False
