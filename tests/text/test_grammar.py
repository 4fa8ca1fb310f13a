"""The grammar's tables: made by Lark, kept in a file, and robust against what may befall the file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hloc.text import grammar, tables
from hloc.text.engine import END, Engine, Unexpected
from hloc.text.syntax import Callbacks
from hloc.text.tokens import Token


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "hloc"


def test_tables_are_kept_and_read_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = grammar.load_tables()
    (kept,) = cache.iterdir()
    monkeypatch.setattr(tables, "make_tables", None)
    assert grammar.load_tables() == made
    assert kept.stat().st_size > 10_000


@pytest.mark.parametrize("damage", [b"", b"x", bytes(9), None, "cut"], ids=["empty", "short", "zeros", "bit", "cut"])
def test_a_damaged_file_is_made_anew(cache: Path, damage: bytes | str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = grammar.load_tables()
    (kept,) = cache.iterdir()
    content = kept.read_bytes()
    if damage is None:  # one bit
        damage = content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]
    kept.write_bytes(content[:5000] if damage == "cut" else damage)
    assert grammar.load_tables() == made
    monkeypatch.setattr(tables, "make_tables", None)
    assert grammar.load_tables() == made


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert grammar.load_tables()["starts"].keys() == set(grammar.STARTS)


def test_lark_is_not_loaded_when_the_tables_are_there(cache: Path) -> None:
    grammar.load_tables()
    code = "from hloc.text.parser import parse_shape; parse_shape('f32[2]'); import sys; print('lark' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert result.stdout.strip() == "False"


def test_the_tables_depend_on_the_grammar_alone(cache: Path) -> None:
    """Lark numbers states by the order of sets, which changes from process to process."""
    code = "from hloc.text import grammar; import zlib; print(zlib.crc32(repr(grammar.load_tables()).encode()))"
    printed = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "XDG_CACHE_HOME": str(cache / seed)}
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        printed.append(result.stdout)
    assert printed[0] == printed[1]


def test_every_rule_has_a_callback() -> None:
    rules = [name for name, origin, _, _ in grammar.load_tables()["rules"] if not origin.startswith("_")]
    assert [name for name in rules if not hasattr(Callbacks, name)] == []


class Words:
    """Tokens of a text whose words are terminals."""

    def __init__(self, text: str):
        self.words = iter([*text.split(), END])

    def next(self, state: int, stack: list[int]) -> Token:
        return Token(next(self.words), "", 0, 0)


class Lists:
    def start(self, children: list) -> list:
        return children

    def pair(self, children: list) -> tuple:
        return tuple(child.type for child in children)


GRAMMAR = """
start: (pair | _inner)*
_inner: LEFT pair* RIGHT
pair: A ","? B
%declare LEFT RIGHT A B
"""


def test_the_engine_leaves_out_and_splices_as_lark_does() -> None:
    engine = Engine(tables.make_tables(GRAMMAR, ("start",)), Lists())
    assert engine.parse(Words("A COMMA B"), "start") == [("A", "B")]
    got = engine.parse(Words("A B LEFT A B A COMMA B RIGHT A B"), "start")
    assert [item if isinstance(item, tuple) else item.type for item in got] == [
        ("A", "B"), "LEFT", ("A", "B"), ("A", "B"), "RIGHT", ("A", "B")
    ]  # fmt: skip
    with pytest.raises(Unexpected) as raised:
        engine.parse(Words("A B LEFT COMMA"), "start")
    assert sorted(raised.value.expected) == ["A", "RIGHT"]
