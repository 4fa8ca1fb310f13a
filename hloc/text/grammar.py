"""Finds grammar/hlo.lark and loads it: the parser tables and the terminals that the lexer needs.

Building the tables takes half a second, so they are kept in the user's cache folder under a name made of all
that they depend on. A cache that cannot be read or written only costs that time.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

import lark
from lark.lexer import Lexer, TerminalDef

STARTS = ("module", "instruction", "attributes", "shape", "sharding")


def grammar_path() -> Path:
    """The grammar's file: beside this module in an installed package, else in the source tree."""
    installed = Path(__file__).with_name("hlo.lark")
    return installed if installed.exists() else Path(__file__).parents[2] / "grammar" / "hlo.lark"


class NoLexer(Lexer):
    """Stands in for Lark's lexers: hloc.text.lexer feeds the parser itself."""

    def __init__(self, conf: object):
        pass

    def lex(self, *_: object) -> Any:
        raise NotImplementedError


class Grammar:
    """The loaded language.

    `states` maps each parser state to its actions by terminal name, `terminals` holds the terminals' texts,
    `parse(lexer, start)` runs the LALR parser over what the lexer yields, calling `callbacks`' methods.
    """

    def __init__(self, callbacks: object):
        text = grammar_path().read_text(encoding="utf-8")
        self._lark = _load(text, callbacks)
        engine = self._lark.parser.parser
        self.parse = engine.parse
        self.states: dict[int, dict[str, Any]] = engine.parser.parse_table.states
        self.terminals: dict[str, TerminalDef] = {t.name: t for t in self._lark.terminals}
        self.rules = self._lark.rules

    def pattern(self, terminal: str) -> str:
        """The regular expression of a terminal."""
        return self.terminals[terminal].pattern.to_regexp()


def _load(text: str, callbacks: object) -> lark.Lark:
    path = _cache_path(text)
    data = _read(path)
    if data is not None:
        try:
            return lark.Lark.__new__(lark.Lark)._load(data, transformer=callbacks)
        except Exception:  # a file of another make: whatever is wrong with it, the grammar itself is at hand
            pass
    options: dict[str, Any] = {"parser": "lalr", "lexer": NoLexer, "maybe_placeholders": False}
    loaded = lark.Lark(text, start=list(STARTS), transformer=callbacks, **options)
    _write(path, loaded)
    return loaded


def _cache_path(text: str) -> Path:
    made_of = "\0".join((text, lark.__version__, sys.version, *STARTS))
    digest = hashlib.sha256(made_of.encode()).hexdigest()[:32]
    home = os.environ.get("XDG_CACHE_HOME")
    folder = Path(home) if home else Path(os.path.expanduser("~")) / ".cache"
    return folder / "hloc" / f"grammar-{digest}.pickle"


def _read(path: Path) -> Any:
    """The pickled tables, if their checksum is right; else None."""
    try:
        content = path.read_bytes()
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            return None
        return pickle.loads(content[32:])
    except Exception:  # absent, unreadable, or no pickle
        return None


def _write(path: Path, loaded: lark.Lark) -> None:
    buffer = BytesIO()
    loaded.save(buffer, exclude_options=("transformer",))
    content = buffer.getvalue()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
        os.replace(name, path)
    except OSError:  # a home that cannot be written
        pass
