"""DLPack: arrays handed from one library to another without a copy, as capsules with a C record in them.

The records and the numbers of types and devices are those of `dlpack.h`, version 1.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from hloc.ir.dtypes import BY_NUMPY
from hloc.records import NamedTuple

CUDA = 2
"""The kind of device that GPUs of NVIDIA are."""

_UNUSED, _USED = b"dltensor", b"used_dltensor"

_FLOAT8 = {
    "float8_e3m4": 7,
    "float8_e4m3": 8,
    "float8_e4m3b11fnuz": 9,
    "float8_e4m3fn": 10,
    "float8_e4m3fnuz": 11,
    "float8_e5m2": 12,
    "float8_e5m2fnuz": 13,
    "float8_e8m0fnu": 14,
}
_CODES: dict[str, tuple[int, int]] = {
    "bool": (6, 8),
    "bfloat16": (4, 16),
    **{f"int{bits}": (0, bits) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": (1, bits) for bits in (8, 16, 32, 64)},
    **{f"float{bits}": (2, bits) for bits in (16, 32, 64)},
    **{f"complex{bits}": (5, bits) for bits in (64, 128)},
    **{name: (code, 8) for name, code in _FLOAT8.items()},
}
"""NumPy's name of a type -> DLPack's code of it, and its bits. Types below a byte, which hloc keeps in bytes, lack."""

_NAMES = {code: name for name, code in _CODES.items()}


class _Device(ctypes.Structure):
    _fields_ = [("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32)]


class _DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Managed(ctypes.Structure):
    pass


_DELETER = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = [("tensor", _Tensor), ("manager_ctx", ctypes.c_void_p), ("deleter", _DELETER)]


class Tensor(NamedTuple):
    """What a capsule holds: sizes and strides in elements, None for those of a row-major array."""

    address: int
    device: tuple[int, int]
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None


def numpy_type(name: str) -> np.dtype:
    """The type of that name, those of ml_dtypes included."""
    known = next((dtype for dtype in BY_NUMPY if dtype.name == name), None)
    return known if known is not None else np.dtype(name)


def read(capsule: object) -> Tensor:
    """What lies in a capsule, which has to live as long as the memory is used. BufferError for a type unknown here."""
    pointer = _api("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(capsule, _UNUSED)
    tensor = _Managed.from_address(pointer).tensor
    kind = (tensor.dtype.code, tensor.dtype.bits)
    if kind not in _NAMES or tensor.dtype.lanes != 1:
        raise BufferError(f"hloc has no type for DLPack's code {kind[0]} of {kind[1]} bits")
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    strides = tuple(tensor.strides[i] for i in range(tensor.ndim)) if tensor.strides else None
    address = (tensor.data or 0) + tensor.byte_offset
    device = (tensor.device.device_type, tensor.device.device_id)
    return Tensor(address, device, numpy_type(_NAMES[kind]), shape, strides)


_given: dict[int, Any] = {}
"""What stays alive until a taker of a capsule says that it is done: by the address of the capsule's record."""


@_DELETER
def _delete(managed: Any) -> None:
    """What takers call, from any thread. It may be called while Python collects garbage."""
    done = _given.pop(ctypes.addressof(managed.contents), None)
    if done is not None:
        done[-1]()


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _drop(capsule: int) -> None:
    """The destructor of a capsule: nobody has taken it if its name is still the first."""
    if _api("PyCapsule_IsValid", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(capsule, _UNUSED):
        pointer = _api("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(capsule, _UNUSED)
        _delete(ctypes.cast(pointer, ctypes.POINTER(_Managed)))


def make(tensor: Tensor, owner: object, done: Any) -> object:
    """A capsule. It keeps `owner` alive; `done()` is called when the taker needs it no more, on any thread.

    BufferError for a type that DLPack lacks.
    """
    if tensor.dtype.name not in _CODES:
        raise BufferError(f"DLPack has no type for {tensor.dtype.name}")
    code, bits = _CODES[tensor.dtype.name]
    count = len(tensor.shape)
    sizes, steps = (ctypes.c_int64 * max(count, 1))(*tensor.shape), (ctypes.c_int64 * max(count, 1))()
    steps[:count] = tensor.strides if tensor.strides is not None else row_major(tensor.shape)
    managed = _Managed()
    managed.tensor = _Tensor(
        tensor.address, _Device(*tensor.device), count, _DataType(code, bits, 1), sizes, steps, 0
    )
    managed.deleter = _delete
    address = ctypes.addressof(managed)
    _given[address] = (managed, sizes, steps, owner, done)
    new = _api("PyCapsule_New", ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return new(address, _UNUSED, ctypes.cast(_drop, ctypes.c_void_p))


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides, in elements, of a row-major array."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def _api(name: str, result: Any, *arguments: Any) -> Any:
    """A function of Python's own, with these types."""
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))
