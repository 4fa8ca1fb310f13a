"""The budget of the unroller is one for all rounds of a pipeline."""

from __future__ import annotations

from hloc.passes.while_unroller import WhileUnroller
from hloc.text.parser import parse

TEXT = """HloModule m

more {
  s = (s32[], f32[90]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  n = s32[] constant(30)
  ROOT c = pred[] compare(i, n), direction=LT
}

turn {
  s = (s32[], f32[90]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  one = s32[] constant(1)
  i1 = s32[] add(i, one)
  x = f32[90] get-tuple-element(s), index=1
  e = f32[90] exponential(x)
  ROOT t = (s32[], f32[90]) tuple(i1, e)
}

ENTRY main {
  x = f32[90] parameter(0)
  zero = s32[] constant(0)
  init = (s32[], f32[90]) tuple(zero, x)
  a = (s32[], f32[90]) while(init), condition=more, body=turn
  ROOT r = f32[90] get-tuple-element(a), index=1
}
"""


def test_rounds_share_the_budget() -> None:
    unroller = WhileUnroller(growth=100)
    assert unroller.run(parse(TEXT, "first round"))
    assert not unroller.run(parse(TEXT, "second round"))
    (remark,) = unroller.remarks
    assert remark.data == {"turns": 30, "instructions": 60, "grown": 60}
