"""Regular expressions that are kept compiled: the same as Python's own, or compiled anew."""

from __future__ import annotations

import marshal
import re
import subprocess
import sys

import pytest

from hloc.text import patterns
from hloc.text.grammar import load_tables
from hloc.text.parser import Language

PATTERNS = [("(?P<a>x)|y+", 0), (r"[^\n]{0,99}+\}", re.ASCII), (r'"(?:[^"\\]|\\.)*+"', re.DOTALL), ("a(b)?(?P<c>c)", 0)]


@pytest.mark.parametrize(("text", "flags"), PATTERNS)
def test_what_is_kept_is_what_python_compiles(text: str, flags: int) -> None:
    first = patterns.Patterns({})
    assert first(text, flags) == re.compile(text, flags)
    kept = marshal.loads(marshal.dumps(first.kept))
    assert kept[text, int(flags)] is not None
    second = patterns.Patterns(kept)
    made = second(text, flags)
    assert first.is_new and not second.is_new
    assert made == re.compile(text, flags)
    assert (made.groupindex, made.groups) == (re.compile(text, flags).groupindex, re.compile(text, flags).groups)


def test_a_python_that_compiles_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "_made", lambda text, known: re.compile("another"))
    compiled = patterns.Patterns({})
    assert compiled("never seen before") == re.compile("never seen before")
    assert compiled.kept == {("never seen before", 0): None}
    assert patterns.Patterns(compiled.kept)("never seen before") == re.compile("never seen before")


def test_a_language_leaves_its_patterns_with_the_tables() -> None:
    Language()
    kept = load_tables()["patterns"]
    assert len(kept) > 20 and None not in kept.values()
    for (text, flags), _ in kept.items():
        assert patterns.Patterns(kept)(text, flags) == re.compile(text, flags)


def test_the_lexer_compiles_nothing_once_they_are_kept() -> None:
    Language()
    code = """
import sys
from hloc.text import parser
import re
re.compile = None
parser.Language()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_pattern_waits_for_its_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = patterns.Later("a+", re.ASCII)
    assert vars(pattern).keys() == {"_made_of"}
    assert pattern.match("aab").end() == 2
    monkeypatch.setattr(re, "compile", None)
    assert pattern.match("aab").end() == 2
