"""Kernels that go through rows: graphs with reduces of one space, fused by row_fusion, against the evaluator."""

from __future__ import annotations

import random

import numpy as np
import pytest

import hloc
from hloc.arrays import random_inputs
from hloc.codegen.compile import emit_stage
from hloc.codegen.forms import form_of
from hloc.codegen.row_stages import row_stages
from hloc.options import Options
from hloc.passes.pipeline import run_pipeline
from hloc.reference.evaluate import evaluate
from hloc.text.parser import parse

REDUCERS = """
max_{t} {{
  a = {t}[] parameter(0)
  b = {t}[] parameter(1)
  ROOT r = {t}[] maximum(a, b)
}}

add_{t} {{
  a = {t}[] parameter(0)
  b = {t}[] parameter(1)
  ROOT r = {t}[] add(a, b)
}}

greatest_{t} {{
  v = {t}[] parameter(0)
  i = s32[] parameter(1)
  w = {t}[] parameter(2)
  j = s32[] parameter(3)
  first = pred[] compare(v, w), direction=GE
  same = pred[] compare(v, w), direction=EQ
  least = s32[] minimum(i, j)
  either = s32[] select(first, i, j)
  m = {t}[] select(first, v, w)
  at = s32[] select(same, least, either)
  ROOT r = ({t}[], s32[]) tuple(m, at)
}}
"""
OPTIONS = Options(cache=False)
DONATED = "input_output_alias={ {}: (0, {}, must-alias) }"


def program(body: str, dtype: str = "f32") -> str:
    return f"HloModule rows\n{REDUCERS.format(t=dtype)}\nENTRY main {{\n{body}\n}}\n"


def softmax(dims: str, row: str, axes: str, kept: str, dtype: str = "f32", layout: str = "") -> str:
    """Softmax of dtype[dims] over some axes; `row` and `kept` are the other dimensions' sizes and numbers."""
    full, rows = f"{dtype}[{dims}]{layout}", f"{dtype}[{row}]"
    return program(
        f"""  x = {full} parameter(0)
  least = {dtype}[] constant(-inf)
  m = {rows} reduce(x, least), dimensions={{{axes}}}, to_apply=max_{dtype}
  mb = {full} broadcast(m), dimensions={{{kept}}}
  d = {full} subtract(x, mb)
  e = {full} exponential(d)
  zero = {dtype}[] constant(0)
  s = {rows} reduce(e, zero), dimensions={{{axes}}}, to_apply=add_{dtype}
  sb = {full} broadcast(s), dimensions={{{kept}}}
  ROOT y = {full} divide(e, sb)""",
        dtype,
    )


SHAPES = {
    "one row": ("7", "", "0", ""),
    "short rows": ("5,3", "5", "1", "0"),
    "rows of one": ("5,1", "5", "1", "0"),
    "one row of one": ("1,1", "1", "1", "0"),
    "odd rows": ("9,131", "9", "1", "0"),
    "long rows": ("2,9001", "2", "1", "0"),
    "two columns dimensions": ("3,4,5", "3", "1,2", "0"),
    "long rows of two dimensions": ("2,70,130", "2", "1,2", "0"),
    "two row dimensions": ("3,4,5", "3,4", "2", "0,1"),
    "rows around columns": ("3,1,4,5", "3,4", "1,3", "0,2"),
    "many dimensions": ("2,1,3,2,1,2,2,3", "2,1,3,2,1,2", "6,7", "0,1,2,3,4,5"),
}


@pytest.mark.parametrize("case", SHAPES)
def test_softmax_of_any_shape_is_one_kernel(case: str) -> None:
    check(softmax(*SHAPES[case]), kernels=1)


@pytest.mark.parametrize(("dtype", "tolerance"), [("f64", 1e-14), ("f16", 2e-3), ("bf16", 2e-2)])
def test_softmax_of_any_type_is_one_kernel(dtype: str, tolerance: float) -> None:
    check(softmax("9,131", "9", "1", "0", dtype), kernels=1, tolerance=tolerance)


@pytest.mark.parametrize("dims", [("0,5", "0"), ("5,0", "5")])
def test_rows_without_elements(dims: tuple[str, str]) -> None:
    check(softmax(*dims, "1", "0"))


@pytest.mark.parametrize("width", [40, 12])
def test_what_is_special_stays_so(width: int) -> None:
    """Rows with a NaN, with infinities, of minus infinities alone, and of denormals, which count as zero."""
    x = np.random.default_rng(0).standard_normal((6, width)).astype(np.float32)
    x[1, 7] = np.nan
    x[2, 3] = np.inf
    x[3] = -np.inf
    x[4, ::2] = -np.inf
    x[5] = 1e-40
    text = softmax(f"6,{width}", "6", "1", "0")
    executable = hloc.compile(text, options=OPTIONS)
    (got,) = executable.execute(x)
    (want,) = evaluate(parse(text), [x])
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=0)
    assert len(executable.program.kernels) == 1


@pytest.mark.parametrize("width", [9, 12, 15, 17, 20, 31, 63])
@pytest.mark.parametrize(("dtype", "tolerance"), [("f32", 1e-6), ("f64", 1e-14), ("bf16", 2e-2)])
def test_the_last_two_vectors_of_a_short_row_overlap(width: int, dtype: str, tolerance: float) -> None:
    text = softmax(f"50,{width}", "50", "1", "0", dtype)
    check(text, kernels=1, tolerance=tolerance)
    check(text.replace("HloModule rows", f"HloModule rows, {DONATED}"), kernels=1, tolerance=tolerance)


def test_short_rows_are_gone_through_by_vectors() -> None:
    text = emit_stage(parse(softmax("50,12", "50", "1", "0")), "llvm-opt", "cpu", OPTIONS)
    assert "@llvm.fma.v" in text and "float @llvm.fma.f32" not in text


def test_a_donated_input_becomes_the_output() -> None:
    """The kernel may write a row over the one that it read."""
    text = softmax("64,100", "64", "1", "0").replace("HloModule rows", f"HloModule rows, {DONATED}")
    check(text, kernels=1)


def test_an_input_that_other_rows_need_is_not_written_over() -> None:
    body = """  x = f32[64,64] parameter(0)
  t = f32[64,64] tanh(x)
  zero = f32[] constant(0)
  s = f32[64] reduce(t, zero), dimensions={1}, to_apply=add_f32
  sb = f32[64,64] broadcast(s), dimensions={0}
  u = f32[64,64] transpose(t), dimensions={1,0}
  v = f32[64,64] subtract(t, sb)
  ROOT y = f32[64,64] add(u, v)"""
    check(program(body))


def test_the_text_of_a_row_kernel_is_one_kernel_again() -> None:
    module = parse(softmax("9,131", "9", "1", "0"))
    run_pipeline(module, "cpu")
    again = parse(module.to_text())
    fusion = again.entry.root
    assert fusion.opcode == "fusion" and fusion.attributes["kind"] == "kInput"
    assert form_of(fusion).stages is not None


def test_rows_that_get_mixed_up_are_no_row_kernel() -> None:
    """Sums of rows that are added to columns."""
    body = """  x = f32[8,8] parameter(0)
  zero = f32[] constant(0)
  s = f32[8] reduce(x, zero), dimensions={1}, to_apply=add_f32
  b = f32[8,8] broadcast(s), dimensions={1}
  y = f32[8,8] subtract(x, b)
  ROOT r = f32[8] reduce(y, zero), dimensions={1}, to_apply=add_f32"""
    module = parse(program(body))
    module.entry.name = "body"
    text = module.to_text().replace("ENTRY %body", "%body")
    text += "\nENTRY main {\n  x = f32[8,8] parameter(0)\n  ROOT f = f32[8] fusion(x), kind=kInput, calls=body\n}\n"
    assert form_of(parse(text).entry.root) is None
    check(program(body))


UNARY = ("tanh", "negate", "abs", "exponential", "logistic")
BINARY = ("add", "subtract", "multiply", "maximum")


def random_program(seed: int) -> str:
    """A graph of full values, row values, column values and reduces of [7,33]; a few of them are results."""
    rng = random.Random(seed)
    lines = ["x = f32[7,33] parameter(0)", "y = f32[7,33] parameter(1)", "c = f32[33] parameter(2)"]
    lines += ["r = f32[7] parameter(3)", "zero = f32[] constant(0)", "least = f32[] constant(-inf)"]
    values = {"f32[7,33]": ["x", "y"], "f32[7]": ["r"], "f32[33]": ["c"], "f32[]": ["zero"]}

    def add(shape: str, text: str) -> None:
        name = f"v{len(lines)}"
        lines.append(f"{name} = {shape} {text}")
        values[shape].append(name)

    def pick(shape: str) -> str:
        return rng.choice(values[shape][-4:])

    def reduce(kept: str, operand: str, dimensions: int) -> None:
        kind, start = rng.choice([("add", "zero"), ("max", "least")])
        add(kept, f"reduce({pick(operand)}, {start}), dimensions={{{dimensions}}}, to_apply={kind}_f32")

    for _ in range(rng.randrange(8, 28)):
        shape = rng.choice(["f32[7,33]", "f32[7,33]", "f32[7]", "f32[]"])
        match rng.randrange(8):
            case 0:
                add(shape, f"{rng.choice(UNARY)}({pick(shape)})")
            case 1 | 2:
                add(shape, f"{rng.choice(BINARY)}({pick(shape)}, {pick(shape)})")
            case 3:
                add("f32[7,33]", f"broadcast({pick('f32[7]')}), dimensions={{0}}")
            case 4:
                add("f32[7,33]", f"broadcast({pick('f32[33]')}), dimensions={{1}}")
            case 5 | 6:
                reduce(*rng.choice([("f32[7]", "f32[7,33]", 1)] * 4 + [("f32[33]", "f32[7,33]", 0)]))
            case 7 if rng.random() < 0.5:
                reduce("f32[]", "f32[7]", 0)
            case 7:
                add("f32[7,33]", f"reverse({pick('f32[7,33]')}), dimensions={{1}}")
    results = [(shape, name) for shape, names in values.items() for name in names[1:] if rng.random() < 0.2]
    results += [(shape, names[-1]) for shape, names in values.items()]
    shapes = ", ".join(shape for shape, _ in results)
    lines.append(f"ROOT all = ({shapes}) tuple({', '.join(name for _, name in results)})")
    return program("\n".join("  " + line for line in lines))


@pytest.mark.parametrize("seed", range(30))
def test_random_graph_over_rows(seed: int) -> None:
    check(random_program(seed), tolerance=2e-5)


def test_the_place_of_the_greatest() -> None:
    """A reduce of pairs, with what follows on both of its results."""
    body = """  x = f32[20,37] parameter(0)
  at = s32[20,37] iota(), iota_dimension=1
  least = f32[] constant(-inf)
  zero = s32[] constant(0)
  best = (f32[20], s32[20]) reduce(x, at, least, zero), dimensions={1}, to_apply=greatest_f32
  value = f32[20] get-tuple-element(best), index=0
  place = s32[20] get-tuple-element(best), index=1
  values = f32[20,37] broadcast(value), dimensions={0}
  rest = f32[20,37] subtract(x, values)
  twice = s32[20] add(place, place)
  ROOT all = (f32[20,37], s32[20]) tuple(rest, twice)"""
    check(program(body), kernels=1)


def test_what_is_kept_of_a_row_is_not_taken_for_another_row() -> None:
    """Exponentials of each row, and those of the first row for all rows."""
    body = """  x = f32[20,37] parameter(0)
  e = f32[20,37] exponential(x)
  zero = f32[] constant(0)
  s = f32[20] reduce(e, zero), dimensions={1}, to_apply=add_f32
  sb = f32[20,37] broadcast(s), dimensions={0}
  y = f32[20,37] divide(e, sb)
  first = f32[1,37] slice(e), slice={[3:4], [0:37]}
  row = f32[37] reshape(first)
  rows = f32[20,37] broadcast(row), dimensions={1}
  ROOT z = f32[20,37] subtract(y, rows)"""
    check(program(body))
    module = parse(program(body))
    module.entry.name = "body"
    text = module.to_text().replace("ENTRY %body", "%body")
    call = "ROOT f = f32[20,37] fusion(x), kind=kInput, calls=body"
    text += f"\nENTRY main {{\n  x = f32[20,37] parameter(0)\n  {call}\n}}\n"
    assert form_of(parse(text).entry.root).stages is not None
    check(text, pipeline="layout_assignment,schedule", kernels=1)


def test_what_is_kept_is_found_through_dimensions_of_size_one() -> None:
    text = softmax("1,20,1,37", "1,20,1", "3", "0,1,2").replace("ROOT y", "y")
    text = text.replace("divide(e, sb)", "divide(e, sb)\n  ROOT z = f32[20,37] reshape(y)")
    check(text)
    module = parse(text)
    stages = row_stages(module.entry, [(module.entry.root, ())])
    assert [leaf[0].name for loop in stages.loops for leaf, _ in loop.kept] == ["e"]


def test_a_mean_over_rows_goes_along() -> None:
    """The logarithm of each row's sum, less the label's element, and the mean of all rows: cross-entropy."""
    body = """  x = f32[5000,10] parameter(0)
  labels = s32[5000] parameter(1)
  least = f32[] constant(-inf)
  m = f32[5000] reduce(x, least), dimensions={1}, to_apply=max_f32
  mb = f32[5000,10] broadcast(m), dimensions={0}
  d = f32[5000,10] subtract(x, mb)
  e = f32[5000,10] exponential(d)
  zero = f32[] constant(0)
  s = f32[5000] reduce(e, zero), dimensions={1}, to_apply=add_f32
  l = f32[5000] log(s)
  lb = f32[5000,10] broadcast(labels), dimensions={0}
  at = s32[5000,10] iota(), iota_dimension=1
  is = pred[5000,10] compare(lb, at), direction=EQ
  none = f32[5000,10] broadcast(zero), dimensions={}
  chosen = f32[5000,10] select(is, d, none)
  c = f32[5000] reduce(chosen, zero), dimensions={1}, to_apply=add_f32
  loss = f32[5000] subtract(l, c)
  total = f32[] reduce(loss, zero), dimensions={0}, to_apply=add_f32
  share = f32[] constant(0.0002)
  ROOT mean = f32[] multiply(total, share)""".replace("lb = f32", "lb = s32")
    check(program(body), kernels=1)


def test_all_rows_and_each_are_results() -> None:
    body = """  x = f32[3,4,50] parameter(0)
  zero = f32[] constant(0)
  least = f32[] constant(-inf)
  s = f32[3,4] reduce(x, zero), dimensions={2}, to_apply=add_f32
  sb = f32[3,4,50] broadcast(s), dimensions={0,1}
  y = f32[3,4,50] subtract(x, sb)
  t = f32[3,4] tanh(s)
  total = f32[] reduce(t, zero), dimensions={0,1}, to_apply=add_f32
  greatest = f32[] reduce(s, least), dimensions={1,0}, to_apply=max_f32
  both = f32[] add(total, greatest)
  ROOT all = (f32[3,4,50], f32[3,4], f32[], f32[]) tuple(y, t, both, greatest)"""
    check(program(body), kernels=1)


def test_complex_rows() -> None:
    body = """  x = c64[6,50] parameter(0)
  zero = c64[] constant((0, 0))
  s = c64[6] reduce(x, zero), dimensions={1}, to_apply=add_c64
  b = c64[6,50] broadcast(s), dimensions={0}
  ROOT y = c64[6,50] subtract(x, b)"""
    adder = REDUCERS.format(t="c64").split("\n\n")[1]
    check(f"HloModule rows\n{adder}\nENTRY main {{\n{body}\n}}\n", kernels=1)


STRIPS = {
    "columns": ("70,100", "100", "0", "1"),
    "wide columns": ("10,5000", "5000", "0", "1"),
    "a middle dimension": ("3,20,40", "3,40", "1", "0,2"),
    "odd number of columns": ("13,17", "17", "0", "1"),
    "two lanes dimensions": ("6,7,9", "7,9", "0", "1,2"),
    "columns around lanes": ("5,9,7,11", "9,11", "0,2", "1,3"),
    "minor rows by layout": ("40,11", "40", "1", "0", "f32", "{0,1}"),
    "minor columns by layout": ("11,40", "40", "0", "1", "f32", "{0,1}"),
}


@pytest.mark.parametrize("case", STRIPS)
def test_softmax_over_rows_side_by_side_is_one_kernel(case: str) -> None:
    check(softmax(*STRIPS[case]), kernels=1)


def test_what_one_operand_makes_is_no_second_input() -> None:
    """A scale for each column of its largest magnitude: columns that are too long for two inputs."""
    body = """  x = f32[900,130] parameter(0)
  a = f32[900,130] abs(x)
  least = f32[] constant(0)
  m = f32[130] reduce(a, least), dimensions={0}, to_apply=max_f32
  mb = f32[900,130] broadcast(m), dimensions={1}
  d = f32[900,130] divide(x, mb)
  t = f32[900,130] tanh(d)
  ROOT y = f32[900,130] round-nearest-even(t)"""
    check(program(body), kernels=1)


@pytest.mark.parametrize(("columns", "width"), [(3000, 256), (60000, 64)])
def test_strips_of_what_the_last_cache_holds_are_wider(columns: int, width: int) -> None:
    module = parse(softmax(f"{columns},500", "500", "0", "1"))
    assert row_stages(module.entry, [(module.entry.root, ())]).width == width


def check(
    text: str, kernels: int | None = None, tolerance: float = 2e-6, pipeline: str | None = None
) -> None:
    """Native results and those of the evaluator are close."""
    module = parse(text)
    arguments = random_inputs(module, 1)
    executable = hloc.compile(parse(text), options=Options(cache=False, pipeline=pipeline))
    got = executable.execute(*arguments)
    for ours, theirs in zip(got, evaluate(module, arguments), strict=True):
        dtype = np.complex128 if np.iscomplexobj(theirs) else np.float64
        np.testing.assert_allclose(ours.astype(dtype), theirs.astype(dtype), rtol=tolerance, atol=tolerance)
    if kernels is not None:
        assert len(executable.program.kernels) == kernels
