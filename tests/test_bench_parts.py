"""The tool that tells where a program's time goes."""

from __future__ import annotations

import numpy as np

from tools.bench.limits import Limits
from tools.bench.parts import parts_of

RATES = {1 << 14: 1e10, 1 << 27: 1e10}
LIMITS = Limits(1, RATES, RATES, RATES, {"f32": 1e11, "f64": 5e10})

PROGRAM = """HloModule parts

condition {
  state = (s32[], s32[], f32[64,64]) parameter(0)
  i = s32[] get-tuple-element(state), index=0
  limit = s32[] get-tuple-element(state), index=1
  ROOT more = pred[] compare(i, limit), direction=LT
}

body {
  state = (s32[], s32[], f32[64,64]) parameter(0)
  i = s32[] get-tuple-element(state), index=0
  limit = s32[] get-tuple-element(state), index=1
  x = f32[64,64] get-tuple-element(state), index=2
  one = s32[] constant(1)
  next = s32[] add(i, one)
  product = f32[64,64] dot(x, x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT changed = (s32[], s32[], f32[64,64]) tuple(next, limit, product)
}

ENTRY main {
  x = f32[64,64] parameter(0)
  limit = s32[] parameter(1)
  zero = s32[] constant(0)
  state = (s32[], s32[], f32[64,64]) tuple(zero, limit, x)
  loop = (s32[], s32[], f32[64,64]) while(state), condition=condition, body=body
  y = f32[64,64] get-tuple-element(loop), index=2
  ROOT c = f32[64,64] cosine(y)
}
"""

GIVEN = [np.full((64, 64), 1 / 64, np.float32), np.int32(7)]


def test_kernels_are_counted_and_timed() -> None:
    found = parts_of(PROGRAM, GIVEN, 3, LIMITS)
    products = [part for part in found.parts if part.calls == 7 and part.of.startswith("dot")]
    assert len(products) == 1
    assert products[0].floor == 7 * max(2 * 64**3 / 1e11, 3 * 64 * 64 * 4 / 1e10)
    assert sum(part.calls for part in found.parts) >= 7 + 1
    assert 0 < found.between < found.native < found.seconds * 1.5


def test_the_table_has_all_of_the_time() -> None:
    lines = parts_of(PROGRAM, GIVEN, 3, LIMITS).table(1).split("\n")
    assert lines[0].split()[:3] == ["kernel", "calls", "us"]
    assert lines[1].startswith("kernel.")
    assert any("others" in line for line in lines)
    assert [line.split("  ")[0] for line in lines[-3:]] == ["between kernels", "all of these", "a call from Python"]
    assert "100.0%" in lines[-2]
