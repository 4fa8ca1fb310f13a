"""Updates of a scatter, folded in the order in which they are given.

They are sorted by their places, those of one place in their own order; then each place's run is folded by a thread.
"""

from __future__ import annotations

from math import prod

from hloc.codegen.arrays import ArrayRef, Register, flattened, grouped
from hloc.codegen.bodies import source
from hloc.codegen.emitters.scatter import Places
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.grids import each_number
from hloc.codegen.gpu.merge_plan import Lines, Tiling, Values, rounded
from hloc.codegen.gpu.merge_sort import merge_sort
from hloc.codegen.gpu.radix_sort import RADIX_LEAST, Keyed, radix_scratch_bytes, radix_sort
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value, integer
from hloc.codegen.loops import delinearize, linear, row_major_strides
from hloc.codegen.routines import i64
from hloc.ir.dtypes import U32, U64, DType
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape

_FEW = 128
"""Updates of which each looks at all others."""


class OrderedUpdates:
    """Folds updates in order. They are counted in `items`, each of which has a `key`, its place, and `inner` elements.

    An item is a window if windows that overlap are the same: if the dimensions that indices go along are not the
    windows' own. Then the key counts through these dimensions alone. Else an item is one element. Keys of items that
    are dropped are `keys`, beyond all others.
    """

    def __init__(self, instruction: Instruction):
        self.instruction, self.places = instruction, Places(instruction)
        p = self.places
        indexed = {*instruction.get("scatter_dims_to_operand_dims"), *instruction.get("input_batching_dims")}
        self.by_windows = all(p.sizes[d] == 1 for d in indexed)
        self.key_dims = sorted(indexed) if self.by_windows else list(range(len(p.dims)))
        self.keys = prod(p.dims[d] for d in self.key_dims)
        self.items = prod(p.outer) * (1 if self.by_windows else prod(p.window))
        self.inner = p.window if self.by_windows else []
        self.key_type, self.number_type = _counter(self.keys + 1), _counter(self.items)
        self.tiling = Tiling([self.key_type, self.number_type], 1, self.items)
        self.key_bits = self.keys.bit_length()

    # Memory: keys, then numbers, then what sorting takes

    @property
    def is_small(self) -> bool:
        """Whether updates are few, and not sorted."""
        return self.items <= _FEW

    @property
    def _keys_bytes(self) -> int:
        return rounded(self.items * self.key_type.itemsize)

    @property
    def sorted_bytes(self) -> int:
        """Where temporary memory is free again when updates are sorted."""
        return self._keys_bytes + rounded(self.items * self.number_type.itemsize)

    @property
    def _by_bytes(self) -> bool:
        """Whether keys are sorted byte by byte."""
        return RADIX_LEAST <= self.items < 1 << 32

    @property
    def scratch_bytes(self) -> int:
        """Temporary memory of all launches."""
        if self.is_small:
            return self._keys_bytes
        if self._by_bytes:
            sorting = radix_scratch_bytes(1, self.items, self.key_bits, self.key_type is U64)
        else:
            sorting = self.tiling.scratch_bytes
        return self.sorted_bytes + sorting

    def key_array(self, k: GpuContext) -> ArrayRef:
        """The keys of all items, in order when they are sorted."""
        return ArrayRef(k.b, ArrayShape(self.key_type, (self.items,)), k.scratch)

    def _number_array(self, k: GpuContext) -> ArrayRef:
        start = k.b.gep("i8", k.scratch, i64(self._keys_bytes))
        return ArrayRef(k.b, ArrayShape(self.number_type, (self.items,)), start)

    # Items

    def _parts(self, k: GpuContext, item: Value) -> tuple[Index, Index]:
        """The window that an item is or lies in, and its index there."""
        p = self.places
        if self.by_windows:
            return tuple(delinearize(k.b, item, p.outer)), ()
        index = delinearize(k.b, item, [*p.outer, *p.window])
        return tuple(index[: len(p.outer)]), tuple(index[len(p.outer) :])

    def _key(self, k: GpuContext, item: Value) -> Value:
        """The item's key, in the type of keys."""
        b, p = k.b, self.places
        at, window = self._parts(k, item)
        start, inside = p.start(k, at)
        place = start if self.by_windows else p.place(k, start, window)
        sizes = [p.dims[d] for d in self.key_dims]
        key = linear(b, tuple(place[d] for d in self.key_dims), sizes, row_major_strides(sizes))
        key = b.select(inside, key, i64(self.keys))
        return key if self.key_type is U64 else b.trunc(key, "i32")

    # Launches

    def sort(self, g: GpuStep) -> None:
        """Keys in order, and with each the number of its item; of few updates the keys alone, as they come."""
        if self.is_small:
            each_number(g, self.items, lambda k, item: self.key_array(k).store((item,), self._key(k, item)), "keys")
            return

        def load(k: GpuContext, line: Value, item: Value) -> Values:
            return [self._key(k, item), item if self.number_type is U64 else k.b.trunc(item, "i32")]

        def store(k: GpuContext, line: Value, i: Value, values: Values) -> None:
            for array, value in zip((self.key_array(k), self._number_array(k)), values, strict=True):
                array.store((i,), value)

        def before(k: GpuContext, first: Values, second: Values) -> Value:
            return k.b.icmp_unsigned("<", first[0], second[0])

        if self._by_bytes:
            job = Keyed(
                1,
                self.items,
                self.key_bits,
                self.key_type is U64,
                lambda k, line, item: self._key(k, item),
                lambda k, line, i, key, number: store(k, line, i, [key, k.b.trunc(number, "i32")]),
            )
            radix_sort(g, job, self.sorted_bytes)
            return
        merge_sort(g, Lines(self.tiling.dtypes, 1, self.items, load, store, before), self.sorted_bytes)

    def fold(self, g: GpuStep) -> None:
        """Folds all updates into the outputs."""
        each_number(g, self.items * prod(self.inner), self._fold_run, "folds")

    def _fold_run(self, k: GpuContext, thread: Value) -> None:
        """Folds the items of one key into the outputs, by the thread of the first (or last) of them."""
        b, keys = k.b, self.key_array(k)
        part, *window = delinearize(b, thread, [self.items, *self.inner])
        i = Value("i64", part.text)  # made here: a loop begins with it
        key = keys.load((i,))
        valid = b.icmp_unsigned("<", key, integer(key.type, self.keys))
        overwrites = self._overwrites()
        with b.if_then(b.and_(valid, self._is_end(k, i, key, last=overwrites))):
            place = self.place(k, key, tuple(window))
            if overwrites:
                values = self.values(k, i, tuple(window))
            else:
                values = self._folded(k, i, key, place, tuple(window))
            for output, value in zip(k.outputs, values, strict=True):
                output.store(place, value)

    def _is_end(self, k: GpuContext, i: Value, key: Value, last: bool) -> Value:
        """Whether no item before (or behind) has the same key."""
        b, keys = k.b, self.key_array(k)

        def differs(j: Value) -> Value:
            return b.icmp_unsigned("!=", keys.load((j,)), key)

        if not self.is_small:
            at_edge = b.icmp_signed("==", i, i64(self.items - 1 if last else 0))
            return b.if_else(
                at_edge, lambda: integer("i1", 1), lambda: differs(b.add(i, i64(1 if last else -1)))
            )
        start, end = (b.add(i, i64(1)), i64(self.items)) if last else (i64(0), i)
        (alone,) = b.for_loop_carrying(
            start, end, [integer("i1", 1)], lambda j, carried: [b.and_(carried[0], differs(j))], unroll=False
        )
        return alone

    def _folded(self, k: GpuContext, i: Value, key: Value, place: Index, window: Index) -> list[Register]:
        """The elements at a place folded with those of all items of a key from i on."""
        b, keys = k.b, self.key_array(k)
        old = [output.load(place) for output in k.outputs]

        def fold(j: Value, carried: list[Value]) -> list[Value]:
            new = self.values(k, j, window)
            return flattened(k.apply(self.instruction.attributes["to_apply"], [*grouped(carried, old), *new]))

        if self.is_small:

            def step(j: Value, carried: list[Value]) -> list[Value]:
                same = b.icmp_unsigned("==", keys.load((j,)), key)
                return b.if_else(same, lambda: fold(j, carried), lambda: carried)

            return grouped(b.for_loop_carrying(i, i64(self.items), flattened(old), step, unroll=False), old)

        def goes_on(carried: list[Value]) -> Value:
            return b.if_else(
                b.icmp_signed("<", carried[0], i64(self.items)),
                lambda: b.icmp_unsigned("==", keys.load((carried[0],)), key),
                lambda: integer("i1", 0),
            )

        _, *folded = b.while_loop(
            [i, *flattened(old)],
            goes_on,
            lambda carried: [b.add(carried[0], i64(1)), *fold(carried[0], carried[1:])],
            "run",
        )
        return grouped(folded, old)

    def values(self, k: GpuContext, i: Value, window: Index) -> list[Register]:
        """The elements of the item at a place in the order of keys."""
        item = i
        if not self.is_small:
            item = self._number_array(k).load((i,))
            item = item if self.number_type is U64 else k.b.zext(item, "i64")
        at, inside = self._parts(k, item)
        return self.places.values(k, at, window if self.by_windows else inside)

    def place(self, k: GpuContext, key: Value, window: Index) -> Index:
        """Where in the operands a key's items lie."""
        wide = key if self.key_type is U64 else k.b.zext(key, "i64")
        start: list[Value] = [i64(0)] * len(self.places.dims)
        parts = delinearize(k.b, wide, [self.places.dims[d] for d in self.key_dims])
        for dimension, part in zip(self.key_dims, parts, strict=True):
            start[dimension] = part
        return self.places.place(k, start, window) if self.by_windows else tuple(start)

    def _overwrites(self) -> bool:
        """Whether the combiner gives the updates as they are."""
        computation = self.instruction.attributes["to_apply"]
        count = self.places.count
        roots = [source(computation.root, leaf) for leaf, _ in computation.root.shape.leaves()]
        return [leaf[0] for leaf in roots] == list(computation.parameters[count:])


def _counter(count: int) -> DType:
    """A type that counts 0 .. count - 1."""
    return U32 if count <= 1 << 32 else U64
