"""What the emulator finds wrong with kernels, and how it says it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from emulated_kernels import Prepared, Thread, i32, i64, run

from hloc.codegen.llvm import Module, integer
from hloc.codegen.targets.target import target_named
from hloc.errors import HloError

Write = Callable[[Thread], object]


def message(write: Write, *arrays: np.ndarray, **launch) -> str:
    """What the launch of a kernel fails with."""
    with pytest.raises(HloError) as caught:
        run(write, *arrays, **launch)
    return caught.value.message


def only(t: Thread, number: int):
    """A condition: one thread does something."""
    return t.b.if_then(t.b.icmp_signed("==", t.gpu.thread(), i32(number)))


def zeros(count: int = 32) -> np.ndarray:
    return np.zeros(count, np.int32)


# Global memory


def test_a_load_beyond_an_argument() -> None:
    def write(t: Thread) -> None:
        t.b.store(t.b.load("i32", t.at("i32", 0, t.b.add(t.index(), i64(2)))), t.at("i32", 1))

    text = message(write, zeros(), zeros(), block=(32, 1, 1), grid=(1, 1, 1))
    assert text.startswith("kernel k (%add.1), block (0, 0, 0), thread (30, 0, 0): reads 4 bytes of argument 0 (a0)")
    assert "at offset 128, and there are 128 bytes" in text


def test_a_store_before_an_argument() -> None:
    def write(t: Thread) -> None:
        t.b.store(integer("i16", 1), t.at("i16", 1, t.b.sub(t.index(), i64(1))))

    text = message(write, zeros(), zeros())
    assert "thread (0, 0, 0): writes 2 bytes of argument 1 (a1) at offset -2" in text


def test_an_access_that_ends_beyond_an_argument() -> None:
    text = message(lambda t: t.b.load("i64", t.at("i32", 0, 30)), zeros(31), block=1)
    assert "reads 8 bytes of argument 0 (a0) at offset 120, and there are 124 bytes" in text


def test_an_argument_may_not_be_reached_from_another() -> None:
    """Both lie in memory that may be touched; the pointer was made from the wrong one."""

    def write(t: Thread) -> None:
        b = t.b
        distance = b.sub(b.ptrtoint(t.args[1], "i64"), b.ptrtoint(t.args[0], "i64"))
        b.store(i32(1), b.gep("i8", t.args[0], distance))

    assert "writes 4 bytes of argument 0 (a0) at offset" in message(write, zeros(), zeros(), block=1)


def test_an_argument_without_bytes() -> None:
    with pytest.raises(HloError, match=r"at offset 0, and there are 0 bytes"):
        run(lambda t: t.b.store(i32(1), t.at("i32", 0, 0)), zeros(), block=1, sizes=[0])


def test_an_argument_that_is_only_read() -> None:
    target = target_named("cuda-emulated")
    dialect = target.device.dialect
    module = Module("test", target.triple, target.data_layout)
    kernel = dialect.kernel(module, "k", [("ptr", "in0", "noalias readonly align 16")], 32, target.function_attributes)
    b = dialect.builder(kernel, "add.1")
    b.load("i32", kernel.args[0])
    with pytest.raises(HloError, match=r"k writes argument 0 \(in0\), which it said that it only reads"):
        b.store(i32(1), b.gep("i32", kernel.args[0], i64(3)))


def test_the_block_and_the_thread_are_named() -> None:
    def write(t: Thread) -> None:
        last = t.b.icmp_signed("==", t.gpu.block("z"), i32(1))
        both = t.b.and_(last, t.b.icmp_signed("==", t.gpu.thread("y"), i32(2)))
        with t.b.if_then(both):
            t.b.store(i32(0), t.at("i32", 0, 64))

    assert "block (0, 0, 1), thread (0, 2, 0): writes" in message(write, zeros(), block=(4, 3, 2), grid=(2, 3, 2))


@pytest.mark.parametrize("type, offset", [("i32", 1), ("<4 x float>", 4), ("<2 x i16>", 2), ("double", 4)])
def test_accesses_that_are_not_aligned(type: str, offset: int) -> None:
    text = message(lambda t: t.b.load(type, t.b.gep("i8", t.args[0], i64(offset))), zeros(), block=1)
    assert f"at offset {offset}, which is not a multiple of" in text


def test_an_access_that_says_that_it_is_not_aligned() -> None:
    def write(t: Thread) -> None:
        value = t.b.load("<4 x i32>", t.at("i32", 0, 1), align=4)
        t.b.store(value, t.at("<4 x i32>", 1, 0))

    x, out = np.arange(8, dtype=np.int32), zeros(4)
    run(write, x, out, block=1)
    np.testing.assert_array_equal(out, [1, 2, 3, 4])


def test_pointers_of_unknown_origin() -> None:
    """One of two arrays, chosen at run time: the access has to lie in one of the two."""

    def write(t: Thread) -> None:
        b = t.b
        chosen = b.select(b.icmp_signed("<", t.args[2], i64(0)), t.args[0], t.args[1])
        b.store(i32(5), b.gep("i32", chosen, t.args[2]))

    kernel = Prepared(write, 2, 1)
    first, second = zeros(), zeros()
    kernel.run([first, second], 1, scalars=[7])
    assert second[7] == 5
    with pytest.raises(HloError, match=r"writes 4 bytes of memory at address 0x\w+, which lies in nothing"):
        kernel.run([first, second], 1, scalars=[1000])


def test_pointers_in_memory_lead_to_other_allocations() -> None:
    def write(t: Thread) -> None:
        pointer = t.b.load("ptr", t.at("ptr", 0, 0))
        t.b.store(t.b.load("i32", t.b.gep("i32", pointer, t.args[1])), t.at("i32", 0, 2))

    kernel = Prepared(write, 1, 1)
    other = kernel.device.allocate(64, "memory")
    kernel.device.upload(other, np.arange(16, dtype=np.int32))
    words = np.array([other, 0], np.int64)
    kernel.run([words], 1, scalars=[9])
    assert words[1] == 9
    with pytest.raises(HloError, match="reads 4 bytes of memory at address"):
        kernel.run([words], 1, scalars=[16])


def test_atomics_are_looked_at() -> None:
    text = message(lambda t: t.gpu.atomic("add", t.at("i32", 0), i32(1)), zeros(31))
    assert "thread (31, 0, 0): updates 4 bytes of argument 0" in text
    text = message(lambda t: t.gpu.compare_exchange(t.at("i64", 0), i64(0), i64(1)), zeros(32))
    assert "thread (16, 0, 0): updates 8 bytes of argument 0" in text


def test_threads_that_touch_what_others_do() -> None:
    """A shift in place: in the order of an emulator it may work, on a device it need not."""

    def write(t: Thread) -> None:
        t.b.store(t.b.load("i32", t.at("i32", 0, t.b.add(t.index(), i64(1)))), t.at("i32", 0))

    text = message(write, zeros(33))
    assert "thread (1, 0, 0): writes 4 bytes of argument 0 (a0) at offset 4, and another thread of the launch" in text


@pytest.mark.parametrize("spare", [True, False])
def test_threads_that_read_what_others_have_written(spare: bool) -> None:
    """A thread that makes nothing of it does no harm."""

    def write(t: Thread) -> None:
        b = t.b
        last = b.icmp_signed("==", t.gpu.thread(), i32(31))
        value = b.load("i32", t.at("i32", 0, b.select(last, i64(30), t.index())))
        with b.if_then(b.not_(last) if spare else integer("i1", 1)):
            b.store(b.add(value, i32(1)), t.at("i32", 0))

    if spare:
        run(write, zeros())
    else:
        text = message(write, zeros())
        assert "thread (31, 0, 0): reads 4 bytes of argument 0 (a0) at offset 120, and another thread of the" in text


def test_blocks_that_touch_what_others_do() -> None:
    def write(t: Thread) -> None:
        t.gpu.barrier()
        t.b.store(t.gpu.block(), t.at("i32", 0))

    text = message(write, zeros(), grid=2)
    assert "block (1, 0, 0), thread (31, 0, 0): writes 4 bytes" in text
    assert "and another block of the launch writes it too: nothing says which comes first" in text
    run(write, zeros(), grid=1)


def test_bytes_of_a_word_may_be_touched_by_several() -> None:
    def write(t: Thread) -> None:
        value = t.b.load("i8", t.at("i8", 0))
        t.b.store(t.b.add(value, integer("i8", 1)), t.at("i8", 0))

    x = np.arange(32, dtype=np.int8)
    run(write, x)
    np.testing.assert_array_equal(x, np.arange(1, 33))


def test_blocks_with_fences_are_trusted() -> None:
    def write(t: Thread) -> None:
        t.b.store(i32(3), t.at("i32", 0))
        t.gpu.fence()

    run(write, zeros(), grid=2)


# Shared memory


def test_accesses_beyond_shared_memory() -> None:
    text = message(lambda t: t.b.store(i32(1), t.room("i32")), block=64, shared=128)
    assert "thread (32, 0, 0): writes 4 bytes of shared memory at offset 128, and there are 128 bytes" in text


def test_shared_memory_that_was_never_written() -> None:
    def write(t: Thread) -> None:
        t.b.store(i32(1), t.room("i32"))
        t.gpu.barrier()
        t.b.store(t.b.load("i64", t.room("i64")), t.at("i64", 0))

    text = message(write, np.zeros(32, np.int64), block=32, shared=256)
    assert "thread (31, 0, 0): reads 8 bytes of shared memory at offset 248, of which byte 248 was never" in text


def test_shared_memory_is_forgotten_between_blocks() -> None:
    def write(t: Thread) -> None:
        first = t.b.icmp_signed("==", t.gpu.block(), i32(0))
        with t.b.if_then(first):
            t.b.store(i32(1), t.room("i32"))
        t.gpu.barrier()
        t.b.store(t.b.load("i32", t.room("i32")), t.at("i32", 0))

    text = message(write, zeros(), block=32, grid=2, shared=128)
    assert "block (1, 0, 0), thread (31, 0, 0): reads 4 bytes of shared memory" in text
    assert "was never written" in text


def _race(first: Write, second: Write) -> Write:
    """Thread 33 does one thing, thread 2 another, with no barrier in between, but one before."""

    def write(t: Thread) -> None:
        t.b.store(i32(1), t.room("i32"))
        t.gpu.barrier()
        with only(t, 2):
            first(t)
        with only(t, 33):
            second(t)

    return write


def _load(t: Thread) -> None:
    t.b.store(t.b.load("i32", t.room("i32", 8)), t.at("i32", 0, 0))


def _store(t: Thread) -> None:
    t.b.store(i32(5), t.room("i32", 8))


def _store_byte(t: Thread) -> None:
    t.b.store(integer("i8", 5), t.room("i8", 35))


def _atomic(t: Thread) -> None:
    t.gpu.atomic("add", t.room("i32", 8), i32(1))


@pytest.mark.parametrize(
    "first, second, words",
    [
        (_store, _load, "reads 4 bytes of shared memory at offset 32, and thread 2 writes it too"),
        (_load, _store, "writes 4 bytes of shared memory at offset 32, and thread 2 reads it too"),
        (_store, _store, "writes 4 bytes of shared memory at offset 32, and thread 2 writes it too"),
        (_load, _store_byte, "writes 1 byte of shared memory at offset 35, and thread 2 reads it too"),
        (_store_byte, _load, "reads 4 bytes of shared memory at offset 32, and thread 2 writes it too"),
        (_atomic, _load, "reads 4 bytes of shared memory at offset 32, and thread 2 writes it too"),
        (_store, _atomic, "updates 4 bytes of shared memory at offset 32, and thread 2 writes it too"),
    ],
)
def test_races(first: Write, second: Write, words: str) -> None:
    assert f"thread (33, 0, 0): {words}" in message(_race(first, second), zeros(), block=64, shared=256)


@pytest.mark.parametrize("first, second", [(_load, _load), (_atomic, _atomic)])
def test_what_is_no_race(first: Write, second: Write) -> None:
    run(_race(first, second), zeros(), block=64, shared=256)


def test_reads_of_all_threads_before_a_write() -> None:
    """A byte that many have read remembers so, whoever reads it last."""

    def write(t: Thread) -> None:
        t.b.store(i32(1), t.room("i32"))
        t.gpu.barrier()
        t.b.store(t.b.load("i32", t.room("i32", 3)), t.at("i32", 0))
        with only(t, 20):
            t.b.store(i32(2), t.room("i32", 3))

    text = message(write, zeros(64), block=64, shared=256)
    assert "thread (20, 0, 0): writes 4 bytes of shared memory at offset 12, and other threads read it too" in text


def _within_warp(meet: Write) -> Write:
    """Lanes pass values to their neighbours through shared memory."""

    def write(t: Thread) -> None:
        t.b.store(t.gpu.thread(), t.room("i32"))
        meet(t)
        other = t.b.xor(t.index(), i64(1))
        t.b.store(t.b.load("i32", t.room("i32", other)), t.at("i32", 0))

    return write


@pytest.mark.parametrize(
    "meet",
    [
        lambda t: t.gpu.warp_barrier(),
        lambda t: t.gpu.shuffle32("xor", i32(0), i32(1)),
        lambda t: t.gpu.ballot(integer("i1", 1)),
        lambda t: t.gpu.barrier(),
    ],
)
def test_lanes_that_meet_are_in_order(meet: Write) -> None:
    out = zeros(64)
    run(_within_warp(meet), out, block=64, shared=256)
    np.testing.assert_array_equal(out, np.arange(64) ^ 1)


def test_lanes_that_do_not_meet_are_not_in_order() -> None:
    """Lane 1 finds what lane 0 has left: on a GPU it may not be there yet."""
    text = message(_within_warp(lambda t: None), zeros(), shared=128)
    assert "was never written" in text or "writes it too" in text


def test_warps_are_not_in_order_by_meetings_of_lanes() -> None:
    def write(t: Thread) -> None:
        t.b.store(t.gpu.thread(), t.room("i32"))
        t.gpu.warp_barrier()
        other = t.b.xor(t.index(), i64(32))
        t.b.store(t.b.load("i32", t.room("i32", other)), t.at("i32", 0))

    text = message(write, zeros(64), block=64, shared=256)
    assert "was never written" in text or "writes it too" in text


# Asynchronous copies


def _copied(finish: Write) -> Write:
    def write(t: Thread) -> None:
        t.gpu.copy_async(t.room("i32"), t.at("i32", 0), 4)
        t.gpu.commit_copies()
        finish(t)
        t.b.store(t.b.load("i32", t.room("i32")), t.at("i32", 1))

    return write


def test_copies_that_are_not_waited_for() -> None:
    text = message(_copied(lambda t: None), zeros(), zeros(), shared=128)
    assert "reads 4 bytes of shared memory at offset 0, and an asynchronous copy to byte 0 of it, by thread 0" in text
    text = message(_copied(lambda t: t.gpu.wait_copies(1)), zeros(), zeros(), shared=128)
    assert "is not waited for" in text
    run(_copied(lambda t: t.gpu.wait_copies(0)), zeros(), zeros(), shared=128)


def test_a_barrier_does_not_wait_for_copies() -> None:
    text = message(_copied(lambda t: t.gpu.barrier()), zeros(), zeros(), shared=128)
    assert "an asynchronous copy to byte 124 of it" in text


def test_copies_of_others_need_a_barrier_too() -> None:
    def write(t: Thread) -> None:
        t.gpu.copy_async(t.room("i32"), t.at("i32", 0), 4)
        t.gpu.commit_copies()
        t.gpu.wait_copies(0)
        other = t.b.xor(t.index(), i64(1))
        t.b.store(t.b.load("i32", t.room("i32", other)), t.at("i32", 1))

    text = message(write, zeros(), zeros(), shared=128)
    assert "was never written" in text or "writes it too" in text


def test_copies_are_looked_at() -> None:
    text = message(lambda t: t.gpu.copy_async(t.room("i32"), t.at("i32", 0), 4), zeros(31), shared=128)
    assert "thread (31, 0, 0): reads 4 bytes of argument 0 (a0) at offset 124" in text
    text = message(lambda t: t.gpu.copy_async(t.room("i32"), t.at("i32", 0), 4), zeros(32), shared=64)
    assert "thread (16, 0, 0): begins to copy 4 bytes to shared memory at offset 64, and there are 64" in text
    text = message(lambda t: t.gpu.copy_async(t.room("i32"), t.at("i32", 0), 8), zeros(64), shared=512)
    assert "thread (1, 0, 0): reads 8 bytes of argument 0 (a0) at offset 4, which is not a multiple of 8" in text


def test_copies_of_no_bytes_need_no_source() -> None:
    """Ragged edges: a copy of nothing from beyond the array leaves zeros."""

    def write(t: Thread) -> None:
        live = t.b.select(t.b.icmp_signed("<", t.gpu.thread(), i32(3)), i32(4), i32(0))
        t.gpu.copy_async(t.room("i32"), t.at("i32", 0), 4, live)
        t.gpu.commit_copies()
        t.gpu.wait_copies(0)
        t.b.store(t.b.load("i32", t.room("i32")), t.at("i32", 1))

    x, out = np.arange(1, 4, dtype=np.int32), zeros()
    run(write, x, out, shared=128)
    np.testing.assert_array_equal(out, [1, 2, 3] + [0] * 29)


# Threads that do not meet


def test_threads_that_end_before_a_barrier() -> None:
    def write(t: Thread) -> None:
        with t.b.if_then(t.b.icmp_signed("<", t.gpu.thread(), i32(40))):
            t.gpu.barrier()

    text = message(write, block=64)
    assert "kernel k (%add.1), block (0, 0, 0): the threads of the block do not meet: " in text
    assert "threads 0 to 39 wait at a barrier, meeting 1 in k; threads 40 to 63 have ended" in text


def test_threads_at_different_barriers() -> None:
    def write(t: Thread) -> None:
        odd = t.b.trunc(t.gpu.thread(), "i1")
        t.b.if_else(odd, lambda: t.gpu.barrier(), lambda: t.gpu.barrier())

    text = message(write)
    assert "meeting 1 in k" in text and "meeting 2 in k" in text and "do not meet" in text


def test_half_of_a_warp_at_a_shuffle() -> None:
    def write(t: Thread) -> None:
        half = t.b.icmp_signed("<", t.gpu.thread(), i32(48))
        with t.b.if_then(half):
            t.b.store(t.gpu.shuffle32("xor", i32(1), i32(1)), t.at("i32", 0))
        t.gpu.barrier()

    text = message(write, zeros(64), block=64)
    assert "threads 32 to 47 wait at a shuffle, meeting 1 in k" in text
    assert "threads 0 to 31, 48 to 63 wait at a barrier, meeting 2 in k" in text


def test_a_product_of_half_a_warp() -> None:
    def write(t: Thread) -> None:
        zero = i32(0)
        t.gpu.mma("m16n8k16", "s32.s8.s8.s32", [zero] * 2, [zero], [zero] * 4)

    assert "wait at a product of matrices, meeting 1 in k, in a warp of 16 threads" in message(write, block=16)


def test_a_wait_without_end() -> None:
    text = message(lambda t: t.poll(t.at("i32", 0, 0), 0), zeros(1), block=2)
    assert "looks at memory, in k, again and again" in text


# Launches


def test_launches_that_a_driver_would_refuse() -> None:
    kernel = Prepared(lambda t: None, 1, threads=64)
    with pytest.raises(HloError, match="with 65 threads a block, and was made for 64"):
        kernel.run([zeros()], 65)
    with pytest.raises(HloError, match="argument 0 is not aligned to 16 bytes"):
        kernel.run([zeros()], 64, offset=8)


def test_a_device_goes_on_after_an_error() -> None:
    def write(t: Thread) -> None:
        t.b.store(t.gpu.thread(), t.room("i32"))
        t.gpu.barrier()
        t.b.store(t.b.load("i32", t.room("i32")), t.at("i32", 0))

    kernel = Prepared(write, 1, shared=256)
    for _ in range(3):
        with pytest.raises(HloError, match="writes 4 bytes of argument 0"):
            kernel.run([zeros(31)], 64)
        out = zeros(64)
        kernel.run([out], 64)
        np.testing.assert_array_equal(out, np.arange(64))


def test_votes_of_a_launch_that_failed_do_not_count() -> None:
    def write(t: Thread) -> None:
        b = t.b
        sign = b.load("i32", t.at("i32", 0, t.index()))
        yes = b.icmp_signed("<", sign, i32(0))
        ballot, some = t.gpu.ballot(yes), t.gpu.any(yes)
        b.store(b.select(some, i32(-1), ballot), t.at("i32", 1))

    kernel = Prepared(write, 2)
    signs, out = np.full(40, -1, np.int32), zeros(64)
    with pytest.raises(HloError, match="thread .40, 0, 0.: reads 4 bytes of argument 0"):
        kernel.run([signs, out], 64)
    kernel.run([zeros(64), out], 64)
    assert (out == 0).all()


def test_stacks_have_an_end() -> None:
    with pytest.raises(HloError, match="a thread of k takes 40000 bytes or more of its stack"):
        Prepared(lambda t: [t.b.alloca("i32", 5000), t.b.alloca("[20 x i8]", 1000)], 0)
