"""Planning loop fusion for one computation: which instructions share a kernel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hloc.analysis.cost import weight
from hloc.analysis.effects import Effects
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.opcodes import SIDE_EFFECT
from hloc.passes.fusion_cost import (
    MOST_INDICES,
    MOST_REPEATED,
    MOST_SLACK,
    SLACK,
    repeated_work,
    saved_work,
    slack_needed,
)
from hloc.passes.fusion_groups import ROOT_INDEX, Group, Indices
from hloc.passes.fusion_order import Node, RunOrder
from hloc.passes.fusion_report import Verdicts
from hloc.passes.fusion_rules import (
    CLONED,
    PRODUCTS,
    is_element_op,
    is_free,
    is_producer,
    is_same_part,
    leaves_in_place,
    own_loop_slots,
    takes_epilogue,
)
from hloc.passes.ordering import changed_in_place

_AS_A_WHOLE = "all of it is needed in memory"

_MOST_LOOKED_AT = 200
"""Instructions behind an operand of an op that changes an array in place, to see whether one reads it."""


class Planner:
    """Decides for each instruction, users first, into which groups it goes.

    An order in which the groups can run exists at any time. In it, readers of an array come before an op that
    changes the array in place, where they do so in the computation's own order.
    """

    def __init__(
        self, computation: Computation, most_instructions: int, most_operands: int, effects: Effects
    ):
        self.computation = computation
        self.most_instructions = most_instructions
        self.most_operands = most_operands
        self.position = {instruction: place for place, instruction in enumerate(computation)}
        self.homes: dict[Instruction, list[Group]] = {}
        self.verdicts = Verdicts()
        self._groups: list[Group] = []
        self._changers: dict[Instruction, list[Instruction]] = {}
        self._changers_of: dict[Instruction, list[Instruction]] = {}
        for instruction in computation:
            for operand in changed_in_place(instruction):
                self._changers.setdefault(operand, []).append(instruction)
                self._changers_of.setdefault(instruction, []).append(operand)
        chain = [i for i in computation if SIDE_EFFECT in effects.of(i)]
        self._next_effect = dict(zip(chain, chain[1:], strict=False))
        self._order = RunOrder(computation, self._after)

    def plan(self) -> list[Group]:
        """The groups that need a fusion, in the order of their last instruction."""
        for instruction in self.computation.reversed():
            self._place(instruction)
        self._join_siblings()
        found = [g for g in self._groups if sum(m.opcode != "constant" for m in g.members) > 1]
        return sorted(found, key=lambda group: self.position[group.last])

    # One producer

    def _place(self, producer: Instruction) -> None:
        if is_producer(producer) and not self._stays_outside(producer):
            wanting, escapes = self._wanting(producer)
            is_inside = producer.opcode in CLONED or (not escapes and self._pays(producer, wanting))
            if wanting and is_inside:
                self._enter(wanting, producer)
                if not escapes:
                    self._order.drop(producer)
                    return
            elif self._becomes_output(producer, wanting):
                return
        if not self._finds_epilogue(producer):
            self._open(producer)

    def _enter(self, wanting: dict[Group, Indices], producer: Instruction) -> None:
        for group, indices in wanting.items():
            if group.is_read_in_place(producer):
                group.in_place.add(producer)
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
        self._order.replace(instruction, group)

    def _stays_outside(self, producer: Instruction) -> bool:
        """A free reshape or transpose of what lies in memory anyway."""
        if not is_free(producer):
            return False
        operand = producer.operands[0]
        if takes_epilogue(operand) and own_loop_slots(operand) is not None:
            return False
        outside = not is_producer(operand) or is_free(operand)
        if outside:
            self.verdicts.free.add(producer)
        return outside

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
                obstacle = _AS_A_WHOLE if indices is None else self._obstacle(producer, group, indices)
                if obstacle:
                    refused.add(group)
                    self.verdicts.obstacles[producer, group] = obstacle
                else:
                    wanting[group] = indices
        return wanting, escapes or bool(refused)

    def _obstacle(self, producer: Instruction, group: Group, indices: Indices) -> str:
        """What keeps a producer out of a group that wants it, or nothing."""
        if len(group.members) >= self.most_instructions:
            return f"the kernel has {len(group.members)} instructions already, the most that it may have"
        if len(indices) > MOST_INDICES:
            return f"it is wanted at {len(indices)} different indices, {MOST_INDICES} is the most"
        if group.is_read_in_place(producer) and not leaves_in_place(producer):
            return "the other operand is so small that this one is best read where it lies"
        feeds_product = group.owner is not None and group.owner.opcode in PRODUCTS and ROOT_INDEX not in indices
        if feeds_product and self._follows_product(producer):
            return "it follows on a product, and may be computed there"
        new = [operand for operand in dict.fromkeys(producer.operands) if operand not in group.inputs]
        if new and len(group.inputs) - 1 + len(new) + len(group.outputs) > self.most_operands:
            return f"the kernel would have more than {self.most_operands} operands and results"
        if group.owner in self._changers_of and self._reads_changed(producer, group.owner, indices):
            return "it reads what its user changes in place"
        for changer in self._changers_after(producer):
            if not self._can_read_before(changer, group):
                return f"it has to read its operand before %{changer.name} changes that in place"
        return ""

    def _can_read_before(self, changer: Instruction, group: Group) -> bool:
        """Whether a group can run before an array that it reads is changed in place."""
        return changer is group.owner or self._order.put_behind(self._nodes_of(changer), group)

    def _reads_changed(self, producer: Instruction, changer: Instruction, indices: Indices) -> bool:
        """Whether a producer, or what would be computed with it, reads what its user changes in place.

        It may do so at the element that is changed next.
        """
        changed = self._changers_of[changer]
        keeps_place = set(indices) == {ROOT_INDEX}
        pending, seen = [producer], {producer}
        while pending:
            value = pending.pop()
            reads = any(operand in changed for operand in value.operands)
            if reads and not (keeps_place and is_same_part(value, changer)):
                return True
            inner = [o for o in value.operands if is_element_op(o) and o not in seen]
            if len(seen) + len(inner) > _MOST_LOOKED_AT:
                return True
            seen.update(inner)
            pending += inner
        return False

    def _pays(self, producer: Instruction, wanting: dict[Group, Indices]) -> bool:
        """Whether computing it inside of all groups costs no more than storing and loading it."""
        times = sum(sum(indices.values()) for indices in wanting.values())
        extra, worth = repeated_work(producer, times), saved_work(producer)
        self.verdicts.costs[producer] = (extra, worth)
        needed = slack_needed(extra, len(wanting))
        if needed <= SLACK and max((group.slack for group in wanting), default=0.0) + needed <= MOST_SLACK:
            for group in wanting:
                group.slack += needed
            return True
        if extra > worth:
            return False
        repeated = max(group.repeated for group in wanting) + weight(producer)
        if repeated > MOST_REPEATED:
            self.verdicts.repeated[producer] = repeated
        return repeated <= MOST_REPEATED

    # What follows on an op with loops of its own

    def _finds_epilogue(self, owner: Instruction) -> bool:
        """Whether a loop nest of its users can be applied to each result of an op where that is computed."""
        own = own_loop_slots(owner) if takes_epilogue(owner) else None
        if own is None:
            return False
        homes = dict.fromkeys(group for user in owner.users for group in self.homes.get(user, ()))
        for group in homes:
            escapes = owner.is_root or any(self.homes.get(user) != [group] for user in owner.users)
            obstacle = self._obstacle(owner, group, {})
            if not obstacle and not group.is_epilogue_of(owner, self.position.__getitem__):
                obstacle = "the kernel does more than going on with each of its results"
            if obstacle:
                self.verdicts.obstacles[owner, group] = obstacle
                continue
            others = [node for node in self._after(owner) if node is not group]
            if escapes and not self._order.put_behind(others, group):
                continue
            group.adopt(owner, own, escapes)
            self.homes.setdefault(owner, []).append(group)
            self._order.drop(owner)
            return True
        return False

    def _follows_product(self, producer: Instruction) -> bool:
        """Whether an elementwise op may end up in the kernel of the dot or convolution that it is computed from."""
        while producer.op.is_elementwise or is_free(producer):
            wide = [operand for operand in producer.operands if operand.shape.count == producer.shape.count]
            product = next((operand for operand in wide if operand.opcode in PRODUCTS), None)
            if product is not None:
                return True
            producer = next((operand for operand in wide if operand.op.is_elementwise or is_free(operand)), None)
            if producer is None:
                return False
        return False

    # One more result

    def _becomes_output(self, producer: Instruction, wanting: dict[Group, Indices]) -> bool:
        """Store a producer that is needed elsewhere too from a loop in which it is computed anyway."""
        for group, indices in wanting.items():
            if set(indices) != {ROOT_INDEX} or not group.has_space(producer):
                continue
            others = [node for node in self._after(producer) if node is not group]
            if self._order.put_behind(others, group):
                group.add(producer, indices, is_output=True)
                self.homes.setdefault(producer, []).append(group)
                self._order.drop(producer)
                return True
        return False

    # Order

    def _nodes_of(self, instruction: Instruction) -> Sequence[Node]:
        """The groups that an instruction runs in, or itself."""
        return self.homes.get(instruction) or (instruction,)

    def _after(self, node: Node) -> Iterator[Node]:
        """What has to run after a node; perhaps itself."""
        is_group = isinstance(node, Group)
        for output in node.outputs if is_group else (node,):
            for user in (*output.users, *output.control_successors):
                yield from self._nodes_of(user)
            if output in self._next_effect:
                yield from self._nodes_of(self._next_effect[output])
        for reader in node.members if is_group else (node,):
            for changer in self._changers_after(reader):
                yield from self._nodes_of(changer)

    def _changers_after(self, reader: Instruction) -> Iterator[Instruction]:
        """The ops behind an instruction that change in place what it reads."""
        for operand in reader.operands if self._changers else ():
            for changer in self._changers.get(operand, ()):
                if self.position[reader] < self.position[changer]:
                    yield changer

    # Loops side by side

    def _join_siblings(self) -> None:
        """Join loops over one index space that read the same large input."""
        self._groups.sort(key=lambda group: self.position[group.last])
        readers: dict[Instruction, list[Group]] = {}
        for group in self._groups:
            for value in group.inputs if group.owner is None else ():
                if value.shape.is_array and value.shape.count == group.shape.count > 1:
                    readers.setdefault(value, []).append(group)
        gone: set[Group] = set()
        for groups in readers.values():
            for first, second in zip(groups, groups[1:], strict=False):
                if first not in gone and second not in gone and self._join(first, second):
                    gone.add(first)
        self._groups = [group for group in self._groups if group not in gone]

    def _join(self, first: Group, second: Group) -> bool:
        """Put everything of `first` into `second`, if nothing has to run between them."""
        if not second.has_space(first.last):
            return False
        if len(first.members) + len(second.members) > self.most_instructions:
            return False
        inputs = len({**first.inputs, **second.inputs})
        if inputs + len(first.outputs) + len(second.outputs) > self.most_operands:
            return False
        earlier, later = sorted((first, second), key=self._order.rank)
        others = [node for node in self._after(earlier) if node is not earlier]
        if not self._order.put_behind(others, later):
            return False
        self._order.drop(earlier)
        if earlier is second:
            self._order.replace(first, second)
        second.join(first)
        for member in first.members:
            homes = self.homes[member]
            homes.remove(first)
            if second not in homes:
                homes.append(second)
        return True
