"""Clusters: instructions over the rows of reduces that are to become one kernel."""

from __future__ import annotations

from collections.abc import Iterator

from hloc.analysis.row_space import WHOLE, Rows, is_row_value, row_space, rows_backwards, rows_reduced, rows_through
from hloc.ir.instruction import Instruction


class Cluster:
    """A reduce, what is made of its result row by row, more reduces of the same rows, and what goes into all these.

    `rows` are the rows of the members: of those that depend on a reduce, and of producers where they have any.
    `columns` is the number of elements of a row. `reduces` counts the reduces.
    """

    def __init__(self, reduce: Instruction):
        self.first = reduce
        self.space = row_space(reduce)
        self.columns = reduce.operands[0].shape.count // max(1, self.space.count)
        self.members: dict[Instruction, None] = {}
        self.dependent: dict[Instruction, None] = {}
        self.rows: dict[Instruction, Rows] = {}
        self.inputs: dict[Instruction, None] = {}
        self.outputs: list[Instruction] = []
        rows = rows_through(reduce, 0, rows_reduced(reduce))
        assert rows is not None
        self.add(reduce, rows)

    @property
    def last(self) -> Instruction:
        """The output that gives the fusion its place and its name."""
        return self.outputs[-1]

    @property
    def reduces(self) -> list[Instruction]:
        return [member for member in self.members if member.opcode == "reduce"]

    def add(self, instruction: Instruction, rows: Rows) -> None:
        """Take in something that depends on a reduce."""
        self.dependent[instruction] = None
        self._enter(instruction)
        self.rows[instruction] = rows

    def add_producer(self, instruction: Instruction) -> None:
        """Take in something that members are computed from."""
        rows = self.rows_wanted(instruction)
        self._enter(instruction)
        if rows is not None:
            self.rows[instruction] = rows

    def _enter(self, instruction: Instruction) -> None:
        self.members[instruction] = None
        self.inputs.pop(instruction, None)
        self.inputs.update(dict.fromkeys(o for o in instruction.operands if o not in self.members))

    def join(self, other: Cluster) -> None:
        """Take in all of another cluster."""
        for member in other.members:
            self._enter(member)
        self.dependent |= other.dependent
        self.rows |= other.rows
        self.columns = max(self.columns, other.columns)

    def drop(self, instruction: Instruction) -> None:
        """Put a member out again that no other one uses."""
        for found in (self.members, self.dependent, self.rows):
            found.pop(instruction, None)
        self.inputs = dict.fromkeys(o for m in self.members for o in m.operands if o not in self.members)

    def rows_found(self, user: Instruction) -> Rows | None:
        """The rows of a user of members; None if it does not go row by row."""
        found = {
            rows_through(user, number, self.rows[operand])
            for number, operand in enumerate(user.operands)
            if operand in self.dependent
        }
        return found.pop() if len(found) == 1 else None

    def rows_wanted(self, producer: Instruction) -> Rows | None:
        """The rows of a producer by what its users here want of it; None if that is not one element a row or column."""
        found = {rows for user in producer.users if user in self.members for rows in self._wanted_by(user, producer)}
        return found.pop() if len(found) == 1 else None

    def _wanted_by(self, user: Instruction, producer: Instruction) -> Iterator[Rows | None]:
        for number, operand in enumerate(user.operands):
            if operand is not producer:
                continue
            if user.opcode != "reduce":
                yield rows_backwards(user, number, self.rows.get(user))
            elif number < len(user.operands) // 2:
                yield next((self.rows[o] for o in user.operands if o in self.dependent), rows_reduced(user))
            else:
                yield None

    def is_full(self, instruction: Instruction) -> bool:
        """Whether a member or a user has elements for all columns."""
        return instruction.shape.count == self.space.count * self.columns > self.space.count

    def is_row_value(self, instruction: Instruction, rows: Rows) -> bool:
        """Whether it has one element a row, or one in all."""
        return rows == WHOLE or not instruction.shape.is_array or is_row_value(instruction.shape, rows)

    @property
    def row_bytes(self) -> int:
        """Bytes of the inputs that belong to one row; what one operand makes element by element is no input."""
        count = self.space.count * self.columns
        full = dict.fromkeys(_source(value) for value in self.inputs if value.shape.is_array)
        sizes = [value.shape.byte_size for value in full if value.shape.count == count]
        return sum(sizes) // max(1, self.space.count)


def _source(value: Instruction) -> Instruction:
    """What a value is made of element by element, if it is one array."""
    while value.op.is_elementwise and len(value.operands) == 1:
        (value,) = value.operands
    return value
