"""Which operands a fusion may write over: what it reads only where it writes, or in the row before it writes it."""

from __future__ import annotations

import pytest

import hloc
from hloc.analysis.sharing import shared_pairs

SUM = "sum { a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT s = f32[] add(a, b) }"


def pairs(body: str) -> list[tuple[int, tuple[int, ...]]]:
    module = hloc.parse(f"""HloModule m
    {SUM}
    f {{ {body} }}
    ENTRY e {{
      p = f32[8,9] parameter(0)
      q = f32[8,9] parameter(1)
      ROOT r = f32[8,9] fusion(p, q), kind=kLoop, calls=f
    }}""")
    assert not hloc.verify(module)
    return [(number, path) for number, _, path in shared_pairs(module.entry.root)]


INPUTS = "p = f32[8,9] parameter(0)  q = f32[8,9] parameter(1)  "
ROWS = INPUTS + "z = f32[] constant(0)  s = f32[8] reduce(p, z), dimensions={1}, to_apply=sum  "


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (INPUTS + "ROOT r = f32[8,9] add(p, q)", [(0, ()), (1, ())]),
        (INPUTS + "t = f32[8,9] reverse(p), dimensions={0}  ROOT r = f32[8,9] add(t, q)", [(1, ())]),
        (INPUTS + "t = u32[8,9] bitcast-convert(p)  u = u32[8,9] not(t)  v = f32[8,9] bitcast-convert(u)  "
         "ROOT r = f32[8,9] add(v, q)", [(0, ()), (1, ())]),
        (INPUTS + "t = f32[8,9] reverse(p), dimensions={0}  u = f32[8,9] add(t, p)  ROOT r = f32[8,9] add(u, q)",
         [(1, ())]),
        (ROWS + "b = f32[8,9] broadcast(s), dimensions={0}  ROOT r = f32[8,9] divide(p, b)", [(0, ())]),
        (ROWS + "l = f32[8] log(s)  k = f32[8,1] reshape(l)  c = f32[8] reshape(k)  "
         "b = f32[8,9] broadcast(c), dimensions={0}  d = f32[8,9] subtract(p, b)  ROOT r = f32[8,9] add(d, q)",
         [(0, ()), (1, ())]),
        (ROWS + "u = f32[8] reverse(s), dimensions={0}  b = f32[8,9] broadcast(u), dimensions={0}  "
         "ROOT r = f32[8,9] divide(p, b)", []),
        (INPUTS + "z = f32[] constant(0)  s = f32[9] reduce(p, z), dimensions={0}, to_apply=sum  "
         "b = f32[8,9] broadcast(s), dimensions={1}  ROOT r = f32[8,9] divide(q, b)", [(0, ()), (1, ())]),
        (INPUTS + "z = s32[] constant(1)  c = f32[2,3] constant({{1,2,3},{4,5,6}})  "
         "ROOT r = f32[8,9] dynamic-update-slice(p, c, z, z)", [(0, ())]),
        (INPUTS + "z = s32[] constant(1)  c = f32[2,3] slice(p), slice={[1:3], [1:4]}  n = f32[2,3] negate(c)  "
         "ROOT r = f32[8,9] dynamic-update-slice(p, n, z, z)", [(0, ())]),
        (INPUTS + "z = s32[] constant(1)  c = f32[2,3] slice(p), slice={[0:2], [1:4]}  n = f32[2,3] negate(c)  "
         "ROOT r = f32[8,9] dynamic-update-slice(p, n, z, z)", []),
    ],
)  # fmt: skip
def test_what_a_fusion_may_write_over(body, expected):
    assert pairs(body) == expected


def test_two_results_of_which_one_has_an_element_a_row():
    body = ROWS + "b = f32[8,9] broadcast(s), dimensions={0}  d = f32[8,9] divide(p, b)  l = f32[8] log(s)  "
    module = hloc.parse(f"""HloModule m
    {SUM}
    f {{ {body} ROOT t = (f32[8,9], f32[8]) tuple(d, l) }}
    ENTRY e {{
      p = f32[8,9] parameter(0)
      q = f32[8,9] parameter(1)
      ROOT r = (f32[8,9], f32[8]) fusion(p, q), kind=kLoop, calls=f
    }}""")
    assert shared_pairs(module.entry.root) == [(0, (), (0,))]


def shared(body: str, result: str) -> list[tuple[int, tuple[int, ...]]]:
    module = hloc.parse(f"""HloModule m
    {SUM}
    f {{ {body} }}
    ENTRY e {{
      p = f32[8,9] parameter(0)
      q = f32[8] parameter(1)
      ROOT r = {result} fusion(p, q), kind=kLoop, calls=f
    }}""")
    assert not hloc.verify(module)
    return [(number, path) for number, _, path in shared_pairs(module.entry.root)]


def test_results_side_by_side_share_each_with_its_own():
    body = "p = f32[8,9] parameter(0)  q = f32[8] parameter(1)  a = f32[8,9] negate(p)  "
    assert shared(body + "b = f32[8] tanh(q)  ROOT t = (f32[8,9], f32[8]) tuple(a, b)", "(f32[8,9], f32[8])") == [
        (0, (0,)),
        (1, (1,)),
    ]
    both = "c = f32[8,1] slice(p), slice={[0:8], [0:1]}  d = f32[8] reshape(c)  b = f32[8] add(q, d)  "
    assert shared(body + both + "ROOT t = (f32[8,9], f32[8]) tuple(a, b)", "(f32[8,9], f32[8])") == [(1, (1,))]


def test_a_sum_over_all_rows_reads_each_before_it_is_written():
    body = "p = f32[8,9] parameter(0)  q = f32[8] parameter(1)  z = f32[] constant(0)  "
    rows = "s = f32[8] reduce(p, z), dimensions={1}, to_apply=sum  b = f32[8,9] broadcast(s), dimensions={0}  "
    rest = "d = f32[8,9] divide(p, b)  u = f32[] reduce(s, z), dimensions={0}, to_apply=sum  "
    assert shared(body + rows + rest + "ROOT t = (f32[8,9], f32[]) tuple(d, u)", "(f32[8,9], f32[])") == [(0, (0,))]
