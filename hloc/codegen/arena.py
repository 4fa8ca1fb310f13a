"""Packing: offsets in one arena for pieces of memory that are needed for a while each."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from heapq import heappop, heappush

from hloc.codegen.program import ALIGNMENT
from hloc.records import NamedTuple

_MOST_SORTED = 1500
"""Pieces up to which packing by size is tried: its time grows with the square."""


class Need(NamedTuple):
    """A piece of `size` bytes, in use from step `start` to step `end`."""

    start: int
    end: int
    size: int


def aligned(size: int) -> int:
    """The size rounded up to whole cache lines."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def pack(needs: Sequence[Need]) -> tuple[list[int], int]:
    """An offset for each piece, and the bytes of the whole arena. Starts must not decrease.

    Pieces are placed as they come, in what is free then. If that takes more than what lives at the peak, they are
    placed by size too, the largest first, each as low as it fits between those that live at the same time
    ("greedy by size" in Pisarchyk and Lee, Efficient Memory Management for Deep Neural Net Inference, 2020); the
    better of the two counts.
    """
    arena = _Arena()
    offsets = [arena.take(*need) for need in needs]
    if arena.bytes == least_bytes(needs) or len(needs) > _MOST_SORTED:
        return offsets, arena.bytes
    others = _by_size(needs)
    size = max((offset + need.size for offset, need in zip(others, needs, strict=True)), default=0)
    return (others, size) if size < arena.bytes else (offsets, arena.bytes)


def least_bytes(needs: Sequence[Need]) -> int:
    """The most bytes in use at one time."""
    events = sorted([(need.start, need.size) for need in needs] + [(need.end + 1, -need.size) for need in needs])
    most = live = 0
    for _, change in events:
        live += change
        most = max(most, live)
    return most


def _by_size(needs: Sequence[Need]) -> list[int]:
    offsets = [0] * len(needs)
    placed: list[int] = []  # by offset
    for number in sorted(range(len(needs)), key=lambda n: (-needs[n].size, n)):
        need = needs[number]
        if need.size == 0:
            continue
        offset = 0
        for other in placed:
            start, end, size = needs[other]
            if start <= need.end and need.start <= end:
                if offsets[other] >= offset + need.size:
                    break
                offset = max(offset, offsets[other] + size)
        offsets[number] = offset
        insort(placed, number, key=offsets.__getitem__)
    return offsets


class _Arena:
    """Hands out offsets: the tightest free piece that fits, the lowest of these; else new memory."""

    def __init__(self):
        self.bytes = 0
        self._free: list[tuple[int, int]] = []  # (offset, size), by offset
        self._ends: list[tuple[int, int, int]] = []  # heap of (last use, offset, size)

    def take(self, start: int, last_use: int, size: int) -> int:
        """An offset for memory in use from step `start` to step `last_use`; starts must not decrease."""
        while self._ends and self._ends[0][0] < start:
            _, offset, freed = heappop(self._ends)
            self._release(offset, freed)
        if size == 0:
            return 0
        offset = self._fit(size)
        heappush(self._ends, (last_use, offset, size))
        return offset

    def _fit(self, size: int) -> int:
        fits = [(free, offset) for offset, free in self._free if free >= size]
        if fits:
            free, offset = min(fits)
            self._free.remove((offset, free))
            if free > size:
                insort(self._free, (offset + size, free - size))
            return offset
        offset = self.bytes
        if self._free and sum(self._free[-1]) == self.bytes:  # grow the free piece at the end
            offset = self._free.pop()[0]
        self.bytes = offset + size
        return offset

    def _release(self, offset: int, size: int) -> None:
        """Joins the piece with the free ones on both sides."""
        at = bisect_left(self._free, (offset, size))
        if at < len(self._free) and self._free[at][0] == offset + size:
            size += self._free.pop(at)[1]
        if at and sum(self._free[at - 1]) == offset:
            before = self._free.pop(at - 1)
            offset, size = before[0], before[1] + size
        insort(self._free, (offset, size))
