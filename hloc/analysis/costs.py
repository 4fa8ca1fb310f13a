"""What a run costs, as records: those that a compiled program keeps."""

from __future__ import annotations

from hloc.records import NamedTuple


class InstructionCost(NamedTuple):
    """One kernel: what one execution costs, and how often it runs in a run of the module.

    `times` is 0 in branches that are not the most costly. Bytes are those read of operands and constants, and
    those written.
    """

    name: str
    opcode: str
    computation: str
    op_name: str
    times: int
    flops: float
    transcendentals: float
    integer_ops: float
    bytes_read: float
    bytes_written: float

    @property
    def bytes_accessed(self) -> float:
        return self.bytes_read + self.bytes_written


class ModuleCost(NamedTuple):
    """A run of a module: totals over `instructions`, which are in the order of the text.

    `kernels` is the number of executions of kernels. `unknown_loops` names the loops whose turns cannot be told
    and count once, `opaque_calls` the custom calls of whose arithmetic nothing is known: with any of these the
    totals are lower bounds.
    """

    flops: float
    transcendentals: float
    integer_ops: float
    bytes_accessed: float
    kernels: int
    instructions: tuple[InstructionCost, ...]
    unknown_loops: tuple[str, ...]
    opaque_calls: tuple[str, ...]

    @property
    def intensity(self) -> float:
        """Float operations and transcendental functions for each byte moved."""
        return (self.flops + self.transcendentals) / self.bytes_accessed if self.bytes_accessed else 0.0
