"""How many blocks of a kernel a multiprocessor holds at a time.

The limits are those of the tables "Technical Specifications per Compute Capability" in the CUDA C++ Programming Guide;
registers are given out as `cuda_occupancy.h` of the CUDA toolkit does it: by warp, to each of four parts.
"""

from __future__ import annotations

from hloc.records import NamedTuple

_KIB = 1024
_REGISTERS = 64 * _KIB
_PARTS = 4
_REGISTER_UNIT = 256
WARP = 32


class Limits(NamedTuple):
    """What a multiprocessor holds at most: threads, blocks, bytes of shared memory."""

    threads: int
    blocks: int
    shared: int


LIMITS: dict[int, Limits] = {
    70: Limits(2048, 32, 96 * _KIB),
    72: Limits(2048, 32, 96 * _KIB),
    75: Limits(1024, 16, 64 * _KIB),
    80: Limits(2048, 32, 164 * _KIB),
    86: Limits(1536, 16, 100 * _KIB),
    87: Limits(1536, 16, 164 * _KIB),
    89: Limits(1536, 24, 100 * _KIB),
    90: Limits(2048, 32, 228 * _KIB),
    100: Limits(2048, 32, 228 * _KIB),
    103: Limits(2048, 32, 228 * _KIB),
    120: Limits(1536, 24, 100 * _KIB),
    121: Limits(1536, 24, 100 * _KIB),
}


class Occupancy(NamedTuple):
    """Blocks that a multiprocessor holds at a time, their part of all threads it could hold, and what limits it."""

    blocks: int
    part: float
    limit: str


def occupancy(sm: int, threads: int, registers: int, shared: int) -> Occupancy:
    """The occupancy of blocks of so many threads, registers a thread, and bytes of shared memory a block.

    KeyError for an architecture that is not among LIMITS.
    """
    limits = LIMITS[sm]
    warps = -(-max(threads, 1) // WARP)
    room = {"threads": limits.threads // WARP // warps, "blocks": limits.blocks}
    if registers:
        per_warp = _rounded(registers * WARP, _REGISTER_UNIT)
        room["registers"] = _REGISTERS // _PARTS // per_warp * _PARTS // warps
    # From sm_80 on, a KiB of each block's shared memory is the system's own.
    own = _rounded(shared, 128 if sm >= 80 else 256) + (_KIB if sm >= 80 else 0)
    if own:
        room["shared memory"] = limits.shared // own
    blocks = min(room.values())
    limit = next(name for name, most in room.items() if most == blocks)
    return Occupancy(blocks, blocks * warps * WARP / limits.threads, limit)


def _rounded(number: int, unit: int) -> int:
    return -(-number // unit) * unit
