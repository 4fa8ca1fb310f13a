"""Loops of small kernels: these are part of the loop, and small states lie on the stack."""

import re

import numpy as np
import pytest

import hloc
from hloc.codegen.compile import emit_stage
from hloc.options import Options


def _module(size: int, trips: int = 100) -> str:
    return f"""HloModule m
body {{
  state = (s32[], f32[{size}]) parameter(0)
  i = s32[] get-tuple-element(state), index=0
  x = f32[{size}] get-tuple-element(state), index=1
  one = s32[] constant(1)
  next = s32[] add(i, one)
  part = f32[] constant(-0.5)
  parts = f32[{size}] broadcast(part), dimensions={{}}
  y = f32[{size}] multiply(x, parts)
  reversed = f32[{size}] reverse(y), dimensions={{0}}
  z = f32[{size}] add(reversed, x)
  ROOT result = (s32[], f32[{size}]) tuple(next, z)
}}
condition {{
  state = (s32[], f32[{size}]) parameter(0)
  i = s32[] get-tuple-element(state), index=0
  many = s32[] constant({trips})
  ROOT less = pred[] compare(i, many), direction=LT
}}
ENTRY e {{
  x = f32[{size}] parameter(0)
  zero = s32[] constant(0)
  state = (s32[], f32[{size}]) tuple(zero, x)
  loop = (s32[], f32[{size}]) while(state), condition=condition, body=body
  ROOT result = f32[{size}] get-tuple-element(loop), index=1
}}"""


def _calls(size: int, **options) -> list[str]:
    text = emit_stage(hloc.parse(_module(size, 100_000)), "llvm", "cpu", Options(**options))
    body = text[text.index(".body(ptr") :]
    return re.findall(r"call void @kernel\..*", body[: body.index("\n}")])


@pytest.mark.parametrize(("size", "inlined"), [(8, True), (16, True), (5000, False)])
def test_only_short_kernels_become_part_of_the_body(size, inlined):
    calls = _calls(size)
    assert calls
    assert all(call.endswith("alwaysinline") for call in calls) is inlined


def test_with_guards_kernels_keep_their_names():
    assert not any(call.endswith("alwaysinline") for call in _calls(8, guard_pages="end"))


def _inlined(text: str, name: str) -> bool:
    """Whether a computation's function is marked to become part of its caller, before LLVM looks at it."""
    group = re.search(rf"define internal i32 @computation\.\d+\.{name}\(.*(#\d+) {{", text)[1]
    return "alwaysinline" in re.search(rf"^attributes {group} = .*", text, re.MULTILINE)[0]


def test_computations_with_one_caller_become_part_of_it():
    text = emit_stage(hloc.parse(_module(8, 100_000)), "llvm", "cpu", Options())
    assert all(_inlined(text, name) for name in ("body", "condition", "e"))
    guarded = emit_stage(hloc.parse(_module(8, 100_000)), "llvm", "cpu", Options(guard_pages="end"))
    assert not _inlined(guarded, "body")


@pytest.mark.parametrize("size", [3, 8, 16, 40, 5000])
def test_results(size):
    x = np.arange(size, dtype=np.float32)
    expected = x
    for _ in range(100):
        expected = (expected * np.float32(-0.5))[::-1] + expected
    np.testing.assert_allclose(hloc.compile(_module(size))(x), expected, rtol=1e-4, atol=1e-6)
