"""Modules that are loaded when they are first used: a short run pays only for what it runs.

Names of modules are given as plain text, which `tests/test_layers.py` reads as it reads imports: they follow the
same rules.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, TypeVar

_Row = TypeVar("_Row")


class lazy:
    """`printer = lazy("hloc.text.printer")` stands for the module: `printer.print_module(m)` loads it."""

    def __init__(self, module: str):
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.modules.get(self._module) or import_module(self._module), name)


class Table(Mapping[str, _Row]):
    """Rows by name, each entered by the module at its home when that is loaded.

    `homes` gives the home of each name. Asking for a row loads its home; asking for
    the names does not.
    """

    def __init__(self, homes: Mapping[str, str]):
        self._homes = homes
        self._rows: dict[str, _Row] = {}

    def enter(self, name: str, row: _Row) -> None:
        """Give the row of a name; KeyError for a name that has no home, or a row already."""
        if name not in self._homes:
            raise KeyError(f"{name} has no home in this table")
        if name in self._rows:
            raise KeyError(f"{name} has two rows in this table")
        self._rows[name] = row

    def __getitem__(self, name: str) -> _Row:
        row = self._rows.get(name)
        if row is None:
            import_module(self._homes[name])
            row = self._rows[name]
        return row

    def __contains__(self, name: object) -> bool:
        return name in self._homes

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


def homes(modules: Mapping[str, str]) -> dict[str, str]:
    """The home of each name, from the names at each home, separated by spaces."""
    return {name: module for module, names in modules.items() for name in names.split()}
