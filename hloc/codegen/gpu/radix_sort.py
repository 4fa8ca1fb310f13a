"""A stable sort of lines by keys that are unsigned integers, a byte of them at a time, the lowest first.

Three launches for each byte: blocks count how often each value comes in their tiles; warps sum these counts up over
the tiles of a line, value by value; and blocks put the entries of their tiles to where they belong. There, a warp
finds those of 32 neighbours that have the same byte by asking all lanes for each of its bits (as in Onesweep's
ranking: Adinets, Merrill, 2022), so that equal ones keep their order. An entry is a key and its number in the line.
"""

from __future__ import annotations

from collections.abc import Callable

from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.intrinsics import WARP
from hloc.codegen.gpu.merge_plan import rounded
from hloc.codegen.gpu.step import GpuStep, LaunchTemplate
from hloc.codegen.llvm import Value, integer
from hloc.codegen.routines import i64
from hloc.records import NamedTuple

RADIX_LEAST = 1 << 14
"""Entries of a line from which sorting by bytes of the key beats merging."""

_THREADS = 256
"""Of a block: as many as a byte has values."""

_VALUES = 256
_WARPS = _THREADS // WARP
_TURNS = 16
"""Entries of a thread."""

_BATCH = 4
"""Entries that a thread loads together."""

_TILE = _THREADS * _TURNS

Entry = tuple[Value, Value]
"""A key, an i32 or i64, and an i64 below 2**32."""


class Keyed(NamedTuple):
    """What is sorted: `lines` lines of `size` entries (1 to 2**32 - 1).

    `key(k, line, i)` gives a key, an i64 if `is_wide`, else an i32, of which the lowest `bits` count. `store(k, line,
    i, key, number)` takes the key that comes to a place, and the number of the entry in its line before.
    """

    lines: int
    size: int
    bits: int
    is_wide: bool
    key: Callable[[GpuContext, Value, Value], Value]
    store: Callable[[GpuContext, Value, Value, Value, Value], None]


class _Plan:
    """The sizes and places of what lies in scratch: entries, once or twice, then the counts and their sums."""

    def __init__(self, lines: int, size: int, bits: int, is_wide: bool):
        self.lines, self.size, self.bits = lines, size, bits
        self.type = "i64" if is_wide else "i32"
        self.tiles = -(-size // _TILE)
        self.turns = max(1, -(-bits // 8))
        self.keys_bytes = rounded(lines * size * (8 if is_wide else 4))
        self.entries_bytes = self.keys_bytes + rounded(4 * lines * size)
        self.counts_at = min(2, self.turns - 1) * self.entries_bytes
        self.sums_at = self.counts_at + rounded(4 * lines * _VALUES * self.tiles)
        self.scratch_bytes = self.sums_at + rounded(4 * lines * _VALUES)


def radix_scratch_bytes(lines: int, size: int, bits: int, is_wide: bool) -> int:
    """The temporary memory of a sort."""
    return _Plan(lines, size, bits, is_wide).scratch_bytes


def radix_sort(g: GpuStep, job: Keyed, offset: int = 0) -> None:
    """Sorts the lines, with scratch from an offset on (a multiple of 64)."""
    sort = _RadixSort(g, job, offset)
    for turn in range(sort.p.turns):
        sort.byte(turn)


class _RadixSort:
    """The launches. Kernels of inner bytes are launched again with the next byte and the buffers changed over."""

    def __init__(self, g: GpuStep, job: Keyed, offset: int):
        self.g, self.job, self.offset = g, job, offset
        self.p = _Plan(job.lines, job.size, job.bits, job.is_wide)
        self._known: dict[str, LaunchTemplate] = {}

    def byte(self, turn: int) -> None:
        """Sorts by one byte."""
        is_first, is_last = turn == 0, turn == self.p.turns - 1
        buffers = [self.offset + number % 2 * self.p.entries_bytes for number in (turn - 1, turn)]
        scalars = [8 * turn, *buffers]
        ends = f"{'first' if is_first else ''}{'last' if is_last else ''}"
        self._launch(f"count{'first' if is_first else ''}", scalars, lambda k: self._count(k, is_first))
        self._launch("sum", [], self._sum, -(-self.p.lines * _VALUES // _WARPS))
        self._launch(f"place{ends}", scalars, lambda k: self._place(k, is_first, is_last))

    def _launch(
        self, name: str, scalars: list[int], write: Callable[[GpuContext], None], blocks: int | None = None
    ) -> None:
        blocks = self.p.lines * self.p.tiles if blocks is None else blocks
        known = self._known.get(name)
        if known is not None:
            self.g.relaunch(known, scalars)
            return
        with self.g.launch(blocks, _THREADS, 4 * _VALUES * (_WARPS + 2), scalars, name) as k:
            write(k)
        self._known[name] = self.g.last_launch

    # Memory

    def _word(self, k: GpuContext, row: int, place: Value) -> Value:
        """The address of an i32 in one of the rows of shared memory, each with one for every value of a byte."""
        return k.b.gep("i32", k.gpu.shared(4 * _VALUES * row), place)

    def _number(self, k: GpuContext, offset: int, place: Value) -> Value:
        """The address of an i32 in scratch."""
        return k.b.gep("i32", k.b.gep("i8", k.scratch, i64(self.offset + offset)), place)

    def _load(self, k: GpuContext, line: Value, i: Value, is_first: bool) -> Entry:
        """An entry, from where it was at first or from the buffer of the second scalar."""
        if is_first:
            return self.job.key(k, line, i), i
        b, place = k.b, k.b.add(k.b.mul(line, i64(self.p.size)), i)
        start = b.gep("i8", k.scratch, k.scalars[1])
        numbers = b.gep("i8", start, i64(self.p.keys_bytes))
        key = b.load(self.p.type, b.gep(self.p.type, start, place))
        return key, b.zext(b.load("i32", b.gep("i32", numbers, place)), "i64")

    def _store(self, k: GpuContext, line: Value, i: Value, entry: Entry, is_last: bool) -> None:
        """An entry to where it belongs, or to the buffer of the third scalar."""
        if is_last:
            self.job.store(k, line, i, *entry)
            return
        b, place = k.b, k.b.add(k.b.mul(line, i64(self.p.size)), i)
        start = b.gep("i8", k.scratch, k.scalars[2])
        numbers = b.gep("i8", start, i64(self.p.keys_bytes))
        b.store(entry[0], b.gep(self.p.type, start, place))
        b.store(b.trunc(entry[1], "i32"), b.gep("i32", numbers, place))

    def _digit(self, k: GpuContext, key: Value) -> Value:
        """The byte of a key, an i64."""
        b = k.b
        shift = k.scalars[0] if key.type == "i64" else b.trunc(k.scalars[0], "i32")
        byte = b.and_(b.lshr(key, shift), integer(key.type, _VALUES - 1))
        return byte if key.type == "i64" else b.zext(byte, "i64")

    def _tile(self, k: GpuContext) -> tuple[Value, Value, Value]:
        """The block's line, the number of its tile, and where that begins."""
        line, tile = (f(k.block_index(), i64(self.p.tiles)) for f in (k.b.udiv, k.b.urem))
        return line, tile, k.b.mul(tile, i64(_TILE))

    # Kernels

    def _count(self, k: GpuContext, is_first: bool) -> None:
        """How often each value of the byte comes in a tile."""
        b, thread = k.b, k.thread_index()
        line, tile, start = self._tile(k)
        b.store(integer("i32", 0), self._word(k, 0, thread))
        k.gpu.barrier()

        def count(entry: Entry, inside: Value) -> None:
            with b.if_then(inside):
                k.gpu.atomic("add", self._word(k, 0, self._digit(k, entry[0])), integer("i32", 1))

        self._each(k, line, b.add(start, thread), _THREADS, is_first, count)
        k.gpu.barrier()
        b.store(b.load("i32", self._word(k, 0, thread)), self._number(k, self.p.counts_at, self._row(k, line, tile)))

    def _each(
        self,
        k: GpuContext,
        line: Value,
        first: Value,
        distance: int,
        is_first: bool,
        body: Callable[[Entry, Value], None],
    ) -> None:
        """body(entry, inside) for a thread's entries, so far apart in the line; some are loaded together.

        All threads run it equally often: `inside` says whether there is such an entry.
        """
        b = k.b
        with b.for_loop(0, _TURNS, _BATCH, unroll=False) as turn:
            places = [b.add(first, b.mul(b.add(turn, i64(n)), i64(distance))) for n in range(_BATCH)]
            insides = [b.icmp_signed("<", i, i64(self.p.size)) for i in places]
            last = i64(self.p.size - 1)
            entries = [
                self._load(k, line, b.select(inside, i, last), is_first)
                for inside, i in zip(insides, places, strict=True)
            ]
            for entry, inside in zip(entries, insides, strict=True):
                body(entry, inside)

    def _row(self, k: GpuContext, line: Value, tile: Value) -> Value:
        """Where the count of a tile, and of the thread's value, lies: the tiles of one value are neighbours."""
        b = k.b
        value = b.add(b.mul(line, i64(_VALUES)), k.thread_index())
        return b.add(b.mul(value, i64(self.p.tiles)), tile)

    def _sum(self, k: GpuContext) -> None:
        """Puts before each count of a value how often it comes in the tiles before, a warp a value."""
        b, gpu = k.b, k.gpu
        lane = b.zext(gpu.lane(), "i64")
        row = b.add(b.mul(k.block_index(), i64(_WARPS)), b.zext(gpu.warp(), "i64"))
        first = b.mul(row, i64(self.p.tiles))

        def step(turn: Value, carried: list[Value]) -> list[Value]:
            tile = b.add(b.mul(turn, i64(WARP)), lane)
            inside = b.icmp_signed("<", tile, i64(self.p.tiles))
            place = self._number(k, self.p.counts_at, b.add(first, tile))
            own = b.if_else(inside, lambda: b.load("i32", place), lambda: integer("i32", 0))
            total = _running(k, own)
            with b.if_then(inside):
                b.store(b.add(carried[0], b.sub(total, own)), place)
            return [b.add(carried[0], gpu.shuffle32("idx", total, integer("i32", WARP - 1)))]

        turns = -(-self.p.tiles // WARP)
        (total,) = b.for_loop_carrying(0, turns, [integer("i32", 0)], step, unroll=False)
        with b.if_then(b.icmp_signed("==", lane, i64(0))):
            b.store(total, self._number(k, self.p.sums_at, row))

    def _place(self, k: GpuContext, is_first: bool, is_last: bool) -> None:
        """Puts a tile's entries to their places, each warp a stretch of neighbours."""
        b, gpu, thread = k.b, k.gpu, k.thread_index()
        line, tile, start = self._tile(k)
        warp, lane = b.zext(gpu.warp(), "i64"), b.zext(gpu.lane(), "i64")
        stretch = b.add(b.add(start, b.mul(warp, i64(WARP * _TURNS))), lane)
        own_row = b.mul(warp, i64(_VALUES))
        for row in range(_WARPS):
            b.store(integer("i32", 0), self._word(k, row, thread))
        gpu.barrier()

        def count(entry: Entry, inside: Value) -> None:
            with b.if_then(inside):
                gpu.atomic("add", self._word(k, 0, b.add(own_row, self._digit(k, entry[0]))), integer("i32", 1))

        self._each(k, line, stretch, WARP, is_first, count)
        self._starts(k, line, tile)

        def put(entry: Entry, inside: Value) -> None:
            digit = self._digit(k, entry[0])
            same = _lanes_with(k, digit, inside)
            below = b.and_(same, b.sub(b.shl(integer("i32", 1), gpu.lane()), integer("i32", 1)))
            rank = b.intrinsic("llvm.ctpop", "i32", [below])
            word = self._word(k, 0, b.add(own_row, digit))
            before = b.load("i32", word)
            gpu.warp_barrier()
            is_leader = b.and_(inside, b.icmp_signed("==", rank, integer("i32", 0)))
            with b.if_then(is_leader):
                b.store(b.add(before, b.intrinsic("llvm.ctpop", "i32", [same])), word)
            gpu.warp_barrier()
            with b.if_then(inside):
                self._store(k, line, b.zext(b.add(before, rank), "i64"), entry, is_last)

        self._each(k, line, stretch, WARP, is_first, put)

    def _starts(self, k: GpuContext, line: Value, tile: Value) -> None:
        """Turns the warps' counts, row by row, into the places of their first entries with each value."""
        b, gpu, thread = k.b, k.gpu, k.thread_index()
        value = b.add(b.mul(line, i64(_VALUES)), thread)
        own = b.load("i32", self._number(k, self.p.sums_at, value))
        total = _running(k, own)
        totals = self._word(k, _WARPS, b.zext(gpu.warp(), "i64"))
        with b.if_then(b.icmp_signed("==", gpu.lane(), integer("i32", WARP - 1))):
            b.store(total, totals)
        gpu.barrier()
        start = b.add(b.sub(total, own), b.load("i32", self._number(k, self.p.counts_at, self._row(k, line, tile))))
        for warp in range(_WARPS):
            earlier = b.icmp_unsigned("<", integer("i32", warp), gpu.warp())
            other = b.load("i32", self._word(k, _WARPS, i64(warp)))
            start = b.add(start, b.select(earlier, other, integer("i32", 0)))
        for warp in range(_WARPS):
            word = self._word(k, warp, thread)
            count = b.load("i32", word)
            b.store(start, word)
            start = b.add(start, count)
        gpu.barrier()


def _running(k: GpuContext, own: Value) -> Value:
    """The sum of an i32 over a warp's lanes up to this one."""
    b, gpu, total, distance = k.b, k.gpu, own, 1
    while distance < WARP:
        other = gpu.shuffle32("up", total, integer("i32", distance))
        reaches = b.icmp_unsigned(">=", gpu.lane(), integer("i32", distance))
        total = b.add(total, b.select(reaches, other, integer("i32", 0)))
        distance *= 2
    return total


def _lanes_with(k: GpuContext, digit: Value, inside: Value) -> Value:
    """An i32 with a bit for each lane inside that has the same byte."""
    b, gpu = k.b, k.gpu
    same = gpu.ballot(inside)
    for bit in range(8):
        has = b.icmp_signed("!=", b.and_(digit, i64(1 << bit)), i64(0))
        lanes = gpu.ballot(has)
        same = b.and_(same, b.select(has, lanes, b.not_(lanes)))
    return same
