"""The emulator runs kernels as a GPU does: who threads are, what they do together, memory, denormals."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from emulated_kernels import FLUSH, Prepared, Thread, i32, i64, run

from hloc.codegen.llvm import const

THREADS = 96


def test_threads_and_blocks_of_three_dimensions() -> None:
    block, grid = (4, 3, 2), (3, 2, 2)

    def write(t: Thread) -> None:
        b, g = t.b, t.gpu
        numbers = [g.thread(axis) for axis in "xyz"] + [g.block(axis) for axis in "xyz"]
        place = i32(0)
        for number, size in zip(reversed(numbers), reversed((*block, *grid)), strict=True):
            place = b.add(b.mul(place, i32(size)), number)
        b.store(place, t.at("i32", 0, b.zext(place, "i64")))

    out = np.full(24 * 12, -1, np.int32)
    run(write, out, block=block, grid=grid)
    np.testing.assert_array_equal(out, np.arange(24 * 12))


def test_scalars_follow_the_pointers() -> None:
    def write(t: Thread) -> None:
        t.b.store(t.b.sub(t.args[1], t.args[2]), t.at("i64", 0))

    out = np.zeros(32, np.int64)
    run(write, out, scalars=(50, 8))
    assert (out == 42).all()


def test_a_barrier_orders_shared_memory() -> None:
    def write(t: Thread) -> None:
        t.b.store(t.b.load("float", t.at("float", 0)), t.room("float"))
        t.gpu.barrier()
        other = t.b.sub(i64(THREADS - 1), t.index())
        t.b.store(t.b.load("float", t.room("float", other)), t.at("float", 1))

    x, out = np.random.default_rng(0).random(THREADS, np.float32), np.zeros(THREADS, np.float32)
    run(write, x, out, block=THREADS, shared=4 * THREADS)
    np.testing.assert_array_equal(out, x[::-1])


def test_many_barriers_in_a_loop() -> None:
    """A scan by doubling steps: each step reads what the one before wrote."""

    def write(t: Thread) -> None:
        b = t.b
        b.store(b.load("i32", t.at("i32", 0)), t.room("i32"))
        for step in (1, 2, 4, 8, 16, 32, 64):
            t.gpu.barrier()
            mine = b.load("i32", t.room("i32"))
            has = b.icmp_signed(">=", t.index(), i64(step))
            place = t.room("i32", b.sub(t.index(), i64(step)))
            before = b.if_else(has, partial(b.load, "i32", place), lambda: i32(0))
            t.gpu.barrier()
            b.store(b.add(mine, before), t.room("i32"))
        b.store(b.load("i32", t.room("i32")), t.at("i32", 0))

    x = np.arange(THREADS, dtype=np.int32)
    expected = np.cumsum(x)
    run(write, x, block=THREADS, shared=4 * THREADS)
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("type, dtype", [("i8", np.int8), ("half", np.float16), ("float", np.float32),
                                         ("i64", np.int64), ("double", np.float64)])
def test_shuffles(type: str, dtype: type) -> None:
    cases = [(mode, lane) for mode in ("idx", "xor", "up", "down") for lane in (0, 1, 5, 16, 31)]

    def write(t: Thread) -> None:
        value = t.b.load(type, t.at(type, 0))
        for number, (mode, lane) in enumerate(cases):
            moved = t.gpu.shuffle(mode, value, i32(lane))
            t.b.store(moved, t.at(type, 1, t.b.add(t.index(), i64(64 * number))))

    x, out = np.arange(64).astype(dtype), np.zeros((len(cases), 64), dtype)
    run(write, x, out, block=64)
    lanes = np.arange(32)
    for number, (mode, lane) in enumerate(cases):
        source = {"idx": lanes * 0 + lane, "xor": lanes ^ lane, "up": lanes - lane, "down": lanes + lane}[mode]
        source = np.where((source < 0) | (source > 31), lanes, source)
        np.testing.assert_array_equal(out[number], np.concatenate([x[source], x[32 + source]]))


def test_shuffles_of_conditions() -> None:
    def write(t: Thread) -> None:
        odd = t.b.trunc(t.gpu.thread(), "i1")
        t.b.store(t.b.zext(t.gpu.shuffle("xor", odd, i32(1)), "i32"), t.at("i32", 0))

    out = np.zeros(32, np.int32)
    run(write, out)
    np.testing.assert_array_equal(out, 1 - np.arange(32) % 2)


def test_votes() -> None:
    """The block of 80 threads has a warp of 16 lanes; only thread 70 says yes to the second vote."""

    def write(t: Thread) -> None:
        b, thread = t.b, t.gpu.thread()
        b.store(t.gpu.ballot(b.icmp_signed("==", b.urem(thread, i32(3)), i32(0))), t.at("i32", 0))
        none = t.gpu.any(b.icmp_signed("<", thread, i32(0)))
        some = t.gpu.any(b.icmp_signed("==", thread, i32(70)))
        b.store(b.add(b.zext(none, "i32"), b.mul(b.zext(some, "i32"), i32(2))), t.at("i32", 1))

    ballots, verdicts = np.zeros(80, np.uint32), np.zeros(80, np.int32)
    run(write, ballots, verdicts, block=80)
    bits = [sum(1 << i for i in range(32) if first + i < 80 and (first + i) % 3 == 0) for first in (0, 32, 64)]
    np.testing.assert_array_equal(ballots, [bits[i // 32] for i in range(80)])
    assert (verdicts == 2).all()


def test_atomics() -> None:
    def write(t: Thread) -> None:
        b, g = t.b, t.gpu
        with b.if_then(b.icmp_signed("==", g.thread(), i32(0))):
            b.store(i32(100), t.room("i32", 0))
        g.barrier()
        before = g.atomic("add", t.room("i32", 0), i32(1))
        b.store(before, t.at("i32", 0, b.zext(b.sub(before, i32(100)), "i64")))
        g.atomic("max", t.at("i32", 1, 0), before)
        g.atomic("fadd", t.at("double", 2, 0), const("double", 0.5))

    order, most, total = np.zeros(64, np.int32), np.zeros(1, np.int32), np.zeros(1)
    run(write, order, most, total, block=64, shared=16)
    np.testing.assert_array_equal(order, 100 + np.arange(64))
    assert most[0] == 163 and total[0] == 32


@pytest.mark.parametrize("type, dtype", [("i16", np.int16), ("i32", np.int32), ("i64", np.int64)])
def test_compare_exchange(type: str, dtype: type) -> None:
    """Every thread but one finds the place taken, and by whom."""

    def write(t: Thread) -> None:
        mine = t.b.trunc(t.index(), type)
        none = t.b.sub(t.b.trunc(i64(0), type), t.b.trunc(i64(1), type))
        t.b.store(t.gpu.compare_exchange(t.at(type, 0, 0), none, mine), t.at(type, 1))

    place, seen = np.full(1, -1, dtype), np.zeros(40, dtype)
    run(write, place, seen, block=40)
    assert (seen == -1).sum() == 1 and (seen != -1).sum() == 39
    assert set(seen) == {-1, place[0]}


def test_threads_may_wait_for_each_other_by_memory() -> None:
    """Thread 0 looks until the last thread has written: others must get their turns."""

    def write(t: Thread) -> None:
        b, g = t.b, t.gpu

        with b.if_then(b.icmp_signed("==", g.thread(), i32(0))):
            b.store(t.poll(t.at("i32", 0, 0), 0), t.at("i32", 1, 0))
        with b.if_then(b.icmp_signed("==", g.thread(), i32(63))):
            g.store_volatile(i32(7), t.at("i32", 0, 0))

    flag, seen = np.zeros(1, np.int32), np.zeros(1, np.int32)
    run(write, flag, seen, block=64)
    assert seen[0] == 7


def test_blocks_may_wait_for_those_before_them() -> None:
    """Decoupled look-back: each block takes a ticket, waits for the block before, and passes a sum on."""

    def write(t: Thread) -> None:
        b, g = t.b, t.gpu
        with b.if_then(b.icmp_signed("==", g.thread(), i32(0))):
            ticket = b.zext(g.atomic("add", t.at("i32", 0, 0), i32(1)), "i64")
            before = t.poll(t.at("i32", 1, ticket), -1)
            g.fence()
            g.store_volatile(b.add(before, b.trunc(ticket, "i32")), t.at("i32", 1, b.add(ticket, i64(1))))

    ticket, sums = np.zeros(1, np.int32), np.full(21, -1, np.int32)
    sums[0] = 0
    run(write, ticket, sums, block=32, grid=20)
    np.testing.assert_array_equal(sums[1:], np.cumsum(np.arange(20)))


def test_asynchronous_copies() -> None:
    """Copies of 4, 8 and 16 bytes, a part of them live; groups complete in order."""

    def write(t: Thread) -> None:
        b, g = t.b, t.gpu
        g.copy_async(t.room("<4 x i32>"), t.at("<4 x i32>", 0), 16)
        g.copy_async(t.room("<2 x i32>", b.add(t.index(), i64(64))), t.at("<2 x i32>", 0), 8)
        g.commit_copies()
        live = b.and_(g.thread(), i32(3))
        g.copy_async(t.room("i32", b.add(t.index(), i64(192))), t.at("i32", 0), 4, live)
        g.commit_copies()
        g.wait_copies(1)
        g.barrier()
        other = b.xor(t.index(), i64(1))
        first = b.load("<4 x i32>", t.room("<4 x i32>", other))
        b.store(first, t.at("<4 x i32>", 1))
        b.store(b.load("i32", t.room("i32", b.add(b.mul(other, i64(2)), i64(129)))), t.at("i32", 2))
        g.wait_copies(0)
        b.store(b.load("i32", t.room("i32", b.add(t.index(), i64(192)))), t.at("i32", 3))

    x = np.random.default_rng(1).integers(0, 2**31, 128, dtype=np.int32)
    wide, second, partial = np.zeros(128, np.int32), np.zeros(32, np.int32), np.zeros(32, np.int32)
    run(write, x, wide, second, partial, shared=1024)
    other = np.arange(32) ^ 1
    np.testing.assert_array_equal(wide.reshape(32, 4), x.reshape(32, 4)[other])
    np.testing.assert_array_equal(second, x[2 * other + 1])
    np.testing.assert_array_equal(partial, [x[i] & ((1 << 8 * (i % 4)) - 1) for i in range(32)])


def test_unwritten_memory_is_no_number() -> None:
    kernel = Prepared(lambda t: None, 0)
    place = kernel.device.allocate(64, "memory")
    assert np.isnan(np.frombuffer(kernel.device.read(place, 64), np.float32)).all()


@pytest.mark.parametrize("attributes, expected", [("", 1e-40), (FLUSH, 0.0)])
@pytest.mark.parametrize("meets", [False, True])
def test_denormals(attributes: str, expected: float, meets: bool) -> None:
    def write(t: Thread) -> None:
        if meets:
            t.gpu.barrier()
        half = t.b.fmul(t.b.load("float", t.at("float", 0)), const("float", 0.5))
        t.b.store(half, t.at("float", 0))

    x = np.full(32, 2e-40, np.float32)
    run(write, x, attributes=attributes)
    np.testing.assert_array_equal(x, np.float32(expected))
    assert np.float32(2e-40) * np.float32(0.5) != 0  # outside, all is as before


def test_kernels_whose_threads_never_meet_run_without_fibers() -> None:
    alone = Prepared(lambda t: t.b.store(i32(1), t.at("i32", 0)), 1)
    together = Prepared(lambda t: t.gpu.barrier(), 1)
    assert "emulator.fiber" not in alone.text
    assert "emulator.fiber" in together.text


def test_kernels_use_the_stacks_of_1024_threads() -> None:
    def write(t: Thread) -> None:
        b = t.b
        place = b.alloca("i32", 64)
        with b.for_loop(0, 64) as i:
            b.store(b.add(b.trunc(i, "i32"), t.gpu.thread()), b.gep("i32", place, i))
        t.gpu.barrier()
        total = b.for_loop_carrying(
            0, 64, [i32(0)], lambda i, carried: [b.add(carried[0], b.load("i32", b.gep("i32", place, i)))]
        )
        b.store(total[0], t.at("i32", 0))

    out = np.zeros(1024, np.int32)
    run(write, out, block=1024)
    np.testing.assert_array_equal(out, 64 * np.arange(1024) + 63 * 32)
