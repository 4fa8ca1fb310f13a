"""reduce-window and select-and-scatter on devices: pooling, cumulative operations, gradients of pools."""

from __future__ import annotations

import numpy as np
import pytest
from against_evaluator import agree, random
from device_cases import assembles


def reduce_window(shape: str, result: str, window: str, operation: str = "add", initial: str = "0") -> str:
    dtype = shape.split("[")[0]
    return f"""HloModule m
fold {{
  a = {dtype}[] parameter(0)
  b = {dtype}[] parameter(1)
  ROOT r = {dtype}[] {operation}(a, b)
}}
ENTRY e {{
  x = {shape} parameter(0)
  first = {dtype}[] constant({initial})
  ROOT r = {result} reduce-window(x, first), window={{{window}}}, to_apply=fold
}}
"""


@pytest.mark.parametrize(
    ("shape", "result", "window"),
    [
        ("f32[2,9,10,4]", "f32[2,4,4,4]", "size=1x3x3x1 stride=1x2x2x1"),
        ("f32[2,9,10,4]", "f32[2,5,5,4]", "size=1x3x3x1 stride=1x2x2x1 pad=0_0x1_1x1_0x0_0"),
        ("f32[2,3,17,9]", "f32[2,3,17,9]", "size=1x1x3x3 pad=0_0x0_0x1_1x1_1"),
        ("f32[5,7]", "f32[2,4]", "size=2x2 stride=2x1 rhs_dilate=1x3"),
        ("f32[5,7]", "f32[8,13]", "size=2x1 lhs_dilate=2x2"),
        ("f32[4,7]{0,1}", "f32[3,6]{0,1}", "size=2x2"),
        ("f32[]", "f32[]", ""),
        ("f32[3,0]", "f32[3,2]", "size=1x3 pad=0_0x2_2"),
    ],
)
def test_windows(shape: str, result: str, window: str) -> None:
    agree(reduce_window(shape, result, window, initial="0.5"), random(shape.split("{")[0]))


def cumulative(dtype: str, lines: int, length: int, along: bool, operation: str = "add", reverse: bool = False) -> str:
    pad = f"0_{length - 1}" if reverse else f"{length - 1}_0"
    shape = f"{dtype}[{lines},{length}]" if along else f"{dtype}[{length},{lines}]"
    size, pads = (f"1x{length}", f"0_0x{pad}") if along else (f"{length}x1", f"{pad}x0_0")
    return reduce_window(shape, shape, f"size={size} pad={pads}", operation, "2")


@pytest.mark.parametrize(
    ("lines", "length"), [(1, 5), (3, 31), (70, 33), (5, 32), (2, 1025), (1, 9001)]
)
def test_cumulative_sums(lines: int, length: int) -> None:
    for along in (True, False):
        for reverse in (False, True):
            text = cumulative("f32", lines, length, along, reverse=reverse)
            shape = (lines, length) if along else (length, lines)
            x = random(f"f32[{shape[0]},{shape[1]}]")
            order = slice(None, None, -1 if reverse else 1)
            sums = (x if along else x.T)[:, order].cumsum(1, np.float64)[:, order] + 2
            expected = (sums if along else sums.T).astype(np.float32)
            agree(text, x, expected=[expected], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("dtype", "operation"),
    [("f32", "maximum"), ("bf16", "add"), ("s8", "add"), ("f64", "add"), ("u32", "multiply"), ("c64", "add")],
)
def test_cumulative_operations(dtype: str, operation: str) -> None:
    for along, shape in ((True, "3,300"), (False, "300,3")):
        text = cumulative(dtype, 3, 300, along, operation)
        text = text.replace("constant(2)", "constant((2, 0))") if dtype == "c64" else text
        agree(text, random(f"{dtype}[{shape}]"), rtol=0.02 if dtype == "bf16" else 1e-5)


@pytest.mark.parametrize("window", ["size=8 pad=9_0", "size=12 pad=7_0", "size=14 pad=13_5", "size=12 pad=0_11"])
def test_windows_that_grow_beyond_the_ends(window: str) -> None:
    low, high = (int(n) for n in window.split("=")[-1].split("_"))
    outputs = 9 + low + high - int(window.split()[0][5:]) + 1
    agree(reduce_window("f32[9]", f"f32[{outputs}]", window, initial="3"), random("f32[9]"))


AFFINE = """HloModule m
compose {{
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
  ROOT r = (u32[{0}], u32[{0}]) reduce-window(x, y, one, zero), window={{{1}}}, to_apply=compose
}}
"""


def composed(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Running compositions along the first dimension."""
    results = [np.empty_like(x), np.empty_like(y)]
    a, b = 1, 0
    for place in range(len(x)):
        a, b = x[place] * np.uint64(a) % 2**32, (x[place] * np.uint64(b) + y[place]) % 2**32
        results[0][place], results[1][place] = a, b
    return results


@pytest.mark.parametrize("shape", ["70,3", "9000", "3000,2"])
def test_order_of_a_computation_that_does_not_commute(shape: str) -> None:
    length, *lines = (int(size) for size in shape.split(","))
    x, y = random(f"u32[{shape}]", 1) | np.uint32(1), random(f"u32[{shape}]", 2)
    ones = "x1" if lines else ""
    window = f"size={length}{ones} pad={length - 1}_0{'x0_0' if lines else ''}"
    agree(AFFINE.format(shape, window), x, y, expected=composed(x, y))
    if lines:
        window = f"size=1x{length} pad=0_0x{length - 1}_0"
        expected = [np.ascontiguousarray(made.T) for made in composed(x, y)]
        agree(AFFINE.format(f"{lines[0]},{length}", window), x.T.copy(), y.T.copy(), expected=expected)


SELECT = """HloModule m
more {{
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT r = pred[] compare(a, b), direction=GE
}}
add {{
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT r = f32[] add(a, b)
}}
ENTRY e {{
  x = f32[{0}] parameter(0)
  source = f32[{1}] parameter(1)
  first = f32[] constant(0.5)
  ROOT r = f32[{0}] select-and-scatter(x, source, first), window={{{2}}}, select=more, scatter=add
}}
"""


@pytest.mark.parametrize(
    ("shape", "source", "window"),
    [
        ("9,10", "4,4", "size=3x3 stride=2x2"),
        ("9,10", "5,5", "size=3x3 stride=2x2 pad=1_1x1_0"),
        ("2,8,8,3", "2,7,7,3", "size=1x2x2x1"),
        ("20", "5", "size=3 stride=4"),
        ("3,0", "3,0", "size=1x1"),
    ],
)
def test_select_and_scatter(shape: str, source: str, window: str) -> None:
    x = np.round(random(f"f32[{shape}]"), 1)
    agree(SELECT.format(shape, source, window), x, random(f"f32[{source}]", 1))


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_120"])
def test_nothing_spills(arch: str) -> None:
    for text in (
        cumulative("f32", 4096, 4096, True),
        cumulative("f32", 4096, 4096, False),
        reduce_window("f32[16777216]", "f32[16777216]", "size=16777216 pad=16777215_0"),
    ):
        assembles(text, arch)
