"""Applying small rules until none fires."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from hloc.analysis.effects import Effects
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.passes.emit import Emit, replace

Rule = Callable[[Instruction], Instruction | None]
"""Gives what may stand in an instruction's place (an operand, or something new in front of it), or None.

A rule that gives None has added nothing. One that gives None for all instructions without an operand of some opcodes
may say so in its attribute `behind`, a frozenset of them.
"""

_STEPS_PER_INSTRUCTION = 200

_SEEN = 4
"""How far from an instruction a change may be, towards what it is computed from, to be worth another look."""

_SEEN_USES = 2
"""The same towards what uses it."""

_Content = dict[int, list[int]]

_Row = tuple[Rule, frozenset[str] | None]


class Rewriter:
    """Rules by opcode, applied to a module everywhere until none fires, or `limit` times.

    What loses its last user is removed at once, so that rules may count users. Where layouts differ, the
    replacement is copied into the old layout. Instructions with dynamic dimensions are left alone. `fired`
    counts by the names of the rules how often each has done something; `last` has the instruction at which each
    did so for the last time, the latest one at the end.
    """

    def __init__(self, rules: Mapping[str, Sequence[Rule]], limit: int | None = None):
        self.rules = rules
        self.limit = limit
        self.fired: Counter[str] = Counter()
        self.last: dict[str, str] = {}
        self._effects = Effects()
        self._done: dict[Computation, _Content] = {}
        self._rows: dict[str, list[_Row]] = {}

    def run(self, module: Module) -> int:
        """How often rules did something. RuntimeError if they undo each other's work."""
        before = self.fired.total()
        for computation in call_order(module.entry):
            seen, content = self._done.get(computation), _content(computation)
            if seen != content:
                queue = computation.instructions if seen is None else _near_changes(computation, seen, content)
                fired = self.fired.total()
                self._rewrite(computation, queue)
                self._done[computation] = content if self.fired.total() == fired else _content(computation)
        done = self.fired.total() - before
        if done:
            module.order_computations()
        return done

    def _rewrite(self, computation: Computation, first: Sequence[Instruction]) -> None:
        """Try the rules on some instructions, and on what is near those that fit."""
        queue = deque(first)
        waiting = set(queue)
        fuel = _STEPS_PER_INSTRUCTION * (len(computation) + 10)
        has_dynamic = any(map(_is_dynamic, computation.instructions))
        while queue:
            instruction = queue.popleft()
            waiting.discard(instruction)
            rules = self._rows_of(instruction.opcode)
            if not rules or instruction.computation is None:
                continue
            if has_dynamic and any(map(_is_dynamic, (instruction, *instruction.operands))):
                continue
            if self.limit is not None and self.fired.total() >= self.limit:
                return
            new = self._first_result(instruction, rules)
            if new is None:
                continue
            fuel -= 1
            if fuel == 0:
                raise RuntimeError(f"the rules do not come to an end at %{instruction.name}: {list(self.last)[-3:]}")
            for near in _substitute(instruction, new, self._effects):
                if near not in waiting:
                    waiting.add(near)
                    queue.append(near)

    def _rows_of(self, opcode: str) -> list[_Row]:
        rows = self._rows.get(opcode)
        if rows is None:
            rows = [(rule, getattr(rule, "behind", None)) for rule in self.rules.get(opcode, ())]
            self._rows[opcode] = rows
        return rows

    def _first_result(self, instruction: Instruction, rules: Sequence[_Row]) -> Instruction | None:
        found_behind = {operand.opcode for operand in instruction.operands}
        for rule, behind in rules:
            if behind is not None and behind.isdisjoint(found_behind):
                continue
            new = rule(instruction)
            if new is not None:
                self.fired[rule.__name__] += 1
                self.last.pop(rule.__name__, None)
                self.last[rule.__name__] = instruction.name
                return new
        return None


def _is_dynamic(instruction: Instruction) -> bool:
    return instruction.shape.is_array and instruction.shape.is_dynamic


def _content(computation: Computation) -> _Content:
    """Tells whether a computation is as it was: operands by instruction, all by id; no id is used twice."""
    return {i.id: [o.id for o in i.operands] for i in computation.instructions}


def _near_changes(computation: Computation, before: _Content, now: _Content) -> list[Instruction]:
    """The instructions of which rules may see a change, in order.

    They see what uses an instruction, and what it is computed from, a few steps deep.
    """
    lost = {operand for i in before.keys() - now.keys() for operand in before[i]}
    instructions = computation.instructions
    changed = {i for i in instructions if before.get(i.id) != now[i.id] or i.id in lost and len(i.users) <= 1}
    near, users, operands = set(changed), changed, changed
    for _ in range(_SEEN):
        users = {user for i in users for user in i.users} - near
        near |= users
    for _ in range(_SEEN_USES):
        operands = {operand for i in operands for operand in i.operands} - near
        near |= operands
    return [i for i in instructions if i in near]


def _substitute(old: Instruction, new: Instruction, effects: Effects) -> list[Instruction]:
    """Put `new` in the place of `old`; what now deserves another look."""
    if not new.shape.compatible(old.shape):
        raise RuntimeError(f"a rule wants to put {new.shape!r} in the place of %{old.name}, {old.shape!r}")
    if new.shape != old.shape:
        new = Emit.at(old).op("copy", old.shape, (new,))
    operands = list(old.operands)
    replace(old, new)
    remove_unused(operands, effects)
    grandparents = [operand for parent in new.operands for operand in parent.operands]
    near = [*grandparents, *new.operands, new, *new.users, *operands]
    return [instruction for instruction in near if instruction.computation is not None]


def remove_unused(candidates: Sequence[Instruction], effects: Effects) -> None:
    """Take out those of the instructions that nobody uses, and what becomes unused by that."""
    stack = list(candidates)
    while stack:
        instruction = stack.pop()
        if instruction.computation is None or instruction.users or instruction.is_root:
            continue
        if instruction.opcode == "parameter" or effects.must_stay(instruction):
            continue
        stack.extend(instruction.operands)
        instruction.computation.remove(instruction)
