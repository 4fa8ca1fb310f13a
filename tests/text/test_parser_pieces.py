"""Lines, computations, shapes and attribute lists that are read in one piece mean what the fine rules make of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from parsing import ADD

from hloc.errors import HloError
from hloc.ir.equality import structurally_equal
from hloc.ir.module import Module
from hloc.text import parser
from tools.mutate import edits

ROOT = Path(__file__).parent.parent.parent
FILES = [path for folder in ("samples", "tests/run", "tests/text", "tests/verifier") for path in sorted((ROOT / folder).rglob("*.hlo"))]

HEAD = "HloModule m\n\nENTRY e {\n  p = f32[4]{0} parameter(0)\n  q = f32[4]{0} parameter(1)\n  "

# Lines at the border of what is read in one piece.
LINES = [
    "ROOT r = f32[4]{0} add(p, q)",
    "ROOT %r = f32[4]{0} add(p, %q)",
    "ROOT r = f32[4]{0} add(p, /*index=1*/q)",
    "ROOT r = f32[4]{0} add(p, // q)\n q)",
    "ROOT r = f32[4]{0} add(p , q)",
    "ROOT r = f32[4]{0} negate(p),\n metadata={op_name=\"x\"}",
    "ROOT r = f32[4]{0} negate(p), metadata={op_name=\"x\ny\"}",
    "ROOT r = f32[4]{0} negate(p), metadata={op_name=\"x\" /* y */ source_line=3} // z",
    "ROOT r = f32[4]{0} negate(p), metadata={op_name=\"a, metadata={source_line=3}\"}",
    "ROOT r = f32[4]{0} custom-call(p), custom_call_target=\"x, metadata={source_line=3}\"",
    "ROOT r = f32[4]{0} custom-call(p), custom_call_target=\"x %p to_apply=add\", to_apply=add",
    "ROOT r = f32[4]{0} negate(p), control-predecessors={%q}, backend_config={\"a\":\"%q\"}",
    "t = (f32[4]{0}, f32[4]{0}) tuple(p, q)\n  ROOT r = f32[4]{0} get-tuple-element(t), index=1",
    "ROOT r = f32[4] {0} add(p, q)",
    "ROOT r = f32[4]{0:T(4)} copy(p)",
    "ROOT r = (f32[4]{0:T(4)}, (f32[4]{0})) tuple(p, (f32[4]{0}) tuple(q))",
    "c = f32[2]{0} constant({1, 2})\n  d = f32[] constant(-0)\n  ROOT r = f32[4]{0} add(p, q), sharding={replicated}",
    "c = c64[2]{0} constant({(1, 2), (3, 4)})\n  ROOT r = f32[4]{0} add(p, q)",
    "r = f32[4]{0} call(p), to_apply={\n    a = f32[4]{0} parameter(0)\n    ROOT b = f32[4]{0} negate(a)\n  }\n  ROOT s = f32[4]{0} add(r, q)",
    "ROOT r = f32[4]{0} map(p, q), to_apply=add, dimensions={0}",
    "ROOT r = f32[4]{0} reduce-scatter(p), dimensions={0}, to_apply=add, replica_groups={{0,1}}, mode=cross_replica",
    "ROOT r = f32[4]{0} map(p, q), to_apply=add\n\n\n",
    "ROOT r = f32[4]{0} negate(p), metadata={op_name=\"w[\\'b\\']\\n\\303\\244\" source_line=3}",
    "ROOT r = f32[2]{0} slice(p), slice={[1:3]}, metadata={op_name=\"x\"}",
    "a = f32[2,4]{1,0} iota(), iota_dimension=1\n  ROOT r = f32[2,1]{1,0} slice(a), slice={[0:2], [0:4:4]}",
    "a = f32[2,4]{1,0} iota(), iota_dimension=1\n  ROOT r = f32[2,1]{1,0} slice(a), slice={[0:2],[0:4:4]}",
    "z = f32[] constant(0)\n  ROOT r = f32[9]{0} pad(p, z), padding=1_1_1",
    "z = f32[] constant(0)\n  a = f32[1,4]{1,0} reshape(p)\n  ROOT r = f32[2,3]{1,0} pad(a, z), padding=0_1x-1_0",
    "i = s32[2,1]{1,0} constant({{0}, {1}})\n  ROOT r = f32[2]{0} gather(p, i), offset_dims={}, collapsed_slice_dims={0}, start_index_map={0}, index_vector_dim=1, slice_sizes={1}",
    "a = f32[] constant(1.5e-3)\n  b = f64[] constant(-7)\n  c = pred[] constant(true)\n  d = s8[] constant(-128)\n  e = u8[] constant(255)\n  f = f32[] constant(1e39)\n  ROOT r = f32[4]{0} negate(p)",
    "a = s4[] constant(7)\n  b = u64[] constant(18446744073709551615)\n  c = f16[] constant(65504)\n  ROOT r = f32[4]{0} negate(p)",
    "t = (f32[4]{0}) tuple(p)\n  u = () tuple()\n  v = (f32[4]{0}, /*index=1*/f32[4]{0}) tuple(p, q)\n  ROOT r = f32[4]{0} negate(p)",
    "t = token[] after-all()\n  ROOT __r = f32[4]{0} negate(p)",
]  # fmt: skip


FAULTS = ("constant(1e39)", "__r")


def both(text: str) -> list[Module | HloError]:
    results: list[Module | HloError] = []
    for read in (parser.parse, parser.parse_finely):
        try:
            results.append(read(text))
        except HloError as error:
            results.append(error)
    return results


def check(text: str) -> None:
    pieces, fine = both(text)
    assert isinstance(pieces, HloError) == isinstance(fine, HloError), f"{pieces}\n{fine}"
    if isinstance(pieces, Module):
        assert structurally_equal(pieces, fine) is None
        assert [(i.id, i.name, i.span[1:]) for i in pieces.instructions()] == [
            (i.id, i.name, i.span[1:]) for i in fine.instructions()
        ]
        assert [(c.name, c.span[1:]) for c in pieces] == [(c.name, c.span[1:]) for c in fine]


@pytest.mark.parametrize("line", LINES)
def test_lines(line: str) -> None:
    text = HEAD.replace("ENTRY", ADD + "ENTRY") + line + "\n}\n"
    assert isinstance(both(text)[0], Module) is not any(fault in line for fault in FAULTS)
    check(text)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files(path: Path) -> None:
    check(path.read_text())


def test_damaged_files() -> None:
    texts = [path.read_text() for path in FILES if path.stat().st_size < 4000]
    for edit, text in edits(texts, 300, seed=11):
        try:
            check(text)
        except AssertionError as error:
            raise AssertionError(f"{edit}\n{text}") from error


def test_a_string_that_is_open_at_the_end_of_a_line() -> None:
    text = HEAD + 'ROOT r = f32[4]{0} add(p, q), backend_config={ "a={ "b" : 1 , "c" :  2}\n}\n'
    check(text)
    with pytest.raises(HloError, match="unterminated string"):
        parser.parse(text)


def test_what_is_remembered_is_not_shared() -> None:
    text = HEAD.replace("ENTRY", ADD + "ENTRY") + "a = f32[4]{0} map(p, q), to_apply=add\n  ROOT b = f32[4]{0} map(p, q), to_apply=add\n}\n"
    first, second = parser.parse(text).entry.root, parser.parse(text).entry.root
    assert first.called[0] is not second.called[0]
    first.attributes["dimensions"] = "changed"
    first.annotations["metadata"] = "changed"
    other = second.operands[0].computation.instructions[-2]
    assert other.attributes["dimensions"] == second.attributes["dimensions"] == (0,)
    assert other.annotations == second.annotations == {}


def test_forgetting_changes_nothing() -> None:
    text = HEAD + "ROOT r = f32[4]{0} add(p, q)\n}\n"
    before = parser.parse(text)
    parser.forget()
    assert structurally_equal(before, parser.parse(text)) is None
