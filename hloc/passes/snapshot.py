"""A module's state, cheap to take: for telling whether a pass changed it, and for getting it back."""

from __future__ import annotations

from collections.abc import Iterator

from hloc.ir.computation import Computation
from hloc.ir.instruction import CALLERS, Instruction
from hloc.ir.module import Module
from hloc.ir.shapes import Shape
from hloc.records import record

_Row = tuple[str, str, Shape, list[Instruction], dict[str, object], dict[str, object], tuple[Instruction, ...]]
"""Name, opcode, shape, operands, attributes, annotations and control predecessors of an instruction."""


class Snapshot:
    """All that a pass may change, as tuples of the objects themselves.

    Values are compared by identity first, and what has not changed is shared from one snapshot to the next, so
    that comparing costs little. `restored()` builds a new module in the state of the snapshot.
    """

    __slots__ = ("_module", "_header", "_computations", "_rows", "_opcodes")

    def __init__(self, module: Module):
        self._take(module, _header(module), [_state(c) for c in module])
        self._rows = {i: _row(i) for c in module for i in c}

    def _take(self, module: Module, header: dict[str, object], computations: list[tuple]) -> None:
        self._module, self._header, self._computations = module, header, computations
        self._opcodes: frozenset[str] | None = None

    def again(self) -> tuple[Snapshot, Difference | None]:
        """The module's state now, and where it differs from this one; this one itself and None if it doesn't."""
        header = _header(self._module)
        computations = [_state(c) for c in self._module]
        known = self._rows
        changed = [i for *_, instructions in computations for i in _changed(instructions, known)]
        if not changed and header == self._header and computations == self._computations:
            return self, None
        now = Snapshot.__new__(Snapshot)
        now._take(self._module, header, computations)
        now._rows = {i: known.get(i) for *_, instructions in computations for i in instructions}
        now._rows.update((i, _row(i)) for i in changed)
        old = {state[0]: state for state in self._computations}
        moved = [state[0] for state in computations if old.get(state[0]) != state]
        return now, Difference(header != self._header, tuple(changed), tuple(moved))

    @property
    def opcodes(self) -> frozenset[str]:
        """Those of all instructions."""
        if self._opcodes is None:
            self._opcodes = frozenset(row[1] for row in self._rows.values())
        return self._opcodes

    @property
    def instruction_count(self) -> int:
        return len(self._rows)

    def restored(self) -> Module:
        """A new module in the state that was taken."""
        header = self._header
        copy = Module(header["name"], self._module.source)
        copy.is_scheduled = header["is_scheduled"]
        copy.entry_layout = header["entry_layout"]
        copy.bounded_shapes = header["bounded_shapes"]
        copy.input_output_alias = header["input_output_alias"]
        copy.buffer_donors = header["buffer_donors"]
        copy.replica_count, copy.num_partitions = header["replica_count"], header["num_partitions"]
        copy.attributes, copy.tables = dict(header["attributes"]), dict(self._module.tables)
        twins: dict[Computation, Computation] = {}
        for original, name, root, thread, attributes, instructions in self._computations:
            twin = _rebuilt(original, name, root, [(i, *self._rows[i]) for i in instructions])
            twin.execution_thread, twin.attributes = thread, dict(attributes)
            twins[original] = copy.add_computation(twin, entry=original is header["entry"])
        for instruction in copy.instructions():
            for callee in instruction.called:
                instruction.replace_called(callee, twins[callee])
        return copy


@record
class Difference:
    """What differs between two states of a module.

    `header` tells of the module itself; `instructions` are those that are new or not as they were, `computations`
    those that are new, or whose name, root, attributes or list of instructions are not as they were.
    """

    header: bool
    instructions: tuple[Instruction, ...]
    computations: tuple[Computation, ...]

    def affected(self, module: Module) -> set[Instruction] | None:
        """The instructions whose good form the difference may have broken; None for all.

        What an instruction must be like depends on itself, on its operands' shapes, and on the parameters and the
        root of the computations that it calls; all else is looked for in the whole module anyway.
        """
        if self.header:
            return None
        found = set(self.instructions)
        for instruction in self.instructions:
            found.update(instruction.users)
        computations = {instruction.computation for instruction in self.instructions}.union(self.computations)
        callers = (i for i in module.instructions() if i.opcode in CALLERS)
        found.update(i for i in callers if not computations.isdisjoint(i.called))
        return found


def _header(module: Module) -> dict[str, object]:
    return {
        "name": module.name,
        "entry": module.entry,
        "is_scheduled": module.is_scheduled,
        "entry_layout": module.entry_layout,
        "bounded_shapes": module.bounded_shapes,
        "input_output_alias": module.input_output_alias,
        "buffer_donors": module.buffer_donors,
        "replica_count": module.replica_count,
        "num_partitions": module.num_partitions,
        "attributes": dict(module.attributes),
    }


def _state(c: Computation) -> tuple:
    return c, c.name, c.root, c.execution_thread, dict(c.attributes), c.instructions


def _row(i: Instruction) -> _Row:
    edges = i.control_predecessors
    return i.name, i.opcode, i.shape, list(i.operands), dict(i.attributes), dict(i.annotations), edges


def _changed(instructions: list[Instruction], known: dict[Instruction, _Row]) -> Iterator[Instruction]:
    """Those that are not as their rows say, or have none. In one loop, as each pass has it run over all."""
    for i in instructions:
        row = known.get(i)
        if row is None:
            yield i
            continue
        name, opcode, shape, operands, attributes, annotations, edges = row
        if (
            i.operands != operands
            or (i.shape is not shape and i.shape != shape)
            or i.attributes != attributes
            or i.name != name
            or i.opcode != opcode
            or i.annotations != annotations
            or i.control_predecessors != edges
        ):
            yield i


def _rebuilt(original: Computation, name: str, root: Instruction, rows: list[tuple]) -> Computation:
    copy = Computation(name, original.span)
    twins: dict[Instruction, Instruction] = {}
    for source, label, opcode, shape, operands, attributes, notes, _ in rows:
        twin = Instruction(
            opcode,
            shape,
            [twins[o] for o in operands],
            dict(attributes),
            name=label,
            annotations=dict(notes),
            span=source.span,
        )
        twins[source] = copy.add(twin)
    for source, *_, edges in rows:
        for earlier in edges:
            copy.add_control_edge(twins[earlier], twins[source])
    copy.root = twins[root]
    return copy
