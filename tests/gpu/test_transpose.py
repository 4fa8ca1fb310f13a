"""Loop nests on devices whose inputs lie along another dimension than the result: tiles through shared memory."""

from __future__ import annotations

import re

import pytest
from against_evaluator import agree, ptx, random
from device_cases import assembles


def transpose(dtype: str, dims: str, result: str, order: str, layouts: tuple[str, str] = ("", "")) -> str:
    return f"""HloModule m
ENTRY e {{
  x = {dtype}[{dims}]{layouts[0]} parameter(0)
  ROOT r = {dtype}[{result}]{layouts[1]} transpose(x), dimensions={{{order}}}
}}
"""


@pytest.mark.parametrize(
    ("dims", "result", "order"),
    [
        ("64,256", "256,64", "1,0"),
        ("300,33", "33,300", "1,0"),
        ("1000,9", "9,1000", "1,0"),
        ("31,1025", "1025,31", "1,0"),
        ("3,70,65", "65,3,70", "2,0,1"),
        ("5,40,6,30", "5,30,6,40", "0,3,2,1"),
        ("1,100,1,100", "100,1,100,1", "3,2,1,0"),
    ],
)
def test_shapes(dims: str, result: str, order: str) -> None:
    agree(transpose("f32", dims, result, order), random(f"f32[{dims}]"), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", ["f64", "bf16", "f16", "s8", "pred", "c64", "c128", "u64", "s4", "f8e5m2"])
def test_types(dtype: str) -> None:
    for dims, result in (("300,130", "130,300"), ("257,255", "255,257")):
        agree(transpose(dtype, dims, result, "1,0"), random(f"{dtype}[{dims}]"), rtol=0, atol=0)


def test_layouts() -> None:
    text = transpose("f32", "100,120", "100,120", "0,1", ("{1,0}", "{0,1}")).replace(
        "transpose(x), dimensions={0,1}", "copy(x)"
    )
    agree(text, random("f32[100,120]"), rtol=0, atol=0)


FUSED = """HloModule m
fused {{
  x = {a}[{rows},{columns}] parameter(0)
  y = {a}[{columns},{rows}] parameter(1)
  v = f32[{columns}] parameter(2)
  z = {a}[{rows},{columns}] parameter(3)
  twice = {a}[{rows},{columns}] multiply(x, z)
  turned = {a}[{columns},{rows}] transpose(twice), dimensions={{1,0}}
  sum = {a}[{columns},{rows}] add(turned, y)
  wide = f32[{columns},{rows}] convert(sum)
  vs = f32[{columns},{rows}] broadcast(v), dimensions={{0}}
  less = f32[{columns},{rows}] subtract(wide, vs)
  narrow = {a}[{columns},{rows}] convert(less)
  ROOT both = (f32[{columns},{rows}], {a}[{columns},{rows}]) tuple(less, narrow)
}}
ENTRY e {{
  x = {a}[{rows},{columns}] parameter(0)
  y = {a}[{columns},{rows}] parameter(1)
  v = f32[{columns}] parameter(2)
  z = {a}[{rows},{columns}] parameter(3)
  ROOT r = (f32[{columns},{rows}], {a}[{columns},{rows}]) fusion(x, y, v, z), kind=kLoop, calls=fused
}}
"""


@pytest.mark.parametrize(("dtype", "rows", "columns"), [("f32", 128, 192), ("f32", 130, 101), ("bf16", 200, 130)])
def test_with_ops_around(dtype: str, rows: int, columns: int) -> None:
    x, y = random(f"{dtype}[{rows},{columns}]"), random(f"{dtype}[{columns},{rows}]", 1)
    text = FUSED.format(a=dtype, rows=rows, columns=columns)
    agree(text, x, y, random(f"f32[{columns}]", 2), random(f"{dtype}[{rows},{columns}]", 3), rtol=0.02, atol=0.02)


def test_both_ways_and_in_place() -> None:
    """An array and its own transpose, and a result in the memory of an input that dies."""
    text = """HloModule m, input_output_alias={ {}: (1, {}, must-alias) }
ENTRY e {
  x = f32[130,130] parameter(0)
  y = f32[130,130] parameter(1)
  t = f32[130,130] transpose(x), dimensions={1,0}
  s = f32[130,130] add(x, t)
  ROOT r = f32[130,130] multiply(s, y)
}
"""
    agree(text, random("f32[130,130]"), random("f32[130,130]", 1))


def test_accesses_are_coalesced_and_nothing_spills() -> None:
    text = transpose("f32", "4096,4096", "4096,4096", "1,0")
    code = ptx(text)
    assert ".shared" in code
    assert not re.search(r"\b(div|rem)\.", code)
    for arch in ("sm_80", "sm_90a", "sm_120"):
        assembles(text, arch)
        assembles(FUSED.format(a="bf16", rows=4096, columns=2048), arch)
