"""A GPU with the kernels of one program: NVIDIA's driver, through cuda-python."""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from hloc import cache
from hloc.codegen.device_program import DeviceCode, DeviceKernel, Launch
from hloc.codegen.program import Program
from hloc.codegen.targets import ptxas
from hloc.errors import HloError
from hloc.host.gpus import DriverError, check, driver_version, gpu_count
from hloc.ir.shapes import ArrayShape
from hloc.runtime import cuda_graph, device_array
from hloc.runtime.cuda_arguments import packed
from hloc.runtime.cuda_gpu import CudaGpu, gpu_of_process
from hloc.runtime.device import Device
from hloc.runtime.device_array import Block, DeviceArray
from hloc.runtime.device_plan import ChoiceStep, CopyStep, FillStep, LaunchStep, LoopStep, Step

_WITHOUT_ASKING = 48 * 1024
"""Bytes of shared memory that a kernel may have without being set up for it."""

_JIT_LOG = 8192
_NAMED = 6
"""Instructions of a kernel that a message names at most."""


def open_device(program: Program, first: int, number: int) -> CudaDevice:
    """Device `number` of a run whose first is GPU `first`, with the program's kernels.

    Behind the machine's last GPU comes its first again. HloError if a GPU does not take the kernels, or cannot read
    the memory of the others of the run.
    """
    devices = program.replica_count * program.num_partitions
    gpus = [gpu_of_process((first + device) % gpu_count()) for device in range(devices)]
    for other in gpus:
        gpus[number].reach(other)
    return CudaDevice(gpus[number], program)


class CudaDevice(Device):
    """The kernels of one program on a GPU; memory and copies are the GPU's own."""

    keeps_arrays = True

    def __init__(self, gpu: CudaGpu, program: Program):
        assert program.device is not None
        self.gpu, self._code = gpu, program.device
        self._kernels = {kernel.name: kernel for kernel in self._code.kernels}
        self._functions: dict[str, Any] = {}
        self._setters: Any = None
        self._labels = {
            name: f"kernel {name} ({', '.join('%' + each for each in kernel.instructions[:_NAMED])}) of {program.name}"
            for name, kernel in self._kernels.items()
        }
        gpu.enter()
        self._module = _loaded(gpu, program.name, self._code)
        # With CUDA_LAUNCH_BLOCKING=1 the driver tells at once which kernel fails: not of graphs, though.
        self._records = os.environ.get("CUDA_LAUNCH_BLOCKING", "0") == "0"
        self._has_conditionals = driver_version() >= cuda_graph.LEAST_DRIVER

    def __del__(self) -> None:
        with suppress(Exception):  # at the end of the process the driver may be gone
            self.gpu.synchronize()
            for module in (self._module, self._setters):
                if module is not None:
                    self.gpu.call("cuModuleUnload", module)

    # Memory

    def allocate(self, size: int, what: str) -> int:
        return self.gpu.allocate(size, what)

    def free(self, address: int) -> None:
        self.gpu.free(address)

    def upload(self, address: int, array: np.ndarray) -> None:
        self.gpu.upload(address, array)

    def download(self, array: np.ndarray, address: int) -> None:
        self.gpu.download(array, address)

    def read(self, address: int, size: int) -> bytes:
        room = np.empty(size, np.uint8)
        self.download(room, address)
        return room.tobytes()

    def synchronize(self) -> None:
        self.gpu.synchronize()

    def copy(self, target: int, source: int, size: int) -> None:
        if size:
            self.gpu.enter()
            with self.gpu.blaming():
                self.gpu.call("cuMemcpyDtoDAsync", target, source, size, self.gpu.stream)

    def fill(self, target: int, byte: int, size: int) -> None:
        if size:
            self.gpu.enter()
            with self.gpu.blaming():
                self.gpu.call("cuMemsetD8Async", target, byte, size, self.gpu.stream)

    # Arrays

    def imported(self, value: Any, place: str) -> DeviceArray | None:
        return device_array.imported(value, self.gpu, place)

    def release(self, arrays: Sequence[DeviceArray]) -> None:
        device_array.release(arrays, self.gpu)

    def array_maker(self, shape: ArrayShape) -> Callable[[], DeviceArray]:
        gpu, size, dims, dtype = self.gpu, shape.byte_size, shape.dims, shape.dtype.numpy
        _, _, strides, _ = self.form(shape)

        def make() -> DeviceArray:
            address = gpu.allocate(size, "a result")
            return DeviceArray(gpu, address, dims, dtype, strides, Block(gpu, address))

        return make

    def form(self, shape: ArrayShape) -> tuple:
        strides = tuple(stride * shape.dtype.itemsize for stride in shape.strides)
        return (self.gpu.number, shape.dims, strides, shape.dtype.numpy)

    # Kernels

    def launch(self, launch: Launch, arguments: Sequence[int]) -> None:
        self.gpu.enter()
        given = packed(self.gpu, launch, arguments)
        function, cu = self._function(launch), self.gpu.driver
        answer = cu.cuLaunchKernel(
            function, *launch.grid, *launch.block, launch.shared_bytes, self.gpu.stream, given.address, 0
        )
        check(cu, answer, lambda: self._described(launch))
        self.gpu.begun[id(self), launch.kernel] = (self._labels, (launch.kernel,))

    def _ready(self, step: LaunchStep) -> Callable[[], None]:
        """What does a launch with its arguments packed beforehand."""
        launch, gpu = step.launch, self.gpu
        cu, given = gpu.driver, packed(gpu, launch, step.arguments)
        geometry = (*launch.grid, *launch.block, launch.shared_bytes, gpu.stream)
        function, key, begun = self._function(launch), (id(self), launch.kernel), (self._labels, (launch.kernel,))

        def replay() -> None:
            cu.cuCtxSetCurrent(gpu.context)
            answer = cu.cuLaunchKernel(function, *geometry, given.address, 0)
            if answer[0]:
                check(cu, answer, lambda: self._described(launch))
            gpu.begun[key] = begun

        return replay

    def _described(self, launch: Launch) -> str:
        grid, block = ("x".join(map(str, size)) for size in (launch.grid, launch.block))
        return f"{self._labels[launch.kernel]}, {grid} blocks of {block} threads"

    def _function(self, launch: Launch) -> Any:
        """The function of a launch's kernel, which may have the shared memory that it asks for."""
        function = self._functions.get(launch.kernel)
        if function is None:
            kernel = self._kernels[launch.kernel]
            function = self.gpu.call("cuModuleGetFunction", self._module, kernel.name.encode())
            most = max(kernel.shared_bytes, launch.shared_bytes)
            if most > _WITHOUT_ASKING:
                self._allow_shared(function, kernel, most)
            self._functions[launch.kernel] = function
        return function

    def _allow_shared(self, function: Any, kernel: DeviceKernel, size: int) -> None:
        cu = self.gpu.driver
        attribute = cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        what = f"{self._labels[kernel.name]}, with {size} bytes of shared memory"
        check(cu, cu.cuFuncSetAttribute(function, attribute, size), what)

    # Graphs

    def can_record(self, step: Step) -> bool:
        """Straight-line work, and loops and choices of it where the driver has conditional nodes."""
        if not self._records:
            return False
        if isinstance(step, LaunchStep | CopyStep | FillStep):
            return True
        inner: tuple[Step, ...] = ()
        if isinstance(step, LoopStep):
            inner = step.condition + step.body
        elif isinstance(step, ChoiceStep):
            inner = tuple(each for branch in step.branches for each in branch)
        else:
            return False
        return self._has_conditionals and all(map(self.can_record, inner))

    def record(self, steps: Sequence[Step]) -> Callable[[], None] | None:
        """A graph of the steps; a single launch is only made ready. None if the driver refuses the graph."""
        if len(steps) == 1 and isinstance(steps[0], LaunchStep):
            return self._ready(steps[0])
        try:
            recording = cuda_graph.record(self.gpu, steps, self._function, self._setter)
        except DriverError:
            return None
        gpu, begun = self.gpu, (self._labels, tuple(dict.fromkeys(_kernels_of(steps))))

        def replay() -> None:
            try:
                recording()
            except DriverError as error:
                gpu.fail(error)
            gpu.begun[recording] = begun

        return replay

    def _setter(self, name: str) -> Any:
        """The function of a kernel that sets a conditional node's handle: the driver itself brings what it calls."""
        if self._setters is None:
            self._setters = _module_of(self.gpu, cuda_graph.setters(self._code.image))
        return self.gpu.call("cuModuleGetFunction", self._setters, name.encode())


def _kernels_of(steps: Sequence[Step]) -> list[str]:
    found = []
    for step in steps:
        if isinstance(step, LaunchStep):
            found.append(step.launch.kernel)
        elif isinstance(step, LoopStep):
            found += _kernels_of(step.condition + step.body)
        elif isinstance(step, ChoiceStep):
            found += [name for branch in step.branches for name in _kernels_of(branch)]
    return found


# Loading


def _loaded(gpu: CudaGpu, name: str, code: DeviceCode) -> Any:
    """The module of a program's kernels: a cubin by ptxas, if there is one, else by the driver's own assembler.

    Cubins are kept in hloc's cache folder; the driver keeps its own.
    """
    cubin = _cubin(code)
    if cubin is not None:
        with suppress(DriverError):  # a ptxas newer than the driver: it assembles the text itself
            return _module_of(gpu, cubin)
    try:
        return _module_of(gpu, code.image + b"\0")
    except DriverError as error:
        if error.code in ("CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "CUDA_ERROR_NO_BINARY_FOR_GPU"):
            what = f"the kernels of {name} are for {code.arch}"
            driver = "for CUDA {}.{}".format(*driver_version())
            raise HloError(f"{what}, which the driver ({driver}) of GPU {gpu.number} does not take") from error
        raise


def _module_of(gpu: CudaGpu, image: bytes) -> Any:
    """A module, loaded; the message of an error has what the driver's assembler says."""
    cu = gpu.driver
    log = bytearray(_JIT_LOG)
    options = [cu.CUjit_option.CU_JIT_ERROR_LOG_BUFFER, cu.CUjit_option.CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES]
    room = ctypes.create_string_buffer(image, len(image))
    answer = cu.cuModuleLoadDataEx(ctypes.addressof(room), len(options), options, [log, _JIT_LOG])
    said = " ".join(bytes(log).split(b"\0")[0].decode(errors="replace").split())
    return check(cu, answer, f"cuModuleLoadDataEx{said and f' ({said})'}")


def _cubin(code: DeviceCode) -> bytes | None:
    """What ptxas makes of the kernels; None if there is no ptxas that knows the architecture."""
    tools = [(path, os.stat(path)) for path in ptxas.find_tools("ptxas")]
    if not tools:
        return None
    seen = repr((code.arch, [(path, stat.st_size, stat.st_mtime_ns) for path, stat in tools]))
    key = b"\0".join((b"cubin", seen.encode(), code.image))
    name = hashlib.blake2b(key, digest_size=20).hexdigest()
    found = cache.read(name, name.encode())
    if found is None:
        path = ptxas.find_ptxas(code.arch)
        if path is None or code.arch not in ptxas.architectures(path):
            return None
        found = ptxas.assemble(code.image, code.arch, path).cubin
        cache.write(name, name.encode(), found, f"cubin for {code.arch}")
    return found
