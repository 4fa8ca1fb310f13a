"""Loops whose trips can be counted, and loops where they cannot."""

from __future__ import annotations

import numpy as np
import pytest

import hloc
from hloc.analysis.trip_count import counted_loop, stated_trip_count, trip_count

TEXT = """HloModule loop
body {{
  p = ({type}[], {type}[], s32[]) parameter(0)
  i = {type}[] get-tuple-element(p), index=0
  n = {type}[] get-tuple-element(p), index=1
  turns = s32[] get-tuple-element(p), index=2
  step = {type}[] constant({step})
  next = {type}[] {op}(i, step)
  one = s32[] constant(1)
  more = s32[] add(turns, one)
  ROOT t = ({type}[], {type}[], s32[]) tuple(next, n, more)
}}
condition {{
  p = ({type}[], {type}[], s32[]) parameter(0)
  i = {type}[] get-tuple-element(p), index=0
  offset = {type}[] constant({offset})
  moved = {type}[] add(i, offset)
  n = {type}[] get-tuple-element(p), index=1
  ROOT again = pred[] compare({sides}), direction={direction}
}}
ENTRY e {{
  start = {type}[] constant({start})
  limit = {type}[] constant({limit})
  zero = s32[] constant(0)
  t = ({type}[], {type}[], s32[]) tuple(start, limit, zero)
  w = ({type}[], {type}[], s32[]) while(t), condition=condition, body=body
  ROOT turns = s32[] get-tuple-element(w), index=2
}}
"""


def loop_of(text: str) -> tuple[hloc.Module, object]:
    module = hloc.parse(text)
    return module, next(i for i in module.instructions() if i.opcode == "while")


def text(start, limit, step, direction="LT", op="add", type="s32", offset=0, sides="moved, n"):
    return TEXT.format(
        start=start, limit=limit, step=step, direction=direction, op=op, type=type, offset=offset, sides=sides
    )


@pytest.mark.parametrize(
    "case",
    [
        {"start": 0, "limit": 7, "step": 1},
        {"start": 0, "limit": 7, "step": 3},
        {"start": 9, "limit": 7, "step": 3},
        {"start": 0, "limit": 6, "step": 3, "direction": "LE"},
        {"start": 10, "limit": -4, "step": 2, "direction": "GT", "op": "subtract"},
        {"start": 10, "limit": 0, "step": -5, "direction": "GE"},
        {"start": 1, "limit": 13, "step": 4, "direction": "NE"},
        {"start": 4, "limit": 4, "step": 4, "direction": "EQ"},
        {"start": 5, "limit": 4, "step": 3, "direction": "EQ"},
        {"start": 0, "limit": 7, "step": 1, "direction": "GT", "sides": "n, moved"},
        {"start": 0, "limit": 7, "step": 2, "offset": 3},
        {"start": 250, "limit": 254, "step": 2, "type": "u8"},
        {"start": -120, "limit": 120, "step": 7, "type": "s8"},
    ],
    ids=str,
)
def test_counts_as_the_loop_runs(case):
    module, loop = loop_of(text(**case))
    assert trip_count(loop) == int(hloc.evaluate(module))


@pytest.mark.parametrize(
    "case",
    [
        {"start": 0, "limit": 7, "step": 0},
        {"start": 0, "limit": 7, "step": 2, "direction": "NE"},
        {"start": 0, "limit": 7, "step": -1},
        {"start": 250, "limit": 255, "step": 2, "type": "u8"},
        {"start": 0, "limit": 127, "step": 1, "direction": "LE", "type": "s8"},
        {"start": 0, "limit": 5, "step": 1, "type": "f32"},
    ],
    ids=str,
)
def test_does_not_count(case):
    assert trip_count(loop_of(text(**case))[1]) is None


def test_a_limit_that_the_body_changes_is_unknown():
    changed = text(0, 7, 1).replace("tuple(next, n, more)", "tuple(next, next, more)")
    assert trip_count(loop_of(changed)[1]) is None


def test_an_argument_as_limit_is_unknown():
    given = text(0, 7, 1).replace("limit = s32[] constant(7)", "limit = s32[] parameter(0)")
    assert trip_count(loop_of(given)[1]) is None


def test_sees_through_fusions_copies_and_calls():
    module, loop = loop_of("""HloModule m
    plus { a = s32[] parameter(0)  b = s32[] parameter(1)  ROOT s = s32[] add(a, b) }
    less { a = s32[] parameter(0)  c = s32[] constant(6)  ROOT s = pred[] compare(a, c), direction=LT }
    body {
      i = s32[] parameter(0)
      same = s32[] copy(i)
      two = s32[] constant(2)
      ROOT f = s32[] fusion(same, two), kind=kLoop, calls=plus
    }
    condition { i = s32[] parameter(0)  ROOT f = pred[] call(i), to_apply=less }
    ENTRY e {
      c = s32[] constant(-1)
      start = s32[] copy(c)
      ROOT w = s32[] while(start), condition=condition, body=body, backend_config={"known_trip_count":{"n":"4"}}
    }""")
    assert counted_loop(loop) == ((), -1, 2, 4)
    assert stated_trip_count(loop) == 4
    assert np.asarray(hloc.evaluate(module)) == 7
