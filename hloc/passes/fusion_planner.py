"""Planning loop fusion for one computation: which instructions share a kernel."""

from __future__ import annotations

from collections.abc import Iterator

from hloc.analysis.cost import weight
from hloc.analysis.effects import Effects
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.opcodes import SIDE_EFFECT
from hloc.passes.fusion_groups import ROOT_INDEX, Group, Indices
from hloc.passes.fusion_rules import (
    CLONED,
    is_element_op,
    is_free,
    is_producer,
    own_loop_slots,
)
from hloc.passes.ordering import changed_in_place

_SLACK = 256
"""Units of work that may always be done again: about what a kernel of its own would cost."""

_MEMORY = 2
"""Units of work for an element that storing it and loading it again are worth."""

_MOST_REPEATED = 8
"""Units of work for each index of a loop that may be work done elsewhere too."""

_MOST_INDICES = 16
"""Different indices at which one loop may ask for the same producer."""

_MOST_VISITED = 2000
"""Nodes to look at for a path before taking it that there is one."""

Node = Group | Instruction
"""What runs as one: a group, or an instruction that is in none."""


class Planner:
    """Decides for each instruction, users first, into which groups it goes.

    An order in which the groups can run exists at any time. It counts as an order, too, that readers of an
    array come before an op that changes the array in place.
    """

    def __init__(
        self, computation: Computation, most_instructions: int, most_operands: int, effects: Effects
    ):
        self.computation = computation
        self.most_instructions = most_instructions
        self.most_operands = most_operands
        self.position = {instruction: place for place, instruction in enumerate(computation)}
        self.homes: dict[Instruction, list[Group]] = {}
        self._groups: list[Group] = []
        self._next_effect = self._effect_order(effects)
        self._changers: dict[Instruction, list[Instruction]] = {}
        for instruction in computation:
            for operand in changed_in_place(instruction):
                self._changers.setdefault(operand, []).append(instruction)

    def plan(self) -> list[Group]:
        """The groups that need a fusion, in the order of their last instruction."""
        for instruction in self.computation.reversed():
            self._place(instruction)
        self._join_siblings()
        found = [g for g in self._groups if sum(m.opcode != "constant" for m in g.members) > 1]
        return sorted(found, key=lambda group: self.position[group.last])

    def _effect_order(self, effects: Effects) -> dict[Instruction, Instruction]:
        """Each instruction with side effects -> the next one."""
        chain = [i for i in self.computation if SIDE_EFFECT in effects.of(i)]
        return dict(zip(chain, chain[1:], strict=False))

    # One producer

    def _place(self, producer: Instruction) -> None:
        if is_producer(producer) and not self._stays_outside(producer):
            wanting, escapes = self._wanting(producer)
            if producer.opcode in CLONED:
                self._enter(wanting, producer)
                if not escapes:
                    return
            elif wanting and not escapes and self._pays(producer, wanting):
                self._enter(wanting, producer)
                return
            elif self._becomes_output(producer, wanting):
                return
        self._open(producer)

    def _enter(self, wanting: dict[Group, Indices], producer: Instruction) -> None:
        for group, indices in wanting.items():
            group.add(producer, indices)
            self.homes.setdefault(producer, []).append(group)

    def _open(self, instruction: Instruction) -> None:
        """A group for what is computed by a kernel that others can go into."""
        own = own_loop_slots(instruction)
        if own is None and (not is_element_op(instruction) or is_free(instruction)):
            return
        if instruction.opcode == "constant":
            return
        group = Group(instruction, None if own is None else tuple(own))
        self._groups.append(group)
        self.homes.setdefault(instruction, []).append(group)

    def _stays_outside(self, producer: Instruction) -> bool:
        """A free reshape or transpose of what lies in memory anyway."""
        if not is_free(producer):
            return False
        operand = producer.operands[0]
        return not is_producer(operand) or is_free(operand)

    def _wanting(self, producer: Instruction) -> tuple[dict[Group, Indices], bool]:
        """The groups that could compute a producer inside, and whether anybody else needs it in memory."""
        wanting: dict[Group, Indices] = {}
        refused: set[Group] = set()
        escapes = producer.is_root
        for user in sorted(producer.users, key=self.position.__getitem__):
            homes = self.homes.get(user, ())
            escapes |= not homes
            for group in homes:
                if group in wanting or group in refused:
                    continue
                indices = group.indices_for(producer)
                if indices is None or not self._is_welcome(producer, group, indices):
                    refused.add(group)
                else:
                    wanting[group] = indices
        return wanting, escapes or bool(refused)

    def _is_welcome(self, producer: Instruction, group: Group, indices: Indices) -> bool:
        if len(group.members) >= self.most_instructions or len(indices) > _MOST_INDICES:
            return False
        new = [operand for operand in dict.fromkeys(producer.operands) if operand not in group.inputs]
        if new and len(group.inputs) - 1 + len(new) + len(group.outputs) > self.most_operands:
            return False
        changers = [c for operand in producer.operands for c in self._changers.get(operand, ())]
        return not any(self._comes_before(changer, group) for changer in changers)

    def _comes_before(self, changer: Instruction, group: Group) -> bool:
        """Whether a group would read an array after, or while, it is changed in place."""
        return changer in group.members or self._reaches(changer, group, direct=True)

    def _pays(self, producer: Instruction, wanting: dict[Group, Indices]) -> bool:
        """Whether computing it inside of all groups costs no more than storing and loading it."""
        cost = weight(producer)
        times = sum(sum(indices.values()) for indices in wanting.values())
        extra = max(0.0, times - producer.shape.count) * cost
        if extra <= _SLACK:
            return True
        if extra > _MEMORY * producer.shape.count:
            return False
        return all(group.repeated + cost <= _MOST_REPEATED for group in wanting)

    # One more result

    def _becomes_output(self, producer: Instruction, wanting: dict[Group, Indices]) -> bool:
        """Store a producer that is needed elsewhere too from a loop in which it is computed anyway."""
        for group, indices in wanting.items():
            if (
                set(indices) == {ROOT_INDEX}
                and group.has_space(producer)
                and not self._reaches(producer, group)
            ):
                group.add(producer, indices, is_output=True)
                self.homes.setdefault(producer, []).append(group)
                return True
        return False

    # Order

    def _reaches(self, start: Instruction, target: Group, direct: bool = False) -> bool:
        """Whether a way leads from an instruction to a group, through others unless `direct`."""
        last = max(self.position[member] for member in target.members)
        nodes = list(self._after_instruction(start))
        if direct and target in nodes:
            return True
        stack = [node for node in nodes if node is not target]
        seen: set[Node] = set()
        while stack:
            node = stack.pop()
            if node in seen or self._first_position(node) > last:
                continue
            seen.add(node)
            if len(seen) > _MOST_VISITED:
                return True
            for following in self._after(node):
                if following is target:
                    return True
                stack.append(following)
        return False

    def _first_position(self, node: Node) -> int:
        outputs = node.outputs if isinstance(node, Group) else (node,)
        return min(self.position[output] for output in outputs)

    def _after(self, node: Node) -> Iterator[Node]:
        """What has to run after a node."""
        if isinstance(node, Group):
            for output in node.outputs:
                yield from self._after_instruction(output)
            for member in node.members:
                yield from self._changers_after(member, node)
        else:
            yield from self._after_instruction(node)
            yield from self._changers_after(node, node)

    def _after_instruction(self, instruction: Instruction) -> Iterator[Node]:
        for user in (*instruction.users, *instruction.control_successors):
            yield from self.homes.get(user) or (user,)
        if instruction in self._next_effect:
            following = self._next_effect[instruction]
            yield from self.homes.get(following) or (following,)

    def _changers_after(self, reader: Instruction, node: Node) -> Iterator[Node]:
        """Ops that change in place what an instruction reads."""
        for operand in reader.operands if self._changers else ():
            for changer in self._changers.get(operand, ()):
                if changer is not reader:
                    yield from (n for n in self.homes.get(changer) or (changer,) if n is not node)

    # Loops side by side

    def _join_siblings(self) -> None:
        """Join loops over one index space that read the same large input."""
        self._groups.sort(key=lambda group: self.position[group.last])
        readers: dict[Instruction, list[Group]] = {}
        for group in self._groups:
            for value in group.inputs if group.own is None else ():
                if value.shape.is_array and value.shape.count == group.shape.count > 1:
                    readers.setdefault(value, []).append(group)
        gone: set[Group] = set()
        for groups in readers.values():
            for first, second in zip(groups, groups[1:], strict=False):
                if first not in gone and second not in gone and self._can_join(first, second):
                    gone.add(first)
                    self._join(first, second)
        self._groups = [group for group in self._groups if group not in gone]

    def _can_join(self, first: Group, second: Group) -> bool:
        if not second.has_space(first.last):
            return False
        if len(first.members) + len(second.members) > self.most_instructions:
            return False
        inputs = len({**first.inputs, **second.inputs})
        if inputs + len(first.outputs) + len(second.outputs) > self.most_operands:
            return False
        return not self._leads_to(first, second) and not self._leads_to(second, first)

    def _leads_to(self, start: Group, target: Group) -> bool:
        following = [node for node in self._after(start) if node is not start]
        if target in following:
            return True
        return any(self._reaches(output, target) for output in start.outputs)

    def _join(self, first: Group, second: Group) -> None:
        second.join(first)
        for member in first.members:
            homes = self.homes[member]
            homes.remove(first)
            if second not in homes:
                homes.append(second)
