"""A module's state, cheap to take: for telling whether a pass changed it, and for getting it back."""

from __future__ import annotations

from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module


class Snapshot:
    """All that a pass may change, as tuples of the objects themselves.

    Two snapshots of a module are equal if nothing was changed in between. Values are compared by identity
    first, so comparing costs little. `restored()` builds a new module in the state of the snapshot.
    """

    __slots__ = ("_module", "_header", "_computations")

    def __init__(self, module: Module):
        self._module = module
        self._header = _header(module)
        self._computations = [(c, *_state(c), [_row(i) for i in c]) for c in module]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Snapshot):
            return NotImplemented
        return self._header == other._header and self._computations == other._computations

    __hash__ = None  # type: ignore[assignment]

    @property
    def instruction_count(self) -> int:
        return sum(len(rows) for *_, rows in self._computations)

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
        for original, name, root, thread, attributes, rows in self._computations:
            twin = _rebuilt(original, name, root, rows)
            twin.execution_thread, twin.attributes = thread, dict(attributes)
            twins[original] = copy.add_computation(twin, entry=original is header["entry"])
        for instruction in copy.instructions():
            for callee in instruction.called:
                instruction.replace_called(callee, twins[callee])
        return copy


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
    return c.name, c.root, c.execution_thread, dict(c.attributes)


def _row(i: Instruction) -> tuple:
    edges = tuple(i.control_predecessors) if i.control_predecessors else ()
    return i, i.name, i.opcode, i.shape, tuple(i.operands), dict(i.attributes), dict(i.annotations), edges


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
