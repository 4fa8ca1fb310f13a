"""A compiled program to call: NumPy arrays in, NumPy arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from hloc.codegen.program import (
    CONTEXT_FIELDS,
    DEVICE_FAILED,
    ERRORS,
    Program,
    buffers,
    communicator_bytes,
)
from hloc.errors import ArgumentError, HloError
from hloc.host.queues import Channel, HostQueues
from hloc.host.values import structured
from hloc.lazy import lazy
from hloc.runtime.arguments import flat_arguments
from hloc.runtime.cpu import NativeCode
from hloc.runtime.externals import Deserted, Externals, Run
from hloc.runtime.memory import Memory, address
from hloc.runtime.padding import live, padded

if TYPE_CHECKING:
    from hloc.analysis.costs import ModuleCost
    from hloc.runtime.memory_report import MemoryAnalysis

futures = lazy("concurrent.futures")
guards = lazy("hloc.runtime.guarded")
memory_report = lazy("hloc.runtime.memory_report")

_RNG_SEED = 0x9E3779B97F4A7C15


class Executable:
    """A program ready to run. Calls may come from several threads at once; arguments are never modified.

    Arguments are the leaves of the entry's parameters in order, or one argument a parameter, tuples nested as
    its shape is. A leaf is anything that NumPy views without a copy (buffers, `__array_interface__`, DLPack),
    of exactly the parameter's type, shape and layout; a Python number may stand for a rank-0 array. Where a
    dimension has only a bound, any size within it will do, and results have their live sizes.

    With `Options.guard_pages`, an access beyond a buffer ends the process with a message (`runtime.guarded`).

    `patience` is the time in seconds that devices wait for each other, or for the host, before the run fails.

    A program with infeed, outfeed, send or recv talks with the host through queues, which any thread may use
    before, during and after a run: `infeed`, `outfeed` and `channel` give them.
    """

    def __init__(self, program: Program):
        self.program = program
        self.patience = 300.0
        self.device_count = program.replica_count * program.num_partitions
        self._code = NativeCode(program)
        guarded = program.guards is not None
        self._memory = guards.GuardedMemory(program, self._code.name_at) if guarded else Memory(program)
        self._rng_states = [np.array([_RNG_SEED, device], np.uint64) for device in range(self.device_count)]
        self._queues = [HostQueues() for _ in range(self.device_count)]
        self._externals = Externals(program.externals)
        self._is_padded = any(leaf.shape.is_dynamic for leaf in (*program.parameters, *program.results))
        self._result_shapes = [shape for leaf in program.results for shape in buffers(leaf.shape)]
        self._communicator = self._new_communicator()
        self._alone = self._new_context(0, self._communicator)

    def __call__(self, *arguments: Any) -> Any:
        """Runs the program; the results in the structure of its root: an array, or tuples of them."""
        return structured(self.program.result_shape, iter(self.execute(*arguments)))

    def execute(self, *arguments: Any) -> list[np.ndarray]:
        """Runs the program; the result's leaves in order.

        A program for several devices runs on all of them with the same arguments; the results are device 0's.
        ArgumentError for an argument that does not fit, HloError if memory is missing or a device fails.
        """
        given = flat_arguments(self.program, arguments)
        if self.device_count == 1:
            return self._run(0, given, self._alone, self._communicator)
        return self._run_all([given] * self.device_count)[0]

    def execute_replicated(self, arguments: Sequence[Sequence[Any]]) -> list[list[np.ndarray]]:
        """Runs the program on all devices at once, `arguments[d]` on device d; the result leaves of each.

        Device `replica * num_partitions + partition` runs as a thread of its own.
        """
        if len(arguments) != self.device_count:
            raise ArgumentError(f"got arguments for {len(arguments)} devices, expected {self.device_count}")
        given = [flat_arguments(self.program, of_device) for of_device in arguments]
        return self._run_all(given)

    def cost_analysis(self) -> ModuleCost:
        """Arithmetic and bytes of one run on one device, for each kernel and together."""
        return self.program.cost

    def memory_analysis(self) -> MemoryAnalysis:
        """Memory of one run on one device: sums, the peak and its owners, live ranges, copies."""
        return memory_report.memory_analysis(self.program)

    def infeed(self, device: int = 0) -> SimpleQueue[Any]:
        """The queue from which a device's infeed takes values: `put` arrays, or tuples of them."""
        return self._attended(device).infeed

    def outfeed(self, device: int = 0) -> SimpleQueue[Any]:
        """The queue to which a device's outfeed gives values: `get(timeout=seconds)`."""
        return self._attended(device).outfeed

    def channel(self, number: int, device: int = 0) -> Channel:
        """A channel of a device's send and recv: `put` what recv takes, `get` what send gives."""
        return self._attended(device).channel(number)

    def _attended(self, device: int) -> HostQueues:
        if not 0 <= device < self.device_count:
            raise ArgumentError(f"there is no device {device} among {self.device_count}")
        self._queues[device].attended = True
        return self._queues[device]

    def _run_all(self, arguments: Sequence[list[np.ndarray]]) -> list[list[np.ndarray]]:
        with futures.ThreadPoolExecutor(self.device_count) as threads:
            communicator = self._new_communicator()
            runs = [
                threads.submit(self._run_device, device, given, communicator)
                for device, given in enumerate(arguments)
            ]
        failures = [run.exception() for run in runs if run.exception() is not None]
        if failures:
            raise next((f for f in failures if not isinstance(f, Deserted)), failures[0])
        return [run.result() for run in runs]

    def _new_communicator(self) -> np.ndarray:
        """The words by which the devices of one run meet."""
        words = np.zeros(communicator_bytes(self.device_count) // 8, np.int64)
        words[1] = round(self.patience / 200e-6)
        return words

    def _run_device(
        self, device: int, arguments: list[np.ndarray], communicator: np.ndarray
    ) -> list[np.ndarray]:
        """One of several devices' runs. If it fails, the others are told."""
        try:
            context = self._new_context(device, communicator)
            return self._run(device, arguments, context, communicator)
        except BaseException:
            communicator[0] = communicator[0] or DEVICE_FAILED
            raise

    def _new_context(self, device: int, communicator: np.ndarray) -> np.ndarray:
        replica, partition = divmod(device, self.program.num_partitions)
        fields = {
            "replica_id": replica,
            "partition_id": partition,
            "device": device,
            "device_count": self.device_count,
            "communicator": address(communicator),
            "rng_state": address(self._rng_states[device]),
            "externals": address(self._externals.table),
        }
        return np.array([fields.get(name, 0) for name in CONTEXT_FIELDS], np.int64)

    def _run(
        self, device: int, arguments: list[np.ndarray], context: np.ndarray, communicator: np.ndarray
    ) -> list[np.ndarray]:
        if self._is_padded:
            arguments = padded(arguments, [leaf.shape for leaf in self.program.parameters])
        arguments = self._memory.arguments(arguments)
        results = self._memory.results(self._result_shapes)
        if self._externals.have_hosts:
            run = Run(self._queues[device], self.patience, communicator)
            with self._externals.serving(run):
                status = self._run_native(arguments, results, context)
        else:
            run = None
            status = self._run_native(arguments, results, context)
        if status:
            raise self._failure(device, status, run)
        results = self._memory.finished(results)
        return live(results, [leaf.shape for leaf in self.program.results]) if self._is_padded else results

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

    def _failure(self, device: int, status: int, run: Run | None) -> BaseException:
        """What to raise for the status of a device's run."""
        failure = None if run is None else self._externals.failure(status, run)
        if failure is not None:
            return failure
        reason = ERRORS.get(status, f"status {status}")
        kind = Deserted if status == DEVICE_FAILED else HloError
        return kind(f"{self.program.name} failed on device {device}: {reason}")
