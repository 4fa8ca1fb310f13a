"""What the kernels of a program take of a GPU, as ptxas says, and how many blocks of them run at a time."""

from __future__ import annotations

from hloc.codegen.device_program import DeviceCode
from hloc.codegen.targets.occupancy import Occupancy, occupancy
from hloc.codegen.targets.ptxas import assemble
from hloc.records import NamedTuple


class KernelStats(NamedTuple):
    """A kernel: `shared` bytes a block, `spilled` bytes written and read a thread, `stack` bytes of its frame."""

    name: str
    instructions: tuple[str, ...]
    threads: int
    registers: int
    shared: int
    spilled: int
    stack: int
    occupancy: Occupancy


def kernel_stats(code: DeviceCode, sm: int, path: str | None = None) -> list[KernelStats]:
    """The kernels of a program of PTX, in its order. HloError if there is no ptxas, or it refuses the text."""
    uses = {use.name: use for use in assemble(code.image, code.arch, path).kernels}
    found = []
    for kernel in code.kernels:
        use = uses[kernel.name]
        # Shared memory that a launch asks for is not known to ptxas; what it knows comes on top.
        shared = use.shared + kernel.shared_bytes
        room = occupancy(sm, kernel.threads, use.registers, shared)
        spilled = use.spill_stores + use.spill_loads
        facts = (kernel.threads, use.registers, shared, spilled, use.stack, room)
        found.append(KernelStats(kernel.name, kernel.instructions, *facts))
    return found


_HEAD = ("kernel", "threads", "registers", "shared", "spills", "stack", "occupancy", "HLO")
_NAMED = 4


def table(stats: list[KernelStats]) -> str:
    """The kernels as text, one a line."""
    rows = [_HEAD, *map(_row, stats)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD) - 1)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:]), row[-1]]) for row in rows
    )


def _row(kernel: KernelStats) -> tuple[str, ...]:
    names = [f"%{name}" for name in kernel.instructions[:_NAMED]]
    more = ", ..." if len(kernel.instructions) > _NAMED else ""
    room = kernel.occupancy
    numbers = map(str, (kernel.threads, kernel.registers, kernel.shared, kernel.spilled, kernel.stack))
    return (kernel.name, *numbers, f"{room.part:.0%} ({room.limit})", ", ".join(names) + more)
