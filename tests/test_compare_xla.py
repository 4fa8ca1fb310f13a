"""The figures of tools.compare_xla: kernels, bytes and temporary memory of small modules, counted by hand."""

from __future__ import annotations

import json
import sys

import pytest

import hloc
from tools import compare_xla
from tools.compare_xla import Figures, figures_of


def figures(text: str) -> Figures:
    module = hloc.parse("HloModule m, is_scheduled=true\n" + text)
    assert not hloc.verify(module)
    return figures_of(module)


def test_names_are_no_kernels():
    assert figures("""ENTRY e {
      p = f32[4,6] parameter(0)
      t = (f32[4,6]) tuple(p)
      g = f32[4,6] get-tuple-element(t), index=0
      r = f32[24] reshape(g)
      b = f32[24] bitcast(r)
      ROOT n = f32[24] negate(b)
    }""") == Figures(1, 2 * 96, 0)


def test_peak_counts_neither_arguments_nor_results():
    """a and b live together; c may be written over one of them, and is none of the results."""
    assert figures("""ENTRY e {
      p = f32[100] parameter(0)
      a = f32[100] sine(p)
      b = f32[100] cosine(p)
      c = f32[100] add(a, b)
      z = f32[] constant(0)
      ROOT r = f32[100,100] broadcast(c), dimensions={0}
    }""") == Figures(4, 800 + 800 + 1200 + 400 + 40000, 800)


def test_what_ends_as_the_result_is_not_temporary():
    assert figures("""ENTRY e {
      p = f32[100] parameter(0)
      a = f32[100] sine(p)
      ROOT b = f32[100] negate(a)
    }""").peak == 0


def test_a_fusion_reads_what_it_slices():
    assert figures("""f {
      p = f32[1000] parameter(0)
      n = f32[1000] negate(p)
      ROOT s = f32[10] slice(n), slice={[5:15]}
    }
    ENTRY e { p = f32[1000] parameter(0)  ROOT f = f32[10] fusion(p), kind=kLoop, calls=f }
    """) == Figures(1, 80, 0)


UPDATE = """body {{
  s = (s32[], f32[1000]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  x = f32[1000] get-tuple-element(s), index=1
  u = f32[1] constant({{3}})
  y = f32[1000] dynamic-update-slice(x, u, i)
  one = s32[] constant(1)
  j = s32[] add(i, one)
  ROOT t = (s32[], f32[1000]) tuple(j, y)
}}
condition {{
  s = (s32[], f32[1000]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  n = s32[] constant(10)
  ROOT c = pred[] compare(i, n), direction=LT
}}
ENTRY e {{
  zero = s32[] constant(0)
  p = f32[1000] parameter(0)
  x = f32[1000] {start}
  t = (s32[], f32[1000]) tuple(zero, x)
  w = (s32[], f32[1000]) while(t), condition=condition, body=body
  ROOT r = f32[1000] get-tuple-element(w), index=1
}}"""

TURNS = 10 * (2 + 0) + 11
"""Ten turns of an update and an addition, eleven of the comparison."""

MOVED = 10 * (4 + 4 + 4 + 4) + 11 * (4 + 1)


def test_loops_count_by_their_turns_and_update_in_place():
    """One more kernel and 8 bytes: the counter's start is a constant, so it is copied."""
    assert figures(UPDATE.format(start="sine(p)")) == Figures(TURNS + 1 + 1, MOVED + 8000 + 8, 4)


def test_a_loop_copies_what_it_may_not_change():
    assert figures(UPDATE.format(start="bitcast(p)")) == Figures(TURNS + 1 + 1, MOVED + 8000 + 8, 4)


def test_of_branches_the_largest_counts():
    assert figures("""yes { p = f32[8] parameter(0)  a = f32[8] sine(p)  ROOT r = f32[8] reverse(a), dimensions={0} }
    no { p = f32[8] parameter(0)  ROOT a = f32[8] negate(p) }
    ENTRY e {
      c = pred[] parameter(0)
      p = f32[8] parameter(1)
      ROOT r = f32[8] conditional(c, p, p), true_computation=yes, false_computation=no
    }""") == Figures(2, 128, 32)


def test_compares_a_folder(tmp_path, monkeypatch, capsys):
    text = "HloModule m\nENTRY e { p = f32[8] parameter(0)  a = f32[8] sine(p)  ROOT b = f32[8] negate(a) }"
    (tmp_path / "chain.hlo").write_text(text)
    (tmp_path / "chain.opt.hlo").write_text(text)
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["compare_xla", str(tmp_path), "--json", str(out)])
    compare_xla.main()
    assert "kernels  median 0.50" in capsys.readouterr().out
    (row,) = json.loads(out.read_text())
    assert row["ratios"] == {"kernels": 0.5, "bytes": pytest.approx(0.5), "peak": None}
