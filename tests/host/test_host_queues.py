"""infeed, outfeed, send and recv of native programs, with a host on another thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty

import numpy as np
import pytest

import hloc
from hloc.errors import ArgumentError, HloError

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
  f = ((f32[2], s32[]), token[]) infeed(t), infeed_config="abc"
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
  ROOT z = s32[2] get-tuple-element(rd), index=0
}"""


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def with_host(host: Callable[[], None], program: Callable[[], object]) -> object:
    """Runs the program while the host does its part."""
    thread = threading.Thread(target=host, daemon=True)
    thread.start()
    result = program()
    thread.join(10)
    assert not thread.is_alive()
    return result


def test_a_loop_is_fed_and_feeds() -> None:
    program = hloc.compile(LOOP)
    seen = []

    def host() -> None:
        for number in range(3):
            program.infeed().put((floats(number, 10 * number), np.int32(number)))
            value, count = program.outfeed().get(timeout=10)
            seen.append((value.tolist(), int(count)))

    result = with_host(host, lambda: program(floats(1, 2)))
    np.testing.assert_array_equal(result, [4, 32])
    assert seen == [([1, 2], 0), ([2, 12], 1), ([4, 32], 2)]


def test_values_may_be_there_before_and_stay_after() -> None:
    program = hloc.compile(LOOP)
    for number in range(3):
        program.infeed(0).put((floats(number, number), np.int32(7)))
    np.testing.assert_array_equal(program(floats(0, 0)), [3, 3])
    kept = [program.outfeed().get(timeout=0)[0].tolist() for _ in range(3)]
    assert kept == [[0, 0], [1, 1], [3, 3]]
    with pytest.raises(Empty):
        program.outfeed().get(timeout=0)


def test_the_host_may_answer_what_was_sent() -> None:
    program = hloc.compile(ECHO)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)

    def host() -> None:
        sent = program.channel(1).get(timeout=10)
        np.testing.assert_array_equal(sent, x)
        program.channel(2).put(np.array(sent[1, :2], np.int32))

    program.channel(2)
    assert with_host(host, lambda: program(x)).tolist() == [3, 4]


def test_without_a_host_the_error_comes_at_once() -> None:
    start = time.monotonic()
    with pytest.raises(HloError, match="infeed needs a host") as caught:
        hloc.compile(LOOP)(floats(1, 2))
    assert "Executable.infeed(device).put" in caught.value.hint
    with pytest.raises(HloError, match="recv on channel 2 needs a host"):
        hloc.compile(ECHO)(np.zeros((2, 3), np.float32))
    assert time.monotonic() - start < 30


def test_a_host_that_is_late_is_not_waited_for_forever() -> None:
    program = hloc.compile(LOOP)
    program.patience = 0.2
    program.infeed()
    with pytest.raises(HloError, match=r"infeed: nothing came from the host within 0.2 seconds"):
        program(floats(1, 2))


@pytest.mark.parametrize(
    "value, words",
    [
        (floats(1, 2), "gave a ndarray"),
        ((floats(1), np.int32(0)), r"gave float32\[1\], expected f32\[2\]"),
        ((floats(1, 2), np.float32(0)), r"gave float32\[\], expected s32\[\]"),
    ],
)
def test_values_that_do_not_fit_are_told(value: object, words: str) -> None:
    program = hloc.compile(LOOP)
    program.infeed().put(value)
    with pytest.raises(HloError, match=f"the host, for infeed, {words}"):
        program(floats(1, 2))


def test_every_device_has_its_own_queues() -> None:
    text = """HloModule m, replica_count=2
ENTRY e {
  t = token[] after-all()
  f = (f32[2], token[]) infeed(t)
  x = f32[2] get-tuple-element(f), index=0
  u = token[] get-tuple-element(f), index=1
  o = token[] outfeed(x, u), outfeed_shape=f32[2]
  ROOT r = f32[2] negate(x)
}"""
    program = hloc.compile(text)
    program.infeed(0).put(floats(1, 2))
    program.infeed(1).put(floats(3, 4))
    (first,), (second,) = program.execute_replicated([[], []])
    assert (first.tolist(), second.tolist()) == ([-1, -2], [-3, -4])
    assert program.outfeed(1).get(timeout=0).tolist() == [3, 4]
    with pytest.raises(ArgumentError, match="no device 2 among 2"):
        program.infeed(2)


def test_a_device_stops_waiting_when_another_has_failed() -> None:
    text = """HloModule m, replica_count=2
ENTRY e {
  t = token[] after-all()
  f = (f32[2], token[]) infeed(t)
  ROOT x = f32[2] get-tuple-element(f), index=0
}"""
    program = hloc.compile(text)
    program.infeed(0)
    program.infeed(1).put(floats(1))
    start = time.monotonic()
    with pytest.raises(HloError, match="the host, for infeed, gave"):
        program.execute_replicated([[], []])
    assert time.monotonic() - start < 60
