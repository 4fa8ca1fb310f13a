"""A computation: instructions in order, with the few methods through which all graph edits go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from hloc.ir.instruction import CALLERS, Instruction

if TYPE_CHECKING:
    from hloc.errors import Span
    from hloc.ir.module import Module


class Computation:
    """A list of instructions, each after its operands, one of them the root.

    `parameters[i]` is the instruction `parameter(i)`. In a scheduled module the order is the schedule. Edits:
    `add`, `replace_uses` and `remove`; `set_operand`, `add_control_edge` and `move_before` are their small
    companions.
    """

    def __init__(self, name: str, span: Span | None = None):
        self.name = name
        self.span = span
        self.module: Module | None = None
        self.parameters: list[Instruction] = []
        self.root: Instruction | None = None
        self.execution_thread = "main"
        self.attributes: dict[str, object] = {}
        self._first: Instruction | None = None
        self._last: Instruction | None = None
        self._count = 0
        self._instructions: list[Instruction] | None = []
        self._call_sites: list[Instruction] | None = []

    @property
    def is_entry(self) -> bool:
        return self.module is not None and self.module.entry is self

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Instruction]:
        """Instructions in order. The one just yielded may be removed, and others added before or after it."""
        node = self._first
        while node is not None:
            following = node.next
            yield node
            node = node.next if node.computation is self else following

    @property
    def instructions(self) -> list[Instruction]:
        """A snapshot of the instructions in order; the quickest way to go through them. Not to be changed."""
        found = self._instructions
        if found is None:
            found, node = [], self._first
            while node is not None:
                found.append(node)
                node = node.next
            self._instructions = found
        return found

    @property
    def call_sites(self) -> list[Instruction]:
        """A snapshot of the instructions whose ops may call computations, in order. Not to be changed."""
        found = self._call_sites
        if found is None:
            found = self._call_sites = [i for i in self.instructions if i.opcode in CALLERS]
        return found

    def reversed(self) -> Iterator[Instruction]:
        """Instructions from last to first; the one just yielded may be removed."""
        node = self._last
        while node is not None:
            preceding = node.previous
            yield node
            node = node.previous if node.computation is self else preceding

    def add(self, instruction: Instruction, before: Instruction | None = None) -> Instruction:
        """Put a new instruction at the end, or before another one; give it an id and a unique name."""
        if instruction.computation is not None:
            raise ValueError(f"%{instruction.name} is in a computation already")
        instruction.computation = self
        self._link(instruction, before)
        for operand in instruction.operands:
            users = operand.users
            users[instruction] = users.get(instruction, 0) + 1
        if instruction.opcode == "parameter":
            self.place_parameter(instruction)
        if self.module is not None:
            self.module.adopt(instruction)
        return instruction

    def extend(self, instructions: list[Instruction]) -> None:
        """`add` at the end, for a computation in no module yet: for the parser, which adds very many.

        Parameters have their places by then, by `place_parameter`. The list is kept.
        """
        last = self._last
        for instruction in instructions:
            instruction.computation = self
            if last is None:
                self._first = instruction
            else:
                instruction.previous = last
                last.next = instruction
            last = instruction
            for operand in instruction.operands:
                users = operand.users
                users[instruction] = users.get(instruction, 0) + 1
        self._last = last
        self._instructions = None if self._count else instructions
        self._count += len(instructions)
        self._call_sites = None

    def _link(self, instruction: Instruction, before: Instruction | None) -> None:
        previous = self._last if before is None else before.previous
        instruction.previous, instruction.next = previous, before
        if previous is None:
            self._first = instruction
        else:
            previous.next = instruction
        if before is None:
            self._last = instruction
        else:
            before.previous = instruction
        self._moved(instruction, 1)

    def _unlink(self, instruction: Instruction) -> None:
        previous, following = instruction.previous, instruction.next
        if previous is None:
            self._first = following
        else:
            previous.next = following
        if following is None:
            self._last = previous
        else:
            following.previous = previous
        instruction.previous = instruction.next = None
        self._moved(instruction, -1)

    def _moved(self, instruction: Instruction, more: int) -> None:
        """Takes note that an instruction has come, or gone."""
        self._count += more
        self._instructions = None
        if instruction.opcode in CALLERS:
            self._call_sites = None

    def place_parameter(self, instruction: Instruction) -> None:
        """Make an instruction the parameter of its number."""
        number = instruction.attributes["number"]
        while len(self.parameters) <= number:
            self.parameters.append(None)  # type: ignore[arg-type]  # until its own parameter is added
        self.parameters[number] = instruction

    def replace_uses(self, old: Instruction, new: Instruction) -> None:
        """Every user of `old` (but `new` itself) takes `new` instead; so does the root. Order is the caller's care."""
        for user in list(old.users):
            if user is new:
                continue
            for number, operand in enumerate(user.operands):
                if operand is old:
                    user.operands[number] = new
            new.users[user] = new.users.get(user, 0) + old.users.pop(user)
        if self.root is old:
            self.root = new

    def remove(self, instruction: Instruction) -> None:
        """Take out an instruction that nobody uses; its control edges are joined over it."""
        if instruction.computation is not self:
            raise ValueError(f"%{instruction.name} is not in %{self.name}")
        if instruction.users:
            raise ValueError(f"%{instruction.name} still has users")
        if self.root is instruction:
            raise ValueError(f"%{instruction.name} is the root")
        for operand in instruction.operands:
            _forget(operand, instruction)
        instruction.operands = []
        self.drop_control_edges(instruction)
        if instruction.opcode == "parameter" and self.parameters[instruction.attributes["number"]] is instruction:
            self.parameters[instruction.attributes["number"]] = None  # type: ignore[call-overload]
        self._unlink(instruction)
        instruction.computation = None
        if self.module is not None:
            self.module.release(instruction)

    def drop_control_edges(self, instruction: Instruction) -> None:
        """Take an instruction out of the control order; what came before it still comes before what came after."""
        for earlier in instruction.control_predecessors:
            earlier.control_successors = _without(earlier.control_successors, instruction)
            for later in instruction.control_successors:
                self.add_control_edge(earlier, later)
        for later in instruction.control_successors:
            later.control_predecessors = _without(later.control_predecessors, instruction)
        instruction.control_predecessors = instruction.control_successors = ()

    def set_operand(self, user: Instruction, number: int, value: Instruction) -> None:
        """Let operand `number` of `user` be `value`."""
        _forget(user.operands[number], user)
        user.operands[number] = value
        value.users[user] = value.users.get(user, 0) + 1

    def add_control_edge(self, earlier: Instruction, later: Instruction) -> None:
        """`earlier` must have run before `later` starts."""
        if earlier not in later.control_predecessors:
            later.control_predecessors += (earlier,)
            earlier.control_successors += (later,)

    def move_before(self, instruction: Instruction, other: Instruction | None) -> None:
        """Change the place in the order: just before `other`, or to the end."""
        self._unlink(instruction)
        self._link(instruction, other)

    def reorder(self, order: Iterable[Instruction]) -> None:
        """Set the whole order; `order` is a permutation of the instructions."""
        sequence = list(order)
        if len(sequence) != self._count or any(i.computation is not self for i in sequence):
            raise ValueError("not a permutation of the computation's instructions")
        self._first = self._last = None
        self._count = 0
        for instruction in sequence:
            self._link(instruction, None)

    def post_order(self) -> list[Instruction]:
        """Instructions with operands and control predecessors first, in XLA's depth-first order.

        Starts are the instructions without users, in list order. Before an instruction come its control
        predecessors, the last one first, then its operands, the first one first; so text printed in this
        order equals XLA's.
        """
        done: set[Instruction] = set()
        order: list[Instruction] = []
        for start in self:
            if not start.users:
                _visit(start, done, order)
        return order if len(order) == self._count else self._with_rest(order, done)

    def _with_rest(self, order: list[Instruction], done: set[Instruction]) -> list[Instruction]:
        for start in self:
            if start not in done:
                _visit(start, done, order)
        return order

    def __repr__(self) -> str:
        return f"<computation %{self.name}: {self._count} instructions>"


def _without(edges: tuple[Instruction, ...], gone: Instruction) -> tuple[Instruction, ...]:
    return tuple(instruction for instruction in edges if instruction is not gone)


def _forget(operand: Instruction, user: Instruction) -> None:
    left = operand.users[user] - 1
    if left:
        operand.users[user] = left
    else:
        del operand.users[user]


def _visit(start: Instruction, done: set[Instruction], order: list[Instruction]) -> None:
    """Append what `start` depends on, and `start`, to `order`; without recursion, so depth has no limit."""
    stack = [start]
    opened: set[Instruction] = set()
    while stack:
        node = stack[-1]
        if node in done:
            stack.pop()
            continue
        if node in opened:
            stack.pop()
            done.add(node)
            order.append(node)
            continue
        opened.add(node)
        for operand in reversed(node.operands):
            if operand not in done:
                stack.append(operand)
        for earlier in node.control_predecessors:
            if earlier not in done:
                stack.append(earlier)
