"""NVIDIA's driver, through cuda-python: loaded when a GPU is asked for, and every call of it checked.

What is missing is told in one sentence: the package, the driver, a GPU, or a GPU new enough.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

from hloc.errors import HloError
from hloc.records import NamedTuple

LEAST_SM = 70
"""The oldest architecture that kernels are written for."""


class DriverError(HloError):
    """The driver refused a call. `code` is its name of the error, `CUDA_ERROR_OUT_OF_MEMORY` for instance."""

    def __init__(self, message: str, code: str):
        super().__init__(message)
        self.code = code


class Gpu(NamedTuple):
    """A GPU of this machine. `arch` is what code for it is compiled for, `memory` its bytes.

    It has so many `multiprocessors`, which run blocks at the same time.
    """

    number: int
    name: str
    arch: str
    sm: int
    memory: int
    multiprocessors: int


@cache
def driver() -> Any:
    """The module of the driver's functions, initialized. HloError, in one sentence, if there is none."""
    try:
        found = import_module("cuda.bindings.driver")
    except ImportError:
        raise HloError("GPUs need the package cuda-python: pip install 'hloc[gpu]'") from None
    try:
        check(found, found.cuInit(0), "cuInit")
    except DriverError as error:
        if error.code == "CUDA_ERROR_NO_DEVICE":
            raise HloError("this machine has no NVIDIA GPU") from None
        raise HloError(f"NVIDIA's driver does not start: {error.code}") from None
    except RuntimeError:  # what cuda-python raises if there is no libcuda
        raise HloError("this machine has no NVIDIA driver (libcuda), which running on a GPU takes") from None
    return found


def check(driver: Any, answer: tuple, what: str | Callable[[], str]) -> Any:
    """What a function of the driver gave beside its status; DriverError, with `what` was done, if that is an error."""
    status = answer[0]
    if int(status):
        said = what if isinstance(what, str) else what()
        name, text = _text(driver.cuGetErrorName(status)), _text(driver.cuGetErrorString(status))
        raise DriverError(f"{said}: {name or f'error {int(status)}'}{text and f' ({text})'}", name)
    return answer[1] if len(answer) == 2 else answer[1:] or None


def _text(answer: tuple) -> str:
    return answer[1].decode() if not int(answer[0]) and answer[1] else ""


def driver_version() -> tuple[int, int]:
    """The version of CUDA that the driver is for."""
    version = check(driver(), driver().cuDriverGetVersion(), "cuDriverGetVersion")
    return version // 1000, version % 1000 // 10


def gpu_count() -> int:
    """How many GPUs this machine has; HloError if none."""
    count = check(driver(), driver().cuDeviceGetCount(), "cuDeviceGetCount")
    if not count:
        raise HloError("this machine has no NVIDIA GPU")
    return count


@cache
def gpu(number: int = 0) -> Gpu:
    """What GPU a number stands for; HloError if there is none of that number."""
    count = gpu_count()
    if not 0 <= number < count:
        numbers = "only GPU 0" if count == 1 else f"GPUs 0 to {count - 1}"
        raise HloError(f"there is no GPU {number}: this machine has {numbers}")
    cu = driver()
    handle = check(cu, cu.cuDeviceGet(number), "cuDeviceGet")
    name = check(cu, cu.cuDeviceGetName(128, handle), "cuDeviceGetName")
    memory = check(cu, cu.cuDeviceTotalMem(handle), "cuDeviceTotalMem")
    kind = cu.CUdevice_attribute
    major, minor, multiprocessors = (
        check(cu, cu.cuDeviceGetAttribute(attribute, handle), "cuDeviceGetAttribute")
        for attribute in (
            kind.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            kind.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            kind.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
        )
    )
    sm = major * 10 + minor
    plain = name.split(b"\0")[0].decode()
    return Gpu(number, plain, f"sm_{sm}{'a' if sm >= 90 else ''}", sm, memory, multiprocessors)


def target_gpu(number: str) -> Gpu:
    """The GPU of a target `cuda:number`; the first for "". HloError if there is none, or kernels for it cannot be."""
    if number and not number.isdecimal():
        raise HloError(f'"{number}" is no number of a GPU: `cuda` is the first, `cuda:1` the second')
    found = gpu(int(number or 0))
    if found.sm < LEAST_SM:
        what = f"GPU {found.number} ({found.name}) is {found.arch}"
        raise HloError(f"{what}, which is too old: sm_{LEAST_SM} is the least that kernels are written for")
    return found
