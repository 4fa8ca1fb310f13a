"""Memory in which an access beyond a buffer is seen: for debugging, with `Options.guard_pages`.

Arguments are copied in, results copied out; these, the constants and every temporary buffer lie against pages that
cannot be touched (`codegen.guarded_arena` says how close). Constants cannot be written. A program that touches such
a page is stopped by the processor: the process then ends with status 3 and a message that names the program, the
buffer, how far beyond it the access was, and the function that made it. The process ends, rather than a call failing,
since a fault can come anywhere and nothing can be said about what was half done.

On systems other than Linux the message is that of Python's faulthandler.
"""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
import platform
import signal
import sys
import weakref
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from hloc.codegen.program import GUARD_BYTES, Program, buffers
from hloc.errors import HloError
from hloc.ir.shapes import ArrayShape
from hloc.records import NamedTuple
from hloc.runtime.memory import address, laid_out

STATUS = 3
"""Exit status of a process whose program touched a guarded page: that of a fault of hloc itself."""

_NOTHING, _READ, _READ_WRITE = 0, mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE


class Buffer(NamedTuple):
    """A piece of a region: from where, how many bytes, and what to call it."""

    offset: int
    bytes: int
    name: str


class Region:
    """Memory that cannot be touched, but for the pages of some buffers. It lasts as long as arrays in it do.

    HloError if this process cannot have so much, or so many pieces.
    """

    def __init__(self, size: int, pieces: Sequence[Buffer], owner: GuardedMemory):
        self.pieces = pieces
        try:
            memory = mmap.mmap(-1, size + GUARD_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError, ValueError):
            raise HloError(f"{owner.program.name} takes {size} bytes of guarded memory: no room for it") from None
        self.bytes = np.frombuffer(memory, np.uint8)
        self.address = address(self.bytes)
        self._protect(0, self.bytes.size, _NOTHING)
        self.allow(_READ_WRITE)
        _known[self.address] = _Known(self.bytes.size, pieces, owner)
        weakref.finalize(memory, _known.pop, self.address)

    def allow(self, access: int) -> None:
        """Lets the pages of the buffers be touched so."""
        page = mmap.PAGESIZE
        pages = {
            (piece.offset // page * page, -(-(piece.offset + piece.bytes) // page) * page)
            for piece in self.pieces
            if piece.bytes
        }
        for start, end in pages:
            self._protect(start, end, access)

    def block(self, piece: Buffer) -> np.ndarray:
        """The bytes of a buffer."""
        return self.bytes[piece.offset : piece.offset + piece.bytes]

    def _protect(self, start: int, end: int, access: int) -> None:
        if _library().mprotect(self.address + start, end - start, access):
            raise HloError("there are too many buffers for this system to guard all of them")


class _Known(NamedTuple):
    """What is known of a region, without keeping it: its bytes, its buffers, and whose it is."""

    bytes: int
    pieces: Sequence[Buffer]
    owner: GuardedMemory


_known: dict[int, _Known] = {}
"""All regions, by address."""


class GuardedMemory:
    """What `memory.Memory` does, with guards. `name_at` gives the function of the program that an address is in."""

    def __init__(self, program: Program, name_at: Callable[[int], str | None]):
        assert program.guards is not None
        self.program = program
        self.name_at = name_at
        self.guards = program.guards
        self._free: list[Region] = []
        self._arguments = [
            (shape, f"argument {number} (%{leaf.name}), {leaf.shape!r}")
            for number, leaf in enumerate(program.parameters)
            for shape in buffers(leaf.shape)
        ]
        self._constants = self._of_constants()
        self.constants = self._constants.address
        _programs.add(self)
        _watch()

    def _of_constants(self) -> Region:
        pieces = [Buffer(offset, size, "a constant") for offset, size, _ in self.guards.constants]
        region = Region(self.guards.constants_bytes, pieces, self)
        for piece, (_, size, source) in zip(pieces, self.guards.constants, strict=True):
            region.block(piece)[:] = self.program.constants[source : source + size]
        region.allow(_READ)
        return region

    def take_arena(self) -> tuple[int, object]:
        """The address of working memory for one run, and what keeps it alive."""
        try:
            region = self._free.pop()
        except IndexError:
            pieces = [Buffer(*piece, "a temporary buffer") for piece in self.guards.arena]
            region = Region(self.program.arena_bytes, pieces, self)
        return region.address, region

    def give_arena(self, used: tuple[int, object]) -> None:
        """Takes a run's working memory back."""
        self._free.append(used[1])

    def arguments(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Guarded copies of the arrays."""
        guarded = []
        for array, (shape, name) in zip(arrays, self._arguments, strict=True):
            room = self._array(shape, name)
            room[...] = array
            guarded.append(room)
        return guarded

    def results(self, shapes: Sequence[ArrayShape]) -> list[np.ndarray]:
        """Guarded room for the results of a run."""
        return [self._array(shape, f"result {number}, {shape!r}") for number, shape in enumerate(shapes)]

    def finished(self, results: list[np.ndarray]) -> list[np.ndarray]:
        """The results of a run, for the caller to keep."""
        return [result.copy(order="K") for result in results]

    def _array(self, shape: ArrayShape, name: str) -> np.ndarray:
        size = shape.byte_size
        whole = -(-size // GUARD_BYTES) * GUARD_BYTES
        offset = GUARD_BYTES + (whole - size if self.guards.side == "end" else 0)
        piece = Buffer(offset, size, name)
        region = Region(GUARD_BYTES + whole, [piece], self)
        return laid_out(region.block(piece), shape)

_programs: weakref.WeakSet[GuardedMemory] = weakref.WeakSet()


# What a fault was


def describe(place: int, instruction: int, verb: str = "touches") -> str | None:
    """A sentence about an access to an address by the instruction at another; None if no guarded program made it."""
    for start, region in list(_known.items()):
        if start <= place < start + region.bytes:
            what = _relation(place - start, region.pieces)
            function = region.owner.name_at(instruction) or "a function that it calls"
            return f"{region.owner.program.name} {verb} memory {what}, in {function}"
    for memory in list(_programs):
        function = memory.name_at(instruction)
        if function is not None:
            return f"{memory.program.name} {verb} memory at {place:#x}, which is none of its own, in {function}"
    return None


def _relation(offset: int, pieces: Sequence[Buffer]) -> str:
    """Where an offset lies, as seen from the nearest buffer."""

    def distance(piece: Buffer) -> int:
        return max(piece.offset - offset, offset - piece.offset - piece.bytes, 0)

    near = min(pieces, key=distance, default=None)
    if near is None:
        return "that it has no buffer in"
    if offset >= near.offset + near.bytes:
        beyond = offset - near.offset - near.bytes
        return f"{_bytes(beyond) if beyond else 'right'} behind the end of {near.name}"
    if offset < near.offset:
        return f"{_bytes(near.offset - offset)} before the start of {near.name}"
    return f"in {near.name}, which may only be read"


def _bytes(count: int) -> str:
    return f"{count} byte{'' if count == 1 else 's'}"


# Watching for faults. Structures as in Linux's <signal.h> and <ucontext.h>, for 64-bit machines.

_SA_SIGINFO = 4
_FAULT_ADDRESS = 16
_X86_INSTRUCTION, _X86_ERROR, _X86_WRITE = 168, 192, 2


class _Action(ctypes.Structure):
    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None)
    library.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return library


@cache
def _watch() -> object:
    """Tells what a fault was, from now on; faults of others go where they went before."""
    if sys.platform != "linux":
        faulthandler.enable()
        return None
    before = _Action()

    def on_fault(number: int, info: int, machine: int) -> None:
        place = ctypes.c_int64.from_address(info + _FAULT_ADDRESS).value
        instruction, verb = 0, "touches"
        if platform.machine() == "x86_64":
            instruction = ctypes.c_int64.from_address(machine + _X86_INSTRUCTION).value
            error = ctypes.c_int64.from_address(machine + _X86_ERROR).value
            verb = "writes" if error & _X86_WRITE else "reads"
        message = describe(place, instruction, verb)
        if message is None:  # the instruction runs again, and fails as it would have
            _library().sigaction(number, ctypes.byref(before), None)
            return
        os.write(2, f"hloc: {message}\n".encode())
        os._exit(STATUS)

    handler = _HANDLER(on_fault)
    action = _Action(ctypes.cast(handler, ctypes.c_void_p).value, flags=_SA_SIGINFO)
    _library().sigaction(signal.SIGSEGV, ctypes.byref(action), ctypes.byref(before))
    return handler
