"""What arrays the machine copies tiles of by one command (TMA)."""

from __future__ import annotations

from hloc.codegen.device_program import TENSOR_MAP_DIMS, TensorMap

_MOST_BOX, _ROW_BYTES = 256, 128


def tensor_map_problem(map: TensorMap) -> str | None:
    """Why the machine does not take a map; None if it does. From cuTensorMapEncodeTiled in the CUDA Driver API."""
    rank = len(map.dims)
    if not 1 <= rank <= TENSOR_MAP_DIMS or len(map.strides) != rank - 1 or len(map.box) != rank:
        return f"{rank} dims, {len(map.strides)} strides, and a tile of {len(map.box)}"
    if map.itemsize not in (1, 2, 4, 8) or map.box[0] * map.itemsize != _ROW_BYTES:
        return f"rows of {map.box[0]} elements of {map.itemsize} bytes"
    if not all(0 < size < 1 << 32 for size in map.dims) or not all(0 < size <= _MOST_BOX for size in map.box):
        return f"sizes {map.dims} with a tile of {map.box}"
    if map.offset % 16 or not all(stride % 16 == 0 and 0 < stride < 1 << 40 for stride in map.strides):
        return f"strides of {map.strides} bytes from {map.offset} on"
    return None
