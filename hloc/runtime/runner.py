"""What calls of a compiled program have in common, wherever it runs: arguments, structure, devices, queues."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from hloc.codegen.program import Program, buffers
from hloc.errors import ArgumentError
from hloc.host.queues import Channel, HostQueues
from hloc.host.values import structured
from hloc.lazy import lazy
from hloc.runtime.externals import Deserted

if TYPE_CHECKING:
    from hloc.analysis.costs import ModuleCost
    from hloc.runtime.memory_report import MemoryAnalysis

futures = lazy("concurrent.futures")
memory_report = lazy("hloc.runtime.memory_report")

RNG_SEED = 0x9E3779B97F4A7C15
"""The first word of the state of each device's random numbers; the second is the device."""

Leaves = list[Any]
"""Arrays, one for each leaf: NumPy's, or of memory of a device."""


class Runner(ABC):
    """A program ready to run. Calls may come from several threads at once; arguments are never modified, but
    for those that `Options.donate` gives up.

    Arguments are the leaves of the entry's parameters in order, or one argument a parameter, tuples nested as
    its shape is. A leaf is anything that NumPy views without a copy (buffers, `__array_interface__`, DLPack),
    of exactly the parameter's type, shape and layout; a Python number may stand for a rank-0 array. Where a
    dimension has only a bound, any size within it will do, and results have their live sizes.

    `patience` is the time in seconds that devices wait for each other, or for the host, before the run fails.

    A program with infeed, outfeed, send or recv talks with the host through queues, which any thread may use
    before, during and after a run: `infeed`, `outfeed` and `channel` give them.
    """

    def __init__(self, program: Program):
        self.program = program
        self.patience = 300.0
        self.device_count = program.replica_count * program.num_partitions
        self._queues = [HostQueues() for _ in range(self.device_count)]
        self._is_padded = any(leaf.shape.is_dynamic for leaf in (*program.parameters, *program.results))
        self._result_shapes = [shape for leaf in program.results for shape in buffers(leaf.shape)]

    @abstractmethod
    def _given(self, device: int, arguments: Sequence[Any]) -> Leaves:
        """An array for each parameter leaf of a device's run; ArgumentError if they do not fit."""

    @abstractmethod
    def _run_alone(self, arguments: Leaves) -> Leaves:
        """A run on the only device there is."""

    @abstractmethod
    def _run_among(self, device: int, arguments: Leaves, communicator: Any) -> Leaves:
        """A run on one of several devices, which share a communicator."""

    @abstractmethod
    def _new_communicator(self) -> Any:
        """What the devices of one run share to meet."""

    @abstractmethod
    def _desert(self, communicator: Any) -> None:
        """Tells all devices of a run that one of them has failed."""

    def __call__(self, *arguments: Any) -> Any:
        """Runs the program; the results in the structure of its root: an array, or tuples of them."""
        return structured(self.program.result_shape, iter(self.execute(*arguments)))

    def execute(self, *arguments: Any) -> Leaves:
        """Runs the program; the result's leaves in order.

        A program for several devices runs on all of them with the same arguments; the results are device 0's.
        ArgumentError for an argument that does not fit, HloError if memory is missing or a device fails.
        """
        given = self._given(0, arguments)
        if self.device_count == 1:
            return self._run_alone(given)
        return self._run_all([given] * self.device_count)[0]

    def execute_replicated(self, arguments: Sequence[Sequence[Any]]) -> list[Leaves]:
        """Runs the program on all devices at once, `arguments[d]` on device d; the result leaves of each.

        Device `replica * num_partitions + partition` runs as a thread of its own.
        """
        if len(arguments) != self.device_count:
            raise ArgumentError(f"got arguments for {len(arguments)} devices, expected {self.device_count}")
        return self._run_all([self._given(*each) for each in enumerate(arguments)])

    def resident(self, arguments: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """The arguments of all devices, in the memory of each where calls take them from there."""
        return arguments

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

    def _run_all(self, arguments: Sequence[Leaves]) -> list[Leaves]:
        with futures.ThreadPoolExecutor(self.device_count) as threads:
            communicator = self._new_communicator()
            runs = [
                threads.submit(self._run_telling, device, given, communicator)
                for device, given in enumerate(arguments)
            ]
        failures = [run.exception() for run in runs if run.exception() is not None]
        if failures:
            raise next((f for f in failures if not isinstance(f, Deserted)), failures[0])
        return [run.result() for run in runs]

    def _run_telling(self, device: int, arguments: Leaves, communicator: Any) -> Leaves:
        """One of several devices' runs. If it fails, the others are told."""
        try:
            return self._run_among(device, arguments, communicator)
        except BaseException:
            self._desert(communicator)
            raise

    def _context_fields(self, device: int) -> dict[str, int]:
        """Those of CONTEXT_FIELDS that say which device this is."""
        replica, partition = divmod(device, self.program.num_partitions)
        return {
            "replica_id": replica,
            "partition_id": partition,
            "device": device,
            "device_count": self.device_count,
        }
