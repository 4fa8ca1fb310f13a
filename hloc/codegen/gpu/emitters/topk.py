"""topk: the greatest or least elements of each row, in order, and their positions.

An entry is an element's key, an unsigned integer in the order that is asked for, and its position; of equal keys the
lower position is the greater entry, so that all differ. Short rows count for each entry how many are greater. Long rows
are searched for the least entry that is chosen, a byte of the entries at a time (radix selection); those that are at
least as great are put in order. Few long rows are divided among blocks first, and rows of which very many are chosen
are sorted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod

from hloc.codegen import scalar
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.emitters import gpu_kernel
from hloc.codegen.gpu.merge_plan import Lines, Tiling, Values
from hloc.codegen.gpu.merge_sort import merge_sort
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value, integer
from hloc.codegen.loops import delinearize
from hloc.codegen.routines import i64
from hloc.ir.dtypes import S32, U32, U64
from hloc.ir.instruction import Instruction
from hloc.records import NamedTuple

_THREADS = 256
"""Of a block; as many as a byte has values."""

_SHORT = 512
"""Elements of a row of which each is compared to all others."""

_MOST = 1024
"""Entries that are chosen in a block's memory."""

_FEW_ROWS, _PART = 64, 8192
"""Rows that are too few to keep a device busy are divided into parts of about so many elements."""

_MOST_PARTS = 1024
"""So many parts at most: then the last one is hardly smaller than the others, and has as many entries as are chosen."""

Entry = tuple[Value, Value]
"""A key (an i32, or an i64 if it has more bits) and a position, an i32."""


def _entry_bytes(key_bytes: int) -> int:
    """Bytes of an entry in memory."""
    return 12 if key_bytes > 4 else 8


def _key_type(key_bytes: int) -> str:
    return "i64" if key_bytes > 4 else "i32"


class Rows(NamedTuple):
    """What is chosen from: `load(k, row, i)` gives one of `size(k, row)` entries of each of `rows` rows.

    `store(k, row, rank, entry)` takes the chosen `count` of them. Keys have `key_bytes`; positions are less than
    `positions`.
    """

    rows: int
    positions: int
    count: int
    key_bytes: int
    size: Callable[[GpuContext, Value], Value]
    load: Callable[[GpuContext, Value, Value], Entry]
    store: Callable[[GpuContext, Value, Value, Entry], None]


class _Plan:
    """How one topk is done."""

    def __init__(self, instruction: Instruction):
        self.instruction = instruction
        operand = instruction.operands[0].shape
        self.dtype = operand.dtype
        *self.dims, self.size = operand.dims
        self.rows = prod(self.dims)
        self.count = instruction.shape.elements[0].dims[-1]
        self.largest = instruction.get("largest")
        self.key_bytes = max(8, self.dtype.bits) // 8
        self.is_sorted = self.count > _MOST
        self.parts = 1
        if self.rows < _FEW_ROWS and self.count * 4 <= _PART:
            self.parts = min(_MOST_PARTS, max(1, self.size // _PART))
        self.part = -(-self.size // self.parts)
        self.parts = -(-self.size // self.part)

    @property
    def tiling(self) -> Tiling:
        return Tiling([U64 if self.key_bytes > 4 else U32, S32], self.rows, self.size)

    @property
    def candidates(self) -> int:
        """Entries that are left of all parts."""
        return self.rows * self.parts * self.count

    @property
    def scratch_bytes(self) -> int:
        if self.is_sorted:
            return self.tiling.scratch_bytes
        return _entry_bytes(self.key_bytes) * self.candidates if self.parts > 1 else 0

    def element(self, k: GpuContext, row: Value, i: Value) -> Entry:
        """The entry of an element."""
        index = (*delinearize(k.b, row, self.dims), i)
        key = scalar.order_key(k.b, self.dtype, k.input(0)(index))
        key = key if self.largest else k.b.not_(key)
        type = _key_type(self.key_bytes)
        return key if key.type == type else k.b.zext(key, type), k.b.trunc(i, "i32")

    def put(self, k: GpuContext, row: Value, rank: Value, entry: Entry) -> None:
        """Stores a chosen element."""
        b = k.b
        values, positions = k.outputs
        index: Index = (*delinearize(b, row, self.dims), rank)
        type = f"i{8 * self.key_bytes}"
        key = entry[0] if type == entry[0].type else b.trunc(entry[0], type)
        values.store(index, scalar.from_order_key(b, self.dtype, key if self.largest else b.not_(key)))
        positions.store(index, entry[1])


def _scratch(instruction: Instruction) -> int:
    return _Plan(instruction).scratch_bytes if instruction.shape.elements[0].count else 0


@gpu_kernel("topk", element_operands="all", scratch=_scratch)
def topk(g: GpuStep, instruction: Instruction) -> None:
    plan = _Plan(instruction)
    if plan.dtype.is_complex:
        raise g.error(f"topk of {plan.dtype}: complex numbers have no order")
    if instruction.shape.elements[0].count == 0:
        return
    if plan.is_sorted:
        _sort(g, plan)
    elif plan.size <= _SHORT:
        _rank_rows(g, plan)
    elif plan.parts == 1:
        whole = i64(plan.size)
        _select(
            g, Rows(plan.rows, plan.size, plan.count, plan.key_bytes, lambda k, row: whole, plan.element, plan.put)
        )
    else:
        _select_in_parts(g, plan)


def _sort(g: GpuStep, plan: _Plan) -> None:
    """All entries in order, of which the first ones are kept."""

    def load(k: GpuContext, row: Value, i: Value) -> Values:
        return plan.element(k, row, i)

    def store(k: GpuContext, row: Value, i: Value, values: Values) -> None:
        with k.b.if_then(k.b.icmp_signed("<", i, i64(plan.count))):
            plan.put(k, row, i, (values[0], values[1]))

    def before(k: GpuContext, first: Values, second: Values) -> Value:
        return k.b.icmp_unsigned(">", first[0], second[0])

    merge_sort(g, Lines(plan.tiling.dtypes, plan.rows, plan.size, load, store, before))


def _rank_rows(g: GpuStep, plan: _Plan) -> None:
    """Each entry of a short row comes to the place that is the number of greater ones."""
    lanes = min(_THREADS, 1 << (plan.size - 1).bit_length())
    rows = _THREADS // lanes
    shared = _entry_bytes(plan.key_bytes) * rows * plan.size
    with g.launch(-(-plan.rows // rows), _THREADS, shared, name="ranks") as k:
        b, entries = k.b, _List(k, 0, rows * plan.size, plan.key_bytes)
        local, lane = b.udiv(k.thread_index(), i64(lanes)), b.urem(k.thread_index(), i64(lanes))
        row, first = b.add(b.mul(k.block_index(), i64(rows)), local), b.mul(local, i64(plan.size))
        exists = b.icmp_signed("<", row, i64(plan.rows))
        with b.if_then(exists), b.for_loop(lane, i64(plan.size), lanes, unroll=False) as i:
            entries.put(b.add(first, i), plan.element(k, row, i))
        k.gpu.barrier()
        with b.if_then(exists), b.for_loop(lane, i64(plan.size), lanes, unroll=False) as i:
            entry = entries.get(b.add(first, i))
            rank = entries.rank(entry, first, i64(plan.size))
            with b.if_then(b.icmp_signed("<", rank, i64(plan.count))):
                plan.put(k, row, rank, entry)


def _select_in_parts(g: GpuStep, plan: _Plan) -> None:
    """The chosen of every part of a row, then of those of all parts."""
    def size(k: GpuContext, line: Value) -> Value:
        left = k.b.sub(i64(plan.size), k.b.mul(k.b.urem(line, i64(plan.parts)), i64(plan.part)))
        return k.b.select(k.b.icmp_signed("<", left, i64(plan.part)), left, i64(plan.part))

    def load(k: GpuContext, line: Value, i: Value) -> Entry:
        row, part = k.b.udiv(line, i64(plan.parts)), k.b.urem(line, i64(plan.parts))
        return plan.element(k, row, k.b.add(k.b.mul(part, i64(plan.part)), i))

    def candidates(k: GpuContext) -> _List:
        return _List(k, None, plan.candidates, plan.key_bytes)

    def keep(k: GpuContext, line: Value, rank: Value, entry: Entry) -> None:
        candidates(k).put(k.b.add(k.b.mul(line, i64(plan.count)), rank), entry)

    def again(k: GpuContext, row: Value, i: Value) -> Entry:
        return candidates(k).get(k.b.add(k.b.mul(row, i64(plan.parts * plan.count)), i))

    lines, left = plan.rows * plan.parts, plan.parts * plan.count
    _select(g, Rows(lines, plan.size, plan.count, plan.key_bytes, size, load, keep), "parts")
    _select(g, Rows(plan.rows, plan.size, plan.count, plan.key_bytes, lambda k, row: i64(left), again, plan.put))


class _List:
    """Entries in shared memory from an offset on, or in scratch (None)."""

    def __init__(self, k: GpuContext, offset: int | None, count: int, key_bytes: int):
        self.k, self.b, self.type = k, k.b, _key_type(key_bytes)
        self.keys = k.scratch if offset is None else k.gpu.shared(offset)
        self.positions = k.b.gep(self.type, self.keys, i64(count))

    def put(self, i: Value, entry: Entry) -> None:
        self.b.store(entry[0], self.b.gep(self.type, self.keys, i))
        self.b.store(entry[1], self.b.gep("i32", self.positions, i))

    def get(self, i: Value) -> Entry:
        key = self.b.load(self.type, self.b.gep(self.type, self.keys, i))
        return key, self.b.load("i32", self.b.gep("i32", self.positions, i))

    def rank(self, entry: Entry, first: Value, count: Value) -> Value:
        """How many of `count` entries from the first on are greater."""
        b = self.b

        def step(i: Value, carried: list[Value]) -> list[Value]:
            key, position = self.get(b.add(first, i))
            nearer = b.and_(b.icmp_signed("==", key, entry[0]), b.icmp_unsigned("<", position, entry[1]))
            greater = b.or_(b.icmp_unsigned(">", key, entry[0]), nearer)
            return [b.add(carried[0], b.zext(greater, "i32"))]

        return b.zext(b.for_loop_carrying(i64(0), count, [integer("i32", 0)], step, unroll=2)[0], "i64")


def _select(g: GpuStep, rows: Rows, name: str = "select") -> None:
    """A block a row."""
    shared = _Selection.LIST + _entry_bytes(rows.key_bytes) * rows.count
    with g.launch(rows.rows, _THREADS, shared, name=name) as k:
        _Selection(k, rows).write()


class _Selection:
    """A block's choice from its row.

    In shared memory lie two arrays with an i32 for each value of a byte, then three i32s, the chosen entries behind.
    """

    SUMS, CHOICE, LIST = 4 * _THREADS, 8 * _THREADS, 8 * _THREADS + 16

    def __init__(self, k: GpuContext, rows: Rows):
        self.k, self.b, self.rows = k, k.b, rows
        self.row, self.thread = k.block_index(), k.thread_index()
        self.size = rows.size(k, self.row)
        self.position_bytes = max(1, ((rows.positions - 1).bit_length() + 7) // 8)
        self.list = _List(k, self.LIST, rows.count, rows.key_bytes)
        self.key_type = _key_type(rows.key_bytes)
        self.load = partial(rows.load, k, self.row)

    def _word(self, offset: int, index: Value | None = None) -> Value:
        return self.b.gep("i32", self.k.gpu.shared(offset), i64(0) if index is None else index)

    def _each(self, body: Callable[[Entry], None]) -> None:
        """Runs body(entry) for all entries of the row. Some are loaded together, so as not to wait for each other."""
        b, batch = self.b, 16 // max(4, self.rows.key_bytes)
        with b.for_loop(self.thread, self.size, batch * _THREADS, unroll=False) as first:
            places = [b.add(first, i64(number * _THREADS)) for number in range(batch)]
            insides = [b.icmp_signed("<", place, self.size) for place in places]
            entries = [self.load(b.select(inside, i, first)) for inside, i in zip(insides, places, strict=True)]
            for inside, entry in zip(insides, entries, strict=True):
                with b.if_then(inside):
                    body(entry)

    def _words(self, entry: Entry) -> tuple[Value, Value]:
        """An entry as two numbers of which the second decides between entries with equal first ones."""
        return entry[0], self.b.sub(integer("i32", (1 << 8 * self.position_bytes) - 1), entry[1])

    def write(self) -> None:
        b, gpu, count = self.b, self.k.gpu, i64(self.rows.count)
        least = self._least()
        with b.if_then(b.icmp_signed("==", self.thread, i64(0))):
            b.store(integer("i32", 0), self._word(self.CHOICE))
        gpu.barrier()

        def collect(entry: Entry) -> None:
            with b.if_then(self._is_chosen(self._words(entry), least)):
                place = gpu.atomic("add", self._word(self.CHOICE), integer("i32", 1))
                self.list.put(b.zext(place, "i64"), entry)

        self._each(collect)
        gpu.barrier()
        with b.for_loop(self.thread, count, _THREADS, unroll=False) as i:
            entry = self.list.get(i)
            self.rows.store(self.k, self.row, self.list.rank(entry, i64(0), count), entry)

    def _is_chosen(self, words: tuple[Value, Value], least: list[Value]) -> Value:
        """Whether an entry is not less than the least, in the bytes that are known of that."""
        b = self.b
        key, key_mask, place, place_mask = least
        high, low = b.and_(words[0], key_mask), b.and_(words[1], place_mask)
        equal = b.and_(b.icmp_signed("==", high, key), b.icmp_unsigned(">=", low, place))
        return b.or_(b.icmp_unsigned(">", high, key), equal)

    def _least(self) -> list[Value]:
        """The least chosen entry, byte by byte, as far as needed: (key, its mask, position word, its mask)."""
        b = self.b
        digits = self.rows.key_bytes + self.position_bytes
        wanted = i64(self.rows.count)

        def goes_on(carried: list[Value]) -> Value:
            return b.and_(carried[-1], b.icmp_signed("<", carried[0], i64(digits)))

        masks = [integer(type, 0) for type in (self.key_type, self.key_type, "i32", "i32")]
        initial = [i64(0), wanted, *masks, b.icmp_signed("!=", wanted, self.size)]
        _, _, *least, _ = b.while_loop(initial, goes_on, self._next_byte, "byte")
        return least

    def _next_byte(self, carried: list[Value]) -> list[Value]:
        """One more byte of the least entry: that in which the count of chosen ones is passed."""
        b, gpu = self.b, self.k.gpu
        digit, wanted, key, key_mask, place, place_mask, _ = carried
        in_key = b.icmp_signed("<", digit, i64(self.rows.key_bytes))
        key_shift, place_shift = self._shifts(digit, in_key)
        b.store(integer("i32", 0), self._word(0, self.thread))
        gpu.barrier()

        def count(entry: Entry) -> None:
            words = self._words(entry)
            same_key = b.icmp_signed("==", b.and_(words[0], key_mask), key)
            same_place = b.icmp_signed("==", b.and_(words[1], place_mask), place)
            with b.if_then(b.and_(same_key, same_place)):
                high, low = b.lshr(words[0], key_shift), b.lshr(words[1], place_shift)
                high = high if high.type == "i32" else b.trunc(high, "i32")
                byte = b.and_(b.select(in_key, high, low), integer("i32", 255))
                gpu.atomic("add", self._word(0, b.zext(byte, "i64")), integer("i32", 1))

        self._each(count)
        gpu.barrier()
        byte, left, here = self._passing_byte(wanted)

        def with_byte(word: Value, value: Value, shift: Value, applies: Value) -> Value:
            value = value if word.type == "i64" else b.trunc(value, "i32")
            return b.or_(word, b.select(applies, b.shl(value, shift), integer(word.type, 0)))

        return [
            b.add(digit, i64(1)),
            left,
            with_byte(key, byte, key_shift, in_key),
            with_byte(key_mask, i64(255), key_shift, in_key),
            with_byte(place, byte, place_shift, b.not_(in_key)),
            with_byte(place_mask, i64(255), place_shift, b.not_(in_key)),
            b.icmp_signed("!=", left, here),
        ]

    def _shifts(self, digit: Value, in_key: Value) -> tuple[Value, Value]:
        """How far down a byte lies in keys, and in the words of positions; 0 in that which it does not lie in."""
        b, keys, both = self.b, self.rows.key_bytes, self.rows.key_bytes + self.position_bytes
        high = b.select(in_key, b.mul(b.sub(i64(keys - 1), digit), i64(8)), i64(0))
        low = b.select(in_key, i64(0), b.mul(b.sub(i64(both - 1), digit), i64(8)))
        return high if self.key_type == "i64" else b.trunc(high, "i32"), b.trunc(low, "i32")

    def _passing_byte(self, wanted: Value) -> tuple[Value, Value, Value]:
        """The byte at which the greatest `wanted` are reached, how many of its own these are, and how many it has."""
        b, gpu, thread = self.b, self.k.gpu, self.thread
        own = b.load("i32", self._word(0, thread))
        total, places, distance = own, (self.SUMS, 0), 1
        while distance < _THREADS:
            b.store(total, self._word(places[0], thread))
            gpu.barrier()
            behind = b.add(thread, i64(distance))
            inside = b.icmp_signed("<", behind, i64(_THREADS))
            other = b.load("i32", self._word(places[0], b.select(inside, behind, thread)))
            total = b.add(total, b.select(inside, other, integer("i32", 0)))
            places, distance = places[::-1], 2 * distance
        want = b.trunc(wanted, "i32")
        greater = b.sub(total, own)
        passes = b.and_(b.icmp_signed("<", greater, want), b.icmp_signed(">=", total, want))
        with b.if_then(passes):
            for number, value in enumerate((b.trunc(thread, "i32"), b.sub(want, greater), own)):
                b.store(value, self._word(self.CHOICE, i64(number)))
        gpu.barrier()
        byte, left, here = (
            b.zext(b.load("i32", self._word(self.CHOICE, i64(number))), "i64") for number in range(3)
        )
        gpu.barrier()
        return byte, left, here
