"""dot: right operands that lie in panels are read as they are."""

from __future__ import annotations

import numpy as np
import pytest
from emitter_cases import check

import hloc
from hloc.codegen.dot_plan import DotPlan
from hloc.options import Options
from hloc.reference.evaluate import evaluate
from hloc.text.parser import parse


def dot(m: int, n: int, k: int, width: int, dtype: str = "f32") -> tuple[list[str], str]:
    """Shapes of the operands, and the op."""
    shape = f"{dtype}[{m},{n // width},{width}]"
    op = f"{shape} dot(p0, p1), lhs_contracting_dims={{1}}, rhs_contracting_dims={{1}}"
    return [f"{dtype}[{m},{k}]", f"{dtype}[{n // width},{k},{width}]"], op


@pytest.mark.parametrize(("m", "n", "k"), [(5, 48, 40), (16, 256, 100), (17, 32, 700), (300, 80, 33), (1100, 32, 20)])
@pytest.mark.parametrize(("dtype", "width"), [("f32", 16), ("f64", 8)])
def test_panels(m: int, n: int, k: int, dtype: str, width: int) -> None:
    """A left operand read in place, or packed in blocks of rows and steps."""
    shapes, op = dot(m, n, k, width, dtype)
    check(shapes, [op], tolerance=1e-4 if dtype == "f32" else 1e-11)


def test_what_lies_in_panels() -> None:
    def plan(m: int, rhs: str, result: str) -> DotPlan:
        op = f"{result} dot(a, b), lhs_contracting_dims={{1}}, rhs_contracting_dims={{1}}"
        k = rhs.split(",")[1]
        parameters = f" a = f32[{m},{k}] parameter(0)\n b = {rhs} parameter(1)\n"
        return DotPlan(parse(f"HloModule m\nENTRY e {{\n{parameters} ROOT c = {op}\n}}").entry.root)

    assert plan(9, "f32[8,40,16]", "f32[9,8,16]").rhs.in_panels
    assert not plan(9, "f32[8,40,16]", "f32[9,8,16]").rhs.copied
    assert not plan(9, "f32[8,40,8]", "f32[9,8,8]").rhs.in_panels
    assert not plan(3, "f32[8,40,16]", "f32[3,8,16]").rhs.in_panels
    assert not plan(9, "f32[8,40,16]{2,0,1}", "f32[9,8,16]").rhs.in_panels


@pytest.mark.parametrize("m", range(5, 26))
def test_every_rest_of_rows(m: int) -> None:
    """Tiles of a row less among the whole ones."""
    shapes, op = dot(m, 64, 40, 16)
    check(shapes, [op], tolerance=1e-4)


@pytest.mark.parametrize("k", [100, 900])
def test_panels_in_a_fusion(k: int) -> None:
    """A computed left operand, and an epilogue; the same for any number of threads."""
    (lhs, rhs), op = dot(70, 320, k, 16)
    text = f"""HloModule m
ENTRY e {{
  p0 = {lhs} parameter(0)
  p1 = {rhs} parameter(1)
  x = {lhs} negate(p0)
  c = {op.replace("p0", "x")}
  r = f32[70,320] reshape(c)
  p2 = f32[320] parameter(2)
  b = f32[70,320] broadcast(p2), dimensions={{1}}
  s = f32[70,320] add(r, b)
  ROOT t = f32[70,320] tanh(s)
}}
"""
    random = np.random.default_rng(k)
    arguments = [random.standard_normal(shape, np.float32) / 8 for shape in ((70, k), (20, k, 16), (320,))]
    results = [
        np.asarray(hloc.compile(text, options=Options(cache=False, num_threads=threads))(*arguments))
        for threads in (1, 2, 3)
    ]
    wanted = evaluate(hloc.parse(text), arguments)[0]
    assert np.allclose(results[0], wanted, atol=1e-4)
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()
