"""Offsets for memory with guards: each buffer has pages of its own, between which nothing may be touched.

With `Options.guard_pages` a buffer lies at the end, or at the start, of whole pieces of GUARD_BYTES, and before each is
a piece that the runtime makes inaccessible. A value's last byte is right before it, so that an access of one byte
beyond is seen; only the temporary memory of a kernel keeps its alignment, which may leave up to 63 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

from hloc.codegen.arena import Need, aligned
from hloc.codegen.program import GUARD_BYTES
from hloc.errors import HloError


class GuardedArena:
    """Hands out offsets with GUARD_BYTES that nobody has before each buffer; used again for as many pages alone.

    `side` is where a buffer lies in its pages, "end" or "start" (HloError for another word); up to `used` bytes are
    others'.
    """

    def __init__(self, side: str, used: int = 0) -> None:
        if side not in ("end", "start"):
            raise HloError(f'guard_pages is "{side}", expected "end" or "start", or nothing')
        self.bytes = used
        self._side = side
        self._free: dict[int, list[int]] = {}  # offsets by size
        self._ends: list[tuple[int, int, int]] = []  # heap of (last use, offset, size)

    def take(self, start: int, last_use: int, size: int) -> int:
        """An offset for memory in use from step `start` to step `last_use`; starts must not decrease."""
        while self._ends and self._ends[0][0] < start:
            _, base, freed = heappop(self._ends)
            self._free.setdefault(freed, []).append(base)
        if size == 0:
            return 0
        whole = -(-size // GUARD_BYTES) * GUARD_BYTES
        free = self._free.get(whole)
        if free:
            base = free.pop()
        else:
            base = self.bytes + GUARD_BYTES
            self.bytes = base + whole
        heappush(self._ends, (last_use, base, whole))
        return base + whole - size if self._side == "end" else base


def pack_guarded(needs: Sequence[Need], side: str) -> tuple[list[int], int]:
    """What `arena.pack` does, with guards."""
    arena = GuardedArena(side)
    return [arena.take(*need) for need in needs], arena.bytes


def rooms(sizes: Sequence[int], beside: int, guard: str) -> tuple[list[int], int]:
    """Offsets for memory of these sizes, of which one is in use at a time, then for `beside` bytes; the bytes of all.

    Guarded memory is not shared: what lies between the buffers of one would be in those of another.
    """
    if guard:
        arena = GuardedArena(guard)
        return [arena.take(0, 0, size) for size in (*sizes, beside)], arena.bytes
    inner = aligned(max(sizes, default=0))
    return [*[0] * len(sizes), inner], inner + aligned(beside)
