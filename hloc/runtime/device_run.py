"""A run of a device program: its steps done in order, loops and choices by the host, and devices that meet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from hloc.codegen.program import DEVICE_FAILED, DEVICE_LATE, ERRORS, External
from hloc.errors import HloError
from hloc.host.values import structured
from hloc.ir.shapes import ArrayShape, Shape
from hloc.runtime.device import Device
from hloc.runtime.device_plan import (
    ChoiceStep,
    CopyStep,
    FillStep,
    HostStep,
    LaunchStep,
    LoopStep,
    MeetingStep,
    Steps,
    Stretch,
    choose,
)
from hloc.runtime.externals import Deserted, Run, Service
from hloc.runtime.memory import new_array


def replayed(steps: Steps) -> bool:
    """Does steps that were all recorded; False, and nothing is done, if one was not."""
    for step in steps:
        if type(step) is not Stretch or step.state[1] is None:
            return False
    for step in steps:
        step.state[1]()
    return True


class Assembly:
    """Where the devices of one run meet, each a thread of this process.

    `words[0]` is the run's status: not 0, a key of ERRORS, when a device has failed.
    """

    def __init__(self, devices: int, patience: float):
        self.words = np.zeros(1, np.int64)
        self._shown: list[tuple[str, tuple[int, ...]]] = [("", ())] * devices
        self._barrier = threading.Barrier(devices)
        self._patience = patience

    def desert(self) -> None:
        """Tells all who come here, now or later, that a device has failed."""
        self.words[0] = self.words[0] or DEVICE_FAILED
        self._barrier.abort()

    def show(self, device: int, instruction: str, sources: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The sources of all devices, once all have come with theirs."""
        self._shown[device] = (instruction, sources)
        self.wait(instruction)
        for other, (there, _) in enumerate(self._shown):
            if there != instruction:
                raise HloError(f"device {device} came to {instruction}, and device {other} to {there}")
        return [shown for _, shown in self._shown]

    def wait(self, instruction: str) -> None:
        """Until all devices have come here. HloError if one does not; Deserted if one has failed."""
        try:
            self._barrier.wait(self._patience)
        except threading.BrokenBarrierError:
            if self.words[0]:
                raise Deserted(f"%{instruction}: {ERRORS[int(self.words[0])]}") from None
            self.words[0] = DEVICE_LATE
            raise HloError(f"%{instruction}: {ERRORS[DEVICE_LATE]}") from None


class DeviceRun:
    """A run on one device: does steps in order."""

    def __init__(
        self,
        device: Device,
        number: int,
        externals: Sequence[tuple[External, Service]],
        run: Run,
        assembly: Assembly,
    ):
        self.device, self.number, self.externals, self.run, self.assembly = device, number, externals, run, assembly
        self._kinds: dict[type, Callable[[Any], None]] = {
            LaunchStep: lambda step: device.launch(step.launch, step.arguments),
            CopyStep: lambda step: device.copy(*step),
            FillStep: lambda step: device.fill(*step),
            LoopStep: self._loop,
            ChoiceStep: self._choice,
            HostStep: self._host,
            MeetingStep: self._meet,
            Stretch: self._stretch,
        }

    def do(self, steps: Steps) -> None:
        """All of the steps; they may return before the device is done."""
        for step in steps:
            self._kinds[type(step)](step)

    def _loop(self, loop: LoopStep) -> None:
        self.do(loop.condition)
        while self.device.read(loop.verdict, 1)[0]:
            self.do(loop.body)
            self.do(loop.condition)

    def _choice(self, choice: ChoiceStep) -> None:
        selector = self.device.read(choice.selector, 1 if choice.by_pred else 4)
        self.do(choice.branches[choose(selector, choice.by_pred, len(choice.branches))])

    def _stretch(self, stretch: Stretch) -> None:
        """What is done a second time on the same memory is recorded, and from then on done as a whole."""
        times, replay = stretch.state
        stretch.state[0] = times + 1
        if times == 1:
            replay = stretch.state[1] = self.device.record(stretch.steps)
        if replay is None:
            self.do(stretch.steps)
        else:
            replay()

    def _host(self, step: HostStep) -> None:
        external, serve = self.externals[step.external]
        places = iter(step.operands)
        arrays = iter([self._operand(shape, next(places)) for shape in _array_leaves(*external.operands)])
        operands = [structured(shape, arrays) for shape in external.operands]
        leaves = serve(external, operands, self.run)
        for shape, address, leaf in zip(_array_leaves(external.result), step.results, leaves, strict=True):
            if leaf.nbytes:
                array = new_array(shape, "a result")
                array[...] = leaf
                self.device.upload(address, array)

    def _operand(self, shape: ArrayShape, address: int) -> np.ndarray:
        array = downloaded(self.device, shape, address)
        array.flags.writeable = False
        return array

    def _meet(self, step: MeetingStep) -> None:
        """The others' memory is read between two waits, each behind all work that was begun."""
        self.device.synchronize()
        shown = self.assembly.show(self.number, step.instruction, step.sources)
        for launch, arguments in step.launches:
            known = [shown[a[0]][a[1]] if isinstance(a, tuple) else a for a in arguments]
            self.device.launch(launch, known)
        self.device.synchronize()
        self.assembly.wait(step.instruction)


def downloaded(device: Device, shape: ArrayShape, address: int) -> np.ndarray:
    """The array that lies on the device, in the shape's layout."""
    array = new_array(shape, "an array of a device")
    if array.nbytes:
        device.download(array, address)
    return array


def _array_leaves(*shapes: Shape) -> Iterator[ArrayShape]:
    for shape in shapes:
        yield from (leaf for _, leaf in shape.leaves() if leaf.is_array)
