"""A module: computations, one of them the entry, and what the header says of the whole program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hloc.ir import hooks
from hloc.ir.attributes import Alias, Donor
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.names import Names
from hloc.ir.shapes import Shape, TupleShape

if TYPE_CHECKING:
    from hloc.errors import Source


class Module:
    """A whole program.

    `computations` are in order, callees before callers. `entry_layout` is the pair (parameter shapes, result
    shape) of `entry_computation_layout`, or None while it follows from the entry. `bounded_shapes` is such a
    pair with the bounded dynamic arrays that the entry takes and gives as tuples (padded array, sizes...), or
    None if there are none; the text does not have it. `attributes` holds the other header attributes by their
    text names, `tables` the sections after the header by name, their rows by number: strings in FileNames and
    FunctionNames, integers by field name in FileLocations and StackFrames.
    """

    def __init__(self, name: str, source: Source | None = None):
        self.name = name
        self.source = source
        self.computations: dict[str, Computation] = {}
        self.entry: Computation | None = None
        self.is_scheduled = False
        self.entry_layout: tuple[tuple[Shape, ...], Shape] | None = None
        self.bounded_shapes: tuple[tuple[Shape, ...], Shape] | None = None
        self.input_output_alias: tuple[Alias, ...] = ()
        self.buffer_donors: tuple[Donor, ...] = ()
        self.replica_count = 1
        self.num_partitions = 1
        self.attributes: dict[str, object] = {}
        self.tables: dict[str, dict[int, Any]] = {}
        self._next_id = 0
        self._names = Names()
        self._computation_names = Names()

    def __iter__(self) -> Iterator[Computation]:
        return iter(self.computations.values())

    def instructions(self) -> Iterator[Instruction]:
        """All instructions of all computations, in order."""
        for computation in list(self.computations.values()):
            yield from computation

    @property
    def entry_shapes(self) -> tuple[tuple[Shape, ...], Shape]:
        """Parameter shapes and result shape of the entry, with the layouts that the caller sees."""
        if self.entry_layout is not None:
            return self.entry_layout
        entry = self.entry
        return tuple(p.shape.with_default_layout() for p in entry.parameters), entry.root.shape.with_default_layout()

    @property
    def signature(self) -> TupleShape:
        """The entry's parameter shapes as one tuple shape."""
        return TupleShape(self.entry_shapes[0])

    def add_computation(self, computation: Computation, *, entry: bool = False) -> Computation:
        """Take in a computation under a unique name, and its instructions too."""
        computation.module = self
        computation.name = self._computation_names.take(computation.name)
        self.computations[computation.name] = computation
        instructions = computation.instructions
        if self._names.take_all([instruction.name for instruction in instructions]):
            for number, instruction in enumerate(instructions, self._next_id):
                instruction.id = number
            self._next_id += len(instructions)
        else:
            for instruction in instructions:
                self.adopt(instruction)
        if entry:
            self.entry = computation
        return computation

    def remove_computation(self, computation: Computation) -> None:
        """Take out a computation that nothing calls."""
        del self.computations[computation.name]
        self._computation_names.free(computation.name)
        for instruction in computation:
            self.release(instruction)
        computation.module = None

    def order_computations(self) -> None:
        """Put callees before callers, depth first from the entry; what nothing calls comes first."""
        ordered: dict[str, Computation] = {}
        called = {callee.name for computation in self for site in computation.call_sites for callee in site.called}
        starts = [c for c in self if c.name not in called and c is not self.entry] + [self.entry]
        for start in starts:
            for computation in call_order(start):
                ordered.setdefault(computation.name, computation)
        self.computations = ordered

    def adopt(self, instruction: Instruction) -> None:
        """Give an instruction an id and a name that no other one has."""
        instruction.id = self._next_id
        self._next_id += 1
        instruction.name = self._names.take(instruction.name or instruction.opcode)

    def release(self, instruction: Instruction) -> None:
        """Let an instruction's name be free again."""
        self._names.free(instruction.name)

    def to_text(self, **options: object) -> str:
        """The canonical HLO text, constants in full; `options` are those of hloc.text.printer.PrintOptions."""
        return hooks.text_form(self, **options)

    def __repr__(self) -> str:
        return f"<module {self.name}: {len(self.computations)} computations>"


def call_order(start: Computation) -> list[Computation]:
    """The computations that `start` reaches by calls, callees first, `start` last; without recursion."""
    order: list[Computation] = []
    done: set[str] = set()
    stack: list[tuple[Computation, Iterator[Computation]]] = [(start, _callees(start))]
    opened = {start.name}
    while stack:
        computation, pending = stack[-1]
        for callee in pending:
            if callee.name not in opened:
                opened.add(callee.name)
                stack.append((callee, _callees(callee)))
                break
        else:
            stack.pop()
            if computation.name not in done:
                done.add(computation.name)
                order.append(computation)
    return order


def _callees(computation: Computation) -> Iterator[Computation]:
    for instruction in computation.call_sites:
        yield from instruction.called
