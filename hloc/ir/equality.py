"""Whether two modules are the same program, told by the same text: what printing and parsing must keep.

Equal modules have the same header, computations and instructions by name, and each instruction the same
opcode, shape, operands, attributes, annotations and control edges. Not compared: ids, spans, and what a text
does not keep, which is the order of instructions that have no schedule, the names of computations that are
one operation of an async instruction, and the numbers of stack frames (the frames themselves are compared).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hloc.ir.attributes import Raw, Recovery, Window
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.ir.opcodes import COMPUTATION, COMPUTATIONS, OPS
from hloc.records import replace

# What a text moves between an async start and the one operation that it runs.
_MOVED = ("frontend_attributes", "statistics")
_ALIASES = "output_to_operand_aliasing"

_PLACE = ("line", "end_line", "column", "end_column")


def structurally_equal(a: Module, b: Module) -> str | None:
    """None if the modules are equal, else the first difference found, in words."""
    return _Comparison(a, b).difference()


class _Comparison:
    def __init__(self, a: Module, b: Module):
        self.a = a
        self.b = b
        self.pairs: list[tuple[Computation, Computation]] = []
        self.paired: dict[Computation, Computation] = {}
        self.hidden = _async_bodies(a) | _async_bodies(b)
        self.folded = {computation.root for computation in self.hidden}

    def difference(self) -> str | None:
        return self._header() or self._computations()

    def _header(self) -> str | None:
        a, b = self.a, self.b
        for name in ("name", "is_scheduled", "entry_shapes", "replica_count", "num_partitions"):
            if getattr(a, name) != getattr(b, name):
                return _unlike(name, getattr(a, name), getattr(b, name))
        for name in ("input_output_alias", "buffer_donors"):
            left, right = sorted(getattr(a, name)), sorted(getattr(b, name))
            if left != right:
                return _unlike(name, left, right)
        left, right = _without_empty(a.attributes), _without_empty(b.attributes)
        rows = left.pop("origin_recovery_table", ()), right.pop("origin_recovery_table", ())
        for side in (left, right):
            side["debug_attributes"] = "".join(side.get("debug_attributes", "").split())
        return _unlike("header attributes", left, right) if left != right else _recoveries(*rows)

    def _computations(self) -> str | None:
        left, right = ({c.name: c for c in module if c not in self.hidden} for module in (self.a, self.b))
        if sorted(left) != sorted(right):
            return _unlike("computations", sorted(left), sorted(right))
        if self.a.entry.name != self.b.entry.name:
            return _unlike("entry", self.a.entry.name, self.b.entry.name)
        for name, computation in left.items():
            self._pair(computation, right[name])
        while self.pairs:
            found = self._computation(*self.pairs.pop())
            if found:
                return found
        return None

    def _pair(self, a: Computation, b: Computation) -> bool:
        """Have two computations compared; False if one of them has another partner."""
        known = self.paired.get(a)
        if known is None:
            self.paired[a] = b
            self.pairs.append((a, b))
        return known is None or known is b or b in self.hidden

    def _computation(self, a: Computation, b: Computation) -> str | None:
        place = f"in %{a.name}: "
        for name in ("execution_thread", "attributes"):
            if getattr(a, name) != getattr(b, name):
                return place + _unlike(name, getattr(a, name), getattr(b, name))
        partners = self._partners(a, b)
        if isinstance(partners, str):
            return place + partners
        if partners.get(a.root) is not b.root:
            return place + _unlike("root", a.root.name, b.root.name)
        for left, right in partners.items():
            found = self._instruction(left, right, partners)
            if found:
                return f"{place}%{left.name}: {found}"
        return None

    def _partners(self, a: Computation, b: Computation) -> dict[Instruction, Instruction] | str:
        """Which instructions are to be equal; a difference if their names do not say so."""
        names = [i.name for i in a], [i.name for i in b]
        if a in self.hidden and b in self.hidden and len(a.parameters) == len(b.parameters):
            return {**dict(zip(a.parameters, b.parameters)), a.root: b.root}
        if not self._scheduled(a):
            names[0].sort()
            names[1].sort()
        if names[0] != names[1]:
            return _unlike("instructions", names[0], names[1])
        by_name = {i.name: i for i in b}
        return {i: by_name[i.name] for i in a}

    def _scheduled(self, computation: Computation) -> bool:
        return self.a.is_scheduled and all(i.opcode != "fusion" for i in _callers(self.a, computation))

    def _instruction(
        self, a: Instruction, b: Instruction, partners: dict[Instruction, Instruction]
    ) -> str | None:
        if a.opcode != b.opcode or a.shape != b.shape:
            return _unlike("operation", (a.opcode, a.shape), (b.opcode, b.shape))
        for name in ("operands", "control_predecessors"):
            left, right = getattr(a, name), getattr(b, name)
            if [partners.get(i) for i in left] != list(right):
                return _unlike(name, [i.name for i in left], [i.name for i in right])
        if a in self.folded and b in self.folded:
            return self._attributes(a, b)  # their notes are compared with those of the start
        return self._attributes(a, b) or self._annotations(a, b)

    def _attributes(self, a: Instruction, b: Instruction) -> str | None:
        for name in dict.fromkeys((*a.attributes, *b.attributes)):
            if name == _ALIASES and (a in self.folded or a.attributes.get("calls") in self.hidden):
                continue  # compared with the annotations
            row = OPS[a.opcode].attributes.get(name)
            left, right = a.get(name), b.get(name)
            if row is not None and row.kind in (COMPUTATION, COMPUTATIONS):
                if a.opcode in ("async-update", "async-done"):
                    continue  # these name the computation of their start again
                callees = (left,), (right,)
                if row.kind == COMPUTATIONS:
                    callees = left, right
                if len(callees[0]) != len(callees[1]) or not all(map(self._callees, *callees)):
                    return _unlike(name, left, right)
            elif _meant(a, name, left) != _meant(b, name, right):
                return _unlike(name, left, right)
        return None

    def _callees(self, a: Computation, b: Computation) -> bool:
        if a is None or b is None:
            return a is b
        return (a.name == b.name or (a in self.hidden and b in self.hidden)) and self._pair(a, b)

    def _notes(self, instruction: Instruction) -> dict[str, Any]:
        """The annotations, for an async start together with those that a text moves to it from its root."""
        wrapped = instruction.attributes.get("calls")
        if instruction.opcode != "async-start" or wrapped not in self.hidden:
            return dict(instruction.annotations)
        moved = {name: note for name, note in wrapped.root.annotations.items() if name in _MOVED}
        aliases = (*instruction.get(_ALIASES), *(wrapped.root.get(_ALIASES) or ()))
        return {**moved, **instruction.annotations, _ALIASES: aliases}

    def _annotations(self, a: Instruction, b: Instruction) -> str | None:
        left, right = _without_empty(self._notes(a)), _without_empty(self._notes(b))
        notes = left.pop("metadata", None), right.pop("metadata", None)
        origins = _origin(a), _origin(b)
        left.pop("origin", None)
        right.pop("origin", None)
        if left != right:
            return _unlike("annotations", left, right)
        if origins[0] != origins[1]:
            return _unlike("origin", *origins)
        places = [_metadata(note, module) for note, module in zip(notes, (self.a, self.b))]
        return _unlike("metadata", *places) if places[0] != places[1] else None


def _unlike(what: str, a: object, b: object) -> str:
    return f"{what} is {a!r} and {b!r}"


def _without_empty(values: dict[str, Any]) -> dict[str, Any]:
    """The attributes that say something; a dictionary in quotes is that dictionary."""
    plain = {name: _plain(value) for name, value in values.items()}
    return {name: value for name, value in plain.items() if value not in ("", (), False)}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple) and all(type(pair) is tuple and len(pair) == 2 for pair in value):
        return tuple((key, _plain(item)) for key, item in value)
    return value.text if isinstance(value, Raw) else value


def _meant(instruction: Instruction, name: str, value: Any) -> Any:
    """The value, None if it says no more than its absence."""
    if name == "window" and value == Window() and instruction.opcode != "custom-call":
        return None
    if name == "operand_precision" and all(word == "default" for word in value or ()):
        return None
    if name == "result_accuracy" and value is not None and value.mode == "default":
        return None
    if name == "transpose_a" and value == "TRANSPOSE_INVALID":
        return None
    if name == "mode" and isinstance(value, Raw):
        return None  # of a collective: every text drops it
    if isinstance(value, Raw):
        return "".join(value.text.split())
    return value if value != "" else None


def _recoveries(a: Iterable[Recovery], b: Iterable[Recovery]) -> str | None:
    left, right = sorted(a, key=lambda row: row.replaced), sorted(b, key=lambda row: row.replaced)
    names = [row[:2] for row in left], [row[:2] for row in right]
    if names[0] != names[1]:
        return _unlike("origin_recovery_table", *names)
    for one, other in zip(left, right):
        if one.module is None or other.module is None:
            found = None if one.module is other.module else "a program is missing"
        else:
            found = structurally_equal(one.module, other.module)
        if found:
            return f"in the recovery of {one.replaced}: {found}"
    return None


def _callers(module: Module, computation: Computation) -> list[Instruction]:
    return [i for i in module.instructions() if computation in i.called]


def _async_bodies(module: Module) -> set[Computation]:
    """Those computations that the opcode of an async instruction may stand for."""
    called = [i.attributes["calls"] for i in module.instructions() if i.opcode == "async-start"]
    return {computation for computation in called if _is_one_operation(computation)}


def _is_one_operation(computation: Computation) -> bool:
    return all(i is computation.root or i.opcode == "parameter" for i in computation)


def _origin(instruction: Instruction) -> str | None:
    """The origin of a value; an element of a `tuple` has that of the operand in its place."""
    while "origin" not in instruction.annotations:
        if instruction.opcode != "get-tuple-element" or instruction.operands[0].opcode != "tuple":
            return None
        instruction = instruction.operands[0].operands[instruction.attributes["index"]]
    return instruction.annotations["origin"].text


def _metadata(metadata: Any, module: Module) -> object:
    """Metadata with its stack frames in place of their number; None where it would not be written."""
    if metadata is None:
        return None
    frames = _frames(module, metadata.stack_frame_id or 0)
    names = (metadata.op_name, metadata.op_type, metadata.source_file, metadata.scheduling_name)
    if not frames and metadata.payload is None and not any(names):
        return None
    fields = replace(metadata, stack_frame_id=None)
    return tuple(value or None for value in vars(fields).values()), frames


def _frames(module: Module, frame: int) -> tuple[object, ...]:
    """The places of a stack frame and its callers, innermost first."""
    tables = module.tables
    frames, locations = tables.get("StackFrames", {}), tables.get("FileLocations", {})
    found: list[object] = []
    while frame in frames and len(found) <= len(frames):
        fields = frames[frame]
        location = locations.get(fields.get("file_location_id"), {})
        file = tables.get("FileNames", {}).get(location.get("file_name_id"))
        function = tables.get("FunctionNames", {}).get(location.get("function_name_id"))
        found.append((file, function, *(location.get(name, 0) for name in _PLACE)))
        frame = fields.get("parent_frame_id", 1) - 1
    return tuple(found)
