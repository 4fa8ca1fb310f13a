"""What a program for a device is made of: kernels to launch, and the commands that a host goes through.

A computation's commands name memory by Location: the leaves of its arguments and results, by number, and places in
its arena and among the constants, by offset in bytes. A call binds the callee's arguments, results and arena to
locations of the caller's. So nothing in a program depends on where its memory lies.
"""

from __future__ import annotations

from hloc.records import NamedTuple, record

ARGUMENT, RESULT, ARENA, CONSTANT, CONTEXT, EXTERNAL = "argument", "result", "arena", "constant", "context", "external"


class Location(NamedTuple):
    """A place in device memory: argument or result leaf `number`, or `number` bytes into the arena or the constants.

    CONTEXT is the run's context (`program.CONTEXT_FIELDS`, whose pointers are device pointers); CONSTANT is relative
    to the program's constants.
    """

    kind: str
    number: int = 0


class TensorMap(NamedTuple):
    """An array of which a kernel copies tiles to shared memory, each by one command (TMA).

    It begins `offset` bytes (a multiple of 16) into the memory of the launch's argument of a number. `dims` are its
    sizes, innermost first, in elements of `itemsize` bytes, `strides` the bytes from one to the next along each dim
    but the innermost (multiples of 16). A tile has `box` elements along the dims: 128 bytes along the innermost. With
    `rounds`, elements are f32, which become tf32 on the way.
    """

    argument: int
    offset: int
    itemsize: int
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    rounds: bool = False


class Launch(NamedTuple):
    """A kernel run once: by `grid` x `block` threads, with `shared_bytes` of shared memory a block.

    `arguments` are its pointers, in order, `sizes` the bytes that it may touch behind each (alignment: 16 bytes or
    more); `scalars` are i64s that follow them, and behind these `maps`, each with the address of its argument in it.
    `instruction` is the HLO instruction that it stands for.
    """

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int
    arguments: tuple[Location, ...]
    sizes: tuple[int, ...]
    scalars: tuple[int, ...]
    instruction: str
    maps: tuple[TensorMap, ...] = ()


class Copy(NamedTuple):
    """`size` bytes copied within device memory; the places do not overlap."""

    target: Location
    source: Location
    size: int


class Fill(NamedTuple):
    """`size` bytes, from `offset` bytes behind `target` on, set to one value."""

    target: Location
    offset: int
    byte: int
    size: int


class Call(NamedTuple):
    """A computation's commands, with its leaves and its arena at these places of the caller's."""

    computation: int
    arguments: tuple[Location, ...]
    results: tuple[Location, ...]
    arena: int


class Loop(NamedTuple):
    """`body` as long as `condition` leaves a byte that is not 0 at `verdict`."""

    condition: Call
    body: Call
    verdict: Location
    instruction: str


class Choice(NamedTuple):
    """One of the branches: of two by a pred at `selector` (the first for true), else by an s32 index.

    Indices out of range choose the last branch.
    """

    selector: Location
    by_pred: bool
    branches: tuple[Call, ...]
    instruction: str


class HostCall(NamedTuple):
    """A function outside of the program (`Program.externals[external]`), called by the host with copies of the values.

    `operands` and `results` are the array leaves of the External's shapes.
    """

    external: int
    operands: tuple[Location, ...]
    results: tuple[Location, ...]
    instruction: str


class Meeting(NamedTuple):
    """Devices of a run exchange the addresses of `sources`, then each runs `launches`.

    They read from all devices' sources: a launch's argument of the kind EXTERNAL is source `number % len(sources)` of
    the device that is `number // len(sources)` in the run. No device goes on before all have done so.
    """

    sources: tuple[Location, ...]
    launches: tuple[Launch, ...]
    instruction: str


Command = Launch | Copy | Fill | Call | Loop | Choice | HostCall | Meeting


class DeviceComputation(NamedTuple):
    """A computation: what is done in order, and the bytes of its arena (those of its callees included)."""

    name: str
    commands: tuple[Command, ...]
    arena_bytes: int


class DeviceKernel(NamedTuple):
    """A kernel function of the image: the instructions that it stands for, and its most threads a block."""

    name: str
    instructions: tuple[str, ...]
    threads: int
    shared_bytes: int


@record
class DeviceCode:
    """The part of a Program that runs on a device: `image` (PTX text, or an object file of the emulator's).

    `computations` come callees first, the entry last. `arch` is the architecture that the image is for.
    """

    arch: str
    image: bytes
    kernels: tuple[DeviceKernel, ...]
    computations: tuple[DeviceComputation, ...]


EMULATED_LAUNCH_FIELDS = (
    "entry",  # the kernel, a function of `words`
    "words",  # its pointers, then its scalars, then the bytes behind each of its pointers
    "pointers",  # how many there are
    "scalars",
    "grid_x",
    "grid_y",
    "grid_z",
    "block_x",
    "block_y",
    "block_z",
    "shared_bytes",
    "stacks",  # one for each thread of a block, of `stack_bytes` (a multiple of 64)
    "stack_bytes",
    "all_stacks",  # the bytes of all
    "allocations",  # address and bytes of each piece of device memory
    "allocation_count",
    "flush",  # whether float operations flush denormals
    "watch",  # whether blocks, or threads that never meet, may not touch what others do
)
"""What the emulator in an image is called with: an array of i64s, pointers among them."""

TENSOR_MAP_DIMS = 5
"""The most dims of a TensorMap."""

EMULATED_MAP_FIELDS = (
    "address",
    "itemsize",
    "rank",
    "box_bytes",
    "rounds",
    *(f"{name}{dim}" for name in ("dim", "stride", "box") for dim in range(TENSOR_MAP_DIMS)),
)
"""What the emulator has in place of a TensorMap with its address: an array of i64s."""

EMULATED_GROUPS = 8
"""The most warpgroups of a block. What is numbered behind the warps of a block, in messages of the emulator, are the
products of each of these, and then the copies of tiles for each barrier."""

EMULATED_MEETS, EMULATED_FLUSHES, EMULATED_ORDERS = 1, 2, 4
"""Bits of what the emulator must know of a kernel: that its threads wait for each other or share memory, that its
floats flush denormals, that it puts its blocks in order by itself."""
