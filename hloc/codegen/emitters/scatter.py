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


def _count(instruction: Instruction) -> int:
    return len(instruction.operands) // 2


@kernel(
    "scatter",
    element_operands=lambda i: range(_count(i), len(i.operands)),
    in_place=lambda i: [(number, number) for number in range(_count(i))],
)
def scatter(k: KernelContext, instruction: Instruction) -> None:
    for number, output in enumerate(k.outputs):
        if not k.is_in_place(number, number):
            k.copy(k.input_array(number), output)
    _Scatter(k, instruction).write()


class _Scatter:
    """Writes the loops of one scatter: over the places of updates, and over each one's window."""

    def __init__(self, k: KernelContext, instruction: Instruction):
        self.k, self.b, self.instruction = k, k.b, instruction
        self.count = _count(instruction)
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

    def write(self) -> None:
        outer = [self.updates.dims[d] for d in self.outer_dims]
        if 0 in self.updates.dims or any(size > dim for size, dim in zip(self.sizes, self.dims, strict=True)):
            return

        def update(at: Index, carried: list[Register]) -> list[Register]:
            start, inside = self._start(at)
            with self.b.if_then(inside):
                self._window(at, start)
            return carried

        self.k.reduce_loop(outer, [], update)

    def _start(self, at: Index) -> tuple[list[Value], Value]:
        """The first place of an update's window in the operand, and whether all of the window lies in it."""
        b, get = self.b, self.instruction.get
        vector = get("index_vector_dim")
        places = list(at)
        start, inside = [i64(0)] * len(self.dims), integer("i1", 1)
        for dimension, of_indices in zip(
            get("input_batching_dims"), get("scatter_indices_batching_dims"), strict=True
        ):
            start[dimension] = places[of_indices - (of_indices > vector)]
        for position, dimension in enumerate(get("scatter_dims_to_operand_dims")):
            index = places[:vector] + [i64(position)] + places[vector:]
            value = self.k.input(self.count)(tuple(index[: self.indices.rank]))
            wide = b.zext(value, "i64") if self.indices.dtype.is_unsigned else b.sext(value, "i64")
            start[dimension] = wide
            last = i64(self.dims[dimension] - self.sizes[dimension])
            inside = b.and_(inside, b.icmp_unsigned("<=", wide, last))
        return start, inside

    def _window(self, at: Index, start: Sequence[Value]) -> None:
        k, b = self.k, self.b
        computation = self.instruction.attributes["to_apply"]

        def element(window: Index) -> None:
            place = list(start)
            update = [i64(0)] * self.updates.rank
            for dimension, value in zip(self.outer_dims, at, strict=True):
                update[dimension] = value
            for dimension, of_update, value in zip(
                self.operand_window, self.window_dims, window, strict=True
            ):
                place[dimension] = b.add(start[dimension], value)
                update[of_update] = value
            old = [output.load(tuple(place)) for output in k.outputs]
            new = [k.input(self.count + 1 + number)(tuple(update)) for number in range(self.count)]
            for output, value in zip(k.outputs, k.apply(computation, [*old, *new]), strict=True):
                output.store(tuple(place), value)

        memory = self.instruction.operands[0].shape.minor_to_major[::-1]
        order = [self.operand_window.index(d) for d in memory if d in self.operand_window]
        k.loop_nest([self.sizes[d] for d in self.operand_window], element, order)
