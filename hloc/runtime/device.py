"""What running a device program needs of a device: memory, copies, launches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hloc.codegen.device_program import Launch
from hloc.errors import HloError
from hloc.ir.shapes import ArrayShape
from hloc.runtime.device_plan import Step


class Device(ABC):
    """A device with the image of one program loaded. Addresses are plain integers; the work is done in order.

    Everything may return before it is done, but `read`, `download` and `synchronize`. HloError, with the kernel and
    the HLO instruction in it, if something fails; that may show at a later call.
    """

    keeps_arrays = False
    """Whether arrays can stay in the device's memory from call to call: `imported`, `array_maker`."""

    @abstractmethod
    def allocate(self, size: int, what: str) -> int:
        """The address of so many bytes, aligned to 256. HloError, with the size, if `what` finds no memory."""

    @abstractmethod
    def free(self, address: int) -> None:
        """Takes memory back, when the work that was begun before is done with it."""

    @abstractmethod
    def upload(self, address: int, array: np.ndarray) -> None:
        """Copies an array's bytes, in the order of its memory, to the device; the array may change afterwards."""

    @abstractmethod
    def download(self, array: np.ndarray, address: int) -> None:
        """Fills an array's memory from the device."""

    @abstractmethod
    def copy(self, target: int, source: int, size: int) -> None:
        """Copies bytes within the device."""

    @abstractmethod
    def fill(self, target: int, byte: int, size: int) -> None:
        """Sets bytes."""

    @abstractmethod
    def launch(self, launch: Launch, arguments: Sequence[int]) -> None:
        """Runs a kernel; `arguments` are the addresses of the launch's locations, in order."""

    @abstractmethod
    def read(self, address: int, size: int) -> bytes:
        """Bytes of device memory, once all work begun before is done."""

    @abstractmethod
    def synchronize(self) -> None:
        """Waits for all work."""

    def can_record(self, step: Step) -> bool:
        """Whether a step may be among those that `record` takes."""
        return False

    def record(self, steps: Sequence[Step]) -> Callable[[], None] | None:
        """What does all of the steps at once when it is called; None if the device finds that not worth it."""
        return None

    def imported(self, value: Any, place: str) -> Any:
        """A view of an array in the device's memory, as `arguments.View` gives; None if it is in the host's.

        It has an `address`, too. ArgumentError, with its place, if it is on another device.
        """
        return None

    def release(self, arrays: Sequence[Any]) -> None:
        """All work that reads imported arrays was begun: when it is done, others may change them."""
        return None

    def array_maker(self, shape: ArrayShape) -> Callable[[], Any]:
        """What makes a fresh array in the shape's layout, whose memory is given back when nobody holds it."""
        raise HloError("this device has no memory of its own that arrays can stay in")

    def form(self, shape: ArrayShape) -> object:
        """What `form` is of the arrays made here that have this type, shape and layout, and of no others."""
        return self
