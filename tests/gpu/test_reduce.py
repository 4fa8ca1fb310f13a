"""reduce on devices: how threads share the work, for element types, layouts, sizes, and what is fused around."""

from __future__ import annotations

import re

import numpy as np
import pytest
from against_evaluator import agree, ptx, random
from device_cases import assembles

SUM = """add {{
  a = {0}[] parameter(0)
  b = {0}[] parameter(1)
  ROOT r = {0}[] {1}(a, b)
}}
"""


def reduce(shape: str, result: str, dims: str, operation: str = "add", initial: str = "1") -> str:
    dtype = shape.split("[")[0]
    return f"""HloModule m
{SUM.format(dtype, operation)}
ENTRY e {{
  x = {shape} parameter(0)
  zero = {dtype}[] constant({initial})
  ROOT r = {result} reduce(x, zero), dimensions={{{dims}}}, to_apply=add
}}
"""


def plain(shape: str) -> str:
    return re.sub(r"\{.*", "", shape)


@pytest.mark.parametrize(
    ("shape", "result", "dims"),
    [
        ("f32[1]", "f32[]", "0"),
        ("f32[31]", "f32[]", "0"),
        ("f32[1025]", "f32[]", "0"),
        ("f32[20003]", "f32[]", "0"),
        ("f32[65536]", "f32[]", "0"),
        ("f32[7,1]", "f32[7]", "1"),
        ("f32[1000,3]", "f32[1000]", "1"),
        ("f32[33,32]", "f32[33]", "1"),
        ("f32[5,1000]", "f32[5]", "1"),
        ("f32[3,1025]", "f32[3]", "1"),
        ("f32[2,40000]", "f32[2]", "1"),
        ("f32[1000,3]", "f32[3]", "0"),
        ("f32[3,1000]", "f32[1000]", "0"),
        ("f32[1025,33]", "f32[33]", "0"),
        ("f32[1000,128]", "f32[128]", "0"),
        ("f32[300,31]{0,1}", "f32[300]", "1"),
        ("f32[300,31]{0,1}", "f32[31]", "0"),
        ("f32[6,7,8,9]", "f32[7]", "0,2,3"),
        ("f32[6,7,8,9]", "f32[6,9]", "1,2"),
        ("f32[6,7,8,9]", "f32[8]", "0,1,3"),
        ("f32[6,7,8,9]", "f32[7,9]", "0,2"),
        ("f32[6,7,8,9]{1,3,0,2}", "f32[6,9]{0,1}", "1,2"),
        ("f32[4,1,64,64]", "f32[4]", "1,2,3"),
        ("f32[5,0]", "f32[5]", "1"),
        ("f32[0,5]", "f32[0]", "1"),
        ("f32[5,6]", "f32[5,6]", ""),
    ],
)
def test_shapes(shape: str, result: str, dims: str) -> None:
    agree(reduce(shape, result, dims), random(plain(shape)), rtol=1e-4, atol=1e-3)


def along_and_across(dtype: str, operation: str, initial: str) -> str:
    """The rows, the columns and all of a matrix folded, in one program."""
    return f"""HloModule m
{SUM.format(dtype, operation)}
ENTRY e {{
  x = {dtype}[67,130] parameter(0)
  first = {dtype}[] constant({initial})
  rows = {dtype}[67] reduce(x, first), dimensions={{1}}, to_apply=add
  columns = {dtype}[130] reduce(x, first), dimensions={{0}}, to_apply=add
  all = {dtype}[] reduce(x, first), dimensions={{0,1}}, to_apply=add
  ROOT r = ({dtype}[67], {dtype}[130], {dtype}[]) tuple(rows, columns, all)
}}
"""


@pytest.mark.parametrize("dtype", ["f64", "f16", "bf16", "f8e4m3fn", "s8", "u16", "s32", "u64", "c64", "pred", "s4"])
def test_types(dtype: str) -> None:
    operation, initial = ("or", "false") if dtype == "pred" else ("add", "(1, 2)" if dtype == "c64" else "1")
    text = along_and_across(dtype, operation, initial)
    agree(text, random(f"{dtype}[67,130]"), rtol=0.02 if dtype in ("f16", "bf16", "f8e4m3fn") else 1e-5)


@pytest.mark.parametrize(
    ("dtype", "operation", "initial"),
    [
        ("f32", "maximum", "-inf"),
        ("f32", "minimum", "0.25"),
        ("f32", "multiply", "2"),
        ("s32", "maximum", "-5"),
        ("u8", "minimum", "200"),
        ("s16", "multiply", "3"),
        ("u32", "xor", "77"),
        ("s32", "and", "-1"),
    ],
)
def test_operations(dtype: str, operation: str, initial: str) -> None:
    agree(along_and_across(dtype, operation, initial), random(f"{dtype}[67,130]"), atol=1e-30)


ARGMAX = """HloModule m
pick {{
  value = f32[] parameter(0)
  at = s32[] parameter(1)
  other = f32[] parameter(2)
  place = s32[] parameter(3)
  more = pred[] compare(value, other), direction=GT
  same = pred[] compare(value, other), direction=EQ
  before = pred[] compare(at, place), direction=LT
  tie = pred[] and(same, before)
  stays = pred[] or(more, tie)
  v = f32[] select(stays, value, other)
  i = s32[] select(stays, at, place)
  ROOT both = (f32[], s32[]) tuple(v, i)
}}
ENTRY e {{
  x = f32[{0}] parameter(0)
  places = s32[{0}] iota(), iota_dimension={2}
  least = f32[] constant(-inf)
  first = s32[] constant(0)
  ROOT r = (f32[{1}], s32[{1}]) reduce(x, places, least, first), dimensions={{{2}}}, to_apply=pick
}}
"""


@pytest.mark.parametrize(
    ("shape", "result", "dims"),
    [("65,33", "65", "1"), ("65,33", "33", "0"), ("2,3000", "2", "1"), ("17000", "", "0"), ("700,40", "40", "0")],
)
def test_argmax(shape: str, result: str, dims: str) -> None:
    x = np.round(random(f"f32[{shape}]"), 1)
    agree(ARGMAX.format(shape, result, dims), x, atol=0)


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f64", "s8"])
def test_argmax_of_other_types(dtype: str) -> None:
    text = ARGMAX.format("65,33", "65", "1").replace("f32", dtype)
    text = text.replace("constant(-inf)", "constant(-128)") if dtype == "s8" else text
    agree(text, random(f"{dtype}[65,33]"), atol=0)


def test_products_of_complex_numbers() -> None:
    agree(along_and_across("c64", "multiply", "(1, 0)"), (random("c64[67,130]") * 1.3).astype(np.complex64))


MATRICES = """HloModule m
times {{
  a = u32[] parameter(0)
  b = u32[] parameter(1)
  c = u32[] parameter(2)
  d = u32[] parameter(3)
  a_c = u32[] multiply(a, c)
  b_c = u32[] multiply(b, c)
  b_c_d = u32[] add(b_c, d)
  ROOT both = (u32[], u32[]) tuple(a_c, b_c_d)
}}
ENTRY e {{
  x = u32[{0}] parameter(0)
  y = u32[{0}] parameter(1)
  one = u32[] constant(1)
  zero = u32[] constant(0)
  ROOT r = (u32[{1}], u32[{1}]) reduce(x, y, one, zero), dimensions={{{2}}}, to_apply=times
}}
"""


@pytest.mark.parametrize(
    ("shape", "result", "dims"),
    [
        ("17,33", "17", "1"),
        ("33,17", "17", "0"),
        ("2,3000", "2", "1"),
        ("20000", "", "0"),
        ("1000,20", "20", "0"),
        ("5,6,7", "6", "0,2"),
    ],
)
def test_order_of_a_computation_that_does_not_commute(shape: str, result: str, dims: str) -> None:
    """Composing x -> a x + b is associative, but not commutative."""
    x, y = random(f"u32[{shape}]", 1) | np.uint32(1), random(f"u32[{shape}]", 2)
    agree(MATRICES.format(shape, result, dims), x, y)


AROUND = """HloModule m
add {{
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT r = f32[] add(a, b)
}}
fused {{
  x = bf16[{rows},{columns}] parameter(0)
  y = f32[{result}] parameter(1)
  wide = f32[{rows},{columns}] convert(x)
  square = f32[{rows},{columns}] multiply(wide, wide)
  zero = f32[] constant(0)
  sum = f32[{result}] reduce(square, zero), dimensions={{{dims}}}, to_apply=add
  root = f32[{result}] sqrt(sum)
  more = f32[{result}] add(root, y)
  ROOT both = (f32[{result}], f32[{result}]) tuple(more, sum)
}}
ENTRY e {{
  x = bf16[{rows},{columns}] parameter(0)
  y = f32[{result}] parameter(1)
  ROOT r = (f32[{result}], f32[{result}]) fusion(x, y), kind=kInput, calls=fused
}}
"""


@pytest.mark.parametrize(("rows", "columns", "dims"), [(65, 256, "1"), (300, 64, "0"), (9, 1000, "1")])
def test_with_producers_and_an_epilogue(rows: int, columns: int, dims: str) -> None:
    result = rows if dims == "1" else columns
    text = AROUND.format(rows=rows, columns=columns, dims=dims, result=result)
    agree(text, random(f"bf16[{rows},{columns}]"), random(f"f32[{result}]", 1), rtol=1e-4)


LARGE = [
    ("f32[8192,1024]", "f32[8192]", "1"),
    ("f32[8192,1024]", "f32[1024]", "0"),
    ("bf16[16777216]", "bf16[]", "0"),
    ("f32[64,64,56,56]", "f32[64]", "0,2,3"),
]


def test_loads_are_vectors() -> None:
    for shape, result, dims in LARGE:
        text = ptx(reduce(shape, result, dims))
        assert re.search(r"ld\.global\.\S*v4\.", text), shape
        assert not re.search(r"\b(div|rem)\.", text), shape


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_120"])
def test_nothing_spills(arch: str) -> None:
    for shape, result, dims in LARGE:
        assembles(reduce(shape, result, dims), arch)
    assembles(ARGMAX.format("4096,32000", "4096", "1"), arch)
