"""A module's state, cheap to take: for telling whether a pass changed it, and for getting it back."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from hloc.analysis.verifier import Scope
from hloc.ir.computation import Computation
from hloc.ir.instruction import CALLERS, Instruction
from hloc.ir.module import Module
from hloc.ir.shapes import Shape
from hloc.records import record

_Row = tuple[str, str, Shape, list[Instruction], dict[str, object], dict[str, object], tuple[Instruction, ...]]
"""Name, opcode, shape, operands, attributes, annotations and control predecessors of an instruction."""


_DEVICES = ("replica_count", "num_partitions")
"""What of the header the form of instructions anywhere depends on."""


class Snapshot:
    """All that a pass may change, as tuples of the objects themselves.

    Values are compared by identity first, and what has not changed is shared from one snapshot to the next, so
    that comparing costs little. `restored()` builds a new module in the state of the snapshot.
    """

    __slots__ = ("_module", "_header", "_computations", "_rows", "_lists", "_opcodes", "_callers")

    def __init__(self, module: Module):
        self._take(module, _header(module), [_state(c) for c in module])
        self._rows = {i: _row(i) for c in module for i in c.instructions}
        self._lists = {c: _List(c.instructions, self._rows) for c in module}
        self._callers = [i for c in module for i in c.call_sites]

    def _take(self, module: Module, header: dict[str, object], computations: list[tuple]) -> None:
        self._module, self._header, self._computations = module, header, computations
        self._opcodes: frozenset[str] | None = None

    def again(self) -> tuple[Snapshot, Difference | None]:
        """The module's state now, and where it differs from this one; this one itself and None if it doesn't."""
        header = _header(self._module)
        computations = [_state(c) for c in self._module]
        changed: list[Instruction] = []
        for computation, *_, instructions in computations:
            known = self._lists.get(computation)
            if known is not None and known.instructions is instructions:
                changed += _changed(instructions, known.rows)
            else:
                changed += _changed(instructions, map(self._rows.get, instructions))
        if not changed and header == self._header and computations == self._computations:
            return self, None
        now = Snapshot.__new__(Snapshot)
        now._take(self._module, header, computations)
        now._rows = rows = self._rows.copy()
        gone = self._gone(computations)
        for i in gone:
            del rows[i]
        for i in changed:
            rows[i] = _row(i)
        now._lists = self._lists_with(computations, changed, rows)
        calling = [i for i in changed if i.opcode in CALLERS]
        now._callers = list(dict.fromkeys(chain((i for i in self._callers if i in rows), calling)))
        return now, Difference(self, now, tuple(changed), tuple(gone))

    def _gone(self, computations: list[tuple]) -> list[Instruction]:
        """The instructions that are in none of the computations any more."""
        now = {state[0]: state[-1] for state in computations}
        edited = {c: known for c, known in self._lists.items() if now.get(c) is not known.instructions}
        if not edited:
            return []
        left = {i for c, instructions in now.items() if c in edited or c not in self._lists for i in instructions}
        return [i for known in edited.values() for i in known.instructions if i not in left]

    def _lists_with(
        self, computations: list[tuple], changed: list[Instruction], rows: dict[Instruction, _Row]
    ) -> dict[Computation, _List]:
        """The lists of now, those of before where nothing has changed."""
        touched = {i.computation for i in changed}
        lists = {}
        for computation, *_, instructions in computations:
            known = self._lists.get(computation)
            is_as_before = known is not None and known.instructions is instructions and computation not in touched
            lists[computation] = known if is_as_before else _List(instructions, rows)
        return lists

    @property
    def opcodes(self) -> frozenset[str]:
        """Those of all instructions."""
        if self._opcodes is None:
            self._opcodes = frozenset().union(*(known.opcodes for known in self._lists.values()))
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
        for original, name, root, thread, attributes, _, instructions in self._computations:
            twin = _rebuilt(original, name, root, [(i, *self._rows[i]) for i in instructions])
            twin.execution_thread, twin.attributes = thread, dict(attributes)
            twins[original] = copy.add_computation(twin, entry=original is header["entry"])
        for instruction in copy.instructions():
            for callee in instruction.called:
                instruction.replace_called(callee, twins[callee])
        return copy


@record
class Difference:
    """What differs between two states of a module: `changed` are instructions that are new or not as they were."""

    before: Snapshot
    after: Snapshot
    changed: tuple[Instruction, ...]
    gone: tuple[Instruction, ...]

    def affected(self) -> Scope | None:
        """Where the module may have lost its good form; None for anywhere.

        What an instruction must be like depends on itself, on what its operands are, and on the faces of the
        computations that it calls: on all of them but the instructions between parameters and root.
        """
        before, after = self.before, self.after
        if any(before._header[name] != after._header[name] for name in _DEVICES):
            return None
        single: dict[Instruction, None] = {}
        linked = dict.fromkeys(self.changed)
        computations, faces = set(), set()
        for i in self.changed:
            computations.add(i.computation)
            linked.update(dict.fromkeys(i.operands))
            row = before._rows.get(i)
            if row is None:
                single[i] = None
                continue
            linked.update(dict.fromkeys(row[3]))
            if i.shape != row[2] or i.opcode != row[1] or i.attributes != row[4]:
                single[i] = None
                single.update(i.users)
                linked.update(i.users)
                if i.opcode == "parameter" or i.is_root:
                    faces.add(i.computation)
            elif i.annotations != row[5] or not self._alike(i.operands, row[3]):
                single[i] = None
        for i in self.gone:
            linked.update(dict.fromkeys(before._rows[i][3]))
        old = {state[0]: state for state in before._computations}
        for state in after._computations:
            was = old.pop(state[0], (None,))
            if was != state:
                computations.add(state[0])
                if was[:-1] != state[:-1]:
                    faces.add(state[0])
        calling = [i for i in after._callers if i in single or not faces.isdisjoint(i.called)]
        single.update(dict.fromkeys(calling))
        linked.update(dict.fromkeys(calling))
        here = [i for i in linked if i.computation is not None]
        return Scope(tuple(single), tuple(here), computations, bool(calling or old))

    def _alike(self, operands: list[Instruction], old: list[Instruction]) -> bool:
        """Whether operands have the shapes of the old ones, which is all that their user sees of them."""
        rows = self.before._rows
        return len(operands) == len(old) and all(
            new is was or new.shape == rows[was][2] for new, was in zip(operands, old, strict=True)
        )


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
    return c, c.name, c.root, c.execution_thread, dict(c.attributes), c.parameters.copy(), c.instructions


def _row(i: Instruction) -> _Row:
    edges = i.control_predecessors
    return i.name, i.opcode, i.shape, list(i.operands), dict(i.attributes), dict(i.annotations), edges


class _List:
    """The instructions of a computation as they were, with their rows and opcodes."""

    __slots__ = ("instructions", "rows", "opcodes")

    def __init__(self, instructions: list[Instruction], rows: dict[Instruction, _Row]):
        self.instructions = instructions
        self.rows = [rows[i] for i in instructions]
        self.opcodes = {row[1] for row in self.rows}


def _changed(instructions: list[Instruction], rows: Iterable[_Row | None]) -> list[Instruction]:
    """Those that are not as their rows say, or have none. In one loop, as each pass has it run over all."""
    found = []
    for i, row in zip(instructions, rows):
        if row is None:
            found.append(i)
            continue
        name, opcode, shape, operands, attributes, annotations, edges = row
        if (
            i.operands != operands
            or (i.shape is not shape and i.shape != shape)
            or i.attributes != attributes
            or (i.name is not name and i.name != name)
            or (i.opcode is not opcode and i.opcode != opcode)
            or i.annotations != annotations
            or (i.control_predecessors is not edges and i.control_predecessors != edges)
        ):
            found.append(i)
    return found


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
