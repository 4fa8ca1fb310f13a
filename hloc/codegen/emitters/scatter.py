"""scatter: updates folded into an array at computed places, in row-major order of the updates.

An update whose window would reach over an edge is dropped as a whole (row X19).
"""

from __future__ import annotations

from collections.abc import Sequence

from hloc.codegen.arrays import Register
from hloc.codegen.kernel import Index, KernelContext, kernel
from hloc.codegen.llvm import Value, integer
from hloc.codegen.routines import i64
from hloc.ir.instruction import Instruction


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


@kernel(
    "scatter",
    element_operands=lambda i: range(operand_count(i), len(i.operands)),
    in_place=lambda i: [(number, number) for number in range(operand_count(i))],
)
def scatter(k: KernelContext, instruction: Instruction) -> None:
    for number, output in enumerate(k.outputs):
        if not k.is_in_place(number, number):
            k.copy(k.input_array(number), output)
    places = Places(instruction)
    if places.none_fits:
        return

    def update(at: Index, carried: list[Register]) -> list[Register]:
        start, inside = places.start(k, at)
        with k.b.if_then(inside):
            _window(k, places, at, start)
        return carried

    k.reduce_loop(places.outer, [], update)


def _window(k: KernelContext, places: Places, at: Index, start: Sequence[Value]) -> None:
    """Folds one window into the outputs."""
    computation = places.instruction.attributes["to_apply"]

    def element(window: Index) -> None:
        place = places.place(k, start, window)
        old = [output.load(place) for output in k.outputs]
        folded = k.apply(computation, [*old, *places.values(k, at, window)])
        for output, value in zip(k.outputs, folded, strict=True):
            output.store(place, value)

    memory = places.instruction.operands[0].shape.minor_to_major[::-1]
    order = [places.operand_window.index(d) for d in memory if d in places.operand_window]
    k.loop_nest(places.window, element, order)
