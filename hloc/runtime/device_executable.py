"""A compiled program that runs on devices with memory of their own: what goes there, stays there, and comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np

from hloc.codegen.program import CONTEXT_FIELDS, ParameterLeaf, Program, buffers
from hloc.errors import HloError
from hloc.lazy import lazy
from hloc.runtime.arguments import flat_arguments, viewed
from hloc.runtime.device import Device
from hloc.runtime.device_plan import Places, Steps, bind, stretches
from hloc.runtime.device_run import Assembly, DeviceRun, downloaded, replayed
from hloc.runtime.externals import Run, service_of
from hloc.runtime.padding import live, padded
from hloc.runtime.runner import RNG_SEED, Runner

devices = lazy("hloc.runtime.devices")

_ALIGNMENT = 16
"""Bytes at whose multiples kernels take it that arrays begin."""

_PLANS = 16
"""Sets of addresses whose steps are kept for the next call."""


class DeviceExecutable(Runner):
    """A program of kernels, ready to run on the devices of its target. See Runner for what arguments may be.

    Arrays in the memory of the program's GPU, of hloc or of a library with `__dlpack__` or
    `__cuda_array_interface__`, are used where they lie, and if there is one among the arguments, results stay on the
    GPU as `device_array.DeviceArray`s; the call then returns before they are computed. Otherwise, and where shapes are
    dynamic, results are NumPy's.

    The devices are opened at the first call, or by `load`; constants, working memory and the memory that arguments
    are copied to stay on them until the executable goes. Calls run one after the other.
    """

    def __init__(self, program: Program):
        super().__init__(program)
        self._externals = [(external, service_of(external)) for external in program.externals]
        self._lock = threading.RLock()
        self._homes: list[Home] = []

    def load(self) -> None:
        """Opens the devices and loads the program's kernels; HloError, in one sentence, if that cannot be."""
        with self._lock:
            while len(self._homes) < self.device_count:
                number = len(self._homes)
                device = devices.open_device(self.program, number)
                self._homes.append(Home(self.program, device, self._context_fields(number)))

    def to_device(self, *arguments: Any, device: int = 0) -> list[Any]:
        """Copies of arguments in a device's memory, for calls to come: a `device_array.DeviceArray` each.

        HloError if the device has no memory of its own that arrays can stay in.
        """
        with self._lock:
            given = self._given(device, arguments)
            home = self._homes[device]
            return [home.to_device(*pair) for pair in zip(given, self.program.parameters, strict=True)]

    def resident(self, arguments: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        self.load()
        if self._is_padded or not all(home.device.keeps_arrays for home in self._homes):
            return arguments
        return [self.to_device(*each, device=device) for device, each in enumerate(arguments)]

    def execute(self, *arguments: Any) -> list[Any]:
        with self._lock:
            results = self._execute_there(arguments)
            return super().execute(*arguments) if results is None else results

    def _execute_there(self, arguments: Sequence[Any]) -> list[Any] | None:
        """The shortest way, for arguments that are all results of such programs; None if they are not."""
        if self.device_count != 1 or self._is_padded or not self._homes or not arguments:
            return None
        home = self._homes[0]
        addresses = home.own_addresses(arguments)
        if addresses is None:
            return None
        results = [make() for make in home.makers]
        steps = home.plan(addresses, tuple([array.address for array in results]))
        self._do(0, steps, None)
        return results

    def execute_replicated(self, arguments: Sequence[Sequence[Any]]) -> list[list[Any]]:
        with self._lock:
            return super().execute_replicated(arguments)

    def _given(self, device: int, arguments: Sequence[Any]) -> list[Any]:
        self.load()
        imported = self._homes[device].device.imported

        def view(value: Any, place: str) -> Any:
            there = imported(value, place)
            return viewed(value, place) if there is None else there

        return flat_arguments(self.program, arguments, view)

    def _run_alone(self, arguments: list[Any]) -> list[Any]:
        return self._run_among(0, arguments, None)

    def _run_among(self, device: int, arguments: list[Any], communicator: Assembly | None) -> list[Any]:
        if self._is_padded:
            arguments = padded(list(map(np.asarray, arguments)), [leaf.shape for leaf in self.program.parameters])
        home = self._homes[device]
        lent = [array for array in arguments if not isinstance(array, np.ndarray)]
        kept = [make() for make in home.makers] if lent else None
        results = tuple([array.address for array in kept]) if kept is not None else home.results
        self._do(device, home.plan(home.addresses(arguments), results), communicator)
        if kept is not None:
            home.device.release(lent)
            return kept
        pairs = zip(self._result_shapes, results, strict=True)
        found = [downloaded(home.device, shape, address) for shape, address in pairs]
        return live(found, [leaf.shape for leaf in self.program.results]) if self._is_padded else found

    def _do(self, device: int, steps: Steps, communicator: Assembly | None) -> None:
        """All steps; without a communicator on the only device there is."""
        if replayed(steps):
            return
        communicator = communicator or self._new_communicator()
        run = Run(self._queues[device], self.patience, communicator.words)
        DeviceRun(self._homes[device].device, device, self._externals, run, communicator).do(steps)

    def _new_communicator(self) -> Assembly:
        return Assembly(self.device_count, self.patience)

    def _desert(self, communicator: Assembly) -> None:
        communicator.desert()


class Home:
    """A device with a program's kernels, and what of the program stays on it between calls."""

    def __init__(self, program: Program, device: Device, fields: dict[str, int]):
        self.program, self.device = program, device
        assert program.device is not None
        self._code = program.device
        self._plans: dict[tuple, Steps] = {}
        self._rooms: list[int] = []
        arena = self._code.computations[-1].arena_bytes
        self._arena = self._room(arena, f"the working memory of {program.name}")
        self._constants = self._kept(program.constants, "the constants")
        random = self._kept(np.array([RNG_SEED, fields["device"]], np.uint64), "the state of random numbers")
        words = [{**fields, "rng_state": random}.get(name, 0) for name in CONTEXT_FIELDS]
        self._context = self._kept(np.array(words, np.int64), "the context")
        shapes = [shape for leaf in program.parameters for shape in buffers(leaf.shape)]
        self._arguments: list[int | None] = [None] * len(shapes)
        self._result_shapes = [shape for leaf in program.results for shape in buffers(leaf.shape)]

    def __del__(self) -> None:
        with suppress(Exception):  # at the end of the process the device may be gone
            self._plans.clear()
            for address in self._rooms:
                self.device.free(address)

    def _room(self, size: int, what: str) -> int:
        self._rooms.append(self.device.allocate(max(size, 1), what))
        return self._rooms[-1]

    def _kept(self, array: np.ndarray, what: str) -> int:
        """The address of a copy on the device."""
        address = self._room(array.nbytes, what)
        if array.nbytes:
            self.device.upload(address, array)
        return address

    @cached_property
    def makers(self) -> list[Callable[[], Any]]:
        """What makes a fresh array on the device for each result."""
        return [self.device.array_maker(shape) for shape in self._result_shapes]

    @cached_property
    def _forms(self) -> list[object]:
        return [self.device.form(leaf.shape) for leaf in self.program.parameters]

    def to_device(self, array: Any, leaf: ParameterLeaf) -> Any:
        """A copy of an argument, or what lies there already."""
        if not isinstance(array, np.ndarray):
            return array
        if leaf.shape.is_dynamic:
            raise HloError(f"argument %{leaf.name} has a dynamic shape: such arrays stay in the host's memory")
        made = self.device.array_maker(leaf.shape)()
        if array.nbytes:
            self.device.upload(made.address, array)
        return made

    def own_addresses(self, arrays: Sequence[Any]) -> tuple[int, ...] | None:
        """Where arguments lie, if all are arrays made here that fit and that kernels can read; else None."""
        if len(arrays) != len(self._forms):
            return None
        found = []
        for array, form in zip(arrays, self._forms, strict=True):
            if getattr(array, "form", None) != form or array.address % _ALIGNMENT:
                return None
            found.append(array.address)
        return tuple(found)

    def addresses(self, arrays: Sequence[Any]) -> tuple[int, ...]:
        """Where arguments lie on the device: where they are there, if kernels can read that, else at copies' places."""
        return tuple([self._address(number, array) for number, array in enumerate(arrays)])

    def _address(self, number: int, array: Any) -> int:
        on_device = not isinstance(array, np.ndarray)
        if on_device and array.address and not array.address % _ALIGNMENT:
            return array.address
        place = self._arguments[number]
        if place is None:
            place = self._arguments[number] = self._room(array.nbytes, f"argument {number}")
        if on_device:
            self.device.copy(place, array.address, array.nbytes)
        elif array.nbytes:
            self.device.upload(place, array)
        return place

    @cached_property
    def results(self) -> tuple[int, ...]:
        """Where the results lie that are copied to the host; the same memory at every call."""
        return tuple([self._room(shape.byte_size, "a result") for shape in self._result_shapes])

    def plan(self, arguments: tuple[int, ...], results: tuple[int, ...]) -> Steps:
        """The steps on these arguments and results; those of the latest few calls are kept, recordings included."""
        key = (arguments, results)
        steps = self._plans.pop(key, None)
        if steps is None:
            places = Places(arguments, results, self._arena, self._constants, self._context)
            steps = stretches(bind(self._code, places), self.device.can_record)
            if len(self._plans) >= _PLANS:
                del self._plans[next(iter(self._plans))]
        self._plans[key] = steps
        return steps
