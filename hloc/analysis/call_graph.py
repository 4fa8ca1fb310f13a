"""Who calls whom among the computations of a module, and in what way."""

from __future__ import annotations

from collections.abc import Iterator

from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.ir.opcodes import CALLS, OPS

# Ways in which an op uses a computation.
CONTROL = "control"  # runs on whole values, as a callee, a loop's or scan's body, a branch, an async body
FUSED = "fused"  # says what one kernel computes
SCALAR = "scalar"  # is applied to single elements: reducers, comparators, maps
OPAQUE = "opaque"  # is handed to a custom call, which knows what to do with it


def context_of(opcode: str) -> str:
    """How an op uses the computations that it names."""
    if opcode == "fusion":
        return FUSED
    if opcode == "custom-call":
        return OPAQUE
    return CONTROL if opcode == "scan" or OPS[opcode].has(CALLS) else SCALAR


class CallGraph:
    """The calls of a module at the time of asking; later changes of the module are not seen.

    Computations are in the order of the module, calls in the order of their instructions.
    """

    def __init__(self, module: Module):
        self.module = module
        self._sites: dict[Computation, list[Instruction]] = {computation: [] for computation in module}
        self._callers: dict[Computation, list[Instruction]] = {computation: [] for computation in module}
        for computation in module:
            for instruction in computation.call_sites:
                called = instruction.called
                if not called:
                    continue
                self._sites[computation].append(instruction)
                for callee in dict.fromkeys(called):
                    self._callers.setdefault(callee, []).append(instruction)

    def call_sites(self, computation: Computation) -> list[Instruction]:
        """The instructions in a computation that name others."""
        return self._sites.get(computation, [])

    def callers(self, computation: Computation) -> list[Instruction]:
        """The instructions that name a computation, each once."""
        return self._callers.get(computation, [])

    def callees(self, computation: Computation) -> list[Computation]:
        """The computations that a computation names, each once."""
        return list(dict.fromkeys(callee for site in self.call_sites(computation) for callee in site.called))

    def contexts(self, computation: Computation) -> tuple[str, ...]:
        """The ways in which a computation is used, each once; the entry's is CONTROL."""
        ways = [CONTROL] if computation is self.module.entry else []
        return tuple(dict.fromkeys(ways + [context_of(site.opcode) for site in self.callers(computation)]))

    def reachable(self, start: Computation | None = None) -> list[Computation]:
        """What a computation (by default the entry) reaches by calls: callees first, itself last."""
        start = self.module.entry if start is None else start
        return [] if start is None else self._walk(start, set())[0]

    def with_kernels(self) -> list[Computation]:
        """The computations that run instruction by instruction, each one a kernel; callees first."""
        return [computation for computation in self.reachable() if self.contexts(computation) == (CONTROL,)]

    def cycle(self) -> list[Computation]:
        """Computations that call each other in a circle, each the next one and the last the first; or []."""
        opened: set[Computation] = set()
        for start in self.module:
            circle = [] if start in opened else self._walk(start, opened)[1]
            if circle:
                return circle
        return []

    @property
    def is_recursive(self) -> bool:
        return bool(self.cycle())

    def _walk(
        self, start: Computation, opened: set[Computation]
    ) -> tuple[list[Computation], list[Computation]]:
        """Post order of what is not yet `opened`, and the first circle met; on an explicit stack."""
        order: list[Computation] = []
        circle: list[Computation] = []
        opened.add(start)
        path: dict[Computation, None] = {start: None}
        stack: list[Iterator[Computation]] = [iter(self.callees(start))]
        while stack:
            for callee in stack[-1]:
                if callee in path and not circle:
                    members = list(path)
                    circle = members[members.index(callee) :]
                if callee not in opened:
                    opened.add(callee)
                    path[callee] = None
                    stack.append(iter(self.callees(callee)))
                    break
            else:
                stack.pop()
                order.append(path.popitem()[0])
        return order, circle
