"""Tensor maps on a driver that is not there: arrays in them are where they are in a call, and in no other."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from fake_driver import FakeDriver
from test_cuda_runtime import _add, fake, for_gpu, install, on_gpu
from test_device_executable import ARG, OUT, X, arena, launch, program

from hloc.codegen.device_program import TensorMap
from hloc.errors import HloError
from hloc.runtime.device_executable import DeviceExecutable

__all__ = ["fake", "install"]


def mapped(count: int, rounds: bool = False) -> DeviceExecutable:
    """A program of so many kernels, each of which reads its argument through a map alone."""
    map = TensorMap(0, 0, 4, (4,), (), (32,), rounds)
    places = [ARG, *(arena(16 * number) for number in range(count - 1)), OUT]
    steps = [launch("mapped", *pair)._replace(maps=(map,)) for pair in pairwise(places)]
    return for_gpu(program(steps))


@pytest.mark.parametrize("count", [1, 2])
def test_maps_have_the_addresses_of_their_arguments(fake: FakeDriver, count: int) -> None:
    """In launches, in those that are made ready, and in graphs, wherever arrays lie."""
    fake.kernels["mapped"] = lambda source, target, map: _add(map, source, target)
    run = mapped(count)
    arrays = [on_gpu(run, X + number) for number in range(3)]
    for _ in range(3):
        for given in arrays:
            np.testing.assert_array_equal(np.asarray(run(given)), 2**count * np.asarray(given))
    for _ in range(3):
        np.testing.assert_array_equal(run(X), 2**count * X)
    assert set(fake.maps) == {(2, (4,), (), (32,), (0, 3, 3, 0))}
    assert fake.log.count("cuTensorMapEncodeTiled") % count == 0
    if count > 1:
        assert "cuGraphInstantiate" in fake.log


def test_maps_that_round_are_of_the_kind_that_does(fake: FakeDriver) -> None:
    fake.kernels["mapped"] = lambda source, target, map: _add(map, source, target)
    mapped(1, rounds=True)(X)
    assert fake.maps == [(11, (4,), (), (32,), (0, 3, 3, 0))]


def test_a_map_that_the_driver_refuses(fake: FakeDriver) -> None:
    fake.kernels["mapped"] = lambda source, target, map: _add(map, source, target)
    run = mapped(1)
    fake.refuses_maps = True
    said = r"cuTensorMapEncodeTiled, for kernel mapped \(%mapped\): CUDA_ERROR_INVALID_VALUE"
    with pytest.raises(HloError, match=said):
        run(X)
