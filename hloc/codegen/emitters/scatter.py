"""scatter: updates folded into an array at computed places, in row-major order of the updates.

An update whose window would reach over an edge is dropped as a whole (row X19). Many updates of a small array by a
known operation are folded in parts, which threads share: each into an array of its own, and these into the result at
last. Sizes alone decide what is a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from hloc.codegen.arrays import ArrayRef, Register, like_at
from hloc.codegen.kernel import Index, KernelContext, kernel
from hloc.codegen.llvm import Value, integer
from hloc.codegen.parts import Parts
from hloc.codegen.reducers import Reducer
from hloc.codegen.routines import i64
from hloc.ir.instruction import Instruction

_LEAST_UPDATES, _MOST_BYTES, _MOST_PARTS = 1 << 17, 1 << 19, 4
"""Elements of updates from which on there are parts, bytes of the array up to which, and how many at most."""

_REPEATED = 2
"""So many updates of each element of the array a part has at least, on average."""


def operand_count(instruction: Instruction) -> int:
    """How many arrays a scatter updates."""
    return len(instruction.operands) // 2


class Places:
    """Where the windows of a scatter lie. `outer_dims` and `window_dims` are those of the updates.

    `sizes` are those of a window in the operand, of whose dimensions `operand_window` are the ones that windows have.
    """

    def __init__(self, instruction: Instruction):
        self.instruction = instruction
        self.count = operand_count(instruction)
        self.dims = instruction.operands[0].shape.dims
        self.indices = instruction.operands[self.count].shape
        self.updates = instruction.operands[self.count + 1].shape
        self.window_dims = instruction.get("update_window_dims")
        self.outer_dims = [d for d in range(self.updates.rank) if d not in self.window_dims]
        absent = (*instruction.get("inserted_window_dims"), *instruction.get("input_batching_dims"))
        self.operand_window = [d for d in range(len(self.dims)) if d not in absent]
        self.sizes = [1] * len(self.dims)
        for dimension, update in zip(self.operand_window, self.window_dims, strict=True):
            self.sizes[dimension] = self.updates.dims[update]

    @property
    def none_fits(self) -> bool:
        """Whether there are no updates, or only ones that are dropped."""
        too_large = any(size > dim for size, dim in zip(self.sizes, self.dims, strict=True))
        return 0 in self.updates.dims or too_large

    @property
    def outer(self) -> list[int]:
        """The sizes of the dimensions that count through the windows."""
        return [self.updates.dims[d] for d in self.outer_dims]

    @property
    def window(self) -> list[int]:
        """The sizes of a window."""
        return [self.updates.dims[d] for d in self.window_dims]

    def start(self, k: KernelContext, at: Index) -> tuple[list[Value], Value]:
        """The first place of an update's window in the operand, and whether all of the window lies in it."""
        b, get = k.b, self.instruction.get
        vector = get("index_vector_dim")
        places = list(at)
        start, inside = [i64(0)] * len(self.dims), integer("i1", 1)
        for dimension, of_indices in zip(
            get("input_batching_dims"), get("scatter_indices_batching_dims"), strict=True
        ):
            start[dimension] = places[of_indices - (of_indices > vector)]
        for position, dimension in enumerate(get("scatter_dims_to_operand_dims")):
            index = places[:vector] + [i64(position)] + places[vector:]
            value = k.input(self.count)(tuple(index[: self.indices.rank]))
            wide = b.zext(value, "i64") if self.indices.dtype.is_unsigned else b.sext(value, "i64")
            start[dimension] = wide
            last = i64(self.dims[dimension] - self.sizes[dimension])
            inside = b.and_(inside, b.icmp_unsigned("<=", wide, last))
        return start, inside

    def place(self, k: KernelContext, start: Sequence[Value], window: Index) -> Index:
        """Where an element of the window that begins at `start` lies in the operand."""
        place = list(start)
        for dimension, value in zip(self.operand_window, window, strict=True):
            place[dimension] = k.b.add(start[dimension], value)
        return tuple(place)

    def values(self, k: KernelContext, at: Index, window: Index) -> list[Register]:
        """The update's elements."""
        update = [i64(0)] * self.updates.rank
        for dimension, value in zip((*self.outer_dims, *self.window_dims), (*at, *window), strict=True):
            update[dimension] = value
        return [k.input(self.count + 1 + number)(tuple(update)) for number in range(self.count)]


def _parts(instruction: Instruction) -> Parts | None:
    """The parts of the updates, along the dimensions that count through the windows; None if it is not worth while."""
    places = Places(instruction)
    target = instruction.operands[0].shape
    reducer = Reducer.of(instruction.attributes["to_apply"], [target.dtype])
    if places.count > 1 or places.none_fits or reducer.operation is None or reducer.sums != reducer.dtypes:
        return None
    if target.dtype.is_complex or target.dtype.is_subbyte or target.byte_size > _MOST_BYTES:
        return None
    wanted = min(places.updates.count // (_REPEATED * max(target.count, 1)), _MOST_PARTS)
    if wanted < 2 or places.updates.count < _LEAST_UPDATES:
        return None
    return Parts.of(places.outer, prod(places.window), -(-prod(places.outer) // wanted))


def _part_bytes(instruction: Instruction) -> int:
    return -(-instruction.operands[0].shape.byte_size // 64) * 64


def _scratch(instruction: Instruction) -> int:
    parts = _parts(instruction)
    return parts.count * _part_bytes(instruction) if parts is not None else 0


@kernel(
    "scatter",
    element_operands=lambda i: range(operand_count(i), len(i.operands)),
    in_place=lambda i: [(number, number) for number in range(operand_count(i))],
    scratch=_scratch,
    common_scratch=lambda instruction, is_fused: _parts(instruction) is not None,
    is_loop=True,
)
def scatter(k: KernelContext, instruction: Instruction) -> None:
    parts = _parts(instruction)
    if parts is not None:
        _InParts(k, instruction, parts).write()
        return
    k.range = None  # updates of the same element depend on each other
    for number, output in enumerate(k.outputs):
        if not k.is_in_place(number, number):
            k.copy(k.input_array(number), output)
    places = Places(instruction)
    if not places.none_fits:
        k.reduce_loop(places.outer, [], lambda at, _: _update(k, places, at, k.outputs))


def _update(k: KernelContext, places: Places, at: Index, targets: Sequence[ArrayRef]) -> list[Register]:
    """Folds one window into arrays like the operands, unless it is dropped. No values are carried on."""
    start, inside = places.start(k, at)
    with k.b.if_then(inside):
        _window(k, places, at, start, targets)
    return []


def _window(
    k: KernelContext, places: Places, at: Index, start: Sequence[Value], targets: Sequence[ArrayRef]
) -> None:
    computation = places.instruction.attributes["to_apply"]

    def element(window: Index) -> None:
        place = places.place(k, start, window)
        old = [target.load(place) for target in targets]
        folded = k.apply(computation, [*old, *places.values(k, at, window)])
        for target, value in zip(targets, folded, strict=True):
            target.store(place, value)

    memory = places.instruction.operands[0].shape.minor_to_major[::-1]
    order = [places.operand_window.index(d) for d in memory if d in places.operand_window]
    k.loop_nest(places.window, element, order)


class _InParts:
    """Writes a scatter by parts: in scratch lies an array of each, one behind the other."""

    def __init__(self, k: KernelContext, instruction: Instruction, parts: Parts):
        self.k, self.b, self.parts = k, k.b, parts
        self.places = Places(instruction)
        self.bytes = _part_bytes(instruction)
        self.output = k.outputs[0]
        self.reducer = Reducer.of(instruction.attributes["to_apply"], [self.output.shape.dtype])

    def write(self) -> None:
        self.k.in_parts(self.parts.count, self._part, self._finish)

    def _array(self, number: Value) -> ArrayRef:
        place = self.b.gep("i8", self.k.scratch, self.b.mul(number, i64(self.bytes)))
        return like_at([self.output], [place])[0]

    def _part(self, number: Value) -> None:
        """Folds the updates of a part, beginning with what changes nothing."""
        k, b, array = self.k, self.b, self._array(number)
        (nothing,) = self.reducer.identity()
        shape = self.output.shape
        k.loop_nest(shape.dims, lambda index: array.store(index, nothing), shape.minor_to_major[::-1])
        rest = self.places.outer[self.parts.dimension + 1 :]

        def block(before: Index, first: Value, count: int) -> None:
            def update(at: Index, _: list[Register]) -> list[Register]:
                return _update(k, self.places, (*before, b.add(first, at[0]), *at[1:]), [array])

            k.reduce_loop([count, *rest], [], update)

        self.parts.run(b, number, block)

    def _finish(self) -> None:
        """Folds the parts into the operand, in order. An element that has no updates stays as it is, to the bit."""
        b, shape = self.b, self.output.shape
        operand, arrays = self.k.input_array(0), [self._array(i64(number)) for number in range(self.parts.count)]
        (nothing,) = self.reducer.identity()

        def element(index: Index) -> None:
            total = operand.load(index)
            for array in arrays:
                value = array.load(index)
                (folded,) = self.reducer.apply(self.k, [total], [value], regroup=False)
                total = b.select(self._are_same(value, nothing), total, folded)
            self.output.store(index, total)

        self.k.loop_nest(shape.dims, element, shape.minor_to_major[::-1])

    def _are_same(self, value: Value, nothing: Value) -> Value:
        """Whether two values have the same bits."""
        type = f"i{8 * self.output.shape.dtype.itemsize}"
        return self.b.icmp_unsigned("==", *(self.b.bitcast(x, type) for x in (value, nothing)))
