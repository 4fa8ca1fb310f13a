"""The fake driver with kernels that run: those of a compiled program, by the emulator."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence

from fake_driver import FakeDriver

import hloc
from hloc.codegen.device_program import Command, DeviceCode, Launch, Meeting
from hloc.options import Options
from hloc.records import replace
from hloc.runtime.device_executable import DeviceExecutable
from hloc.runtime.emulator import EmulatedDevice

_PTX = b"\n.version 8.0\n.target sm_80\n"


class EmulatedDriver(FakeDriver):
    """Its memory and kernels are an emulator's, for one program: `load` makes it what runs on this machine."""

    def load(self, text: str, emulated: str = "cuda-emulated", **options) -> DeviceExecutable:
        """The program, compiled for the emulator, as one for this machine's GPU."""
        program = hloc.compile(text, emulated, Options(cache=False, **options)).program
        code = program.device
        self.emulator = EmulatedDevice(program)
        launches = [each for computation in code.computations for each in _launches(computation.commands)]
        self.launches = {launch.kernel: launch for launch in launches}
        made = DeviceCode(code.arch, _PTX, code.kernels, code.computations)
        return DeviceExecutable(replace(program, target="cuda:0", device=made))

    def cuMemAlloc(self, size):
        return (0, self.emulator.allocate(size, "memory"))

    def cuMemFree(self, address):
        self.emulator.free(address)
        return (0,)

    def cuLaunchKernel(self, function, gx, gy, gz, bx, by, bz, shared, stream, parameters, extra):
        self._prepared(function, (gx, gy, gz), (bx, by, bz), shared, parameters)()
        return (0,)

    def cuGraphAddKernelNode(self, graph, dependencies, count, node):
        grid = (node.gridDimX, node.gridDimY, node.gridDimZ)
        block = (node.blockDimX, node.blockDimY, node.blockDimZ)
        run = self._prepared(node.func, grid, block, node.sharedMemBytes, node.kernelParams)
        return self._node(graph, dependencies, count, node, run)

    def _prepared(
        self, name: str, grid: Sequence[int], block: Sequence[int], shared: int, pointers: int
    ) -> Callable[[], None]:
        if name in self.kernels:
            return self._kernel(name, pointers)
        launch = self.launches[name]
        pointer_count, count = len(launch.arguments), len(launch.arguments) + len(launch.scalars)
        places = (ctypes.c_void_p * (count + len(launch.maps))).from_address(pointers)
        values = [ctypes.c_int64.from_address(place).value for place in places]
        assert values[count:] == [values[map.argument] + map.offset for map in launch.maps]
        scalars = tuple(values[pointer_count:count])
        given = launch._replace(grid=grid, block=block, shared_bytes=shared, scalars=scalars)

        def run() -> None:
            self.log.append(f"run {name}")
            self.emulator.launch(given, values[:pointer_count])

        return run


def _launches(commands: Sequence[Command]) -> Iterator[Launch]:
    for command in commands:
        if isinstance(command, Launch):
            yield command
        elif isinstance(command, Meeting):
            yield from command.launches
