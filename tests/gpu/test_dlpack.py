"""DLPack's records, held against NumPy's: what one library writes, the other reads."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from hloc.ir.dtypes import BF16
from hloc.runtime import dlpack
from hloc.runtime.dlpack import Tensor

HOST = (1, 0)
"""The host's memory, among DLPack's devices."""


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "uint16", "int64", "bool", "complex128", "float16"])
def test_what_numpy_writes_is_read(dtype: str) -> None:
    given = np.zeros((3, 4, 5), dtype)[:, ::2, 1:]
    tensor = dlpack.read(given.__dlpack__())
    steps = tuple(step // given.itemsize for step in given.strides)
    assert tensor == Tensor(given.__array_interface__["data"][0], HOST, given.dtype, (3, 2, 4), steps)


class Producer:
    """What `numpy.from_dlpack` takes."""

    def __init__(self, tensor: Tensor, owner: object, done: Any):
        self.arguments = (tensor, owner, done)

    def __dlpack__(self, **how: Any) -> object:
        return dlpack.make(*self.arguments)

    def __dlpack_device__(self) -> tuple[int, int]:
        return HOST


@pytest.mark.parametrize("dtype", ["float32", "uint8", "bool", "complex64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numpy_reads_what_is_written(dtype: str, order: str) -> None:
    given = np.array(np.arange(6).reshape(2, 3), dtype, order=order)
    steps = None if order == "C" else (1, 2)
    tensor = Tensor(given.__array_interface__["data"][0], HOST, given.dtype, (2, 3), steps)
    done = []
    taken = np.from_dlpack(Producer(tensor, given, lambda: done.append(1)))
    np.testing.assert_array_equal(taken, given)
    assert np.shares_memory(taken, given) and not done
    del taken
    gc.collect()
    assert done == [1]


def test_a_capsule_that_nobody_takes_lets_go() -> None:
    given = np.zeros(3)
    tensor = Tensor(given.__array_interface__["data"][0], HOST, given.dtype, (3,), None)
    done, before = [], set(dlpack._given)
    capsule = dlpack.make(tensor, given, lambda: done.append(1))
    assert dlpack.read(capsule).shape == (3,)
    del capsule
    gc.collect()
    assert done == [1] and set(dlpack._given) <= before


def test_types_that_numpy_lacks_keep_their_names() -> None:
    given = np.zeros(4, BF16.numpy)
    tensor = Tensor(given.__array_interface__["data"][0], HOST, given.dtype, (4,), (1,))
    assert dlpack.read(dlpack.make(tensor, given, lambda: None)) == tensor


def test_types_that_dlpack_lacks_are_told() -> None:
    with pytest.raises(BufferError, match="DLPack has no type for int4"):
        dlpack.make(Tensor(0, HOST, dlpack.numpy_type("int4"), (), None), None, lambda: None)
