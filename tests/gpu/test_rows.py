"""Fused computations that go by rows on devices: softmax, normalization, their gradients, and what goes with them."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest
from against_evaluator import agree, ptx, random
from device_cases import assembles

as_written = partial(agree, pipeline="none")
"""No pass takes a fusion apart."""

REDUCERS = """add {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT r = f32[] add(a, b)
}
most {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT r = f32[] maximum(a, b)
}
"""

SOFTMAX = """HloModule m
{reducers}
fused {{
  x = {dtype}[{shape}]{layout} parameter(0)
  wide = f32[{shape}]{layout} convert(x)
  least = f32[] constant(-inf)
  zero = f32[] constant(0)
  top = f32[{rows}] reduce(wide, least), dimensions={{{dim}}}, to_apply=most
  tops = f32[{shape}]{layout} broadcast(top), dimensions={{{kept}}}
  less = f32[{shape}]{layout} subtract(wide, tops)
  e = f32[{shape}]{layout} exponential(less)
  sum = f32[{rows}] reduce(e, zero), dimensions={{{dim}}}, to_apply=add
  sums = f32[{shape}]{layout} broadcast(sum), dimensions={{{kept}}}
  ratio = f32[{shape}]{layout} divide(e, sums)
  ROOT r = {dtype}[{shape}]{layout} convert(ratio)
}}
ENTRY e {{
  x = {dtype}[{shape}]{layout} parameter(0)
  ROOT r = {dtype}[{shape}]{layout} fusion(x), kind=kInput, calls=fused
}}
"""


def softmax(dtype: str, rows: int, columns: int, layout: str = "", dim: int = 1) -> str:
    return SOFTMAX.format(
        reducers=REDUCERS, dtype=dtype, shape=f"{rows},{columns}", layout=layout, dim=dim, kept=1 - dim,
        rows=rows if dim else columns,
    )


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(1, 1), (3, 31), (33, 32), (5, 33), (300, 64), (4, 1000), (2, 1025), (2, 4096), (1, 20001)],
)
def test_softmax(rows: int, columns: int) -> None:
    as_written(softmax("f32", rows, columns), random(f"f32[{rows},{columns}]"))


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_softmax_of_narrow_types(dtype: str) -> None:
    as_written(softmax(dtype, 9, 200), random(f"{dtype}[9,200]"), rtol=0.02)


@pytest.mark.parametrize(("rows", "columns"), [(500, 3), (65, 70), (33, 128), (600, 40)])
def test_softmax_over_rows_side_by_side(rows: int, columns: int) -> None:
    as_written(softmax("f32", rows, columns, dim=0), random(f"f32[{rows},{columns}]"))
    as_written(softmax("f32", columns, rows, "{0,1}"), random(f"f32[{columns},{rows}]"))


NORM = """HloModule m
{reducers}
fused {{
  x = f32[{rows},{columns}] parameter(0)
  scale = f32[{columns}] parameter(1)
  residual = f32[{rows},{columns}] parameter(2)
  zero = f32[] constant(0)
  size = f32[] constant({columns})
  small = f32[] constant(1e-5)
  y = f32[{rows},{columns}] add(x, residual)
  sum = f32[{rows}] reduce(y, zero), dimensions={{1}}, to_apply=add
  sizes = f32[{rows}] broadcast(size), dimensions={{}}
  mean = f32[{rows}] divide(sum, sizes)
  means = f32[{rows},{columns}] broadcast(mean), dimensions={{0}}
  centered = f32[{rows},{columns}] subtract(y, means)
  square = f32[{rows},{columns}] multiply(centered, centered)
  squares = f32[{rows}] reduce(square, zero), dimensions={{1}}, to_apply=add
  variance = f32[{rows}] divide(squares, sizes)
  smalls = f32[{rows}] broadcast(small), dimensions={{}}
  safe = f32[{rows}] add(variance, smalls)
  inverse = f32[{rows}] rsqrt(safe)
  inverses = f32[{rows},{columns}] broadcast(inverse), dimensions={{0}}
  normal = f32[{rows},{columns}] multiply(centered, inverses)
  scales = f32[{rows},{columns}] broadcast(scale), dimensions={{1}}
  scaled = f32[{rows},{columns}] multiply(normal, scales)
  narrow = bf16[{rows},{columns}] convert(scaled)
  ROOT r = (bf16[{rows},{columns}], f32[{rows}], f32[{rows}], f32[{rows},{columns}]) tuple(narrow, mean, inverse, y)
}}
ENTRY e {{
  x = f32[{rows},{columns}] parameter(0)
  scale = f32[{columns}] parameter(1)
  residual = f32[{rows},{columns}] parameter(2)
  ROOT r = (bf16[{rows},{columns}], f32[{rows}], f32[{rows}], f32[{rows},{columns}]) fusion(x, scale, residual),
    kind=kInput, calls=fused
}}
"""


@pytest.mark.parametrize(("rows", "columns"), [(7, 48), (33, 100), (5, 1024), (300, 8), (2, 5000)])
def test_normalization_with_roots_of_all_kinds(rows: int, columns: int) -> None:
    shape = f"f32[{rows},{columns}]"
    text = NORM.format(reducers=REDUCERS, rows=rows, columns=columns)
    as_written(text, random(shape), random(f"f32[{columns}]", 1), random(shape, 2), rtol=1e-2, atol=1e-3)


LOSS = """HloModule m
{reducers}
fused {{
  x = f32[{rows},{columns}] parameter(0)
  labels = s32[{rows}] parameter(1)
  least = f32[] constant(-inf)
  zero = f32[] constant(0)
  top = f32[{rows}] reduce(x, least), dimensions={{1}}, to_apply=most
  tops = f32[{rows},{columns}] broadcast(top), dimensions={{0}}
  less = f32[{rows},{columns}] subtract(x, tops)
  e = f32[{rows},{columns}] exponential(less)
  sum = f32[{rows}] reduce(e, zero), dimensions={{1}}, to_apply=add
  log = f32[{rows}] log(sum)
  places = s32[{rows},{columns}] iota(), iota_dimension=1
  wanted = s32[{rows},{columns}] broadcast(labels), dimensions={{0}}
  hits = pred[{rows},{columns}] compare(places, wanted), direction=EQ
  zeros = f32[{rows},{columns}] broadcast(zero), dimensions={{}}
  chosen = f32[{rows},{columns}] select(hits, less, zeros)
  hit = f32[{rows}] reduce(chosen, zero), dimensions={{1}}, to_apply=add
  loss = f32[{rows}] subtract(log, hit)
  ROOT total = f32[] reduce(loss, zero), dimensions={{0}}, to_apply=add
}}
ENTRY e {{
  x = f32[{rows},{columns}] parameter(0)
  labels = s32[{rows}] parameter(1)
  ROOT r = f32[] fusion(x, labels), kind=kInput, calls=fused
}}
"""


@pytest.mark.parametrize(("rows", "columns"), [(5, 100), (300, 33), (1, 2000)])
def test_total_over_all_rows(rows: int, columns: int) -> None:
    labels = np.random.default_rng(1).integers(0, columns, rows).astype(np.int32)
    as_written(LOSS.format(reducers=REDUCERS, rows=rows, columns=columns), random(f"f32[{rows},{columns}]"), labels)


def test_in_place() -> None:
    """The result takes the memory of a value that dies there."""
    text = softmax("f32", 40, 100).replace(
        "ROOT r = f32[40,100] fusion(x), kind=kInput, calls=fused",
        "y = f32[40,100] add(x, x)\n  z = f32[40,100] sort(y), dimensions={1}, to_apply=before\n"
        "  ROOT r = f32[40,100] fusion(z), kind=kInput, calls=fused",
    ).replace("ENTRY", """before {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT r = pred[] compare(a, b), direction=LT
}
ENTRY""")
    agree(text, random("f32[40,100]"))


def many_inputs(rows: int, columns: int, inputs: int) -> str:
    """Softmax of a sum of arrays, too many to be held in registers."""
    shape, lines = f"f32[{rows},{columns}]", []
    parameters = [f"  p{n} = {shape} parameter({n})" for n in range(inputs)]
    names = ", ".join(f"p{n}" for n in range(inputs))
    for n in range(1, inputs):
        lines.append(f"  part{n} = {shape} add({'p0' if n == 1 else f'part{n - 1}'}, p{n})")
    head, tail = softmax("f32", rows, columns).split(f"  x = {shape} parameter(0)\n  wide = {shape} convert(x)\n")
    body, entry = tail.split("ENTRY")
    fused = [*parameters, *lines, f"  wide = {shape} tanh(part{inputs - 1})"]
    entry = entry.replace(f"  x = {shape} parameter(0)", "\n".join(parameters)).replace("fusion(x)", f"fusion({names})")
    return head + "\n".join(fused) + "\n" + body + "ENTRY" + entry


def test_long_rows_by_loops() -> None:
    for columns in (8200, 8201):
        shape = f"f32[2,{columns}]"
        as_written(many_inputs(2, columns, 5), *(random(shape, n) for n in range(5)))


MIXED = """HloModule m
{reducers}
pick {{
  value = f32[] parameter(0)
  at = s32[] parameter(1)
  other = f32[] parameter(2)
  place = s32[] parameter(3)
  stays = pred[] compare(value, other), direction=GE
  v = f32[] select(stays, value, other)
  i = s32[] select(stays, at, place)
  ROOT both = (f32[], s32[]) tuple(v, i)
}}
fused {{
  x = f32[{a},{b},{columns}] parameter(0)
  least = f32[] constant(-inf)
  zero = f32[] constant(0)
  none = s32[] constant(0)
  flat = f32[{rows},{columns}] reshape(x)
  places = s32[{rows},{columns}] iota(), iota_dimension=1
  best = (f32[{rows}], s32[{rows}]) reduce(flat, places, least, none), dimensions={{1}}, to_apply=pick
  top = f32[{rows}] get-tuple-element(best), index=0
  place = s32[{rows}] get-tuple-element(best), index=1
  tops = f32[{rows},{columns}] broadcast(top), dimensions={{0}}
  less = f32[{rows},{columns}] subtract(flat, tops)
  e = f32[{rows},{columns}] exponential(less)
  sum = f32[{rows}] reduce(e, zero), dimensions={{1}}, to_apply=add
  sums = f32[{rows},{columns}] broadcast(sum), dimensions={{0}}
  ratio = f32[{rows},{columns}] divide(e, sums)
  cube = f32[{a},{b},{columns}] reshape(ratio)
  ROOT r = (f32[{a},{b},{columns}], s32[{rows}], f32[{rows}]) tuple(cube, place, sum)
}}
ENTRY e {{
  x = f32[{a},{b},{columns}] parameter(0)
  ROOT r = (f32[{a},{b},{columns}], s32[{rows}], f32[{rows}]) fusion(x), kind=kInput, calls=fused
}}
"""


@pytest.mark.parametrize(("a", "b", "columns"), [(3, 4, 17), (5, 7, 200), (1, 2, 3000), (1, 1, 20000)])
def test_order_and_reshaped_rows(a: int, b: int, columns: int) -> None:
    text = MIXED.format(reducers=REDUCERS, a=a, b=b, columns=columns, rows=a * b)
    as_written(text, np.round(random(f"f32[{a},{b},{columns}]"), 1))


MOMENTS = """HloModule m
{reducers}
fused {{
  x = f32[{shape}] parameter(0)
  least = f32[] constant(-inf)
  zero = f32[] constant(0)
  square = f32[{shape}] multiply(x, x)
  sum = f32[{result}] reduce(x, zero), dimensions={{{dims}}}, to_apply=add
  squares = f32[{result}] reduce(square, zero), dimensions={{{dims}}}, to_apply=add
  top = f32[{result}] reduce(x, least), dimensions={{{dims}}}, to_apply=most
  ROOT r = (f32[{result}], f32[{result}], f32[{result}]) tuple(sum, squares, top)
}}
ENTRY e {{
  x = f32[{shape}] parameter(0)
  ROOT r = (f32[{result}], f32[{result}], f32[{result}]) fusion(x), kind=kInput, calls=fused
}}
"""


@pytest.mark.parametrize(
    ("shape", "dims", "result"),
    [("20000", "0", ""), ("300,40", "0", "40"), ("40,300", "1", "40"), ("4,5,6,7", "0,2,3", "5")],
)
def test_several_reduces_of_one_array(shape: str, dims: str, result: str) -> None:
    text = MOMENTS.format(reducers=REDUCERS, shape=shape, dims=dims, result=result)
    as_written(text, random(f"f32[{shape}]"), rtol=1e-4, atol=1e-3)


def test_one_launch_a_row_kernel_with_vectors() -> None:
    text = ptx(softmax("f32", 4096, 4096))
    assert text.count(".entry") == 1
    assert len(re.findall(r"ld\.global\.\S*v4\.", text)) == 4  # each element is loaded once
    assert len(re.findall(r"st\.global\.\S*v4\.", text)) == 4


BESIDE = """HloModule m
{reducers}
fused {{
  x = f32[{shape}] parameter(0)
  dy = f32[{shape}] parameter(1)
  zero = f32[] constant(0)
  zeros = f32[{shape}] broadcast(zero), dimensions={{}}
  more = pred[{shape}] compare(x, zeros), direction=GT
  dx = f32[{shape}] select(more, dy, zeros)
  db = f32[{result}] reduce(dx, zero), dimensions={{{dims}}}, to_apply=add
  ROOT r = (f32[{shape}], f32[{result}]) tuple(dx, db)
}}
ENTRY e {{
  x = f32[{shape}] parameter(0)
  dy = f32[{shape}] parameter(1)
  t = f32[{shape}] negate(dy)
  ROOT r = (f32[{shape}], f32[{result}]) fusion(x, t), kind=kInput, calls=fused
}}
"""


@pytest.mark.parametrize(
    ("shape", "dims", "result"),
    [("300,40", "0", "40"), ("300,41", "0", "41"), ("70,33", "1", "70"), ("2,20001", "1", "2"), ("20003", "0", "")],
)
def test_roots_stored_beside_a_fold(shape: str, dims: str, result: str) -> None:
    """One launch reads the inputs; a root may lie over one of them."""
    text = BESIDE.format(reducers=REDUCERS, shape=shape, dims=dims, result=result)
    as_written(text, random(f"f32[{shape}]"), random(f"f32[{shape}]", 1), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_120"])
def test_nothing_spills(arch: str) -> None:
    for columns in (64, 1001, 8192, 32768):
        assembles(softmax("f32", 4096, columns), arch)
    for columns in (1024, 8192):
        assembles(NORM.format(reducers=REDUCERS, rows=4096, columns=columns), arch)
