"""Copies of tiles on the emulator, and the barriers that they complete: what they do, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from emulated_kernels import Prepared, Thread, i32, i64
from test_emulator_checks import only, zeros

from hloc.codegen.device_program import TensorMap
from hloc.errors import HloError

Write = Callable[[Thread], object]

ARCH = "sm_90a"
ROW, TILE = 128, 1024
"""Bytes of a row; where tiles begin: barriers are before that."""


def launch(write: Write, *arrays: np.ndarray, block: int = 64, shared: int = 8192, maps: tuple = ()) -> None:
    kernel = Prepared(write, len(arrays), shared=shared, maps=len(maps), arch=ARCH)
    kernel.run(arrays, block, maps=maps)


def message(write: Write, *arrays: np.ndarray, **more) -> str:
    with pytest.raises(HloError) as caught:
        launch(write, *arrays, **more)
    return caught.value.message


def make(t: Thread, *arrivals: int) -> None:
    """Barriers, one behind the other, known to all."""
    with only(t, 0):
        for number, count in enumerate(arrivals):
            t.gpu.barrier_make(t.gpu.shared(8 * number), count)
        t.gpu.barriers_made()
    t.gpu.barrier()


def _nothing(t: Thread) -> None: ...


def copy_shared(t: Thread, bytes: int, block: int = 64) -> None:
    """Shared memory from TILE on goes to argument 1."""
    count = bytes // 4
    with t.b.for_loop(t.index(), i64(count), block) as i:
        t.b.store(t.b.load("i32", t.b.gep("i32", t.gpu.shared(TILE), i)), t.at("i32", 1, i))


def tile_of(array: np.ndarray, map: TensorMap, at: tuple[int, ...]) -> np.ndarray:
    """The bytes of a tile, row by row, as NumPy cuts them out of an array (outermost dim first)."""
    tile = np.zeros(map.box[::-1], array.dtype)
    for place in np.ndindex(*tile.shape):
        source = [start + number for start, number in zip(at[::-1], place, strict=True)]
        if all(0 <= number < size for number, size in zip(source, map.dims[::-1], strict=True)):
            tile[place] = array[tuple(source)]
    rows = tile.reshape(-1).view(np.uint8).reshape(-1, ROW // 16, 16)
    mixed = np.empty_like(rows)
    for row in range(len(rows)):
        for chunk in range(ROW // 16):
            mixed[row, chunk ^ row % 8] = rows[row, chunk]
    return mixed.reshape(-1)


COPIES = {
    "bytes": (np.uint8, (200, 11), (128, 8), (16, 2)),
    "half words": (np.uint16, (100, 9), (64, 4), (40, 6)),
    "words": (np.float32, (40, 5), (32, 8), (0, 0)),
    "from before the array": (np.uint16, (70, 6), (64, 8), (-3, -2)),
    "all of it outside": (np.uint16, (70, 6), (64, 8), (64, 6)),
    "one dim": (np.uint16, (150,), (64,), (100,)),
    "three dims": (np.uint16, (64, 3, 4), (64, 2, 2), (0, 2, 1)),
    "five dims": (np.uint8, (128, 2, 3, 2, 2), (128, 2, 1, 2, 2), (0, 0, 1, 0, 1)),
}


@pytest.mark.parametrize("name", COPIES)
def test_tiles_are_as_numpy_cuts_them_out(name: str) -> None:
    """Of a part of an array whose rows are further apart than they are long."""
    dtype, dims, box, at = COPIES[name]
    size = np.dtype(dtype).itemsize
    apart = -(-dims[0] * size // 16) * 16 + 32
    whole = np.random.default_rng(3).integers(1, 100, (*dims[:0:-1], apart // size)).astype(dtype)
    strides = [apart]
    for count in dims[1:-1]:
        strides.append(strides[-1] * count)
    map = TensorMap(0, 16, size, dims, tuple(strides[: len(dims) - 1]), box)
    bytes = int(np.prod(box)) * size

    def write(t: Thread) -> None:
        make(t, 1)
        with only(t, 5):
            t.gpu.barrier_expect(t.gpu.shared(), bytes)
            t.gpu.copy_tile(t.gpu.shared(TILE), t.maps[0], [i32(number) for number in at], t.gpu.shared())
        t.gpu.barrier_wait(t.gpu.shared(), i32(0))
        copy_shared(t, bytes)

    out = np.zeros(bytes, np.uint8)
    launch(write, whole, out, maps=(map,))
    array = whole[..., 16 // size :][..., : dims[0]]
    np.testing.assert_array_equal(out, tile_of(array, map, at))


def test_tiles_are_rounded() -> None:
    """To tf32, where the map says so: ties away from 0, and what is no number or infinite loses bits only."""
    low, bits = 0x1000, [0x3F800000, 0xBF800000, 0x7F7FFFFF, 0x7F800000, 0xFF800001, 0x00000FFF, 0]
    words = np.array([bit + more for bit in bits for more in (0, low - 1, low, 0x1FFF)], np.uint32)
    whole = np.zeros(32, np.uint32)
    whole[: len(words)] = words
    map = TensorMap(0, 0, 4, (32,), (), (32,), rounds=True)

    def write(t: Thread) -> None:
        make(t, 1)
        with only(t, 0):
            t.gpu.barrier_expect(t.gpu.shared(), 128)
            t.gpu.copy_tile(t.gpu.shared(TILE), t.maps[0], [i32(0)], t.gpu.shared())
        t.gpu.barrier_wait(t.gpu.shared(), i32(0))
        copy_shared(t, 128)

    out = np.zeros(32, np.uint32)
    launch(write, whole, out, maps=(map,))
    halves = np.where(whole & 0x7F800000 != 0x7F800000, np.uint32(low), np.uint32(0))
    np.testing.assert_array_equal(out, whole + halves & ~np.uint32(0x1FFF))


WORDS = TensorMap(0, 0, 4, (32, 8), (128,), (32, 8))
"""A tile of 1024 bytes, all of an array."""


def array() -> np.ndarray:
    return np.arange(256, dtype=np.int32)


def tile(t: Thread, offset: int = TILE, barrier: int = 0, at: int = 0, dims: int = 2) -> None:
    t.gpu.copy_tile(t.gpu.shared(offset), t.maps[0], [i32(at)] * dims, t.gpu.shared(barrier))


def load(t: Thread, offset: int = TILE) -> None:
    t.b.store(t.b.load("i32", t.gpu.shared(offset)), t.at("i32", 1, 0))


def fetch(t: Thread, bytes: int = 1024, **more: int) -> None:
    """Thread 0 copies a tile for barrier 0."""
    with only(t, 0):
        t.gpu.barrier_expect(t.gpu.shared(), bytes)
        tile(t, **more)


def after(*arrivals: int) -> Callable[[Write], Write]:
    """What is written follows the making of barriers."""

    def decorated(write: Write) -> Write:
        def both(t: Thread) -> None:
            make(t, *arrivals)
            write(t)

        return both

    return decorated


def wait(t: Thread, barrier: int = 0, parity: int = 0) -> None:
    t.gpu.barrier_wait(t.gpu.shared(8 * barrier), i32(parity))


@after(1)
def reads_too_early(t: Thread) -> None:
    fetch(t)
    with only(t, 0):
        load(t)
        wait(t)


@after(1)
def reads_what_another_waited_for(t: Thread) -> None:
    fetch(t)
    with only(t, 0):
        wait(t)
    with only(t, 1):
        load(t)


@after(1)
def waits_for_too_much(t: Thread) -> None:
    fetch(t, bytes=2048)
    wait(t)


@after(1)
def waits_for_too_little(t: Thread) -> None:
    with only(t, 0):
        tile(t)
        t.gpu.barrier_expect(t.gpu.shared(), 512)
    wait(t)


@after(1)
def does_not_wait(t: Thread) -> None:
    fetch(t)


@after(1)
def writes_without_fence(t: Thread) -> None:
    with only(t, 0):
        t.b.store(i32(1), t.gpu.shared(TILE + 64))
    fetch(t)
    wait(t)


@after(1, 1)
def copies_over_what_others_read(t: Thread) -> None:
    """Thread 50 says that it has read, and not thread 40."""
    fetch(t)
    for number in (40, 50):
        with only(t, number):
            wait(t)
            load(t, TILE + 4 * number)
    with only(t, 50):
        t.gpu.barrier_arrive(t.gpu.shared(8))
    with only(t, 0):
        wait(t, barrier=1)
    fetch(t)


@after(1, 1)
def copies_over_a_barrier(t: Thread) -> None:
    with only(t, 0):
        t.gpu.barrier_expect(t.gpu.shared(), 1024)
        tile(t, offset=0)


@after(1)
def comes_too_often(t: Thread) -> None:
    """The second arrival is for a phase that waits for bytes still."""
    with only(t, 0):
        t.gpu.barrier_expect(t.gpu.shared(), 1024)
        t.gpu.barrier_arrive(t.gpu.shared())


def makes_no_barrier_for_copies(t: Thread) -> None:
    with only(t, 0):
        t.gpu.barrier_make(t.gpu.shared(), 1)
        t.gpu.barrier_expect(t.gpu.shared(), 1024)
        tile(t)


def does_not_know_of_the_barrier(t: Thread) -> None:
    with only(t, 0):
        t.gpu.barrier_make(t.gpu.shared(), 1)
        t.gpu.barrier_arrive(t.gpu.shared())
    wait(t)


@after(1)
def makes_a_barrier_twice(t: Thread) -> None:
    with only(t, 0):
        t.gpu.barrier_make(t.gpu.shared(), 1)


@after(1)
def writes_over_a_barrier(t: Thread) -> None:
    with only(t, 0):
        t.b.store(i32(1), t.gpu.shared(4))


@after(*[1] * 65)
def makes_many_barriers(t: Thread) -> None: ...


@after(1)
def copies_to_anywhere(t: Thread) -> None:
    fetch(t, offset=TILE + 128)


@after(1)
def copies_beyond_the_end(t: Thread) -> None:
    fetch(t, offset=8192)


@after(1)
def gives_too_few_numbers(t: Thread) -> None:
    fetch(t, dims=1)


@after(1)
def waits_elsewhere(t: Thread) -> None:
    wait(t, barrier=1)


@after(1)
def waits_for_a_barrier_in_between(t: Thread) -> None:
    t.gpu.barrier_wait(t.gpu.shared(4), i32(0))


WRONG = {
    reads_too_early: "reads 4 bytes of shared memory at offset 1024, and an asynchronous copy to byte 1024 of it",
    reads_what_another_waited_for: "reads 4 bytes of shared memory at offset 1024, and a copy of a tile writes it too",
    waits_for_too_much: "a phase waits for 0 more to come, and for 2048 bytes, of which copies bring 1024",
    waits_for_too_little: "to a barrier in shared memory, and tiles of 1024 bytes come to a phase that waits for 512",
    does_not_wait: "ends while 1 copies of tiles are not waited for",
    writes_without_fence: "to shared memory at offset 1024, where thread 0 has written, with no fence for that",
    copies_over_what_others_read: "to shared memory at offset 1024, and thread 40 reads it too: nothing says which",
    copies_over_a_barrier: "to shared memory at offset 0, and there is a barrier at 0, which thread 0 has made",
    comes_too_often: "and all 1 arrivals of its phase have come, but only 0 of 1024 bytes",
    makes_no_barrier_for_copies: "begins to copy a tile to shared memory, for a barrier that copies do not know of",
    does_not_know_of_the_barrier: "and thread 0 made the barrier at offset 0: nothing says that before",
    makes_a_barrier_twice: "makes a barrier in shared memory at offset 0, and there is a barrier at 0",
    writes_over_a_barrier: "writes 4 bytes of shared memory at offset 4, and there is a barrier at 4, which thread 0",
    makes_many_barriers: "makes a barrier in shared memory, and there are 64 already",
    copies_to_anywhere: "to shared memory at offset 1152, which is not a multiple of 1024",
    copies_beyond_the_end: "to shared memory at offset 8192, and there are 8192 bytes",
    gives_too_few_numbers: "by 1 numbers, and its array has 2 dims",
    waits_elsewhere: "and there is no barrier at offset 8",
    waits_for_a_barrier_in_between: "at offset 4, which is not a multiple of 8",
}


@pytest.mark.parametrize("write", WRONG, ids=lambda write: write.__name__)
def test_what_goes_wrong_is_told(write: Write) -> None:
    assert WRONG[write] in message(write, array(), zeros(), maps=(WORDS,))


@after(1, 2)
def fences_and_waits(t: Thread) -> None:
    """Tiles to the same place, between which threads write there; and one barrier for several phases."""
    with only(t, 0):
        t.b.store(i32(1), t.gpu.shared(TILE + 64))
        t.gpu.fence_shared()
    for phase in range(3):
        fetch(t)
        wait(t, parity=phase % 2)
        with only(t, 40):
            load(t, TILE + 64)
            t.b.store(i32(1), t.gpu.shared(TILE + 64))
            t.gpu.fence_shared()
            t.gpu.barrier_arrive(t.gpu.shared(8))
        with only(t, 0):
            t.gpu.barrier_arrive(t.gpu.shared(8))
            wait(t, 1, phase % 2)


def test_what_is_in_order_is_not_told() -> None:
    out = zeros()
    launch(fences_and_waits, array(), out, maps=(WORDS,))
    assert out[0] == 16


def test_a_map_that_is_more_than_its_argument() -> None:
    said = "a map of 1024 bytes of argument 0, and there are 512 bytes"
    assert said in message(does_not_wait, array()[:128], zeros(), maps=(WORDS,))


def test_a_block_of_too_many_threads() -> None:
    text = message(does_not_wait, array(), zeros(), block=1024, maps=(WORDS,))
    assert "makes a barrier in shared memory, in a block of 1024 threads, and the emulator has room for 928" in text
    launch(after(1)(_nothing), block=928)


def test_barriers_that_several_threads_make() -> None:
    def write(t: Thread) -> None:
        for number in (0, 1):
            with only(t, 40 * number):
                t.gpu.barrier_make(t.gpu.shared(8 * number), 1)
                t.gpu.barriers_made()
        t.gpu.barrier()
        for number in (0, 1):
            with only(t, 0):
                t.gpu.barrier_expect(t.gpu.shared(8 * number), 1024)
                tile(t, TILE + 1024 * number, 8 * number)
            wait(t, number)
        copy_shared(t, 2048)

    out = np.zeros(512, np.int32)
    launch(write, array(), out, maps=(WORDS,))
    np.testing.assert_array_equal(np.sort(out), np.sort(np.tile(array(), 2)))
