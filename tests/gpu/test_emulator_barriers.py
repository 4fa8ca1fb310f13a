"""Barriers in shared memory and of some warps on the emulator: what they put in order, and what they do not."""

from __future__ import annotations

import numpy as np
import pytest
from emulated_kernels import Thread, i32, i64
from test_emulator_checks import only, zeros
from test_emulator_tiles import TILE, Write, _nothing, after, array, launch, load, message, wait

# Barriers in shared memory


def _handed_over(hand: Write, take: Write) -> Write:
    """Thread 3 writes what thread 37 reads."""

    @after(1, 1)
    def write(t: Thread) -> None:
        with only(t, 3):
            t.b.store(i32(7), t.gpu.shared(TILE))
        hand(t)
        take(t)
        with only(t, 37):
            load(t)

    return write


def _arrives(t: Thread) -> None:
    with only(t, 3):
        t.gpu.barrier_arrive(t.gpu.shared())


def _waits(t: Thread) -> None:
    with only(t, 37):
        wait(t)


def _warp_waits(t: Thread) -> None:
    """Another lane waits, and lets its warp know."""
    with only(t, 60):
        wait(t)
    t.gpu.warp_barrier()


def _warp_arrives(t: Thread) -> None:
    t.gpu.warp_barrier()
    with only(t, 20):
        t.gpu.barrier_arrive(t.gpu.shared())


def _other_arrives(t: Thread) -> None:
    with only(t, 20):
        t.gpu.barrier_arrive(t.gpu.shared())


def _other_waits(t: Thread) -> None:
    with only(t, 60):
        wait(t)


@pytest.mark.parametrize("hand", [_arrives, _warp_arrives])
@pytest.mark.parametrize("take", [_waits, _warp_waits])
def test_barriers_put_writes_and_reads_in_order(hand: Write, take: Write) -> None:
    out = zeros()
    launch(_handed_over(hand, take), array(), out)
    assert out[0] == 7


@pytest.mark.parametrize(
    "hand, take", [(_arrives, _nothing), (_arrives, _other_waits), (_other_arrives, _waits), (_nothing, _warp_arrives)]
)
def test_who_does_not_come_is_not_in_order(hand: Write, take: Write) -> None:
    said = "reads 4 bytes of shared memory at offset 1024, and thread 3 writes it too"
    assert said in message(_handed_over(hand, take), array(), zeros())


@pytest.mark.parametrize("waits", [True, False])
def test_what_many_have_read_is_written_when_all_have_come(waits: bool) -> None:
    """Thread 0 of 96 writes what the others have read."""

    @after(95)
    def write(t: Thread) -> None:
        with only(t, 0):
            t.b.store(i32(7), t.gpu.shared(TILE))
        t.gpu.barrier()
        with t.b.if_then(t.b.icmp_signed("!=", t.gpu.thread(), i32(0))):
            t.b.store(t.b.load("i32", t.gpu.shared(TILE)), t.at("i32", 0))
            t.gpu.barrier_arrive(t.gpu.shared())
        with only(t, 0):
            t.gpu.barrier_wait(t.gpu.shared(), i32(0 if waits else 1))
            t.b.store(i32(8), t.gpu.shared(TILE))

    if waits:
        launch(write, zeros(96), block=96)
    else:
        # The first thread comes to its write before the others have read: one way or the other it is told.
        assert "it too: nothing says which comes first" in message(write, zeros(96), block=96)


# Barriers of some warps


def _exchange(t: Thread, meet: Write) -> None:
    """The first two of three warps pass values to each other."""
    b = t.b
    with b.if_then(b.icmp_signed("<", t.gpu.thread(), i32(64))):
        b.store(t.gpu.thread(), t.room("i32"))
        meet(t)
        b.store(b.load("i32", t.room("i32", b.xor(t.index(), i64(32)))), t.at("i32", 0))


def test_barriers_of_some_warps() -> None:
    out = zeros(64)
    launch(lambda t: _exchange(t, lambda t: t.gpu.part_barrier(3, 64)), out, block=96)
    np.testing.assert_array_equal(out, np.arange(64) ^ 32)
    text = message(lambda t: _exchange(t, lambda t: None), out, block=96)
    assert "was never written" in text or "writes it too" in text


def test_barriers_of_some_warps_of_a_large_block() -> None:
    """What the last threads know is theirs alone."""

    def write(t: Thread) -> None:
        b = t.b
        t.gpu.barrier()
        b.store(t.gpu.thread(), t.room("i32"))
        with b.if_then(b.icmp_signed(">=", t.gpu.thread(), i32(512))):
            t.gpu.part_barrier(15, 512)
            b.store(b.load("i32", t.room("i32", b.xor(t.index(), i64(32)))), t.at("i32", 0))

    out = zeros(1024)
    launch(write, out, block=1024)
    np.testing.assert_array_equal(out[512:], np.arange(512, 1024) ^ 32)


def test_barriers_of_some_warps_that_are_not_met() -> None:
    def differ(t: Thread) -> None:
        first = t.b.icmp_signed("<", t.gpu.thread(), i32(32))
        t.b.if_else(first, lambda: t.gpu.part_barrier(1, 96), lambda: t.gpu.part_barrier(1, 64))

    def torn(t: Thread) -> None:
        odd = t.b.trunc(t.gpu.thread(), "i1")
        with t.b.if_then(odd):
            t.gpu.part_barrier(1, 32)

    def late(t: Thread) -> None:
        _exchange(t, lambda t: t.gpu.part_barrier(1, 96))

    assert "of 64 threads, where others wait for 96" in message(differ)
    assert "without some of its warp's threads: 16 of 32" in message(torn)
    said = "threads 0 to 63 wait at barrier 1 of 96 threads, meeting 1 in k; threads 64 to 95 have ended"
    assert said in message(late, zeros(64), block=96)
