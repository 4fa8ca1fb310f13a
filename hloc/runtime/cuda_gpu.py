"""A GPU as this process has it: its primary context, one stream for all that hloc does there, and memory.

As everything goes through one stream, work is done in the order in which it was begun, whichever program it is of;
memory that is given back may be handed out again at once.

Errors of kernels show when the host next waits: the message names those begun since it last did.
"""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import numpy as np

from hloc.errors import HloError
from hloc.host.gpus import DriverError, check, driver, gpu
from hloc.runtime.memory import address as host_address

_SMALL = 64 * 1024
"""Bytes up to which the driver copies at once what lies in memory of the host's that may be paged out."""

_STAGE = 4 * 1024 * 1024
"""Bytes of each of the two buffers through which larger arrays go, one filled while the other is copied."""

_NAMED = 6
"""Kernels that a message names at most."""

_UNIT = 512
_EIGHTHS_FROM = 1024 * 1024


_opened: dict[int, CudaGpu] = {}
_opening = threading.Lock()


def gpu_of_process(number: int) -> CudaGpu:
    """The GPU of a number, opened once; HloError if it cannot be."""
    with _opening:
        if number not in _opened:
            _opened[number] = CudaGpu(number)
        return _opened[number]


class CudaGpu:
    """Work for one GPU. Any thread may use it; functions of the driver are called by `call`."""

    def __init__(self, number: int):
        self.facts = gpu(number)
        self.number = number
        self.driver = driver()
        self.lock = threading.RLock()
        self._handle = self.call("cuDeviceGet", number)
        self.context = self.call("cuDevicePrimaryCtxRetain", self._handle)
        self.enter()
        self.stream = self.call("cuStreamCreate", self.driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
        self._free: dict[int, deque[int]] = {}
        self._sizes: dict[int, int] = {}
        self._stages: list[_Stage] = []
        self._held: deque[tuple[Any, object]] = deque()
        self._peers: set[int] = {number}
        self.begun: dict[object, tuple[Mapping[str, str], tuple[str, ...]]] = {}
        """What was begun since the host last waited: kernels, with a text that says what each stands for."""

    def call(self, name: str, *arguments: Any) -> Any:
        """What a function of the driver gives; DriverError, which names it, if it fails."""
        return check(self.driver, getattr(self.driver, name)(*arguments), name)

    def enter(self) -> None:
        """Makes the GPU's context that of this thread; other libraries may have set another."""
        self.call("cuCtxSetCurrent", self.context)

    def synchronize(self) -> None:
        """Waits for all work. HloError, with the kernels that may be at fault, if some has failed."""
        self.enter()
        with self.waiting():
            self.call("cuStreamSynchronize", self.stream)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around calls of the driver that wait for work."""
        before = len(self._held)
        with self.blaming():
            yield
        self.begun.clear()
        for _ in range(before):
            self._let_go()

    @contextmanager
    def blaming(self) -> Iterator[None]:
        """Around calls of the driver that may tell of an earlier fault."""
        try:
            yield
        except DriverError as error:
            self.fail(error)

    def fail(self, error: DriverError) -> NoReturn:
        """Tells of a driver's error with the kernels that may be at fault."""
        begun = [(labels, kernel) for labels, kernels in list(self.begun.values()) for kernel in kernels]
        self.begun.clear()
        names = list(dict.fromkeys(labels[kernel] for labels, kernel in begun))[-_NAMED:]
        among = "" if not names else f", after {names[0]}"
        if len(names) > 1:
            among = f", after these, or some before: {', '.join(names)}"
        hint = "with CUDA_LAUNCH_BLOCKING=1 in the environment, the driver tells which kernel fails" if names else None
        raise HloError(f"work on GPU {self.number} failed: {error.message}{among}", hint=hint) from error

    # Memory

    def allocate(self, size: int, what: str) -> int:
        """Memory, from what was given back before if there is some of that size. HloError if there is none."""
        size = rounded(size)
        found = self._free.get(size)
        if found:
            try:
                return found.pop()
            except IndexError:  # another thread was faster
                pass
        self.enter()
        address = self._fresh(size)
        if address is None:
            self.release_unused()
            address = self._fresh(size)
        if address is None:
            free, total = self.call("cuMemGetInfo")
            where = f"GPU {self.number} has {free} of {total} bytes free"
            raise HloError(f"{what} takes {size} bytes, and {where}")
        self._sizes[address] = size
        return address

    def _fresh(self, size: int) -> int | None:
        try:
            return int(self.call("cuMemAlloc", size))
        except DriverError as error:
            if error.code != "CUDA_ERROR_OUT_OF_MEMORY":
                raise
            return None

    def free(self, address: int) -> None:
        """Keeps memory for the next who wants as much. May be called while Python collects garbage: takes no lock."""
        self._free.setdefault(self._sizes[address], deque()).append(address)

    def release_unused(self) -> None:
        """Gives what nobody has now back to the driver."""
        self.synchronize()
        for size in list(self._free):
            with suppress(IndexError):
                while True:
                    address = self._free[size].pop()
                    del self._sizes[address]
                    self.call("cuMemFree", address)

    def reach(self, other: CudaGpu) -> None:
        """Lets kernels here read the other GPU's memory; HloError if the machine cannot do that."""
        if other.number in self._peers:
            return
        if not self.call("cuDeviceCanAccessPeer", self._handle, other._handle):
            raise HloError(f"GPU {self.number} cannot read the memory of GPU {other.number}, which this program needs")
        self.enter()
        try:
            self.call("cuCtxEnablePeerAccess", other.context, 0)
        except DriverError as error:
            if error.code != "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED":
                raise
        self._peers.add(other.number)

    # Copies

    def upload(self, address: int, array: np.ndarray) -> None:
        """Copies an array's bytes to the GPU; when it returns they have been read."""
        self.enter()
        source, size = host_address(array), array.nbytes
        with self.blaming(), self.lock:
            if size <= _SMALL:
                self.call("cuMemcpyHtoDAsync", address, source, size, self.stream)
                return
            for number, start in enumerate(range(0, size, _STAGE)):
                stage, part = self._stage(number % 2), min(_STAGE, size - start)
                stage.wait()
                ctypes.memmove(stage.address, source + start, part)
                self.call("cuMemcpyHtoDAsync", address + start, stage.address, part, self.stream)
                stage.mark()

    def download(self, array: np.ndarray, address: int) -> None:
        """Fills an array's memory from the GPU, once all work begun before is done."""
        self.enter()
        target, size = host_address(array), array.nbytes
        with self.waiting(), self.lock:
            if size <= _SMALL:
                self.call("cuMemcpyDtoHAsync", target, address, size, self.stream)
                self.call("cuStreamSynchronize", self.stream)
                return
            starts = list(range(0, size, _STAGE))
            self._fetch(0, address, min(_STAGE, size))
            for number, start in enumerate(starts):
                if number + 1 < len(starts):
                    begin = starts[number + 1]
                    self._fetch(number + 1, address + begin, min(_STAGE, size - begin))
                stage = self._stage(number % 2)
                stage.wait()
                ctypes.memmove(target + start, stage.address, min(_STAGE, size - start))

    def _fetch(self, number: int, address: int, size: int) -> None:
        stage = self._stage(number % 2)
        stage.wait()
        self.call("cuMemcpyDtoHAsync", stage.address, address, size, self.stream)
        stage.mark()

    def _stage(self, number: int) -> _Stage:
        while len(self._stages) <= number:
            self._stages.append(_Stage(self))
        return self._stages[number]

    # Other streams

    def event(self) -> Any:
        """A new event, which takes no times."""
        return self.call("cuEventCreate", self.driver.CUevent_flags.CU_EVENT_DISABLE_TIMING)

    def wait_for(self, stream: int) -> None:
        """What is begun here from now on waits for all that was begun in another stream."""
        self._order(stream, self.stream)

    def let_wait(self, stream: int) -> None:
        """What is begun in another stream from now on waits for all that was begun here."""
        self._order(self.stream, stream)

    def _order(self, before: Any, after: Any) -> None:
        self.enter()
        event = self.event()
        self.call("cuEventRecord", event, before)
        self.call("cuStreamWaitEvent", after, event, 0)
        self.call("cuEventDestroy", event)  # which the driver does when the event has come

    def hold(self, owner: object) -> None:
        """Keeps an object of somebody else's until all work begun before is done; looks after those held earlier."""
        self.enter()
        while self._held and not int(self.driver.cuEventQuery(self._held[0][0])[0]):
            self._let_go()
        event = self.event()
        self.call("cuEventRecord", event, self.stream)
        self._held.append((event, owner))

    def _let_go(self) -> None:
        """Forgets the object that is held for the longest time."""
        with suppress(IndexError):  # another thread was faster
            event, _ = self._held.popleft()
            self.call("cuEventDestroy", event)


class _Stage:
    """Memory of the host's that the GPU copies from and to by itself."""

    def __init__(self, gpu: CudaGpu):
        self._gpu, self._event, self._is_busy = gpu, gpu.event(), False
        self.address = int(gpu.call("cuMemHostAlloc", _STAGE, 0))

    def mark(self) -> None:
        """A copy was begun."""
        self._gpu.call("cuEventRecord", self._event, self._gpu.stream)
        self._is_busy = True

    def wait(self) -> None:
        """Until the copy that was begun last is done."""
        if self._is_busy:
            self._gpu.call("cuEventSynchronize", self._event)
            self._is_busy = False


def rounded(size: int) -> int:
    """The bytes that are asked for in place of so many: whole units, and beyond a MiB few different sizes."""
    unit = _UNIT
    if size > _EIGHTHS_FROM:
        unit = 1 << (size - 1).bit_length() - 4
    return max(-(-size // unit), 1) * unit
