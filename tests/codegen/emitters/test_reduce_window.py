"""reduce-window: windows of every kind, cumulative ones in linear time."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from emitter_cases import check, computation, program, same, value, window_sizes

import hloc
from hloc.analysis.log_add_exp import is_log_add_exp
from hloc.codegen.emitters.reduce_window import _Plan
from hloc.codegen.windows import phases
from hloc.ir.attributes import WindowDim
from hloc.options import Options
from hloc.reference.evaluate import evaluate

INITIAL = {"add": "0", "maximum": "-inf", "subtract": "0", "multiply": "1"}

FORMS = [
    ("10", "size=10 pad=9_0"),
    ("10", "size=10 pad=0_9"),
    ("10", "size=3"),
    ("10", "size=3 stride=2 pad=1_1"),
    ("10", "size=3 stride=2 pad=1_1 lhs_dilate=2 rhs_dilate=2"),
    ("10", "size=12 pad=12_0"),
    ("10", "size=3 pad=-2_-1"),
    ("6", "size=8 pad=9_3"),
    ("6", "size=8 pad=3_9"),
    ("4,9,9,5", "size=1x3x3x1 stride=1x2x2x1 pad=0_0x1_1x1_1x0_0"),
    ("4,9,9,3", "size=1x2x2x1 stride=1x2x2x1"),
    ("4,3,9,9", "size=1x1x2x3 stride=1x1x2x2 pad=0_0x0_0x0_0x1_0"),
    ("40,17", "size=40x1 pad=39_0x0_0"),
    ("40,17", "size=1x17 pad=0_0x16_0"),
    ("40,17", "size=1x17 pad=0_0x0_16"),
    ("40,17", "size=7x1 pad=7_0x0_0"),
    ("7,3000", "size=3x1 pad=1_1x0_0"),
    ("6,50", "size=20x1 pad=25_0x0_0"),
    ("50,2", "size=1x2 pad=0_0x1_0"),
    ("50,2", "size=1x2 pad=0_0x0_1"),
    ("9,3,6", "size=1x3x1 pad=0_0x2_0x0_0"),
    ("50,16", "size=1x16 pad=0_0x15_0"),
    ("2,50", "size=2x1 pad=2_1x0_0"),
    ("3,50", "size=2x3 stride=1x2 pad=1_0x1_1"),
    ("3,90", "size=2x19 stride=1x2 pad=1_0x5_-3 rhs_dilate=1x2"),
    ("3,40", "size=3x5 stride=1x3 pad=1_1x-2_4 lhs_dilate=2x1"),
    ("2,5000", "size=1x9 pad=0_0x4_4"),
    ("0,4", "size=2x1 pad=1_1x0_0"),
    ("5,6,7", "size=1x2x3 stride=1x1x1 pad=0_0x0_0x2_2"),
    ("3,40", "size=1x4 pad=0_0x1_2 lhs_dilate=1x3"),
    ("3,40", "size=2x3 pad=1_1x1_1 lhs_dilate=2x2"),
    ("3,40", "size=1x2 pad=0_0x-5_-4 lhs_dilate=1x3"),
    ("3,40", "size=3x5 stride=2x6 pad=2_0x9_3 lhs_dilate=3x4"),
    ("3,40", "size=1x7 stride=1x3 pad=0_0x-2_30 lhs_dilate=1x8"),
    ("4,9,9,5", "size=1x3x2x1 pad=0_0x2_-1x1_1x0_0 lhs_dilate=1x2x3x1"),
    ("5,6,7", "size=2x2x2 stride=1x2x1 pad=0_0x2_2x-1_3 lhs_dilate=1x1x2 rhs_dilate=3x3x1"),
]


@pytest.mark.parametrize("opcode", ["add", "maximum", "subtract"])
def test_windows(opcode: str) -> None:
    """`subtract` is applied in order; the others may be regrouped."""
    shapes = list(dict.fromkeys(shape for shape, _ in FORMS))
    ops = [f"f32[] constant({INITIAL[opcode]})"]
    for shape, window in FORMS:
        operand, out = f"p{shapes.index(shape)}", window_sizes(shape, window)
        ops.append(f"f32[{out}] reduce-window({operand}, r0), window={{{window}}}, to_apply=f")
    check([f"f32[{shape}]" for shape in shapes], ops, computation("f", opcode, "f32"))


def test_layouts() -> None:
    check(
        ["f32[16,31]{0,1}", "f32[16,31,8]{1,2,0}", "f32[]"],
        [
            "f32[16,16]{0,1} reduce-window(p0, p2), window={size=3x3 stride=1x2 pad=1_1x1_1}, to_apply=f",
            "f32[16,31]{1,0} reduce-window(p0, p2), window={size=16x1 pad=15_0x0_0}, to_apply=f",
            "f32[16,16,8]{0,1,2} reduce-window(p1, p2), window={size=1x3x1 stride=1x2x1 pad=0_0x1_1x0_0}, "
            "to_apply=f",
        ],
        computation("f", "add", "f32"),
    )


@pytest.mark.parametrize(
    ("opcode", "dtype"), [("add", "s32"), ("add", "bf16"), ("add", "c64"), ("multiply", "c64")]
)
def test_element_types(opcode: str, dtype: str) -> None:
    initial = f"({INITIAL[opcode]}, 0)" if dtype == "c64" else INITIAL[opcode]
    check(
        [f"{dtype}[6,31]"],
        [
            f"{dtype}[] constant({initial})",
            f"{dtype}[6,31] reduce-window(p0, r0), window={{size=3x3 pad=1_1x1_1}}, to_apply=f",
            f"{dtype}[6,31] reduce-window(p0, r0), window={{size=3x1 pad=1_1x0_0}}, to_apply=f",
            f"{dtype}[6,31] reduce-window(p0, r0), window={{size=6x1 pad=5_0x0_0}}, to_apply=f",
            f"{dtype}[6,31] reduce-window(p0, r0), window={{size=1x31 pad=0_0x30_0}}, to_apply=f",
        ],
        computation("f", opcode, dtype),
    )


def test_two_operands_at_once() -> None:
    body = """f {
  a = f32[] parameter(0)
  i = s32[] parameter(1)
  b = f32[] parameter(2)
  j = s32[] parameter(3)
  first = pred[] compare(a, b), direction=GE
  value = f32[] select(first, a, b)
  place = s32[] select(first, i, j)
  ROOT r = (f32[], s32[]) tuple(value, place)
}

"""
    windows = (
        ("5,5", "size=1x3 stride=1x2 pad=0_0x1_1"),
        ("5,9", "size=3x1 pad=1_1x0_0"),
        ("5,9", "size=5x1 pad=4_0x0_0"),
    )
    ops = [
        f"(f32[{out}], s32[{out}]) reduce-window(p0, p1, p2, p3), window={{{window}}}, to_apply=f"
        for out, window in windows
    ]
    check(["f32[5,9]", "s32[5,9]", "f32[]", "s32[]"], ops, body)


@pytest.mark.parametrize(
    ("opcode", "dtype"),
    [
        ("add", "f32"),
        ("add", "f64"),
        ("add", "bf16"),
        ("multiply", "f32"),
        ("maximum", "f32"),
        ("minimum", "s64"),
        ("add", "u8"),
        ("xor", "s16"),
        ("or", "pred"),
        ("add", "s4"),
    ],
)
def test_running_folds(opcode: str, dtype: str) -> None:
    """Longer and shorter than blocks and vectors, from either end, with fewer and more results than elements."""
    initial = "-0.0" if dtype == "f32" else "true" if dtype == "pred" else "3"
    ops = [f"{dtype}[] constant({initial})"]
    for results, window in (
        (1300, "size=1300 pad=1299_0"),
        (1300, "size=1300 pad=0_1299"),
        (1297, "size=1300 pad=1296_0"),
        (1310, "size=1310 pad=1309_10"),
        (1299, "size=1300 pad=1299_-1"),
        (35, "size=1300 pad=34_0"),
    ):
        ops.append(f"{dtype}[{results}] reduce-window(p0, r0), window={{{window}}}, to_apply=f")
    ops.append(f"{dtype}[70,5,33] reduce-window(p1, r0), window={{size=1x1x33 pad=0_0x0_0x32_0}}, to_apply=f")
    ops.append(f"{dtype}[70,5,33] reduce-window(p1, r0), window={{size=70x1x1 pad=69_0x0_0x0_0}}, to_apply=f")
    body = computation("f", opcode, dtype)
    arguments = [value(f"{dtype}[1300]"), value(f"{dtype}[70,5,33]", 1)]
    if opcode == "multiply":
        arguments = [np.sign(argument) * np.abs(argument) ** 0.01 for argument in arguments]
    check([f"{dtype}[1300]", f"{dtype}[70,5,33]"], ops, body, arguments, {"bf16": 0.1, "f32": 1e-4}.get(dtype))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("opcode", "dtype"), [("add", "f32"), ("add", "f64"), ("maximum", "s32"), ("add", "bf16"), ("minimum", "f32")]
)
def test_long_lines(opcode: str, dtype: str, threads: int) -> None:
    """In parts, the last one shorter: in memory or computed, forward and backward, dense or not, with what follows."""
    initial = {"add": "3", "maximum": "-2", "minimum": "5"}[opcode]
    body = computation("f", opcode, dtype)
    long, rows = f"{dtype}[70003]", f"{dtype}[66001,2]"
    line = "window={size=70003 pad=70002_0}, to_apply=f"
    text = f"""HloModule m
{body}
ENTRY e {{
  x = {long} parameter(0)
  y = {rows} parameter(1)
  i = {dtype}[] constant({initial})
  plain = {long} reduce-window(x, i), {line}
  twice = {long} add(x, x)
  back = {long} reduce-window(twice, i), window={{size=70003 pad=0_70002}}, to_apply=f
  before = {long} reduce-window(twice, i), {line}
  after = {long} negate(before)
  columns = {rows}{{0,1}} reduce-window(y, i), window={{size=66001x1 pad=66000_0x0_0}}, to_apply=f
  ROOT all = ({long}, {long}, {long}, {rows}{{0,1}}) tuple(plain, back, after, columns)
}}
"""
    arguments = [value(long, 1), value(rows, 2)]
    arguments[0][0], arguments[0][40000] = arguments[0].min(), arguments[0].max()
    expected = evaluate(hloc.parse(text), arguments)
    executable = hloc.compile(text, options=Options(num_threads=threads))
    for got, wanted in zip(executable.execute(*arguments), expected, strict=True):
        same(got, np.asarray(wanted), {"bf16": 0.1, "f32": 1e-4}.get(dtype))


LOG_ADD_EXP = """f {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  difference = f32[] subtract(a, b)
  nan = pred[] compare(difference, difference), direction=NE
  sum = f32[] add(a, b)
  greater = f32[] maximum(a, b)
  size = f32[] abs(difference)
  below = f32[] negate(size)
  ratio = f32[] exponential(below)
  more = f32[] log-plus-one(ratio)
  total = f32[] add(greater, more)
  ROOT r = f32[] select(nan, sum, total)
}

"""


@pytest.mark.parametrize(
    ("old", "new", "known"),
    [
        ("", "", True),
        ("select(nan, sum, total)", "add(more, greater)", True),
        ("add(greater, more)", "add(sum, more)", False),
        ("maximum(a, b)", "maximum(a, a)", False),
        ("direction=NE", "direction=EQ", False),
        ("select(nan, sum, total)", "select(nan, total, sum)", False),
    ],
)
def test_sums_of_exponents_grow_from_either_end(old: str, new: str, known: bool) -> None:
    """Sums of numbers given by their logarithms are known: windows from the end take linear time, too."""
    text = LOG_ADD_EXP.replace(old, new) if old else LOG_ADD_EXP
    windows = "reduce-window(p0, r0), window={size=300 pad=0_299}, to_apply=f"
    ops = ["f32[] constant(-inf)", f"f32[300] {windows}"]
    check(["f32[300]"], ops, text)
    (reducer,) = (c for c in hloc.parse(program(["f32[300]"], ops, text)) if c.name == "f")
    assert is_log_add_exp(reducer) is known


def windows() -> list[tuple[WindowDim, int]]:
    """Windows over dilated bases without gaps, and a number of them."""
    grid = product((1, 2, 5, 6), (1, 2, 4), (-3, 0, 4), (1, 2, 3, 4), (1, 7))
    return [(WindowDim(size, stride, low, 0, base), outputs) for size, stride, low, base, outputs in grid]


@pytest.mark.parametrize(("window", "outputs"), windows())
def test_rows_of_results_over_a_dilated_base(window: WindowDim, outputs: int) -> None:
    """The elements at multiples of the dilation are those of the row's own windows, as if infinitely many."""
    found = {}
    for row in phases(window, outputs):
        assert row.window.base_dilation == row.window.window_dilation == 1
        for number in range(row.count):
            first = number * row.window.stride - row.window.pad_low
            found[number * row.step + row.offset] = list(range(first, first + row.window.size))
    wanted = {}
    for o in range(outputs):
        start = o * window.stride - window.pad_low
        positions = range(start, start + window.size)
        wanted[o] = [at // window.base_dilation for at in positions if at % window.base_dilation == 0]
    assert found == wanted


@pytest.mark.parametrize(
    ("shape", "window", "is_taken"),
    [
        ("3,40", "size=2x3 pad=1_1x1_1 lhs_dilate=2x2", True),
        ("3,40", "size=1x3 stride=1x9 lhs_dilate=1x9", True),
        ("3,400", "size=1x3 stride=1x2 lhs_dilate=1x9", False),
        ("3,40", "size=1x3 lhs_dilate=1x2 rhs_dilate=1x3", False),
        ("3,9", "size=1x3 lhs_dilate=1x2", False),
    ],
)
def test_which_dilated_bases_are_folded_by_rows(shape: str, window: str, is_taken: bool) -> None:
    """Not by too many rows, of gaps, or of too few results."""
    op = f"f32[{window_sizes(shape, window)}] reduce-window(p0, p1), window={{{window}}}, to_apply=f"
    text = program([f"f32[{shape}]", "f32[]"], [op], computation("f", "add", "f32"))
    (instruction,) = [i for i in hloc.parse(text).entry if i.opcode == "reduce-window"]
    assert (_Plan(instruction).across is not None) == is_taken
