"""What the host does for programs on a device: functions known by name, LAPACK, infeed, outfeed, send and recv."""

from __future__ import annotations

import numpy as np
import pytest
from device_cases import EMULATED, NONE

import hloc
from hloc.errors import HloError

LOOP = """HloModule m
condition {
  s = (s32[], f32[2], token[]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  n = s32[] constant(3)
  ROOT c = pred[] compare(i, n), direction=LT
}
body {
  s = (s32[], f32[2], token[]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  x = f32[2] get-tuple-element(s), index=1
  t = token[] get-tuple-element(s), index=2
  f = ((f32[2], s32[]), token[]) infeed(t)
  d = (f32[2], s32[]) get-tuple-element(f), index=0
  u = token[] get-tuple-element(f), index=1
  y = f32[2] get-tuple-element(d), index=0
  k = s32[] get-tuple-element(d), index=1
  z = f32[2] add(x, y)
  o = (f32[2], s32[]) tuple(z, k)
  v = token[] outfeed(o, u), outfeed_shape=(f32[2], s32[])
  one = s32[] constant(1)
  j = s32[] add(i, one)
  ROOT r = (s32[], f32[2], token[]) tuple(j, z, v)
}
ENTRY e {
  x = f32[2] parameter(0)
  zero = s32[] constant(0)
  t = token[] after-all()
  s = (s32[], f32[2], token[]) tuple(zero, x, t)
  w = (s32[], f32[2], token[]) while(s), condition=condition, body=body
  ROOT r = f32[2] get-tuple-element(w), index=1
}"""

ECHO = """HloModule m
ENTRY e {
  x = f32[2,3]{1,0} parameter(0)
  t = token[] after-all()
  r = (s32[2], u32[], token[]) recv(t), channel_id=2, is_host_transfer=true
  s = (f32[2,3]{0,1}, u32[], token[]) send(x, t), channel_id=1, is_host_transfer=true
  sd = token[] send-done(s), channel_id=1, is_host_transfer=true
  rd = (s32[2], token[]) recv-done(r), channel_id=2, is_host_transfer=true
  z = s32[2] get-tuple-element(rd), index=0
  ROOT twice = s32[2] add(z, z)
}"""


def call(shape: str, target: str, *operands: str, more: str = "") -> str:
    parameters = [f"  p{i} = {operand} parameter({i})\n" for i, operand in enumerate(operands)]
    names = ", ".join(f"p{i}" for i in range(len(operands)))
    line = f'  ROOT r = {shape} custom-call({names}), custom_call_target="{target}"{more}\n'
    return "HloModule m\nENTRY e {\n" + "".join(parameters) + line + "}"


def test_a_loop_is_fed_and_feeds() -> None:
    program = hloc.compile(LOOP, EMULATED)
    for number in range(3):
        program.infeed().put((np.array([number, 10 * number], np.float32), np.int32(number)))
    result = program(np.array([1, 2], np.float32))
    seen = [program.outfeed().get(timeout=10) for _ in range(3)]
    assert result.tolist() == [4, 32]
    assert [(value.tolist(), int(count)) for value, count in seen] == [([1, 2], 0), ([2, 12], 1), ([4, 32], 2)]


def test_values_are_sent_and_received() -> None:
    program = hloc.compile(ECHO, EMULATED)
    program.channel(2).put(np.array([5, 7], np.int32))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert program(x).tolist() == [10, 14]
    np.testing.assert_array_equal(program.channel(1).get(timeout=10), x)


@pytest.mark.parametrize("options", [NONE, None])
def test_registered_functions_take_and_give_arrays(options: hloc.Options | None) -> None:
    def parts(pair: tuple, x: np.ndarray) -> tuple:
        first, (second,) = pair
        return x + 1, (first, [second])

    hloc.register_custom_call("gpu.parts", parts)
    text = call("(f32[2,3]{0,1}, (s32[], (s32[2])))", "gpu.parts", "(s32[], (s32[2]))", "f32[2,3]{0,1}")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    given = (np.int32(5), (np.array([7, 8], np.int32),))
    y, (first, (second,)) = hloc.compile(text, EMULATED, options)(given, np.asfortranarray(x))
    np.testing.assert_array_equal(y, x + 1)
    assert first == 5 and second.tolist() == [7, 8]


def test_an_operand_given_twice() -> None:
    hloc.register_custom_call("gpu.less", lambda x, y: x - 2 * y)
    text = call("f32[3]", "gpu.less", "f32[3]").replace("custom-call(p0)", "custom-call(p0, p0)")
    x = np.array([1, 2, 3], np.float32)
    np.testing.assert_array_equal(hloc.compile(text, EMULATED)(x), -x)


def test_what_a_function_raises_arrives() -> None:
    def fails(x: np.ndarray) -> np.ndarray:
        raise ValueError("not today")

    hloc.register_custom_call("gpu.fails", fails)
    with pytest.raises(HloError, match="ValueError: not today"):
        hloc.compile(call("f32[3]", "gpu.fails", "f32[3]"), EMULATED)(np.zeros(3, np.float32))


def test_lapack_between_kernels() -> None:
    """Eigenvalues of a symmetric matrix that a kernel makes, used by another."""
    text = """HloModule m
ENTRY e {
  p = f64[2,5,5] parameter(0)
  t = f64[2,5,5] transpose(p), dimensions={0,2,1}
  s = f64[2,5,5]{1,2,0} add(p, t)
  c = (f64[2,5,5]{1,2,0}, f64[2,5], s32[2]) custom-call(s), custom_call_target="lapack_dsyevd_ffi",
    backend_config={mode = 86 : ui8, uplo = 76 : ui8}
  v = f64[2,5] get-tuple-element(c), index=1
  ROOT r = f64[2,5] negate(v)
}"""
    text = text.replace(',\n    backend', ', backend')
    x = np.random.default_rng(0).standard_normal((2, 5, 5))
    got = hloc.compile(text, EMULATED)(x)
    np.testing.assert_allclose(got, -np.linalg.eigvalsh(x + x.transpose(0, 2, 1)), atol=1e-12)


def test_calls_that_nobody_knows_or_that_do_not_fit() -> None:
    with pytest.raises(HloError, match="unknown custom-call target"):
        hloc.compile(call("f32[3]", "gpu.unheard", "f32[3]"), EMULATED)
    shape = "(f64[2,3], s32[])"
    with pytest.raises(HloError, match="square"):
        more = ", backend_config={uplo = 76 : ui8}"
        hloc.compile(call(shape, "lapack_dpotrf_ffi", "f64[2,3]", more=more), EMULATED)
