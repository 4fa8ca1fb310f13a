"""Counted loops made loops over vectors when they are closed, so that LLVM need not look for a way.

That is done if a loop's body is one block of instructions that `widen.py` can rewrite, with iterations that do not
depend on each other. What is left over by whole vectors is done by the loop as it was, or, where an element may as
well be computed twice, by one more turn that ends where the loop ends.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .module import Block, Phi
from .values import Constant, Value, integer
from .widen import WIDEST_BODY, Unfit, Widener, element_bytes, parsed

if TYPE_CHECKING:
    from .builder import Builder, Hints

_FEW, _SOME = 6, 12
"""Instructions of bodies for four vectors at a time and for two, if nothing says how many."""

_TURN, _SHORT = 4, 96
"""Vectors that are done at once if these are all, and the instructions that this may take."""

_STACK = re.compile(r"%stack\$\d+")


class VectorLoop:
    """A loop that is being closed: `body` the block it is in, with `index` at its head.

    `multiple` divides the number of iterations. If `independent`, no iteration reads or changes what another one
    changes; else memory is looked at to see that.
    """

    def __init__(self, b: Builder, body: Block, start: Value, end: Value, independent: bool):
        self.b = b
        self.body = body
        self.start, self.end = start, end
        self.index, *carried = body.phis
        self.independent = independent
        if carried:
            raise Unfit("carried values")
        if len(body.lines) > WIDEST_BODY:
            raise Unfit("a long body")
        lines = [parsed(line) for line in body.lines]
        self.code = [instruction for instruction in lines if instruction is not None]
        self.inside = {instruction.name: instruction for instruction in self.code if instruction.name}
        self.stores = [instruction for instruction in self.code if instruction.op == "store"]
        self.roots = [self._root(store.operands[1][1]) for store in self.stores]
        if not independent:
            self._check_memory()

    # What is known of memory

    def _root(self, pointer: str) -> str:
        """What an address was made of by adding to it: a parameter, stack memory, or something unknown."""
        while True:
            made = self.inside.get(pointer)
            if made is None:
                line = self.b.function.addresses.get(pointer)
                if line is None:
                    return pointer
                pointer = line
            elif made.op == "getelementptr":
                pointer = made.operands[0][1]
            else:
                return pointer

    def _is_apart(self, root: str) -> bool:
        """Whether no address that is not made of this root leads to its memory."""
        return root in self.b.function.apart or _STACK.fullmatch(root) is not None

    def _may_meet(self, one: str, other: str) -> bool:
        return one == other or not (self._is_apart(one) or self._is_apart(other))

    def _check_memory(self) -> None:
        """Unfit if an iteration may read or change what another one changes."""
        for store, root in zip(self.stores, self.roots, strict=True):
            place = store.operands[1][1]
            for other in self.code:
                if other.op not in ("load", "store") or other is store:
                    continue
                where = other.operands[-1][1]
                if where != place and self._may_meet(self._root(where), root):
                    raise Unfit("iterations that may depend on each other")

    def is_invariant(self, pointer: str) -> bool:
        """Whether what lies at an address, which all iterations have in common, stays the same."""
        root = self._root(pointer)
        return self.independent or not any(self._may_meet(root, other) for other in self.roots)

    def _reads_its_results(self) -> bool:
        loads = [self._root(load.operands[0][1]) for load in self.code if load.op == "load"]
        return any(self._may_meet(load, store) for load in loads for store in self.roots)

    # Sizes

    def _widest(self) -> int:
        """Bits of the widest element that is loaded or stored."""
        accesses = [
            other.type for other in self.code if other.op in ("load", "store") and other.operands[-1][1] in self.inside
        ]
        return 8 * max(map(element_bytes, accesses), default=4)

    def shape(self, multiple: int, interleave: int, wide: int) -> tuple[int, int]:
        """Lanes and copies. `wide` is how many lanes the functions take that the loop calls."""
        count = self._count()
        lanes = 8 * self.b.module.vector_bytes // self._widest()
        if count and count < lanes:
            lanes = 1 << count.bit_length() - 1
        if lanes < 4 and lanes * self._widest() < 128:
            raise Unfit("few iterations")
        if interleave and wide and (count or multiple) % wide == 0:
            return wide, 1
        if 0 < count <= _TURN * lanes and self._is_inner() and self._repeats():
            raise Unfit("a short row that is read again and again")
        if 0 < count <= _TURN * lanes and count % lanes == 0 and len(self.code) * count <= _SHORT * lanes:
            return lanes, count // lanes
        copies, size = interleave or self._copies(), count or multiple
        if size % lanes == 0:
            near = [copies, copies + 1, copies + 2, *range(copies - 1, 1, -1)] if copies > 1 else []
            return lanes, next((number for number in near if size % (lanes * number) == 0), 1)
        while copies > 1 and size < 8 * lanes * copies:
            copies //= 2
        return lanes, copies

    def _is_inner(self) -> bool:
        """Whether the loop may be in another one."""
        return len(self.body.tables) > 2

    def _repeats(self) -> bool:
        """Whether something is loaded from the same place each time that the loop begins."""
        index = self.index.text
        loads = [load.operands[0][1] for load in self.code if load.op == "load"]
        places = [self.inside[place] for place in loads if place in self.inside]
        counted = [made.name for made in places if made.op == "getelementptr" and made.operands[1][1] == index]
        return any(self._root(place) in self.b.function.apart for place in counted)

    def _copies(self) -> int:
        calls = any(other.op == "call" and not other.tail.startswith("llvm.") for other in self.code)
        size = sum(other.op not in ("getelementptr",) for other in self.code)
        return 1 if calls else 4 if size <= _FEW else 2 if size <= _SOME else 1

    def _count(self) -> int:
        """Iterations, 0 if not known."""
        if self.start.__class__ is self.end.__class__ is Constant:
            return self.end.number - self.start.number
        return 0

    # Code

    def write(self, lanes: int, copies: int, multiple: int, end_block: Block) -> list[Block]:
        """The loop, from the block that was its body on, which now stands before it, to `end_block`.

        The blocks from which control comes there.
        """
        b, step, count = self.b, lanes * copies, self._count()
        whole = (count or multiple) % step == 0
        again = not whole and count >= step and not self._reads_its_results()
        widener = self._widened(lanes, copies)
        lines = self.body.lines
        self.body.phis, self.body.lines = [], []
        self.body.tables[0].clear()
        b.position_at_end(self.body)
        if whole or again:
            return [self._vectors(widener, self.end, step, again, end_block)]
        return self._with_rest(widener, step, lines, end_block)

    def _with_rest(self, widener: Widener, step: int, lines: list[str], end_block: Block) -> list[Block]:
        """The loop over whole vectors, and the loop as it was for what is left."""
        b, head = self.b, self.b.block
        b.function.out_of_order = True
        left = b.and_(b.sub(self.end, self.start), integer("i64", step - 1))
        limit = b.sub(self.end, left)
        front, middle = b.append_block("whole", head), b.append_block("left", head)
        b.cbranch(b.icmp_signed("<", self.start, limit), front, middle)
        b.position_at_end(front)
        self._vectors(widener, limit, step, False, middle)
        b.position_at_end(middle)
        rest = b.append_block("rest", middle)
        b.cbranch(b.icmp_signed("<", limit, self.end), rest, end_block)
        rest.phis, rest.lines = [self.index], lines
        b.position_at_end(rest)
        index = b.add(self.index, integer("i64", 1), " nsw")
        self.index.incoming = [(limit, middle), (index, rest)]
        hints = b.module.loop_metadata(vectorize=False, unroll=False)
        b.cbranch(b.icmp_signed("<", index, self.end), rest, end_block, f"!llvm.loop {hints}")
        return [middle, rest]

    def _widened(self, lanes: int, copies: int) -> Widener:
        widener = Widener(self.b.function, lanes, copies, self)
        widener.strides[self.index.text] = 1
        widener.names[self.index.text] = widener.fresh()
        for instruction in self.code:
            widener.take(instruction)
        return widener

    def _vectors(self, widener: Widener, limit: Value, step: int, again: bool, target: Block) -> Block:
        """The loop over vectors up to `limit`, from the current block on to `target`; the block that goes there.

        If `again`, its last turn ends at the limit: it does some elements once more.
        """
        b, front = self.b, self.b.block
        front.lines += widener.before
        loop = b.append_block("vectors", front)
        b.branch(loop)
        b.position_at_end(loop)
        name = widener.names[self.index.text]
        counter = Phi("i64", widener.fresh() if again else name)
        loop.phis.append(counter)
        if again:
            last = integer("i64", limit.number - step).text
            loop.lines.append(f"  {name} = call i64 @llvm.smin.i64(i64 {counter.text}, i64 {last})")
        loop.lines += widener.lines
        counter.incoming = [(self.start, front)]
        if self._count() == step and limit is self.end:
            b.branch(target)
            return loop
        following = b.add(counter, integer("i64", step), " nsw")
        counter.add_incoming(following, loop)
        b.cbranch(b.icmp_signed("<", following, limit), loop, target)
        return loop


def closed(
    b: Builder,
    body: Block,
    start: Value,
    end: Value,
    end_block: Block,
    hints: Hints,
    wide: int,
) -> list[Block] | None:
    """Closes a loop over vectors, in place of one over 1 index at a time: what `VectorLoop.write` gives.

    None, and nothing is changed, if the loop's body is not fit for that.
    """
    try:
        loop = VectorLoop(b, body, start, end, hints.independent)
        lanes, copies = loop.shape(hints.multiple, hints.interleave, wide)
        return loop.write(lanes, copies, hints.multiple, end_block)
    except Unfit:
        return None
