"""How much memory a program takes, who owns it at the peak, and what lives when: read from its plans."""

from __future__ import annotations

from collections.abc import Sequence

from hloc.codegen.program import LiveBuffer, MadeCopy, MemoryPlan, Program
from hloc.records import NamedTuple

_ARENA = "arena"


class Owner(NamedTuple):
    """Temporary memory that lives at the peak: whose it is, in which computation, and of which shape."""

    name: str
    computation: str
    shape: str
    op_name: str
    bytes: int


class LiveRange(NamedTuple):
    """One buffer of a computation, from the step that makes it to the last that needs it.

    `names` are the instructions whose results it holds, one after the other; `place` says where it lies:
    `arena+OFFSET`, `result[N]` or `stack[N]`. `first` and `last` are names of instructions that run; a buffer
    that lives to the end has `(end)` as its last.
    """

    computation: str
    names: tuple[str, ...]
    shape: str
    op_name: str
    bytes: int
    place: str
    first: str
    last: str


class MemoryAnalysis(NamedTuple):
    """The memory of one run on one device, in bytes.

    `temporary_bytes` is what a run allocates, `peak_bytes` what of it lives at the worst moment (the rest is
    lost to packing and alignment): in the instruction `peak_at`, a path through calls. `alias_bytes` are results
    that the program allows to lie in arguments' memory. `copies` are those that the text does not have.
    """

    argument_bytes: int
    output_bytes: int
    alias_bytes: int
    constant_bytes: int
    temporary_bytes: int
    generated_code_bytes: int
    peak_bytes: int
    peak_at: tuple[str, ...]
    owners: tuple[Owner, ...]
    live_ranges: tuple[LiveRange, ...]
    copies: tuple[MadeCopy, ...]

    @property
    def total_bytes(self) -> int:
        """Arguments, results, constants and temporary memory together."""
        return self.argument_bytes + self.output_bytes + self.constant_bytes + self.temporary_bytes


class _Peak(NamedTuple):
    bytes: int
    at: tuple[str, ...]
    owners: tuple[Owner, ...]


def memory_analysis(program: Program) -> MemoryAnalysis:
    """What the plans of a program say."""
    peaks: list[_Peak] = []
    for plan in program.memory:
        peaks.append(_peak(plan, peaks))
    results = {leaf.index: leaf.shape.byte_size for leaf in program.results}
    peak = peaks[-1]
    return MemoryAnalysis(
        argument_bytes=sum(leaf.shape.byte_size for leaf in program.parameters),
        output_bytes=sum(results.values()),
        alias_bytes=sum(results.get(alias.output_index, 0) for alias in program.aliases),
        constant_bytes=program.constants.nbytes,
        temporary_bytes=program.arena_bytes,
        generated_code_bytes=sum(map(len, (program.object_code, *program.routines))),
        peak_bytes=peak.bytes,
        peak_at=peak.at,
        owners=tuple(sorted(peak.owners, key=lambda owner: -owner.bytes)),
        live_ranges=tuple(_range(plan, buffer) for plan in reversed(program.memory) for buffer in plan.buffers),
        copies=tuple(copy for plan in reversed(program.memory) for copy in plan.copies),
    )


def _peak(plan: MemoryPlan, peaks: Sequence[_Peak]) -> _Peak:
    """Where a computation needs most, with what it calls there."""
    inner = {call.step: max((peaks[c] for c in call.callees), key=lambda p: p.bytes) for call in plan.calls}
    change = [0] * (len(plan.steps) + 2)
    temporary = [buffer for buffer in plan.buffers if buffer.kind == _ARENA]
    for buffer in temporary:
        change[buffer.first] += buffer.bytes
        change[min(buffer.last, len(plan.steps)) + 1] -= buffer.bytes
    best, where, live = 0, -1, 0
    for step in range(len(plan.steps)):
        live += change[step]
        here = live + (inner[step].bytes if step in inner else 0)
        if here > best:
            best, where = here, step
    if where < 0:
        return _Peak(0, (), ())
    owners = tuple(_owner(plan, buffer) for buffer in temporary if buffer.first <= where <= buffer.last)
    called = inner.get(where, _Peak(0, (), ()))
    return _Peak(best, (plan.steps[where], *called.at), owners + called.owners)


def _owner(plan: MemoryPlan, buffer: LiveBuffer) -> Owner:
    return Owner(buffer.names[0], plan.name, _shown(buffer), buffer.op_name, buffer.bytes)


def _shown(buffer: LiveBuffer) -> str:
    return f"{buffer.bytes} bytes for the kernel itself" if buffer.shape is None else repr(buffer.shape)


def _range(plan: MemoryPlan, buffer: LiveBuffer) -> LiveRange:
    place = f"{_ARENA}+{buffer.number}" if buffer.kind == _ARENA else f"{buffer.kind}[{buffer.number}]"
    last = plan.steps[buffer.last] if buffer.last < len(plan.steps) else "(end)"
    first = plan.steps[buffer.first]
    shape = _shown(buffer)
    return LiveRange(plan.name, buffer.names, shape, buffer.op_name, buffer.bytes, place, first, last)
