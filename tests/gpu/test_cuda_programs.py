"""Whole programs through the runtime for GPUs: a driver that is not there, with kernels that the emulator runs."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from emulated_driver import EmulatedDriver
from test_cuda_runtime import install
from test_emulated_runs import CHOICE, LOOP, X
from test_warpgroup_dot import only

from hloc.api import evaluate_leaves

__all__ = ["install", "only"]

# A loop of turns that choose, by an inner loop's result, what they do.
NESTED = """HloModule m
less {
  s = (s32[], s32[], f32[4]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  n = s32[] get-tuple-element(s), index=1
  ROOT c = pred[] compare(i, n), direction=LT
}
grow {
  v = f32[4] parameter(0)
  one = f32[] constant(1)
  ones = f32[4] broadcast(one), dimensions={}
  ROOT r = f32[4] add(v, ones)
}
turn {
  v = f32[4] parameter(0)
  ROOT r = f32[4] reverse(v), dimensions={0}
}
inner {
  s = (s32[], s32[], f32[4]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  n = s32[] get-tuple-element(s), index=1
  v = f32[4] get-tuple-element(s), index=2
  one = s32[] constant(1)
  j = s32[] add(i, one)
  two = s32[] constant(2)
  odd = s32[] remainder(i, two)
  w = f32[4] conditional(odd, v, v), branch_computations={grow, turn}
  ROOT r = (s32[], s32[], f32[4]) tuple(j, n, w)
}
outer {
  s = (s32[], s32[], f32[4]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  n = s32[] get-tuple-element(s), index=1
  v = f32[4] get-tuple-element(s), index=2
  zero = s32[] constant(0)
  t = (s32[], s32[], f32[4]) tuple(zero, i, v)
  u = (s32[], s32[], f32[4]) while(t), condition=less, body=inner
  w = f32[4] get-tuple-element(u), index=2
  d = f32[4] add(w, w)
  one = s32[] constant(1)
  j = s32[] add(i, one)
  ROOT r = (s32[], s32[], f32[4]) tuple(j, n, d)
}
ENTRY e {
  n = s32[] parameter(0)
  v = f32[4] parameter(1)
  zero = s32[] constant(0)
  s = (s32[], s32[], f32[4]) tuple(zero, n, v)
  w = (s32[], s32[], f32[4]) while(s), condition=less, body=outer
  ROOT r = f32[4] get-tuple-element(w), index=2
}
"""


@pytest.mark.parametrize("version", [12040, 12030])
@pytest.mark.parametrize(
    ("text", "arguments"),
    [(LOOP, [X]), (LOOP, [X * 200]), *((CHOICE, [np.int32(i), X]) for i in (-1, 0, 1, 2, 3))],
)
def test_programs_are_the_same_launched_and_replayed(install, version: int, text: str, arguments: list) -> None:
    fake = install(kind=EmulatedDriver, version=version)
    run = fake.load(text)
    expected = evaluate_leaves(text, arguments)
    for call in range(4):
        for got, right in zip(run.execute(*arguments), expected, strict=True):
            np.testing.assert_array_equal(got, right, str(call))
    has_nodes = "cuGraphConditionalHandleCreate" in fake.log
    assert has_nodes == (version >= 12040)


def test_graphs_go_on_with_other_values_in_the_same_memory(install) -> None:
    fake = install(kind=EmulatedDriver)
    run = fake.load(NESTED)
    for count in (0, 1, 3, 0, 2, 5):
        expected = evaluate_leaves(NESTED, [np.int32(count), X])
        (given,) = run.execute(np.int32(count), X)
        np.testing.assert_array_equal(given, expected[0])
    assert fake.log.count("cuGraphInstantiate") == 1


# Each turn multiplies by the weights, and takes what came of it to the next.
POWERS = """HloModule m
less {
  s = (s32[], bf16[64,64], bf16[64,64]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  three = s32[] constant(3)
  ROOT c = pred[] compare(i, three), direction=LT
}
turn {
  s = (s32[], bf16[64,64], bf16[64,64]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  x = bf16[64,64] get-tuple-element(s), index=1
  w = bf16[64,64] get-tuple-element(s), index=2
  one = s32[] constant(1)
  j = s32[] add(i, one)
  d = bf16[64,64] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT r = (s32[], bf16[64,64], bf16[64,64]) tuple(j, d, w)
}
ENTRY e {
  x = bf16[64,64] parameter(0)
  w = bf16[64,64] parameter(1)
  zero = s32[] constant(0)
  s = (s32[], bf16[64,64], bf16[64,64]) tuple(zero, x, w)
  t = (s32[], bf16[64,64], bf16[64,64]) while(s), condition=less, body=turn
  y = bf16[64,64] get-tuple-element(t), index=1
  ROOT d = bf16[64,64] dot(x, y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""


def test_products_by_tensor_maps(install, only) -> None:
    """Of arguments, of what loops carry, and of working memory; launched, and in a graph with a loop."""
    only()
    fake = install(kind=EmulatedDriver)
    run = fake.load(POWERS, "cuda-emulated:sm_90a")
    rng = np.random.default_rng(2)
    for _ in range(4):
        arguments = [rng.integers(-2, 3, (64, 64)).astype(ml_dtypes.bfloat16) for _ in range(2)]
        (expected,) = evaluate_leaves(POWERS, arguments)
        (given,) = run.execute(*arguments)
        np.testing.assert_array_equal(given, expected)
    assert "cuTensorMapEncodeTiled" in fake.log
    assert fake.log.count("cuGraphInstantiate") == 1
