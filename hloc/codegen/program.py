"""A compiled program as plain data: what the runtime loads, and what a cache or a file may hold.

The entry is `i32 hloc_entry(ptr args, ptr results, ptr arena, ptr constants, ptr context)`: `args` and
`results` are arrays of pointers to the leaves of all parameters and of the result, depth first, without
tokens, one for each of a leaf's `buffers`; `arena` is `arena_bytes` of memory and `constants` the constants'
bytes, both 64-byte aligned;
`context` is an array of 8-byte fields, one a name in CONTEXT_FIELDS. It returns 0, a key of ERRORS, or
`external_failed(number)` when a function from outside failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hloc.analysis.costs import ModuleCost
from hloc.ir.attributes import Alias
from hloc.ir.dtypes import S32
from hloc.ir.shapes import ArrayShape, Shape, TupleShape, array
from hloc.records import NamedTuple, record

if TYPE_CHECKING:
    from hloc.codegen.device_program import DeviceCode

ENTRY = "hloc_entry"
ALIGNMENT = 64

GUARD_BYTES = 1 << 16
"""A multiple of the page size of every machine: the unit of guarded memory."""

CONTEXT_FIELDS = (
    "replica_id",  # i64
    "partition_id",  # i64
    "device",  # i64: replica_id * num_partitions + partition_id
    "device_count",  # i64
    "communicator",  # ptr to `communicator_bytes` that all devices of one run share
    "rng_state",  # ptr to u64[2]: the device's generator
    "externals",  # ptr to the addresses of `Program.externals`
    "pool",  # ptr to the threads' words (POOL_WORDS), 0 if kernels run on the calling thread alone
    "workers",  # i64: threads that work on a kernel of this call at most
)

POOL_WORDS = (
    "state", "next", "busy", "task", "frame", "count", "grain", "workers", "sleeping", "stop",
    "alone",  # the time stamp of the last call that left helpers asleep
    "row",  # how many such calls have followed on each other closely
    "free",  # a processor that no helper is bound to
    "bound",  # ptr to i64[POOL_PROCESSORS]: the system's number of the helper that is bound to a processor, or 0
    "syscall", "getcpu",  # the C library's functions
)  # fmt: skip
"""What the threads of a process share, each word of 8 bytes on a cache line of its own: see `threads_code.py`."""

POOL_PROCESSORS = 1024
"""Helpers are bound to processors below it."""

WORKER = "hloc_worker"
"""The function in which a program with `threads` above 1 has the life of a helper: `ptr hloc_worker(ptr words)`, the
words being the pool's address, the helper's number, from 1 on, and the processor that it is bound to, or -1."""

DEVICE_FAILED, DEVICE_LATE, SIZE_FAILED = 1, 2, 3

ERRORS = {
    DEVICE_FAILED: "another device of this run failed",
    DEVICE_LATE: "a device of this run did not come in time",
    SIZE_FAILED: "a live size is out of its bounds, or does not fit the live elements",
}


LAPACK, CUSTOM, INFEED, OUTFEED, SEND, RECV = "lapack", "custom", "infeed", "outfeed", "send", "recv"
EVALUATED = "evaluated"


class External(NamedTuple):
    """A function outside of the program that it calls by its address: object code stays free of relocations.

    `kind` tells where it is found: LAPACK has routines by their C `name`, CUSTOM the functions registered for
    the target `name`; INFEED, OUTFEED, SEND and RECV are the host's queues, `name` a channel's number. All
    but LAPACK's are called as `void f(ptr outs, ptr ins, ptr config, i64 config_size, ptr status)`, as
    `host.custom_calls.register_custom_call` describes; `operands` and `result` are their shapes. EVALUATED, of
    programs for devices alone, is the reference evaluator, on the HLO text in `config`.
    """

    kind: str
    name: str
    operands: tuple[Shape, ...] = ()
    result: Shape = TupleShape()
    config: str = ""


def aligned_copy(data: np.ndarray) -> np.ndarray:
    """A copy of some bytes at a 64-byte boundary, read-only: `Program.constants` for a u8 array of them."""
    room = np.empty(data.size + ALIGNMENT, np.uint8)
    start = -room.__array_interface__["data"][0] % ALIGNMENT
    block = room[start : start + data.size]
    block[:] = data
    block.flags.writeable = False
    return block


def external_failed(number: int) -> int:
    """The status of a program of which an external failed; its own inverse."""
    return -1 - number


def communicator_bytes(devices: int) -> int:
    """The size of the memory by which the devices of a run meet; all zeros at the start.

    Its first 8-byte word is the run's status: not 0, a key of ERRORS, when a device has failed. The second is
    how many times 200 microseconds devices wait for each other; 0 for the default of a minute.
    """
    return 8 * (2 + devices + devices * devices)


def buffers(shape: ArrayShape) -> tuple[ArrayShape, ...]:
    """What lies in memory for a leaf: the array; of a bounded dynamic shape, padded to its bounds.

    Behind such an array come the live sizes, an s32[] for each dynamic dimension in order. Live elements lie
    at the low end of each dimension.
    """
    if not shape.is_dynamic:
        return (shape,)
    return (ArrayShape(shape.dtype, shape.dims, shape.layout), *[array(S32)] * sum(shape.dynamic))


class ParameterLeaf(NamedTuple):
    """An array that a call takes: the leaf at `index` of parameter `number`."""

    number: int
    index: tuple[int, ...]
    shape: ArrayShape
    name: str


class ResultLeaf(NamedTuple):
    """An array that a call gives: the leaf at `index` of the result."""

    index: tuple[int, ...]
    shape: ArrayShape


class Guards(NamedTuple):
    """Where the buffers of a program with `Options.guard_pages` lie: all other memory around them is inaccessible.

    Each lies at the `side`, "start" or "end", of whole GUARD_BYTES. `arena` has (offset, bytes) of the arena's,
    `constants` (offset, bytes, where in `Program.constants` the bytes come from); `constants_bytes` is how far
    those reach.
    """

    side: str
    arena: tuple[tuple[int, int], ...]
    constants: tuple[tuple[int, int, int], ...]
    constants_bytes: int


class Kernel(NamedTuple):
    """One native function: its symbol, the instructions it stands for, and the bytes it reads and writes."""

    name: str
    instructions: tuple[str, ...]
    bytes_read: int
    bytes_written: int


class LiveBuffer(NamedTuple):
    """A piece of memory, from the step that writes it `first` to the one that needs it `last`.

    It holds the results of the instructions `names` one after the other, the first of `shape` (None: what a
    kernel needs for itself) and with the metadata's `op_name`. It lies in the arena at the offset `number`, or
    is result or stack slot `number`.
    """

    names: tuple[str, ...]
    shape: ArrayShape | None
    op_name: str
    kind: str
    number: int
    bytes: int
    first: int
    last: int


class MemoryCall(NamedTuple):
    """A step that calls computations, by their numbers in `Program.memory`, with the arena from an offset on."""

    step: int
    offset: int
    callees: tuple[int, ...]


class MadeCopy(NamedTuple):
    """A copy that the text does not have, made for an instruction or a result, and why; registers do not count."""

    name: str
    bytes: int
    reason: str


class MemoryPlan(NamedTuple):
    """The memory of a computation: its steps by their instructions' names, and what lives when."""

    name: str
    steps: tuple[str, ...]
    arena_bytes: int
    buffers: tuple[LiveBuffer, ...]
    calls: tuple[MemoryCall, ...]
    copies: tuple[MadeCopy, ...]


@record
class Program:
    """A compiled module. `parameter_shapes` and `result_shape` are as the caller sees them.

    `memory` has the plans of the computations that run, callees first and the entry last; `cost` what a run
    costs. At most `threads` work on one kernel. A program for a device has `device` in place of object code.
    `donors` has for each result leaf the number of the parameter leaf in whose memory it must be, if any
    (`Options.donate`). `routines` are object files with functions that the object code calls.
    """

    name: str
    target: str
    object_code: bytes
    entry: str
    arena_bytes: int
    constants: np.ndarray
    parameter_shapes: tuple[Shape, ...]
    result_shape: Shape
    parameters: tuple[ParameterLeaf, ...]
    results: tuple[ResultLeaf, ...]
    aliases: tuple[Alias, ...]
    replica_count: int
    num_partitions: int
    kernels: tuple[Kernel, ...]
    externals: tuple[External, ...]
    memory: tuple[MemoryPlan, ...]
    cost: ModuleCost
    threads: int = 1
    guards: Guards | None = None
    device: DeviceCode | None = None
    donors: tuple[int | None, ...] = ()
    routines: tuple[bytes, ...] = ()

    __eq__ = object.__eq__
    __hash__ = object.__hash__
