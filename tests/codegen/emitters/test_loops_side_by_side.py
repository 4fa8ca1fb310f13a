"""Results of unequal sizes in one kernel: a loop nest each."""

from __future__ import annotations

import numpy as np
from emitter_cases import same, value

import hloc
from hloc.options import Options
from hloc.reference.evaluate import evaluate

TEXT = """HloModule m

fused {
  p0 = f32[40,3] parameter(0)
  p1 = f32[7] parameter(1)
  p2 = f32[] parameter(2)
  rate = f32[40,3] broadcast(p2), dimensions={}
  a = f32[40,3] multiply(p0, rate)
  b = f32[7] negate(p1)
  c = f32[40,3] add(a, p0)
  first = f32[7,2] slice(p0), slice={[0:7], [0:2]}
  wide = f32[7,2] broadcast(p1), dimensions={0}
  d = f32[7,2] add(first, wide)
  ROOT r = (f32[40,3], f32[7], f32[40,3], f32[7,2], f32[]) tuple(a, b, c, d, p2)
}

ENTRY main {
  x = f32[40,3] parameter(0)
  y = f32[7] parameter(1)
  z = f32[] parameter(2)
  x2 = f32[40,3] add(x, x)
  y2 = f32[7] add(y, y)
  ROOT f = (f32[40,3], f32[7], f32[40,3], f32[7,2], f32[]) fusion(x2, y2, z), kind=kLoop, calls=fused
}
"""


def test_results_of_several_sizes() -> None:
    """Arguments that die there may be written over, but not before another loop nest has read them."""
    arguments = [value(shape, number) for number, shape in enumerate(("f32[40,3]", "f32[7]", "f32[]"))]
    executable = hloc.compile(TEXT, options=Options(pipeline="schedule"))
    assert [kernel.name for kernel in executable.program.kernels if kernel.name.endswith("f")] == ["kernel.f"]
    assert len(executable.program.kernels) == 3
    for got, wanted in zip(executable.execute(*arguments), evaluate(hloc.parse(TEXT), arguments), strict=True):
        same(got, np.asarray(wanted))
