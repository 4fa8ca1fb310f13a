"""Arguments of kernels as NVIDIA's driver takes them: words of 8 bytes, and tensor maps."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hloc.codegen.device_program import Launch, TensorMap
from hloc.errors import HloError
from hloc.host.gpus import check

if TYPE_CHECKING:
    from hloc.runtime.cuda_gpu import CudaGpu

_MAP_BYTES = 128
"""Of an encoded map; it begins at a multiple of as many (of 64, before CUDA 13)."""

_ENCODE, _SINCE = b"cuTensorMapEncodeTiled", 12000

_ENCODER = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p, *[ctypes.c_void_p] * 4,
    *[ctypes.c_int] * 4,
)  # fmt: skip
"""The map, the kind of its elements, its rank, address, sizes, strides, tile, steps, and four choices."""


class Packed:
    """Arguments of a kernel: words, then `maps`, encoded. `address` is that of pointers to them."""

    def __init__(self, values: Sequence[int], maps: EncodedMaps | None = None):
        count = len(values)
        self._values = (ctypes.c_uint64 * max(count, 1))(*[value & 0xFFFFFFFFFFFFFFFF for value in values])
        start = ctypes.addressof(self._values)
        pointers = list(range(start, start + 8 * count, 8))
        self._maps = maps
        if maps is not None:
            pointers += maps.addresses
        self._pointers = (ctypes.c_void_p * max(len(pointers), 1))(*pointers)
        self.address = ctypes.addressof(self._pointers)


def packed(gpu: CudaGpu, launch: Launch, arguments: Sequence[int]) -> Packed:
    """The arguments of a launch whose locations lie at these addresses."""
    maps = EncodedMaps(gpu, launch, arguments) if launch.maps else None
    return Packed((*arguments, *launch.scalars), maps)


class EncodedMaps:
    """The maps of a launch with the addresses of their arrays in them, as the driver encodes them: at `addresses`.

    cuda-python gives such maps in objects of Python, which are not aligned as the driver wants them: so its function
    is called by its address.
    """

    def __init__(self, gpu: CudaGpu, launch: Launch, arguments: Sequence[int]):
        gpu.enter()
        self._room = ctypes.create_string_buffer(_MAP_BYTES * (len(launch.maps) + 1))
        start = -(-ctypes.addressof(self._room) // _MAP_BYTES) * _MAP_BYTES
        self.addresses = [start + _MAP_BYTES * number for number in range(len(launch.maps))]
        encode = _encoder(gpu)
        for place, map in zip(self.addresses, launch.maps, strict=True):
            status = encode(place, *_described(gpu.driver, map, arguments[map.argument]))
            if status:
                what = f"cuTensorMapEncodeTiled, for kernel {launch.kernel} (%{launch.instruction})"
                check(gpu.driver, (gpu.driver.CUresult(status),), what)


def _encoder(gpu: CudaGpu) -> Any:
    place, _ = gpu.call("cuGetProcAddress", _ENCODE, _SINCE, 0)
    if not place:
        raise HloError(f"the driver of GPU {gpu.number} has no {_ENCODE.decode()}, which this program needs")
    return _ENCODER(int(place))


def _described(cu: Any, map: TensorMap, address: int) -> tuple:
    """What the driver's function is given, but for the place of the result."""
    rank = len(map.dims)
    kind = "TFLOAT32" if map.rounds else f"UINT{8 * map.itemsize}"
    kind = getattr(cu.CUtensorMapDataType, f"CU_TENSOR_MAP_DATA_TYPE_{kind}")
    dims = (ctypes.c_uint64 * rank)(*map.dims)
    strides = (ctypes.c_uint64 * max(rank - 1, 1))(*map.strides)
    box, steps = ((ctypes.c_uint32 * rank)(*numbers) for numbers in (map.box, [1] * rank))
    choices = (
        cu.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
        cu.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
        cu.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        cu.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
    )
    return int(kind), rank, address + map.offset, dims, strides, box, steps, *(int(choice) for choice in choices)
