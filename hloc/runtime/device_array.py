"""Arrays in the memory of a GPU: results of programs, and those of other libraries without a copy.

`__dlpack__` and `__cuda_array_interface__` (version 3) hand them to torch, CuPy, JAX and others and take theirs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hloc.errors import ArgumentError
from hloc.runtime import dlpack

if TYPE_CHECKING:
    from hloc.runtime.cuda_gpu import CudaGpu

_LEGACY_STREAM = 1
"""The driver's name of the default stream, on which other libraries work unless they are told otherwise."""

_NO_STREAM = -1

_CURRENT_STREAMS: dict[str, Callable[[Any, int], int]] = {
    "torch": lambda torch, number: torch.cuda.current_stream(number).cuda_stream,
    "cupy": lambda cupy, number: cupy.cuda.get_current_stream().ptr,
}
"""How to ask a library, by the name of its module, on which stream it works just now."""


class DeviceArray:
    """An array on a GPU. It stays as it is; its memory is given back when nobody holds it, or what was made of it.

    `shape` and `dtype` are NumPy's, `strides` in bytes, `address` the GPU's. Work on it may not be done yet: reading
    it waits.
    """

    def __init__(
        self,
        gpu: CudaGpu,
        address: int,
        shape: tuple[int, ...],
        dtype: np.dtype,
        strides: tuple[int, ...],
        owner: object = None,
    ):
        self.form = (gpu.number, shape, strides, dtype)  # equal for arrays that any kernel takes for each other
        self.gpu, self.address, self.shape, self.dtype, self.strides = gpu, address, shape, dtype, strides
        self.owner = owner

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("an array of rank 0 has no length")
        return self.shape[0]

    def __repr__(self) -> str:
        sizes = ",".join(map(str, self.shape))
        return f"DeviceArray({self.dtype.name}[{sizes}] on GPU {self.gpu.number})"

    def numpy(self) -> np.ndarray:
        """A copy in the host's memory, laid out as it is here."""
        if not self.size:
            return np.empty(self.shape, self.dtype)
        extent = sum(step * (size - 1) for step, size in zip(self.strides, self.shape, strict=True))
        memory = np.empty(extent + self.dtype.itemsize, np.uint8)
        self.gpu.download(memory, self.address)
        return np.ndarray(self.shape, self.dtype, memory, strides=self.strides)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("an array on a GPU becomes NumPy's by a copy only")
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def item(self) -> Any:
        """The only element, as a Python number."""
        return self.numpy().item()

    def block_until_ready(self) -> DeviceArray:
        """Waits until the array is computed."""
        self.gpu.synchronize()
        return self

    # For others

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self.dtype.isbuiltin != 1:
            raise AttributeError(f"__cuda_array_interface__ has no type for {self.dtype.name}; __dlpack__ has")
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address if self.size else 0, False),
            "strides": self.strides,
            "stream": int(self.gpu.stream),
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return (dlpack.CUDA, self.gpu.number)

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """A capsule for a library that works on `stream`, which waits for what is still done to the array."""
        if copy or (dl_device is not None and tuple(dl_device) != self.__dlpack_device__()):
            raise BufferError("hloc hands out arrays where they are; numpy() copies them to the host")
        taker = _LEGACY_STREAM if stream in (None, 0) else stream
        if taker != _NO_STREAM:
            self.gpu.let_wait(taker)
        itemsize = self.dtype.itemsize
        strides = tuple(step // itemsize for step in self.strides)
        tensor = dlpack.Tensor(self.address, self.__dlpack_device__(), self.dtype, self.shape, strides)
        # Memory that comes back is used again in this GPU's stream: not before the taker has read it.
        return dlpack.make(tensor, self, lambda: taker != _NO_STREAM and self.gpu.wait_for(taker))


class Block:
    """Memory that is given back when nobody holds it any more."""

    def __init__(self, gpu: CudaGpu, address: int):
        self._gpu, self._address = gpu, address

    def __del__(self) -> None:
        self._gpu.free(self._address)


def imported(value: Any, gpu: CudaGpu, place: str) -> DeviceArray | None:
    """A view of an array on the GPU, whichever library's it is; None if it is in the host's memory.

    Work in this GPU's stream waits for what its library still does to it. ArgumentError if it lies on another GPU, is
    of a type that hloc lacks, or its library does not hand it out.
    """
    number = _number_of(value, gpu.number)
    if number is None:
        return None
    if number != gpu.number:
        raise ArgumentError(f"{place} lies on GPU {number}, and the program runs on GPU {gpu.number}")
    if isinstance(value, DeviceArray):
        return value
    try:
        return _from_dlpack(value, gpu) if hasattr(value, "__dlpack__") else _from_interface(value, gpu)
    except BufferError as error:
        raise ArgumentError(f"{place} cannot be taken: {error}") from None


def _number_of(value: Any, here: int) -> int | None:
    """The GPU that an array says it lies on; None for none. The older protocol does not say: it is taken for `here`."""
    if hasattr(value, "__dlpack_device__"):
        kind, number = value.__dlpack_device__()
        return int(number) if int(kind) == dlpack.CUDA else None
    return here if hasattr(value, "__cuda_array_interface__") else None


def _from_dlpack(value: Any, gpu: CudaGpu) -> DeviceArray:
    capsule = value.__dlpack__(stream=int(gpu.stream))
    tensor = dlpack.read(capsule)
    steps = dlpack.row_major(tensor.shape) if tensor.strides is None else tensor.strides
    strides = tuple(step * tensor.dtype.itemsize for step in steps)
    return DeviceArray(gpu, tensor.address, tensor.shape, tensor.dtype, strides, (capsule, value))


def _from_interface(value: Any, gpu: CudaGpu) -> DeviceArray:
    facts = value.__cuda_array_interface__
    dtype, shape = np.dtype(facts["typestr"]), tuple(facts["shape"])
    strides = facts.get("strides") or tuple(step * dtype.itemsize for step in dlpack.row_major(shape))
    stream = facts.get("stream", _LEGACY_STREAM)
    if stream is not None:
        gpu.wait_for(stream)
    return DeviceArray(gpu, facts["data"][0] or 0, shape, dtype, tuple(strides), value)


def release(arrays: Sequence[DeviceArray], gpu: CudaGpu) -> None:
    """Arguments of other libraries have been read by all work begun so far: their libraries wait for that.

    What they work on next, changing an array where it lies for instance, comes after; the arrays live until then.
    """
    taken = [array.owner for array in arrays if not isinstance(array.owner, Block)]
    if taken:
        for stream in dict.fromkeys(_stream_of(owner, gpu) for owner in taken):
            gpu.let_wait(stream)
        gpu.hold(taken)


def _stream_of(owner: Any, gpu: CudaGpu) -> int:
    value = owner[-1] if isinstance(owner, tuple) else owner
    library = type(value).__module__.partition(".")[0]
    ask = _CURRENT_STREAMS.get(library)
    return (ask(sys.modules[library], gpu.number) if ask else 0) or _LEGACY_STREAM
