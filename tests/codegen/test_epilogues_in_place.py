"""What is added to a product may lie where the sum will: as long as no parts of the product are kept there."""

from __future__ import annotations

import numpy as np
import pytest

import hloc
from hloc.codegen import emitters  # noqa: F401  fills the tables that a schedule asks
from hloc.codegen.buffers import RESULT, Place, assign
from hloc.codegen.schedule import schedule
from hloc.codegen.values import argument_shapes, array_shapes

TEXT = """HloModule m
f {{
  a = f32[{m},{k}] parameter(0)
  b = f32[{k},{n}] parameter(1)
  r = f32[{m},{n}] parameter(2)
  d = f32[{m},{n}] dot(a, b), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  h = f32[{m},{n}] tanh(r)
  ROOT s = f32[{m},{n}] add(d, {read})
}}
ENTRY e {{
  a = f32[{m},{k}] parameter(0)
  b = f32[{k},{n}] parameter(1)
  x = f32[{m},{n}] parameter(2)
  before = f32[{m},{n}] negate(x)
  ROOT sum = f32[{m},{n}] fusion(a, b, before), kind=kOutput, calls=f
}}
"""


def is_shared(text: str) -> bool:
    entry = hloc.parse(text).entry
    plan = schedule(entry, argument_shapes(entry), array_shapes(entry.root.shape))
    buffers = assign(plan, [0] * len(plan.steps))
    step = next(step for step in plan.steps if step.instruction.name == "before")
    return buffers.places[step.outputs[0].value] == Place(RESULT, 0)


def check(text: str) -> None:
    module = hloc.parse(text)
    numbers = np.random.default_rng(0)
    shapes = [parameter.shape.dims for parameter in module.entry.parameters]
    arguments = [numbers.standard_normal(dims).astype(np.float32) for dims in shapes]
    orders = ["F" if p.shape.minor_to_major == (0, 1) else "C" for p in module.entry.parameters]
    arguments = [np.asarray(array, order=order) for array, order in zip(arguments, orders, strict=True)]
    expected = hloc.evaluate(module, *arguments)
    executable = hloc.compile(module, options=hloc.Options(pipeline="layout_assignment,schedule", cache=False))
    np.testing.assert_allclose(executable(*arguments), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("m", "n", "k", "shared"),
    [
        (5, 6, 7, False),
        (5, 30, 7, False),
        (50, 40, 30, True),
        (130, 100, 256, True),
        (40, 50, 600, False),
        (2, 300, 200, False),
    ],
)
def test_reading_at_the_same_index(m: int, n: int, k: int, shared: bool) -> None:
    text = TEXT.format(m=m, n=n, k=k, read="h")
    assert is_shared(text) is shared
    check(text)


def test_plain_loops() -> None:
    text = TEXT.format(m=5, n=30, k=7, read="h").replace("f32[7,30]", "f32[7,30]{0,1}")
    assert is_shared(text)
    check(text)


@pytest.mark.parametrize("size", [7, 64])
def test_reading_at_another_index(size: int) -> None:
    text = TEXT.format(m=size, n=size, k=size, read="t").replace(
        "ROOT s =", f"t = f32[{size},{size}] reverse(h), dimensions={{0}}\n  ROOT s ="
    )
    assert not is_shared(text)
    check(text)


def test_an_operand_of_the_product_is_not_written_over() -> None:
    text = TEXT.format(m=64, n=64, k=64, read="h").replace("dot(a, b)", "dot(a, r)")
    assert not is_shared(text)
    check(text)


def test_in_a_loop_the_sum_lies_where_it_was() -> None:
    text = """HloModule m
    body {
      p = (f32[64,64], f32[64,64]) parameter(0)
      w = f32[64,64] get-tuple-element(p), index=0
      s = f32[64,64] get-tuple-element(p), index=1
      d = f32[64,64] dot(w, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
      t = f32[64,64] add(d, s)
      ROOT r = (f32[64,64], f32[64,64]) tuple(w, t)
    }
    condition {
      p = (f32[64,64], f32[64,64]) parameter(0)
      s = f32[64,64] get-tuple-element(p), index=1
      c = f32[1,1] slice(s), slice={[0:1], [0:1]}
      x = f32[] reshape(c)
      limit = f32[] constant(100)
      ROOT b = pred[] compare(x, limit), direction=LT
    }
    ENTRY e {
      w = f32[64,64] parameter(0)
      s = f32[64,64] parameter(1)
      p = (f32[64,64], f32[64,64]) tuple(w, s)
      q = (f32[64,64], f32[64,64]) while(p), condition=condition, body=body
      ROOT r = f32[64,64] get-tuple-element(q), index=1
    }"""
    module = hloc.parse(text)
    numbers = np.random.default_rng(1)
    w, s = (numbers.uniform(0.1, 1, (64, 64)).astype(np.float32) for _ in range(2))
    expected = hloc.evaluate(module, w, s)
    executable = hloc.compile(module, options=hloc.Options(cache=False))
    np.testing.assert_allclose(executable(w, s), expected, rtol=1e-4)
    assert executable.memory_analysis().copies[0].reason.startswith("the loop changes this")
    assert len(executable.memory_analysis().copies) == 1
