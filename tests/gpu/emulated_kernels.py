"""Kernels written by hand, for the tests of the emulator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np

from hloc.codegen.device_program import ARGUMENT, DeviceCode, DeviceKernel, Launch, Location, TensorMap
from hloc.codegen.gpu.intrinsics import Intrinsics
from hloc.codegen.llvm import Builder, Module, Value, integer
from hloc.codegen.targets.target import Target, target_named
from hloc.options import Options
from hloc.runtime.emulator import EmulatedDevice

FLUSH = ' "denormal-fp-math"="preserve-sign,preserve-sign"'


class Thread(SimpleNamespace):
    """What a kernel is written with: `b`, `gpu`, `args` (its pointers, then its scalars), `maps`."""

    b: Builder
    gpu: Intrinsics
    args: list[Value]
    maps: list[Value]

    def index(self) -> Value:
        """The thread's number in a block of one dimension, an i64."""
        return self.b.zext(self.gpu.thread(), "i64")

    def at(self, type: str, number: int, index: Value | int | None = None) -> Value:
        """The address of an element of an argument: of the thread's own by default."""
        return self.b.gep(type, self.args[number], self._place(index))

    def room(self, type: str, index: Value | int | None = None) -> Value:
        """The address of an element of shared memory."""
        return self.b.gep(type, self.gpu.shared(), self._place(index))

    def poll(self, pointer: Value, unset: int) -> Value:
        """The first value of an i32 that is not `unset`."""
        b = self.b

        def is_unset(carried: list[Value]) -> Value:
            return b.icmp_signed("==", carried[0], i32(unset))

        return b.while_loop([i32(unset)], is_unset, lambda carried: [self.gpu.load_volatile("i32", pointer)])[0]

    def _place(self, index: Value | int | None) -> Value:
        return self.index() if index is None else i64(index) if isinstance(index, int) else index


def i64(number: int) -> Value:
    return integer("i64", number)


def i32(number: int) -> Value:
    return integer("i32", number)


def written(
    write: Callable[[Thread], object],
    target: Target,
    pointers: int,
    scalars: int = 0,
    shared: int = 0,
    threads: int = 1024,
    attributes: str = "",
    maps: int = 0,
) -> Module:
    """A module with a kernel `k`; `write(thread)` writes what a thread does."""
    module = Module("test", target.triple, target.data_layout)
    dialect = target.device.dialect
    params = [(dialect.pointer, f"a{n}", "noalias align 16") for n in range(pointers)]
    params += [("i64", f"s{n}") for n in range(scalars)]
    params += [dialect.map_parameter(f"m{n}") for n in range(maps)]
    kernel = dialect.kernel(module, "k", params, threads, target.function_attributes + attributes)
    b = dialect.builder(kernel, "add.1")
    given = pointers + scalars
    write(Thread(b=b, gpu=dialect.intrinsics(b, shared), args=kernel.args[:given], maps=kernel.args[given:]))
    b.ret()
    return module


class Prepared:
    """A kernel `k` on a device of its own. `write(thread)` writes what a thread does with `pointers` and `scalars`."""

    def __init__(
        self,
        write: Callable[[Thread], object],
        pointers: int,
        scalars: int = 0,
        shared: int = 0,
        threads: int = 1024,
        attributes: str = "",
        maps: int = 0,
        arch: str = "sm_80",
    ):
        target = target_named(f"cuda-emulated:{arch}")
        self.text = str(written(write, target, pointers, scalars, shared, threads, attributes, maps))
        image = target.lower(self.text, "obj", Options())
        code = DeviceCode(arch, image, (DeviceKernel("k", ("add.1",), threads, shared),), ())
        self.device = EmulatedDevice(SimpleNamespace(device=code))
        self.shared = shared

    def run(
        self,
        arrays: Sequence[np.ndarray],
        block: int | tuple[int, int, int] = 32,
        grid: int | tuple[int, int, int] = 1,
        scalars: Sequence[int] = (),
        sizes: Sequence[int] | None = None,
        offset: int = 0,
        maps: Sequence[TensorMap] = (),
    ) -> None:
        """Launches it on copies of the arrays, which are then changed as the kernel has changed them."""
        device = self.device
        places = [device.allocate(array.nbytes + offset, "an argument") + offset for array in arrays]
        for place, array in zip(places, arrays, strict=True):
            device.upload(place, array)
        launch = Launch(
            "k", _three(grid), _three(block), self.shared, tuple(Location(ARGUMENT, n) for n in range(len(arrays))),
            tuple(sizes or [array.nbytes for array in arrays]), tuple(scalars), "add.1", tuple(maps),
        )
        try:
            device.launch(launch, places)
            for place, array in zip(places, arrays, strict=True):
                device.download(array, place)
        finally:
            for place in places:
                device.free(place - offset)


def run(
    write: Callable[[Thread], object],
    *arrays: np.ndarray,
    block: int | tuple[int, int, int] = 32,
    grid: int | tuple[int, int, int] = 1,
    shared: int = 0,
    scalars: Sequence[int] = (),
    sizes: Sequence[int] | None = None,
    attributes: str = "",
) -> None:
    """Writes a kernel and launches it once."""
    kernel = Prepared(write, len(arrays), len(scalars), shared, attributes=attributes)
    kernel.run(arrays, block, grid, scalars, sizes)


def _three(size: int | tuple[int, int, int]) -> tuple[int, int, int]:
    return (size, 1, 1) if isinstance(size, int) else size
