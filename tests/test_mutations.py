"""Damaged text ends in a module or in an error at a place, and soon: never in a crash, and never not at all."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hloc.analysis.verifier import verify
from hloc.errors import HloError
from hloc.text.parser import parse
from tools.mutate import edits, judge

ROOT = Path(__file__).parent.parent
TEXTS = [path.read_text() for folder in ("samples", "tests/run", "tests/text") for path in
         sorted((ROOT / folder).rglob("*.hlo"))]


@pytest.mark.parametrize("seed", range(6))
def test_edits_end_in_a_module_or_a_located_error(seed: int) -> None:
    ended: dict[str, int] = {}
    for number, (edit, text) in enumerate(edits(TEXTS, 400, seed)):
        outcome, complaint = judge(text, limit=2.0)
        assert not complaint, f"seed {seed}, edit {number} ({edit}): {complaint}\n{text}"
        ended[outcome] = ended.get(outcome, 0) + 1
    assert ended["error"] > 100  # most edits do harm


def nested(depth: int) -> str:
    return f"ENTRY e {{ p = f32[4] parameter(0)\n ROOT r = f32[4] {'negate(' * depth}p{')' * depth}\n}}"


HOSTILE = {
    "nested operands": nested(20_000),
    "nested tuples": "ENTRY e { ROOT p = " + "(" * 50_000 + ")" * 50_000 + " parameter(0) }",
    "nested braces in a literal": "ENTRY e { ROOT c = f32[1] constant(" + "{" * 100_000 + ") }",
    "nested dictionaries": "ENTRY e { ROOT p = f32[] parameter(0), backend_config=" + "{" * 100_000 + " }",
    "parameter 1 without 0": "ENTRY e { ROOT p = f32[] parameter(1) }",
    "a huge parameter number": "ENTRY e { ROOT p = f32[] parameter(999999999999) }",
    "empty infeed": "ENTRY e { t = token[] after-all()\n ROOT i = ((), token[]) infeed(t) }",
    "unknown mesh axis": "ENTRY e { ROOT p = f32[8] parameter(0), sharding={mesh['a'=2], [{'b'}]} }",
    "overflowing element count": "ENTRY e { ROOT p = f32[9999999999,9999999999] parameter(0) }",
    "huge dimension": "ENTRY e { ROOT p = f32[99999999999999999999] parameter(0) }",
    "open string": 'HloModule m, frontend_attributes={a="' + "x" * 1_000_000,
    "open comment": "HloModule m /*" + "x" * 1_000_000,
    "one long name": "HloModule " + "a" * 5_000_000,
    "many numbers": "ENTRY e { ROOT c = s32[3] constant({" + "1," * 500_000 + "}) }",
    "NUL": "HloModule m\0",
    "nothing": "",
    "binary": bytes(range(256)).decode("latin-1") * 100,
    "open braces": "{" * 1_000_000,
    "a computation that calls itself": "f { p = f32[] parameter(0)\n ROOT c = f32[] call(p), to_apply=f }\nENTRY e { "
    "p = f32[] parameter(0)\n ROOT c = f32[] call(p), to_apply=f }",
}


# What others crash on and hloc gives a meaning to.
WELL_FORMED = ("nested operands", "empty infeed")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text(name: str) -> None:
    start = time.perf_counter()
    try:
        faults = verify(parse(HOSTILE[name], "hostile"))
        assert bool(faults) == (name not in WELL_FORMED)
    except HloError as error:
        assert error.span is not None
        assert len(str(error)) < 2000
    assert time.perf_counter() - start < 10
