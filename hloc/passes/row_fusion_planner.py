"""Planning row fusion for one computation: which instructions share a kernel that goes through rows.

Clusters grow from reduces to what uses them, then take in what they are computed from.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from hloc.analysis.cost import weight
from hloc.analysis.effects import Effects
from hloc.analysis.layouts import moves_nothing
from hloc.analysis.row_space import LEAST_LANES, MOST_STRIP_BYTES, WHOLE, Rows, memory_order, row_space
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.opcodes import SIDE_EFFECT
from hloc.passes.fusion_order import RunOrder
from hloc.passes.fusion_rules import CLONED, is_element_op, is_producer, own_loop_slots
from hloc.passes.ordering import changed_in_place
from hloc.passes.report import Remark
from hloc.passes.row_fusion_clusters import Cluster

Node = Cluster | Instruction

_MOST_ROW_BYTES = 1 << 20
"""Bytes of a row's inputs up to which a second loop over its columns finds them in a cache."""

_FEW_LANES = 8
"""Rows side by side that are too few to be gone through together."""

_SLACK = 256
"""Units of work that may always be done again: about what a kernel of its own would cost."""

_CHEAP = 2
"""Units of work for an element that storing it and loading it again are worth."""

_REMADE = 4
"""Units of work for an element that others may do again from the same input, so that it is not stored for them."""


class RowPlanner:
    """Decides which instructions of a computation go into which cluster."""

    def __init__(
        self, computation: Computation, most_instructions: int, most_operands: int, effects: Effects
    ):
        self.computation = computation
        self.most_instructions = most_instructions
        self.most_operands = most_operands
        self._sequence = list(computation)
        self.position = {instruction: place for place, instruction in enumerate(self._sequence)}
        self.home: dict[Instruction, Cluster] = {}
        self.remarks: list[Remark] = []
        self._clusters: dict[Cluster, None] = {}
        self._changers: dict[Instruction, list[Instruction]] = {}
        for instruction in computation:
            for operand in changed_in_place(instruction):
                self._changers.setdefault(operand, []).append(instruction)
        chain = [i for i in computation if SIDE_EFFECT in effects.of(i)]
        self._next_effect = dict(zip(chain, chain[1:], strict=False))
        self._order = RunOrder(computation, self._after)

    def plan(self) -> list[Cluster]:
        """The clusters that are worth a kernel, in the order of their last instruction."""
        for instruction in self.computation:
            if instruction.opcode == "reduce" and instruction not in self.home and _is_seed(instruction):
                cluster = Cluster(instruction)
                self._order.replace(instruction, cluster)
                self._take(instruction, cluster)
                self._clusters[cluster] = None
                self._grow_down(cluster)
        for cluster in list(self._clusters):
            self._grow_up(cluster)
        self._join_siblings()
        found = [cluster for cluster in self._clusters if self._finish(cluster)]
        return sorted(found, key=lambda cluster: self.position[cluster.last])

    def _take(self, instruction: Instruction, cluster: Cluster) -> None:
        self.home[instruction] = cluster

    # Users

    def _grow_down(self, cluster: Cluster) -> None:
        """Takes in users, in the order of the computation, as far as they go row by row."""
        pending = [(self.position[user], user.id) for user in cluster.first.users]
        at = {self.position[user]: user for user in cluster.first.users}
        heapify(pending)
        seen: set[int] = set()
        while pending:
            position, _ = heappop(pending)
            if position in seen:
                continue
            seen.add(position)
            user = at[position]
            reason = self._refusal(cluster, user)
            cluster = self.home.get(user, cluster)
            if user.opcode != "tuple":
                self._remark(cluster, user, reason)
            for later in () if reason else user.users:
                if self.position[later] not in seen:
                    at[self.position[later]] = later
                    heappush(pending, (self.position[later], later.id))

    def _refusal(self, cluster: Cluster, user: Instruction) -> str:
        """Takes in a user, or says why not."""
        other = self.home.get(user)
        if other is cluster:
            return ""
        if other is not None:
            rows = cluster.rows_found(user)
            if rows is None or rows != other.rows.get(user):
                return "goes through other rows"
            return self._join(cluster, other)
        if user.opcode != "get-tuple-element" and not _is_member(user):
            return "has loops of its own"
        rows = cluster.rows_found(user)
        if rows is None:
            return "does not go row by row"
        reason = self._misfit(cluster, user, rows)
        if reason:
            return reason
        if not self._together(cluster, user):
            return "something has to run in between"
        cluster.add(user, rows)
        self._take(user, cluster)
        return ""

    def _misfit(self, cluster: Cluster, user: Instruction, rows: Rows) -> str:
        """Why a user that goes row by row had better not."""
        if len(cluster.members) >= self.most_instructions:
            return f"the kernel has {len(cluster.members)} instructions"
        if len(cluster.inputs) + 2 + len(user.operands) > self.most_operands:
            return f"the kernel has {len(cluster.inputs)} operands"
        if rows == WHOLE:
            return "" if cluster.space.lanes == 1 else "rows lie side by side in memory"
        if user.opcode == "reduce":
            count = user.operands[0].shape.count // cluster.space.count
            if count != cluster.columns:
                return f"folds {count} elements a row, not {cluster.columns}"
        elif cluster.is_row_value(user, rows):
            return ""
        elif not cluster.is_full(user):
            return "has other columns"
        lanes, size = cluster.space.lanes, cluster.row_bytes
        if lanes > 1 and size * min(lanes, LEAST_LANES) > MOST_STRIP_BYTES:
            return f"the cache does not hold {min(lanes, LEAST_LANES)} rows of {size} bytes, which lie side by side"
        if size > _MOST_ROW_BYTES:
            return f"no cache holds a row of {size} bytes"
        order = memory_order(user.shape) if user.opcode not in ("reduce", "broadcast") else []
        if order and (order[-1] in rows) is (lanes == 1):
            return "stores rows across memory"
        return ""

    # Producers

    def _grow_up(self, cluster: Cluster) -> None:
        """Takes in producers, last ones first."""
        pending = [-self.position[value] for value in cluster.inputs]
        heapify(pending)
        seen: set[int] = set()
        while pending:
            position = -heappop(pending)
            if position in seen:
                continue
            seen.add(position)
            producer = self._sequence[position]
            reason = self._producer_refusal(cluster, producer)
            if producer.opcode not in (*CLONED, "parameter", "get-tuple-element"):
                self._remark(cluster, producer, reason)
            for operand in () if reason else producer.operands:
                heappush(pending, -self.position[operand])

    def _producer_refusal(self, cluster: Cluster, producer: Instruction) -> str:
        if producer in self.home or not is_producer(producer):
            return "is computed elsewhere"
        if _moves_something(producer) and not _keeps_minor(producer):
            return "moves elements across rows"
        if len(cluster.members) >= self.most_instructions:
            return f"the kernel has {len(cluster.members)} instructions"
        new = [operand for operand in dict.fromkeys(producer.operands) if operand not in cluster.inputs]
        if new and len(cluster.inputs) + 1 + len(new) > self.most_operands:
            return f"the kernel has {len(cluster.inputs)} operands"
        others = producer.is_root or any(self.home.get(user) is not cluster for user in producer.users)
        cost, count = weight(producer), producer.shape.count
        if others and producer.opcode not in CLONED and cost > _CHEAP and cost * count > _SLACK:
            return f"is needed elsewhere too, and {cost:g} units of work an element to do again"
        if cluster.rows_wanted(producer) is None and producer.opcode not in CLONED:
            extra = (cluster.space.count * cluster.columns - count) * cost
            if extra > _SLACK and cost > _CHEAP:
                return f"would be done again row by row, {extra:g} units of work in all"
        if not all(self._can_read_before(changer, cluster) for changer in self._changers_after(producer)):
            return "reads what is changed in place before"
        cluster.add_producer(producer)
        if not others:
            self._take(producer, cluster)
            self._order.drop(producer)
        return ""

    def _can_read_before(self, changer: Instruction, cluster: Cluster) -> bool:
        """Whether a cluster can run before an array that it reads is changed in place."""
        node = self.home.get(changer, changer)
        return node is not cluster and self._order.put_behind((node,), cluster)

    # Order

    def _after(self, node: Node) -> Iterator[Node]:
        """What has to run after a node; perhaps itself."""
        members = node.members if isinstance(node, Cluster) else (node,)
        for member in members:
            for user in (*member.users, *member.control_successors):
                if member in self.home or not isinstance(node, Cluster):
                    yield self.home.get(user, user)
            if member in self._next_effect:
                yield self._next_effect[member]
            for changer in self._changers_after(member):
                yield self.home.get(changer, changer)

    def _changers_after(self, reader: Instruction) -> Iterator[Instruction]:
        """The ops behind an instruction that change in place what it reads."""
        for operand in reader.operands if self._changers else ():
            for changer in self._changers.get(operand, ()):
                if self.position[reader] < self.position[changer]:
                    yield changer

    def _together(self, cluster: Cluster, other: Node) -> bool:
        """Lets a cluster stand where it and another node can run as one, if nothing has to run between them."""
        if isinstance(other, Instruction) and self._is_ready(cluster, other):
            self._order.drop(other)
            return True
        earlier, later = sorted((cluster, other), key=self._order.rank)
        others = [node for node in self._after(earlier) if node is not earlier and node is not later]
        if not self._order.put_behind(others, later):
            return False
        self._order.drop(earlier)
        if later is not cluster:
            self._order.replace(later, cluster)
        return True

    def _is_ready(self, cluster: Cluster, user: Instruction) -> bool:
        """Whether all that a user needs is there when the cluster runs."""
        needed = {self.home.get(operand, operand) for operand in user.operands} - {cluster}
        return all(self._order.rank(node) < self._order.rank(cluster) for node in needed)

    def _join(self, cluster: Cluster, other: Cluster) -> str:
        """Puts everything of a cluster into another one, or says why not."""
        if cluster.space.count != other.space.count or cluster.columns != other.columns:
            return "goes through other rows"
        if (cluster.space.lanes == 1) is not (other.space.lanes == 1):
            return "rows lie otherwise in memory"
        if len(cluster.members) + len(other.members) > self.most_instructions:
            return "the kernel would have too many instructions"
        if len({**cluster.inputs, **other.inputs}) + 4 > self.most_operands:
            return "the kernel would have too many operands"
        if not self._together(other, cluster):
            return "something has to run in between"
        other.join(cluster)
        for member, home in self.home.items():
            if home is cluster:
                self.home[member] = other
        del self._clusters[cluster]
        return ""

    def _join_siblings(self) -> None:
        """Joins clusters that read the same large input."""
        readers: dict[Instruction, Cluster] = {}
        for cluster in list(self._clusters):
            for value in list(cluster.inputs):
                if not value.shape.is_array or value.shape.count != cluster.space.count * cluster.columns:
                    continue
                other = readers.setdefault(value, cluster)
                if other is cluster or other not in self._clusters or cluster not in self._clusters:
                    continue
                reason = self._join(cluster, other)
                self._remark(other, cluster.first, reason)

    # Results

    def _finish(self, cluster: Cluster) -> bool:
        """Settles what the cluster gives to others; whether it is worth a kernel of this kind."""
        remade: set[Instruction] = set()
        outputs: list[Instruction] = []
        for member in sorted(cluster.dependent, key=self.position.__getitem__, reverse=True):
            inside = [user for user in member.users if user in cluster.members]
            outside = [user for user in member.users if user not in cluster.members or user in remade]
            if not inside and _is_free(member):
                cluster.drop(member)
            elif (outside or member.is_root) and self._is_remade(cluster, member, outside):
                remade.add(member)
                if not inside:
                    cluster.drop(member)
            elif outside or member.is_root:
                outputs.append(member)
        cluster.outputs = sorted(outputs, key=self.position.__getitem__)
        if len(cluster.inputs) + len(outputs) > self.most_operands or not outputs:
            return False
        rest = [member for member in cluster.dependent if member.opcode not in ("reduce", "get-tuple-element")]
        return bool(rest) or len(cluster.reduces) > 1

    def _is_remade(self, cluster: Cluster, member: Instruction, outside: list[Instruction]) -> bool:
        """Whether users elsewhere had better compute a value again than have it stored for them.

        What they read then instead of it must be no more than storing it moves, with the lines loaded before.
        """
        if member.is_root or cluster.is_row_value(member, cluster.rows[member]):
            return False
        if not all(is_element_op(user) or user.opcode == "reduce" for user in outside):
            return False
        work, large, pending, seen = 0.0, set(), [member], set()
        while pending:
            value = pending.pop()
            if value in seen:
                continue
            seen.add(value)
            if value in cluster.dependent and not cluster.is_row_value(value, cluster.rows[value]):
                work += weight(value)
                pending += value.operands
            elif value.shape.is_array and value.shape.count == member.shape.count and value.opcode not in CLONED:
                large.add(value)
        times = len(outside)
        return work <= _REMADE and times * len(large) <= times + 2

    def _remark(self, cluster: Cluster, instruction: Instruction, reason: str) -> None:
        rows = {"rows": cluster.space.count, "columns": cluster.columns, "fused": not reason}
        kernel = f"the kernel of %{cluster.first.name}, {cluster.space.count} rows of {cluster.columns}"
        text = f"is not part of {kernel}: {reason}" if reason else f"is part of {kernel}"
        self.remarks.append(Remark("row_fusion", instruction.name, text, {"kernel": cluster.first.name, **rows}))


def _is_seed(reduce: Instruction) -> bool:
    """Whether a reduce may have a kernel that goes through rows."""
    if own_loop_slots(reduce) is None or not _is_member(reduce):
        return False
    operand = reduce.operands[0].shape
    if operand.count == 0:
        return False
    return not 1 < row_space(reduce).lanes <= _FEW_LANES


def _is_member(instruction: Instruction) -> bool:
    """Whether an op may follow on a reduce."""
    if instruction.opcode == "reduce":
        users = instruction.users if instruction.shape.is_tuple else ()
        if instruction.is_root and instruction.shape.is_tuple:
            return False
        return own_loop_slots(instruction) is not None and all(u.opcode == "get-tuple-element" for u in users)
    return is_producer(instruction)


def _moves_something(instruction: Instruction) -> bool:
    return instruction.opcode in ("transpose", "reshape", "copy") and not moves_nothing(instruction)


def _keeps_minor(instruction: Instruction) -> bool:
    """Whether neighbours in memory stay neighbours."""
    if instruction.opcode != "transpose":
        return False
    ours, theirs = memory_order(instruction.shape), memory_order(instruction.operands[0].shape)
    return bool(ours) and instruction.get("dimensions")[ours[-1]] == theirs[-1]


def _is_free(instruction: Instruction) -> bool:
    """Whether an op is not worth an output: it says again what is there already, or under another name."""
    if instruction.opcode in ("reshape", "transpose"):
        return moves_nothing(instruction)
    return instruction.opcode == "broadcast"
