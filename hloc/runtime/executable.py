"""A compiled program to call: NumPy arrays in, NumPy arrays out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hloc.codegen.program import CONTEXT_FIELDS, DEVICE_FAILED, ERRORS, Program, communicator_bytes
from hloc.errors import HloError
from hloc.host.values import structured
from hloc.ir.shapes import Shape
from hloc.lazy import lazy
from hloc.runtime.arguments import check_donations, flat_arguments
from hloc.runtime.callable_type import has_room, with_room
from hloc.runtime.cpu import NativeCode
from hloc.runtime.externals import Deserted, Externals, Run
from hloc.runtime.memory import Memory, address
from hloc.runtime.padding import live, padded
from hloc.runtime.runner import RNG_SEED, Runner

if TYPE_CHECKING:
    from hloc.runtime.native_call import NativeCall

guards = lazy("hloc.runtime.guarded")
native_call = lazy("hloc.runtime.native_call")


class Executable(Runner):
    """A program of native code, ready to run on this machine's processor. See Runner for what arguments may be.

    From the second run on, calls with NumPy arrays that fit do not go through Python; `call_code` gives the object
    files for this (`codegen.call_stub`). Results and working memory then come from a pool, to which an array's memory
    goes back when the array and all views of it are gone.

    Of a program compiled with `Options.donate`, some arguments come back as results, which are written over them: an
    ArgumentError if one of these is read-only, or shares memory with another argument.

    With `Options.guard_pages`, an access beyond a buffer ends the process with a message (`runtime.guarded`).
    """

    def __new__(cls, program: Program, call_code: Callable[[], Sequence[bytes]] | None = None):
        return super().__new__(with_room(cls))

    def __init__(self, program: Program, call_code: Callable[[], Sequence[bytes]] | None = None):
        super().__init__(program)
        self._call_code = call_code
        self._runs, self._counts_runs = 0, call_code is not None
        self._most_workers = program.threads
        self._lock = threading.Lock()
        self._native: NativeCall | None = None
        self._code = NativeCode(program)
        guarded = program.guards is not None
        self._memory = guards.GuardedMemory(program, self._code.name_at) if guarded else Memory(program)
        self._rng_states = [np.array([RNG_SEED, device], np.uint64) for device in range(self.device_count)]
        self._externals = Externals(program.externals)
        self._communicator = self._new_communicator()
        self._alone = self._new_context(0, self._communicator)

    def with_threads(self, count: int) -> Executable:
        """The same program, the same code and memory; at most so many threads work on a kernel of its calls.

        These are never more than the program was compiled for. ValueError if `count` is less than 1.
        """
        if count < 1:
            raise ValueError(f"got {count} threads, expected at least 1")
        other = Executable.__new__(Executable, self.program)
        own = {"_runs": 0, "_counts_runs": self._call_code is not None, "_native": None, "_lock": threading.Lock()}
        vars(other).update(vars(self), **own, _most_workers=count)
        other._alone = other._new_context(0, other._communicator)
        return other

    def execute(self, *arguments: Any) -> list[np.ndarray]:
        if self._native is None:
            return super().execute(*arguments)
        value = self(*arguments)
        return [value] if value.__class__ is np.ndarray else list(_leaves(self.program.result_shape, value))

    def call_slowly(self, arguments: Sequence[Any]) -> Any:
        """What a call gives, by way of Python."""
        return structured(self.program.result_shape, iter(super().execute(*arguments)))

    def _given(self, device: int, arguments: Sequence[Any]) -> list[np.ndarray]:
        given = flat_arguments(self.program, arguments)
        check_donations(self.program, given)
        return given

    def _run_alone(self, arguments: list[np.ndarray]) -> list[np.ndarray]:
        return self._run(0, arguments, self._alone, self._communicator)

    def _run_among(self, device: int, arguments: list[np.ndarray], communicator: np.ndarray) -> list[np.ndarray]:
        return self._run(device, arguments, self._new_context(device, communicator), communicator)

    def _new_communicator(self) -> np.ndarray:
        """The words by which the devices of one run meet."""
        words = np.zeros(communicator_bytes(self.device_count) // 8, np.int64)
        words[1] = round(self.patience / 200e-6)
        return words

    def _desert(self, communicator: np.ndarray) -> None:
        communicator[0] = communicator[0] or DEVICE_FAILED

    def _new_context(self, device: int, communicator: np.ndarray) -> np.ndarray:
        fields = {
            **self._context_fields(device),
            "communicator": address(communicator),
            "rng_state": address(self._rng_states[device]),
            "externals": address(self._externals.table),
            "pool": self._code.pool,
            "workers": self._most_workers,
        }
        return np.array([fields.get(name, 0) for name in CONTEXT_FIELDS], np.int64)

    def _run(
        self, device: int, arguments: list[np.ndarray], context: np.ndarray, communicator: np.ndarray
    ) -> list[np.ndarray]:
        if self._counts_runs:
            self._count_run()
        if self._is_padded:
            arguments = padded(arguments, [leaf.shape for leaf in self.program.parameters])
        arguments = self._memory.arguments(arguments)
        results = self._room(arguments)
        if self._externals.have_hosts:
            run = Run(self._queues[device], self.patience, communicator)
            with self._externals.serving(run):
                status = self._run_native(arguments, results, context)
        else:
            run = None
            status = self._run_native(arguments, results, context)
        if status:
            raise self.failure(device, status, run)
        results = self._memory.finished(results)
        return live(results, [leaf.shape for leaf in self.program.results]) if self._is_padded else results

    def _room(self, arguments: list[np.ndarray]) -> list[np.ndarray]:
        """Memory for the results: new, or that of arguments which are given up."""
        donors = self.program.donors or (None,) * len(self._result_shapes)
        fresh = [shape for shape, donor in zip(self._result_shapes, donors, strict=True) if donor is None]
        new = iter(self._memory.results(fresh))
        return [next(new) if donor is None else arguments[donor] for donor in donors]

    def _count_run(self) -> None:
        """Makes calls native at the second run: a process with but one does not pay for it."""
        self._runs += 1
        if self._runs <= self.device_count or not has_room(self):
            return
        self._counts_runs = False
        try:
            host = native_call.host(self._call_code, _call_slowly, _raise_for)
        except RuntimeError:  # an interpreter that does not show its functions to code that is loaded: Python it is
            return
        if self._externals.have_hosts or not native_call.fits(self.program):
            return
        addresses = self._code.entry_address, self._memory.constants, address(self._alone)
        with self._lock:
            if self._native is None:
                self._native = native_call.NativeCall(host, self.program, *addresses)
                self._native.enter(self)

    def _run_native(
        self, arguments: list[np.ndarray], results: list[np.ndarray], context: np.ndarray
    ) -> int:
        arena = self._memory.take_arena()
        try:
            return self._code.run(
                [address(array) for array in arguments],
                [address(array) for array in results],
                arena[0],
                self._memory.constants,
                address(context),
            )
        finally:
            self._memory.give_arena(arena)

    def failure(self, device: int, status: int, run: Run | None) -> BaseException:
        """What to raise for the status of a device's run."""
        failure = None if run is None else self._externals.failure(status, run)
        if failure is not None:
            return failure
        reason = ERRORS.get(status, f"status {status}")
        kind = Deserted if status == DEVICE_FAILED else HloError
        return kind(f"{self.program.name} failed on device {device}: {reason}")


def _leaves(shape: Shape, value: Any) -> Iterator[np.ndarray]:
    """The arrays in the result of a call."""
    if shape.is_tuple:
        for element, part in zip(shape.elements, value, strict=True):
            yield from _leaves(element, part)
    elif shape.is_array:
        yield value


def _call_slowly(executable: Executable, arguments: Sequence[Any], names: Sequence[str] | None) -> Any:
    """A call that the native function leaves to Python; the last arguments are those of the names."""
    if names:
        given = dict(zip(names, arguments[-len(names) :], strict=True))
        return Runner.__call__(executable, *arguments[: -len(names)], **given)  # raises Python's own TypeError
    return executable.call_slowly(arguments)


def _raise_for(executable: Executable, status: int) -> None:
    raise executable.failure(0, status, None)
