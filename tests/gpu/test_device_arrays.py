"""Arrays in a GPU's memory, hloc's and those of other libraries, on a driver that is not there."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from fake_driver import FakeDriver
from test_cuda_runtime import FOUR_TIMES, TWICE, fake, for_gpu, install, on_gpu
from test_device_executable import ARG, OUT, VECTOR, X, launch, program

from hloc.codegen.device_program import ARGUMENT, RESULT, Copy, Location
from hloc.errors import ArgumentError
from hloc.ir.dtypes import BF16
from hloc.ir.shapes import array
from hloc.runtime.device_array import DeviceArray

__all__ = ["fake", "install"]


def test_arrays_on_the_gpu_are_used_where_they_lie_and_results_stay_there(fake: FakeDriver) -> None:
    run = for_gpu(TWICE)
    given = on_gpu(run)
    before = fake.log.count("cuMemcpyHtoDAsync")
    result = run(given)
    assert isinstance(result, DeviceArray) and result.shape == (4,) and result.dtype == np.float32
    result = run(result)
    assert fake.log.count("cuMemcpyHtoDAsync") == before
    np.testing.assert_array_equal(result.numpy(), 4 * X)
    np.testing.assert_array_equal(np.asarray(result), 4 * X)
    assert (result.ndim, result.size, result.nbytes, len(result)) == (1, 4, 16, 4)


def test_arguments_are_put_there_for_calls_to_come(fake: FakeDriver) -> None:
    run = for_gpu(TWICE)
    (given,) = run.to_device(X)
    assert isinstance(given, DeviceArray) and run.to_device(given) == [given]
    np.testing.assert_array_equal(run(given).numpy(), 2 * X)


def test_memory_of_results_is_used_again(fake: FakeDriver) -> None:
    run = for_gpu(FOUR_TIMES)
    given = on_gpu(run)
    addresses = {run(given).address for _ in range(6)}
    assert len(addresses) == 1
    assert fake.log.count("cuGraphInstantiate") == 1


def test_arrays_that_do_not_fit_are_told_like_any_other(fake: FakeDriver) -> None:
    run = for_gpu(TWICE)
    given = on_gpu(run)
    wrong = DeviceArray(given.gpu, given.address, (2,), given.dtype, (4,), given)
    with pytest.raises(ArgumentError, match=r"argument 0 \(%p0\) is f32\[2\], expected f32\[4\]"):
        run(wrong)


def test_arrays_that_begin_anywhere_are_copied_first(fake: FakeDriver) -> None:
    run = for_gpu(TWICE)
    room = on_gpu(run, np.zeros(8, np.float32))
    inside = DeviceArray(room.gpu, room.address + 4, (4,), room.dtype, (4,), room)
    before = fake.log.count("cuMemcpyDtoDAsync")
    np.testing.assert_array_equal(run(inside).numpy(), np.zeros(4))
    assert fake.log.count("cuMemcpyDtoDAsync") == before + 1


class Foreign:
    """Another library's array, with the older protocol, which works on a stream of its own."""

    def __init__(self, made: DeviceArray, stream: int):
        self.made = made
        self.facts = {**made.__cuda_array_interface__, "stream": stream}

    @property
    def __cuda_array_interface__(self) -> dict:
        return self.facts


def test_the_stream_of_the_older_protocol_is_waited_for(fake: FakeDriver) -> None:
    run = for_gpu(TWICE)
    foreign = Foreign(on_gpu(run), 77)
    np.testing.assert_array_equal(run(foreign).numpy(), 2 * X)
    ours = int(foreign.made.gpu.stream)
    first = fake.log.index("record in 77")
    assert f"wait in {ours}" in fake.log[first:]
    assert "wait in 1" in fake.log[fake.log.index("cuLaunchKernel") :]


def test_arrays_of_others_are_held_until_they_have_been_read(fake: FakeDriver) -> None:
    run = for_gpu(TWICE)
    foreign = Foreign(on_gpu(run), 77)
    watch = weakref.ref(foreign)
    result = run(foreign)
    del foreign
    gc.collect()
    assert watch() is not None
    result.block_until_ready()
    gc.collect()
    assert watch() is None


class Dlpack:
    """Another library's array, with DLPack alone."""

    def __init__(self, made: DeviceArray):
        self.made, self.streams = made, []

    def __dlpack__(self, stream: int) -> object:
        self.streams.append(stream)
        return self.made.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.made.__dlpack_device__()


def test_dlpack_goes_both_ways(fake: FakeDriver) -> None:
    run = for_gpu(TWICE)
    foreign = Dlpack(on_gpu(run))
    np.testing.assert_array_equal(run(foreign).numpy(), 2 * X)
    assert foreign.streams == [int(foreign.made.gpu.stream)]


def test_dlpack_carries_types_that_numpy_lacks(fake: FakeDriver) -> None:
    shape = array(BF16, 2, 3)
    made = program([Copy(OUT, ARG, shape.byte_size)], parameters=[shape], results=[shape])
    run = for_gpu(made)
    values = np.arange(6).reshape(2, 3).astype(BF16.numpy)
    given = on_gpu(run, values)
    np.testing.assert_array_equal(run(Dlpack(given)).numpy(), values)
    with pytest.raises(AttributeError, match="bfloat16; __dlpack__ has"):
        _ = given.__cuda_array_interface__


def test_a_capsule_keeps_the_memory_until_its_taker_is_done(fake: FakeDriver) -> None:
    run = for_gpu(TWICE)
    result = run(on_gpu(run))
    address, gpu = result.address, result.gpu
    capsule = result.__dlpack__(stream=55)
    assert "wait in 55" in fake.log
    del result
    gc.collect()
    assert run(on_gpu(run)).address != address
    del capsule
    gc.collect()
    assert f"wait in {int(gpu.stream)}" in fake.log[fake.log.index("record in 55") :]
    assert address in {run(on_gpu(run)).address for _ in range(3)}


def test_arrays_of_another_gpu_are_told(install) -> None:
    install(gpus=[(9, 0), (9, 0)])
    there = on_gpu(for_gpu(TWICE, target="cuda:1"))
    with pytest.raises(ArgumentError, match=r"argument 0 \(%p0\) lies on GPU 1, and the program runs on GPU 0"):
        for_gpu(TWICE)(there)


def test_hosts_arrays_go_along_with_those_of_the_gpu(fake: FakeDriver) -> None:
    two = program([launch("add", Location(ARGUMENT, 0), Location(ARGUMENT, 1), OUT)], parameters=[VECTOR, VECTOR])
    run = for_gpu(two)
    np.testing.assert_array_equal(run(on_gpu(run), X).numpy(), 2 * X)


def test_results_are_structured(fake: FakeDriver) -> None:
    both = program([launch("double", ARG, Location(RESULT, 1)), Copy(OUT, ARG, 16)], results=[VECTOR, VECTOR])
    run = for_gpu(both)
    first, second = run(on_gpu(run))
    np.testing.assert_array_equal(first.numpy() * 2, second.numpy())
