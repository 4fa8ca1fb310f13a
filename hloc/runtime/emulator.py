"""A device that is emulated by the CPU: what `codegen/gpu/emulated.py` writes, loaded and launched.

Fresh memory has all bits set, which are no numbers as floats and lie outside of everything as indices.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator, Sequence
from itertools import groupby
from math import prod

import numpy as np

from hloc.codegen.device_program import (
    EMULATED_FLUSHES,
    EMULATED_GROUPS,
    EMULATED_LAUNCH_FIELDS,
    EMULATED_MAP_FIELDS,
    EMULATED_MEETS,
    EMULATED_ORDERS,
    TENSOR_MAP_DIMS,
    Launch,
    TensorMap,
)
from hloc.codegen.program import Program
from hloc.errors import HloError
from hloc.lazy import lazy
from hloc.runtime import elf
from hloc.runtime.device import Device
from hloc.runtime.memory import address, block

mcjit = lazy("hloc.runtime.mcjit")

_ALIGNMENT = 256
_WARP = 32
_STACK_BYTES = (64 << 10) + 13 * 64
"""Of a thread. The odd part keeps the stacks of neighbours from the same sets of a cache."""

_RUN = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class EmulatedDevice(Device):
    """A program's kernels, to be run on this CPU. For one thread at a time."""

    def __init__(self, program: Program):
        assert program.device is not None
        image = program.device.image
        self._code = elf.Loaded(image) if elf.is_loadable(image) else mcjit.Loaded(image)
        self._kernels = {kernel.name: kernel for kernel in program.device.kernels}
        self._entries: dict[str, tuple[int, int]] = {}
        self._runs: dict[str, object] = {}
        self._blocks: dict[int, np.ndarray] = {}
        self._table = np.zeros((0, 2), np.int64)
        self._stacks: np.ndarray | None = None

    # Memory

    def allocate(self, size: int, what: str) -> int:
        room = block(size + _ALIGNMENT, what)
        start = -address(room) % _ALIGNMENT
        memory = room[start : start + size]
        memory.fill(255)
        self._blocks[address(memory)] = memory
        self._write_table()
        return address(memory)

    def free(self, address: int) -> None:
        del self._blocks[address]
        self._write_table()

    def _write_table(self) -> None:
        rows = [(start, memory.size) for start, memory in self._blocks.items()]
        self._table = np.array(rows, np.int64).reshape(-1, 2)

    def upload(self, address: int, array: np.ndarray) -> None:
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def download(self, array: np.ndarray, address: int) -> None:
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def copy(self, target: int, source: int, size: int) -> None:
        ctypes.memmove(target, source, size)

    def fill(self, target: int, byte: int, size: int) -> None:
        ctypes.memset(target, byte, size)

    def read(self, address: int, size: int) -> bytes:
        return ctypes.string_at(address, size)

    def synchronize(self) -> None:
        """Nothing is ever under way."""

    # Launches

    def launch(self, launch: Launch, arguments: Sequence[int]) -> None:
        threads = launch.block[0] * launch.block[1] * launch.block[2]
        self._check(launch, arguments, threads)
        entry, traits = self._entry(launch.kernel)
        meets, flush, watch = traits & EMULATED_MEETS, traits & EMULATED_FLUSHES, not traits & EMULATED_ORDERS
        maps = [_map_record(map, arguments[map.argument]) for map in launch.maps]
        scalars = (*launch.scalars, *(address(record) for record in maps))
        words = np.array([*arguments, *scalars, *launch.sizes], np.int64)
        stacks = self._stacks_for(threads if meets else 1)
        fields = (
            entry, address(words), len(arguments), len(scalars), *launch.grid, *launch.block,
            launch.shared_bytes, address(stacks), _STACK_BYTES, stacks.nbytes,
            address(self._table) if self._table.size else 0, len(self._table), flush, watch,
        )
        given = (ctypes.c_int64 * len(EMULATED_LAUNCH_FIELDS))(*fields)
        self._run("emulator.meet" if meets else "emulator.run")(ctypes.addressof(given))
        self._raise_error(launch, threads)

    def _check(self, launch: Launch, arguments: Sequence[int], threads: int) -> None:
        """What a driver would refuse."""
        kernel = self._kernels.get(launch.kernel)
        where = f"kernel {launch.kernel} (%{launch.instruction})"
        if kernel is not None and threads > kernel.threads:
            raise HloError(f"{where} is launched with {threads} threads a block, and was made for {kernel.threads}")
        if len(arguments) != len(launch.sizes):
            raise HloError(f"{where} is launched with {len(arguments)} arguments and {len(launch.sizes)} sizes")
        for number, (pointer, size) in enumerate(zip(arguments, launch.sizes, strict=True)):
            if size and pointer % 16:
                raise HloError(f"{where}: argument {number} is not aligned to 16 bytes")
        for map in launch.maps:
            there, taken = launch.sizes[map.argument], _map_bytes(map)
            if taken > there:
                what = f"a map of {taken} bytes of argument {map.argument}"
                raise HloError(f"{where}: {what}, and there are {there} bytes")

    def _entry(self, kernel: str) -> tuple[int, int]:
        """The address to call a kernel at, and its traits."""
        if kernel not in self._entries:
            traits = ctypes.c_int64.from_address(self._code.address(f"{kernel}.traits")).value
            self._entries[kernel] = self._code.address(f"{kernel}.entry"), traits
        return self._entries[kernel]

    def _run(self, name: str):
        if name not in self._runs:
            self._runs[name] = _RUN(self._code.address(name))
        return self._runs[name]

    def _stacks_for(self, threads: int) -> np.ndarray:
        if self._stacks is None or self._stacks.size < threads * _STACK_BYTES:
            memory = mmap.mmap(-1, threads * _STACK_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
            self._stacks = np.frombuffer(memory, np.uint8)
        return self._stacks

    # Errors

    def _raise_error(self, launch: Launch, threads: int) -> None:
        record = (ctypes.c_int64 * 5).from_address(self._code.address("emulated.error"))
        if not record[0]:
            return
        template, site = (ctypes.string_at(place).decode() if place else "" for place in record[:2])
        where = f"kernel {launch.kernel} (%{launch.instruction}), block {self._place('emulated.block')}"
        if "{waiting}" in template:
            raise HloError(f"{where}: " + template.format(*record[2:], waiting="; ".join(self._waiting(threads))))
        thread = ctypes.c_int32.from_address(self._code.address("emulated.thread")).value
        x, y, _ = launch.block
        place = (thread % x, thread // x % y, thread // x // y)
        racer = "block" if self._entry(launch.kernel)[1] & EMULATED_MEETS else "thread"
        said = template.format(*record[2:], site=site, racer=racer, party=_party(record[2], threads))
        raise HloError(f"{where}, thread {place}: {said}")

    def _place(self, name: str) -> tuple[int, int, int]:
        x, y, z = (ctypes.c_int32 * 3).from_address(self._code.address(name))
        return x, y, z

    def _waiting(self, threads: int) -> Iterator[str]:
        """What threads wait for, those that wait for the same together."""
        places = (ctypes.c_int64 * threads).from_address(self._code.address("emulated.waiting"))
        texts = [ctypes.string_at(place).decode() if place else "go on" for place in places]
        for text in dict.fromkeys(texts):
            spans = []
            for is_it, group in groupby(range(threads), key=lambda thread, text=text: texts[thread] == text):
                found = list(group)
                if is_it:
                    spans.append(f"{found[0]} to {found[-1]}" if len(found) > 1 else f"{found[0]}")
            yield f"thread{'s' * (len(spans) > 1 or 'to' in spans[0])} {', '.join(spans)} {text}"


def _party(number: int, threads: int) -> str:
    """Who has a number: a thread of a block of so many, or what is numbered behind: see EMULATED_GROUPS."""
    if number < threads:
        return f"thread {number}"
    return "a product" if number < -(-threads // _WARP) * _WARP + EMULATED_GROUPS else "a copy of a tile"


def _map_bytes(map: TensorMap) -> int:
    """The bytes of an argument up to the end of a map's array."""
    last = sum((size - 1) * stride for size, stride in zip(map.dims[1:], map.strides, strict=True))
    return map.offset + last + map.dims[0] * map.itemsize


def _map_record(map: TensorMap, start: int) -> np.ndarray:
    """What EMULATED_MAP_FIELDS says."""
    fields = [start + map.offset, map.itemsize, len(map.dims), prod(map.box) * map.itemsize, int(map.rounds)]
    for numbers in (map.dims, (map.itemsize, *map.strides), map.box):
        fields += [*numbers, *[0] * (TENSOR_MAP_DIMS - len(numbers))]
    assert len(fields) == len(EMULATED_MAP_FIELDS)
    return np.array(fields, np.int64)


_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0)
