"""How often each computation of a module runs, and which instructions launch a kernel when it does."""

from __future__ import annotations

from hloc.analysis.flow import callees
from hloc.analysis.passing import RENAMING, is_unmoved
from hloc.analysis.trip_count import stated_trip_count, trip_count
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction

_NOTHING = ("parameter", "constant", "tuple", "get-tuple-element", "after-all", *RENAMING)


def is_kernel(instruction: Instruction) -> bool:
    """Whether an instruction does something itself when it runs: it is no name, no constant, no call."""
    opcode = instruction.opcode
    return not (opcode in _NOTHING or opcode.endswith("-done") or is_unmoved(instruction) or callees(instruction))


def trips_of(loop: Instruction) -> int | None:
    """How often a loop's body runs: counted, or as the text states it; None if neither tells."""
    counted = trip_count(loop)
    return stated_trip_count(loop) if counted is None else counted


def call_counts(instruction: Instruction) -> dict[Computation, int]:
    """How often an instruction that runs once runs each of its computations; unknown trips count once.

    A conditional's branches are all there, once each: which of them runs is the caller's question.
    """
    if instruction.opcode == "while":
        trips = trips_of(instruction)
        trips = 1 if trips is None else trips
        return {instruction.attributes["condition"]: trips + 1, instruction.attributes["body"]: trips}
    return dict.fromkeys(callees(instruction), 1)

