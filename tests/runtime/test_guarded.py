"""Guarded pages: the same results, and a message where a program reaches beyond a buffer."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import hloc
from hloc.arrays import compare
from hloc.cli import main
from hloc.codegen.program import GUARD_BYTES
from hloc.errors import HloError
from hloc.options import Options
from hloc.runtime import guarded
from hloc.runtime.memory import address

SIDES = ("end", "start")

PROGRAM = """HloModule all_kinds
less { a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT r = pred[] compare(a, b), direction=LT }
add { a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT r = f32[] add(a, b) }
body {
  s = (s32[], f32[5,3]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  one = s32[] constant(1)
  j = s32[] add(i, one)
  x = f32[5,3] get-tuple-element(s), index=1
  sorted = f32[5,3] sort(x), dimensions={0}, to_apply=less
  y = f32[5,3] cosine(sorted)
  ROOT r = (s32[], f32[5,3]) tuple(j, y)
}
test {
  s = (s32[], f32[5,3]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  n = s32[] constant(3)
  ROOT r = pred[] compare(i, n), direction=LT
}
left { x = f32[5,3] parameter(0)  t = f32[3,5] transpose(x), dimensions={1,0}  ROOT r = f32[3,5] sine(t) }
right { x = f32[5,3] parameter(0)  ROOT r = f32[3,5] reshape(x) }
ENTRY main {
  x = f32[5,3]{0,1} parameter(0)
  which = pred[] parameter(1)
  empty = f32[0,3] parameter(2)
  table = f32[5,3] constant({{1,2,3},{4,5,6},{7,8,9},{10,11,12},{13,14,15}})
  rows = f32[5,3] add(x, table)
  zero = s32[] constant(0)
  t = (s32[], f32[5,3]) tuple(zero, rows)
  w = (s32[], f32[5,3]) while(t), condition=test, body=body
  y = f32[5,3] get-tuple-element(w), index=1
  c = f32[3,5] conditional(which, y, y), true_computation=left, false_computation=right
  d = f32[5,5] dot(y, c), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  f = f32[] constant(0)
  r = f32[5] reduce(d, f), dimensions={1}, to_apply=add
  e = f32[5,3] concatenate(y, empty), dimensions={0}
  ROOT out = (f32[5], f32[5,3], f32[3,5], f32[0,3]) tuple(r, e, c, empty)
}
"""


@pytest.mark.parametrize("pipeline", ["cpu", "none"])
@pytest.mark.parametrize("side", SIDES)
def test_results_are_the_same(side: str, pipeline: str) -> None:
    x = np.asfortranarray(np.linspace(-3, 4, 15, dtype=np.float32).reshape(5, 3))
    arguments = [x, np.array(True), np.zeros((0, 3), np.float32)]
    options = Options(pipeline=pipeline, guard_pages=side, cache=False)
    executable = hloc.compile(PROGRAM, options=options)
    for _ in range(2):
        results = executable.execute(*arguments)
        for got, expected in zip(results, hloc.evaluate(PROGRAM, *arguments), strict=True):
            assert compare(got, expected).equal


def test_devices_meet() -> None:
    text = """HloModule m, replica_count=2
    add { a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT r = f32[] add(a, b) }
    ENTRY e { x = f32[3] parameter(0)  ROOT r = f32[3] all-reduce(x), replica_groups={}, to_apply=add }"""
    executable = hloc.compile(text, options=Options(guard_pages="end", cache=False))
    one, two = np.ones(3, np.float32), np.full(3, 2, np.float32)
    assert [list(each[0]) for each in executable.execute_replicated([[one], [two]])] == [[3, 3, 3]] * 2


@pytest.mark.parametrize("side", SIDES)
def test_every_buffer_is_guarded(side: str) -> None:
    options = Options(pipeline="none", guard_pages=side, cache=False)
    guards = hloc.compile(PROGRAM, options=options).program.guards
    assert guards.side == side
    assert len(guards.arena) > 6 and len(guards.constants) == 1
    pieces = {(start // GUARD_BYTES, -(-(start + size) // GUARD_BYTES)) for start, size in guards.arena}
    assert all(before[1] < after[0] for before, after in pairwise(sorted(pieces)))
    for start, size in (*guards.arena, *(piece[:2] for piece in guards.constants)):
        edge = start if side == "start" else start + size
        assert -edge % GUARD_BYTES < 64  # what keeps its alignment; 0 for arrays, whose sizes are multiples of 4
        assert side == "end" or edge % GUARD_BYTES == 0


def test_another_word_is_an_error() -> None:
    with pytest.raises(HloError, match='guard_pages is "left", expected "end" or "start"'):
        hloc.compile(PROGRAM, options=Options(guard_pages="left", cache=False))


def test_what_a_fault_is_said_to_be() -> None:
    text = "HloModule named\nENTRY e { x = f32[6] parameter(0)  ROOT r = f32[6] negate(x) }"
    executable = hloc.compile(text, options=Options(guard_pages="start", cache=False))
    (array,) = executable._memory.arguments([np.zeros(6, np.float32)])
    assert guarded.describe(address(array) - 1, 0).startswith(
        "named touches memory 1 byte before the start of argument 0 (%x), f32[6], in"
    )
    assert "8 bytes behind the end of argument 0" in guarded.describe(address(array) + 32, 0)
    assert "right behind the end of argument 0" in guarded.describe(address(array) + 24, 0)
    assert guarded.describe(address(np.zeros(6)), 0) is None


BEYOND = """
import numpy as np, hloc
from hloc.options import Options
from hloc.ir.dtypes import F32
from hloc.ir.shapes import array

text = "HloModule named\\nENTRY e { x = f32[8] parameter(0)  ROOT sum = f32[8] add(x, x) }"
executable = hloc.compile(text, options=Options(guard_pages="end", cache=False))
room = executable._memory.results
executable._memory.results = lambda shapes: room([array(F32, 7)])
print("before", flush=True)
executable(np.ones(8, np.float32))
print("after")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the message is faulthandler's")
def test_an_access_beyond_a_buffer_ends_the_process_with_a_message() -> None:
    done = subprocess.run([sys.executable, "-c", BEYOND], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (guarded.STATUS, "before\n")
    assert done.stderr == "hloc: named writes memory right behind the end of result 0, f32[7], in kernel.sum\n"


@pytest.mark.parametrize(("flag", "side"), [("--guard-pages", "end"), ("--guard-starts", "start")])
def test_the_command_asks_for_guards(
    flag: str, side: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.hlo"
    file.write_text("HloModule m\nENTRY e { x = f32[8] parameter(0)  ROOT sum = f32[8] add(x, x) }")
    sides = []

    class Noted(guarded.GuardedMemory):
        def __init__(self, *given: Any):
            super().__init__(*given)
            sides.append(self.guards.side)

    monkeypatch.setattr(guarded, "GuardedMemory", Noted)
    done = CliRunner().invoke(main, ["run", str(file), "--random", "--check", flag])
    assert done.exit_code == 0 and "ok" in done.output
    assert sides == [side]
