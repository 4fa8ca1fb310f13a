"""Loop nests in which large inputs lie along another dimension than the result: tiles through shared memory.

A block reads a tile of each such input along the dimension in which it lies, and makes the same tile of the results
along theirs: both are whole lines of memory. Lines of a tile in shared memory have an odd number of elements, so that
those of a column are in different banks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod

from hloc.codegen.arrays import ArrayRef, Register, flattened
from hloc.codegen.bodies import Leaf
from hloc.codegen.crossings import Crossing, Names, crossing_of
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.fold_plan import THREADS, power
from hloc.codegen.gpu.running import Slots, register_types, slots_bytes
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value
from hloc.codegen.loops import Flat, index_key
from hloc.codegen.routines import i64, least
from hloc.ir.shapes import ArrayShape
from hloc.records import NamedTuple, record

_SIDE = 64
"""Elements along a side of a tile."""

_MOST_SHARED = 40 << 10

_TOGETHER = 4
"""Lines of the result that a thread makes at a time."""

_LONG = 40
"""Instructions of a fusion beyond which it makes one."""


@record
class _Plan:
    """Tiles of `across` by `along` elements, of which a thread takes `width` neighbours at a time.

    `inputs` go through shared memory: the leaf, the result's dimensions that its are, and its number among the inputs.
    """

    crossing: Crossing
    across: int
    along: int
    width: int
    inputs: tuple[tuple[Leaf, Names, int], ...]

    @property
    def threads(self) -> int:
        return min(THREADS, self.across * self.along // self.width)


class _Input(NamedTuple):
    """An input of which tiles are read: its array, and their memory."""

    leaf: Leaf
    names: Names
    array: ArrayRef
    slots: Slots


def write_tiles(g: GpuStep) -> bool:
    """Writes a loop nest by tiles, if there is a reason to; whether it did."""
    crossing = crossing_of(g.step) if g.step.outputs[0].shape.count else None
    plan = _plan(g, crossing) if crossing is not None else None
    if plan is None:
        return False
    shape = g.step.outputs[0].shape
    rest = [d for d in reversed(shape.minor_to_major) if d not in (plan.crossing.along, plan.crossing.across)]
    counts = [*(shape.dims[d] for d in rest)]
    counts.append(-(-shape.dims[plan.crossing.across] // plan.across))
    counts.append(-(-shape.dims[plan.crossing.along] // plan.along))
    with g.launch(prod(counts), plan.threads, _shared_bytes(g, plan.inputs, plan.across, plan.along)) as k:
        *outer, row, column = Flat(k.b, k.block_index(), counts).parts()
        index = [i64(0)] * shape.rank
        for dimension, value in zip(rest, outer, strict=True):
            index[dimension] = value if shape.dims[dimension] != 1 else i64(0)
        _Tile(g, k, plan, shape, index, row, column).write()
    return True


def _plan(g: GpuStep, crossing: Crossing) -> _Plan | None:
    """None if the arrays are small, or no tile of any input fits."""
    shape = g.step.outputs[0].shape
    inputs = [
        (leaf, names, g.step.bound.index(leaf)) for leaf, names in crossing.inputs if crossing.along in names
    ]
    sizes = [g.step.inputs[number].shape.dtype.itemsize for _, _, number in inputs]
    if not inputs:
        return None
    across, along = (min(_SIDE, power(shape.dims[d])) for d in (crossing.across, crossing.along))
    width = 2 if max(sizes) <= 2 and max(out.shape.dtype.itemsize for out in g.step.outputs) <= 2 else 1
    if shape.dims[crossing.across] % 2 or shape.dims[crossing.along] % 2:
        width = 1
    if _shared_bytes(g, inputs, across, along) > _MOST_SHARED:
        across, along = min(across, _SIDE // 2), min(along, _SIDE // 2)
    while inputs and _shared_bytes(g, inputs, across, along) > _MOST_SHARED:
        inputs.pop()
    return _Plan(crossing, across, along, width, tuple(inputs)) if inputs else None


def _shared_bytes(g: GpuStep, inputs: Sequence[tuple[Leaf, Names, int]], across: int, along: int) -> int:
    types = [kind for _, _, number in inputs for kind in register_types(g.step.inputs[number].shape.dtype)]
    return slots_bytes(types, along * (across + 1))


class _Tile:
    """Writes what a block does with its tile. `index` is the tile's along the dimensions that are no sides of it."""

    def __init__(
        self, g: GpuStep, k: GpuContext, plan: _Plan, shape: ArrayShape, index: list[Value], row: Value, column: Value
    ):
        self.g, self.k, self.b, self.plan, self.shape, self.index = g, k, k.b, plan, shape, index
        self.across = k.b.mul(row, i64(plan.across))
        self.along = k.b.mul(column, i64(plan.along))
        self.inputs: list[_Input] = []
        self.places: dict[tuple[Leaf, str], Value] = {}
        offset = 0
        for leaf, names, _ in plan.inputs:
            array = k.body.array(*leaf)
            assert array is not None
            types, count = register_types(array.shape.dtype), plan.along * (plan.across + 1)
            slots = Slots(k.b, types, count, lambda at, offset=offset: k.gpu.shared(offset + at))
            self.inputs.append(_Input(leaf, names, array, slots))
            offset += slots_bytes(types, count)

    def write(self) -> None:
        self._read()
        self.k.gpu.barrier()
        for given in self.inputs:
            self.k.body.bind(given.leaf, partial(self._element, given))
        self._make()

    def _at(self, across: Value, along: Value) -> Index:
        """The result's index at a place of the tile."""
        index = list(self.index)
        index[self.plan.crossing.across] = self.b.add(self.across, across)
        index[self.plan.crossing.along] = self.b.add(self.along, along)
        return tuple(index)

    def _place(self, across: Value, along: Value) -> Value:
        return self.b.add(self.b.mul(along, i64(self.plan.across + 1)), across)

    def _spread(self, side: int, other: int) -> tuple[Value, Value, int, int]:
        """Threads along a side of the tile first: a thread's first place along it, its first line of the other side,
        the step to its next line, and their number.
        """
        b, thread = self.b, self.k.thread_index()
        lanes = min(self.plan.threads, side // self.plan.width)
        lines = self.plan.threads // lanes
        first = b.mul(b.and_(thread, i64(lanes - 1)), i64(self.plan.width))
        return first, b.lshr(thread, i64(lanes.bit_length() - 1)), lines, other // lines

    def _read(self) -> None:
        """Beyond the array, what is at its end is read again."""
        b, plan = self.b, self.plan
        first, line, step, count = self._spread(plan.across, plan.along)
        across_left = b.sub(i64(self.shape.dims[plan.crossing.across] - plan.width), self.across)
        along_left = b.sub(i64(self.shape.dims[plan.crossing.along] - 1), self.along)
        start = least(b, first, across_left)
        lines = [b.add(line, i64(number * step)) for number in range(count)]
        for given in self.inputs:
            found = []
            for at in lines:
                for number in range(plan.width):
                    index = self._at(b.add(start, i64(number)), least(b, at, along_left))
                    value = given.array.load(tuple(index[d] for d in given.names))
                    found.append((self._place(b.add(first, i64(number)), at), flattened([value])))
            for place, values in found:
                given.slots.put(place, values)

    def _element(self, given: _Input, index: Index) -> Register:
        """An input's element: from the tile, if it is where the result's lines ask for it."""
        place = self.places.get((given.leaf, index_key(index)))
        if place is None:
            return given.array.load(index)
        values = given.slots.get(place)
        return (values[0], values[1]) if len(values) == 2 else values[0]

    def _make(self) -> None:
        plan, size = self.plan, len(self.g.step.instruction.called[0]) if self.g.is_fused else 1
        first, line, step, count = self._spread(plan.along, plan.across)
        together = min(count, _TOGETHER if size <= _LONG else 1)
        with self.b.for_loop(i64(0), i64(count), together, unroll=False) as number:
            start = self.b.add(line, self.b.mul(number, i64(step)))
            lines = [self.b.add(start, i64(n * step)) for n in range(together)]
            if self._is_whole():
                self._lines(first, lines)
                lines = []
            for at in lines:
                with self.b.if_then(self._exists(at, first)):
                    self._lines(first, [at])

    def _is_whole(self) -> bool:
        """Whether all tiles are inside of the array."""
        plan, dims = self.plan, self.shape.dims
        return dims[plan.crossing.across] % plan.across == 0 and dims[plan.crossing.along] % plan.along == 0

    def _exists(self, across: Value, along: Value) -> Value:
        index, dims = self._at(across, along), self.shape.dims
        sides = (self.plan.crossing.across, self.plan.crossing.along)
        inside = [self.b.icmp_unsigned("<", index[d], i64(dims[d])) for d in sides]
        return self.b.and_(*inside)

    def _lines(self, first: Value, lines: Sequence[Value]) -> None:
        """A thread's elements of some lines, all of them computed before any is stored."""
        indices: list[Index] = []
        for across in lines:
            for number in range(self.plan.width):
                along = self.b.add(first, i64(number))
                index = self._at(across, along)
                indices.append(index)
                for given in self.inputs:
                    key = index_key(tuple(index[d] for d in given.names))
                    self.places[given.leaf, key] = self._place(across, along)
        values = [[self.k.body.evaluate(self.k, *root, index) for root in self.g.form.roots] for index in indices]
        for output, made in zip(self.k.outputs, zip(*values, strict=True), strict=True):
            for index, value in zip(indices, made, strict=True):
                output.store(index, value)
