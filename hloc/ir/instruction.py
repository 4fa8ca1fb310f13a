"""An instruction: one operation of a computation, its operands, and who uses it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hloc.ir.attributes import Metadata
from hloc.ir.opcodes import COMPUTATION, COMPUTATIONS, OPS, Op
from hloc.ir.shapes import Shape

if TYPE_CHECKING:
    from hloc.errors import Source, Span
    from hloc.ir.computation import Computation


def _attributes_of_kind(kind: str) -> dict[str, tuple[str, ...]]:
    return {op.name: tuple(a.name for a in op.attributes.values() if a.kind == kind) for op in OPS.values()}


_ONE_COMPUTATION = _attributes_of_kind(COMPUTATION)
_MANY_COMPUTATIONS = _attributes_of_kind(COMPUTATIONS)
CALLERS = frozenset(name for name in OPS if _ONE_COMPUTATION[name] or _MANY_COMPUTATIONS[name])
"""The ops that may name computations: there is no need to ask others for what they call."""


class Instruction:
    """One operation.

    `attributes` holds the op's own attributes by their text names, without those at their default;
    `annotations` the common ones (metadata, sharding, frontend_attributes, backend_config, origin,
    statistics, parameter_replication) that are present. A parameter has the attribute `number`, a
    constant `literal`. Operands, users, control edges and the place in the computation change only
    through the methods of Computation. Instructions compare by identity.
    """

    __slots__ = (
        "id",
        "name",
        "opcode",
        "shape",
        "operands",
        "attributes",
        "annotations",
        "users",
        "control_predecessors",
        "control_successors",
        "computation",
        "previous",
        "next",
        "_source",
        "_place",
    )

    def __init__(
        self,
        opcode: str,
        shape: Shape,
        operands: list[Instruction],
        attributes: dict[str, Any] | None = None,
        *,
        name: str = "",
        annotations: dict[str, Any] | None = None,
        span: Span | None = None,
    ):
        self.id = -1
        self.name = name
        self.opcode = opcode
        self.shape = shape
        self.operands = operands
        self.attributes = {} if attributes is None else attributes
        self.annotations = {} if annotations is None else annotations
        self.users: dict[Instruction, int] = {}
        self.control_predecessors: tuple[Instruction, ...] = ()
        self.control_successors: tuple[Instruction, ...] = ()
        self.computation: Computation | None = None
        self._source: Source | None = None
        self._place: Span | int | None = span
        self.previous: Instruction | None = None
        self.next: Instruction | None = None

    @property
    def span(self) -> Span | None:
        """The place in the text: that of the name, if it has one."""
        place = self._place
        if place.__class__ is int:
            place = self._place = self._source.name_at(place)
        return place

    @span.setter
    def span(self, place: Span | None) -> None:
        self._place = place

    @property
    def op(self) -> Op:
        """The row of the op table."""
        return OPS[self.opcode]

    def get(self, attribute: str) -> Any:
        """The value of one of the op's attributes, or its default."""
        value = self.attributes.get(attribute)
        if value is None and attribute not in self.attributes:
            row = OPS[self.opcode].attributes.get(attribute)
            return None if row is None else row.default
        return value

    @property
    def metadata(self) -> Metadata | None:
        return self.annotations.get("metadata")

    @property
    def called(self) -> list[Computation]:
        """The computations named by the attributes, in the order of the op's row."""
        if self.opcode not in CALLERS:
            return []
        found: list[Computation] = []
        attributes = self.attributes
        for name in _ONE_COMPUTATION[self.opcode]:
            if name in attributes:
                found.append(attributes[name])
        for name in _MANY_COMPUTATIONS[self.opcode]:
            found.extend(attributes.get(name, ()))
        return found

    def replace_called(self, old: Computation, new: Computation) -> None:
        """Name `new` wherever an attribute names `old`."""
        for name in _ONE_COMPUTATION[self.opcode]:
            if self.attributes.get(name) is old:
                self.attributes[name] = new
        for name in _MANY_COMPUTATIONS[self.opcode]:
            if name in self.attributes:
                self.attributes[name] = tuple(new if c is old else c for c in self.attributes[name])

    @property
    def is_root(self) -> bool:
        return self.computation is not None and self.computation.root is self

    def operand_uses(self) -> Iterator[tuple[Instruction, int]]:
        """(user, operand number) pairs, in order of the users' first use."""
        for user in self.users:
            for number, operand in enumerate(user.operands):
                if operand is self:
                    yield user, number

    def __repr__(self) -> str:
        operands = ", ".join(f"%{operand.name}" for operand in self.operands)
        return f"<%{self.name} = {self.shape!r} {self.opcode}({operands})>"


_new = Instruction.__new__


def read_instruction(
    opcode: str,
    shape: Shape,
    operands: list[Instruction],
    attributes: dict[str, Any],
    annotations: dict[str, Any],
    name: str,
    source: Source,
    start: int,
) -> Instruction:
    """An instruction of a text whose name starts at offset `start`: what the class makes, for the parser, in half the
    time, as it need not sort out arguments. The span is made when it is asked for."""
    made = _new(Instruction)
    made.id = -1
    made.name = name
    made.opcode = opcode
    made.shape = shape
    made.operands = operands
    made.attributes = attributes
    made.annotations = annotations
    made.users = {}
    made.control_predecessors = made.control_successors = ()
    made.computation = made.previous = made.next = None
    made._source = source
    made._place = start
    return made
