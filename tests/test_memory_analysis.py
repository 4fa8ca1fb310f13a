"""What a compiled program says of its memory."""

from __future__ import annotations

import json
import pickle

from click.testing import CliRunner

import hloc
from hloc.cli import main

REVERSED = """HloModule m, input_output_alias={ {0}: (0, {}, may-alias) }
ENTRY e {
  p = f32[1000] parameter(0)
  a = f32[1000] reverse(p), dimensions={0}, metadata={op_name="turned"}
  b = f32[1000] sort(a), dimensions={0}, to_apply=less
  c = f32[1000] reverse(b), dimensions={0}
  d = f32[1000] sort(c), dimensions={0}, to_apply=less
  ROOT t = (f32[1000], f32[1000]) tuple(d, p)
}
"""
LESS = "less { x = f32[] parameter(0)  y = f32[] parameter(1)  ROOT l = pred[] compare(x, y), direction=LT }\n"


def analysis(text: str, **options):
    options = hloc.Options(pipeline="none", cache=False, **options)
    return hloc.compile(text.replace("ENTRY", LESS + "ENTRY", 1), options=options).memory_analysis()


def test_sums_peak_and_owners():
    found = analysis(REVERSED)
    assert (found.argument_bytes, found.output_bytes, found.alias_bytes) == (4000, 8000, 4000)
    assert 4000 <= found.peak_bytes <= found.temporary_bytes
    assert found.owners[0].name in ("a", "b") or "kernel itself" in found.owners[0].shape
    assert "turned" in {owner.op_name for owner in found.owners}
    assert found.total_bytes == 12000 + found.constant_bytes + found.temporary_bytes


def test_live_ranges_and_copies_tell_why():
    found = analysis(REVERSED)
    lives = {name: row for row in found.live_ranges for name in row.names if row.shape == "f32[1000]"}
    assert lives["d"].place == "result[0]"
    assert lives["d"].last == "(end)"
    assert ("results[1]", 4000, "the result is an argument") in found.copies


LOOP = """HloModule m
body { p = f32[1000] parameter(0)  a = f32[1000] reverse(p), dimensions={0}  ROOT b = f32[1000] sine(a) }
condition { p = f32[1000] parameter(0)  ROOT t = pred[] constant(false) }
ENTRY e { p = f32[1000] parameter(0)  ROOT w = f32[1000] while(p), condition=condition, body=body }
"""


def test_the_peak_lies_inside_of_a_loop():
    found = analysis(LOOP)
    assert found.peak_at == ("w", "a")
    assert [owner.name for owner in found.owners] == ["a"]
    reasons = [copy.reason for copy in found.copies]
    assert "the loop changes this, and it is an argument of the caller's" in reasons


def test_an_update_of_an_argument_copies_it():
    found = analysis("""HloModule m
    ENTRY e {
      p = f32[1000] parameter(0)
      u = f32[1] parameter(1)
      i = s32[] parameter(2)
      ROOT r = f32[1000] dynamic-update-slice(p, u, i)
    }""")
    assert found.copies == (("r", 4000, "the update changes this, and it is an argument of the caller's"),)
    assert found.peak_bytes == 0


def test_plans_survive_pickling():
    program = hloc.compile(LOOP, options=hloc.Options(cache=False)).program
    assert pickle.loads(pickle.dumps(program.memory)) == program.memory
    assert pickle.loads(pickle.dumps(program.cost)) == program.cost


def test_the_command_prints_it(tmp_path):
    path = tmp_path / "m.hlo"
    path.write_text(LOOP)
    arguments = ["memory", str(path), "--pipeline", "none"]
    text = CliRunner().invoke(main, [*arguments, "--live"]).output
    assert "at the peak, in w > a:" in text
    assert "copies made:" in text
    assert json.loads(CliRunner().invoke(main, [*arguments, "--json"]).output)["peak_at"] == ["w", "a"]
