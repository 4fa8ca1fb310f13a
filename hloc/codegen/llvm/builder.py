"""The builder: all families of instructions, branches, and structured loops and conditions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from . import vector_loops
from .arithmetic import Arithmetic
from .memory import Memory
from .module import Block, Phi
from .values import Constant, Value, integer


class Hints(NamedTuple):
    """What the methods that write loops were told of one."""

    vectorize: bool | None
    unroll: bool | int | None
    interleave: int
    metadata: str
    multiple: int
    independent: bool


class Builder(Arithmetic, Memory):
    """Adds instructions at the end of a block; method names are those of llvmlite's IRBuilder.

    Equal pure instructions give the same Value where the first dominates the second: within a block, and
    inside the bodies of the structured methods below. Hand-made blocks share only with the `dominator`
    they are given.
    """

    # Terminators

    def branch(self, target: Block) -> None:
        """Goes to a block."""
        self._end(f"br label %{target.name}")

    def cbranch(self, condition: Value, then: Block, otherwise: Block, metadata: str = "") -> None:
        """Goes to one of two blocks; `metadata` is for instance `!llvm.loop !3`."""
        suffix = f", {metadata}" if metadata else ""
        self._end(f"br i1 {condition.text}, label %{then.name}, label %{otherwise.name}{suffix}")

    def switch(self, value: Value, default: Block, cases: Sequence[tuple[int, Block]]) -> None:
        """Goes to the block of the case that `value` equals, else to the default."""
        arms = " ".join(
            [f"{value.type} {integer(value.type, case).text}, label %{to.name}" for case, to in cases]
        )
        self._end(f"switch {value.type} {value.text}, label %{default.name} [ {arms} ]")

    def ret(self, value: Value | None = None) -> None:
        """Returns, with a value unless the function is void."""
        self._end(f"ret {value.type} {value.text}" if value else "ret void")

    def unreachable(self) -> None:
        """Says that control never comes here."""
        self._end("unreachable")

    # Conditions

    @contextmanager
    def if_then(self, condition: Value, name: str = "if") -> Iterator[None]:
        """The body runs if the condition holds."""
        before = self.block
        then = self.append_block(f"{name}.then", before)
        end = self.append_block(f"{name}.end", before)
        self.cbranch(condition, then, end)
        self.position_at_end(then)
        yield
        self._leave_to(end)
        self.position_at_end(end)

    def if_else(
        self, condition: Value, then: Callable[[], object], otherwise: Callable[[], object], name: str = "if"
    ):
        """Runs one of two callbacks' code; what they return is merged.

        Both return None, a Value, or lists of as many Values, of the same types; the result has that form.
        """
        before = self.block
        then_block = self.append_block(f"{name}.then", before)
        else_block = self.append_block(f"{name}.else", before)
        end = self.append_block(f"{name}.end", before)
        self.cbranch(condition, then_block, else_block)
        results, sources = [], []
        for block, callback in ((then_block, then), (else_block, otherwise)):
            self.position_at_end(block)
            results.append(_settled(callback()))
            sources.append(self.block)
            self._leave_to(end)
        self.position_at_end(end)
        if results[0] is None:
            return None
        if isinstance(results[0], Value):
            return self._merge(results, sources)
        return [self._merge(pair, sources) for pair in zip(*results, strict=True)]

    def _leave_to(self, end: Block) -> None:
        if not self.block.terminated:
            self.branch(end)

    def _merge(self, values: Sequence[Value], sources: Sequence[Block]) -> Value:
        if all(value.text == values[0].text for value in values):
            return values[0]
        phi = self.phi(values[0].type)
        for value, source in zip(values, sources):
            phi.add_incoming(value, source)
        return phi

    # Loops

    def _bound(self, bound: Value | int) -> Value:
        return integer("i64", bound) if isinstance(bound, int) else bound

    def _open_loop(self, start: Value, end: Value, step: int, name: str, initial: Sequence[Value]):
        """The guard and the head of a counted loop, positioned in its body.

        The loop tests at its end, the form LLVM's loop passes want; the guard in front is left out when
        the first iteration is known to run. A loop of a single turn is none: LLVM would take its time to find out.
        """
        before = self.block
        start, *initial = (value.settled() for value in (start, *initial))
        if start.__class__ is end.__class__ is Constant and 0 < (end.number - start.number) * step <= step * step:
            return before, None, None, None, 0, [start, *initial]
        body = self.append_block(name, before)
        end_block = self.append_block(f"{name}.end", before)
        runs = self.icmp_signed("<" if step > 0 else ">", start, end)
        if runs.__class__ is Constant and runs.number:
            self.branch(body)
        else:
            self.cbranch(runs, body, end_block)
        self.position_at_end(body)
        phis = [self.phi(value.type, name) for value in (start, *initial)]
        for phi, value in zip(phis, (start, *initial)):
            phi.add_incoming(value, before)
        return before, runs, body, end_block, self.function.barriers, phis

    def _close_loop(self, state, end: Value, step: int, carried: Sequence[Value], hints: Hints) -> list[Value]:
        """The loop's increment, test and exit; the carried values after it."""
        before, runs, body, end_block, barriers, phis = state
        wide, self.function.interleave, self.function.lanes = self.function.lanes, 0, 0
        if body is None:
            return list(carried)
        carried = [value.settled() for value in carried]
        initial = [phi.incoming[0][0] for phi in phis[1:]]
        closed = None
        is_plain = step == 1 and end.type == "i64" and hints.vectorize is hints.unroll is None
        if self.function.widens and self.function.settled and is_plain and self.block is body:
            closed = vector_loops.closed(self, body, phis[0].incoming[0][0], end, end_block, hints, wide)
        # LLVM makes vectors of innermost loops alone, and of none with a call that it cannot look into.
        self.function.settled &= closed is not None or self.function.widens and self.function.barriers > barriers
        self.function.barriers += 1
        sources = [(block, []) for block in closed or ()]
        if closed is None:
            latch = self.block
            index = self.add(phis[0], integer(end.type, step), " nsw")
            for phi, value in zip(phis, (index, *carried), strict=True):
                phi.add_incoming(value, latch)
            again = self.icmp_signed("<" if step > 0 else ">", index, end)
            metadata = self._loop_metadata(hints, wide)
            self.cbranch(again, body, end_block, f"!llvm.loop {metadata}" if metadata else "")
            sources = [(latch, list(carried))]
        self.position_at_end(end_block)
        if runs.__class__ is not Constant or not runs.number:
            sources.insert(0, (before, initial))
        if len(sources) == 1:
            return sources[0][1]
        results = []
        for number, value in enumerate(carried):
            result = self.phi(value.type, "after")
            for block, values in sources:
                result.add_incoming(values[number], block)
            results.append(result)
        return results

    def _loop_metadata(self, hints: Hints, lanes: int) -> str:
        vectorize, unroll, interleave = hints.vectorize, hints.unroll, hints.interleave
        if hints.metadata or vectorize is None and unroll is None and not interleave:
            return hints.metadata
        if interleave and lanes:
            # Functions called inside interleave the vectors themselves.
            return self.module.loop_metadata(vectorize=vectorize, width=lanes, interleave=1, unroll=unroll)
        return self.module.loop_metadata(vectorize=vectorize, interleave=interleave, unroll=unroll)

    @contextmanager
    def for_loop(
        self,
        start: Value | int,
        end: Value | int,
        step: int = 1,
        name: str = "i",
        *,
        vectorize: bool | None = None,
        unroll: bool | int | None = None,
        interleave: int = 0,
        metadata: str = "",
        multiple: int = 1,
        independent: bool = False,
    ) -> Iterator[Phi]:
        """`for i in range(start, end, step)`: the body is what is built inside, `i` its index.

        The index has the type of the bounds, i64 for Python numbers. `interleave` is how many vectors to work on
        at a time, 0 what LLVM likes; `metadata` a node from `Module.loop_metadata`, for more than the common hints.
        `multiple` divides the number of iterations. They are `independent` if none reads or changes what another one
        changes.
        No value defined inside may be used after the loop; see `for_loop_carrying`.
        """
        end = self._bound(end)
        state = self._open_loop(self._bound(start), end, step, name, ())
        self.function.interleave, self.function.lanes = interleave, 0
        yield state[-1][0]
        self._close_loop(state, end, step, (), Hints(vectorize, unroll, interleave, metadata, multiple, independent))

    def for_loop_carrying(
        self,
        start: Value | int,
        end: Value | int,
        initial: Sequence[Value],
        body: Callable[[Value, list[Value]], Sequence[Value]],
        step: int = 1,
        name: str = "i",
        *,
        vectorize: bool | None = None,
        unroll: bool | int | None = None,
        interleave: int = 0,
        metadata: str = "",
        flat: bool = False,
        independent: bool = False,
    ) -> list[Value]:
        """A counted loop with loop-carried values; the values after the last iteration.

        `body(index, carried)` builds one iteration and returns the next carried values. If `flat`, LLVM writes all
        iterations out, before it looks for loops to vectorize, unless there are loops in them.
        """
        end = self._bound(end)
        state = self._open_loop(self._bound(start), end, step, name, initial)
        self.function.interleave, self.function.lanes = interleave, 0
        blocks = len(self.function.blocks)
        carried = list(body(state[-1][0], list(state[-1][1:])))
        if flat and len(self.function.blocks) == blocks:
            unroll = True
        return self._close_loop(
            state, end, step, carried, Hints(vectorize, unroll, interleave, metadata, 1, independent)
        )

    def while_loop(
        self,
        initial: Sequence[Value],
        condition: Callable[[list[Value]], Value],
        body: Callable[[list[Value]], Sequence[Value]],
        name: str = "while",
    ) -> list[Value]:
        """Iterates while `condition(carried)` holds; `body(carried)` gives the next carried values.

        The values for which the condition failed are the result.
        """
        before = self.block
        self.function.settled = False
        head = self.append_block(name, before)
        self.branch(head)
        self.position_at_end(head)
        phis = [self.phi(value.type, name) for value in initial]
        for phi, value in zip(phis, initial):
            phi.add_incoming(value, before)
        test = condition(list(phis))
        tested = self.block
        body_block = self.append_block(f"{name}.body", tested)
        end = self.append_block(f"{name}.end", tested)
        self.cbranch(test, body_block, end)
        self.position_at_end(body_block)
        for phi, value in zip(phis, body(list(phis)), strict=True):
            phi.add_incoming(value, self.block)
        self.branch(head)
        self.position_at_end(end)
        return list(phis)


def _settled(result: object) -> object:
    """What a branch returns, computed where it ends."""
    if isinstance(result, Value):
        return result.settled()
    return result if result is None else [value.settled() for value in result]
