"""An order in which the parts of a computation can run, kept up while fusion joins parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hloc.ir.instruction import Instruction
from hloc.passes.fusion_groups import Group

Node = Group | Instruction
"""What runs as one: a group, or an instruction that is in none."""

_MOST_MOVED = 1000
"""Nodes to move for one join before it is given up: they have to be looked at one by one."""

_WIDEST = 20_000
"""Places between two nodes that may be joined."""


class RunOrder:
    """Nodes in an order in which each comes before those that have to run after it.

    `after(node)` gives the latter. Joins move only the nodes in between (Pearce and Kelly, "A dynamic
    topological sort algorithm for directed acyclic graphs", 2007).
    """

    def __init__(self, nodes: Iterable[Node], after: Callable[[Node], Iterable[Node]]):
        self._sequence: list[Node | None] = list(nodes)
        self._rank: dict[Node, int] = {node: rank for rank, node in enumerate(self._sequence)}
        self._after = after

    def replace(self, old: Node, new: Node) -> None:
        """Let a new node stand in the place of an old one."""
        rank = self._rank.pop(old)
        self._rank[new] = rank
        self._sequence[rank] = new

    def drop(self, node: Node) -> None:
        """Forget a node whose work others do."""
        self._sequence[self._rank.pop(node)] = None

    def rank(self, node: Node) -> int:
        return self._rank[node]

    def put_behind(self, nodes: Iterable[Node], target: Node) -> bool:
        """Let nodes, and all that has to run after them, come behind `target`.

        False, and nothing is changed, if `target` is among the latter, or if that is too much to move.
        """
        limit = self._rank[target]
        moved: set[Node] = set()
        stack = list(nodes)
        while stack:
            node = stack.pop()
            if node is target:
                return False
            if node in moved or self._rank[node] > limit:
                continue
            moved.add(node)
            if len(moved) > _MOST_MOVED:
                return False
            stack += self._after(node)
        return not moved or self._move(moved, limit)

    def _move(self, moved: set[Node], limit: int) -> bool:
        first = min(self._rank[node] for node in moved)
        if limit - first > _WIDEST:
            return False
        part = self._sequence[first : limit + 1]
        kept = [node for node in part if node not in moved]
        self._sequence[first : limit + 1] = kept + [node for node in part if node in moved]
        for rank in range(first, limit + 1):
            node = self._sequence[rank]
            if node is not None:
                self._rank[node] = rank
        return True
