"""Finds grammar/hlo.lark and loads the parser's tables for it, which are kept in the user's cache folder."""

from __future__ import annotations

import marshal
import sys
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hloc import cache

STARTS = ("module", "instruction", "attributes", "shape", "sharding")

# Changes with the form of the tables.
_FORM = "3"


def grammar_path() -> Path:
    """The grammar's file: beside this module in an installed package, else in the source tree."""
    installed = Path(__file__).with_name("hlo.lark")
    return installed if installed.exists() else Path(__file__).parents[2] / "grammar" / "hlo.lark"


def load_tables() -> dict[str, Any]:
    """The tables of the grammar, as hloc.text.tables describes them, and what `keep_tables` added to them."""
    text = grammar_path().read_text(encoding="utf-8")
    name, key = _place(text)
    kept = cache.read(name, key)
    if kept is not None:
        return marshal.loads(kept)
    # Not at the top: Lark takes longer to load than kept tables and is then not needed.
    from hloc.text.tables import make_tables

    tables = make_tables(text, STARTS)
    _write(name, key, tables)
    return tables


def keep_tables(tables: dict[str, Any]) -> None:
    """Keep the tables once more, with what was added to them since."""
    _write(*_place(grammar_path().read_text(encoding="utf-8")), tables)


def _place(text: str) -> tuple[str, bytes]:
    """(name, key) under which the tables of the grammar's text are kept."""
    key = "\0".join((_FORM, text, _lark_version(), sys.version, *STARTS)).encode()
    return f"grammar-{zlib.crc32(key):08x}", key


def _write(name: str, key: bytes, tables: dict[str, Any]) -> None:
    cache.write(name, key, marshal.dumps(tables), "the parser's tables")


def _lark_version() -> str:
    """Lark's first file, which holds its version: reading it is quicker than asking the package's metadata."""
    found = find_spec("lark")
    return Path(found.origin).read_text(encoding="utf-8") if found is not None and found.origin else ""
