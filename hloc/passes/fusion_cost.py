"""What fusion weighs: work done again against memory moved, in units of one simple vector instruction an element.

The figures were measured on one core of a server (8 floats a vector, 1 MiB of L2 and 32 MiB of L3 cache), against
chains of 40 additions and multiplications in one kernel or in 40: a kernel for 64 elements costs about 400 units more
than its work; storing an f32 and loading it again costs 2.2 units in L1, 1.1 to 2.7 in L2, 2.8 in L3, and 11 beyond.
That is the floor under every decision: work done again may cost as much as what it saves, and no more.
"""

from __future__ import annotations

from math import prod

from hloc.analysis.cost import weight
from hloc.ir.instruction import Instruction

SLACK = 400
"""Units of work that may always be done again: what a kernel of its own costs."""

MOST_SLACK = 2 * SLACK
"""Such work that one kernel may do in all."""

_CLONE = 100
"""Units of work that the code of an instruction is worth, wherever it is written once more: it has to be compiled."""

_MEMORY = 2
_FAR_MEMORY = 8
"""Units of work for an element that storing it and loading it again are worth, in caches and beyond."""

_CACHE_BYTES = 1 << 25

_ONE_BY_ONE = 8
"""What work costs that is moved out of an inner loop, and so is done for one element at a time."""

MOST_REPEATED = 8
"""Units of work for each index of a loop that may be work done elsewhere too: registers and time are bounded."""

HOISTED_WEIGHT = 8
"""Scalar ops lighter than this are taken to be moved out of loops."""

MOST_INDICES = 16
"""Different indices at which one loop may ask for the same producer."""

_PACKED_COLUMNS = 1 << 21
"""Bytes of one operand of a product that are packed at a time; the other one is packed again for each such block."""

SMALL_PRODUCT = 2048
"""Multiplications up to which a product computes its operands' elements anew for each."""

THIN = 4
"""Rows of a product up to which its other operand is read where it lies, never packed."""

_ROW_WEIGHT = 8
"""Units of work that may follow on a result computed by itself, whatever that took."""


def repeated_work(producer: Instruction, times: float) -> float:
    """Work beyond computing each element of a producer once, if that is done so many times in all.

    A dynamic-slice costs none: its start stays the same in all loops, and what it loads, its copy would be loaded for.
    """
    if producer.opcode == "dynamic-slice":
        return 0.0
    return max(0.0, times - producer.shape.count) * weight(producer)


def slack_needed(extra: float, groups: int) -> float:
    """The units of SLACK that computing an instruction in so many groups takes."""
    return max(extra, _CLONE * (groups - 1.0))


def saved_work(producer: Instruction) -> float:
    """The work that storing a producer and loading it again costs."""
    memory = _MEMORY if producer.shape.byte_size <= _CACHE_BYTES else _FAR_MEMORY
    return float(memory * producer.shape.count)


def outside_of_inner_loop(times: float, turns: int) -> float:
    """What evaluations cost, as many as vectors would need, if they don't change in an inner loop of some turns."""
    return min(times, times / max(1, turns) * _ONE_BY_ONE)


class Product:
    """Sizes of a dot: c[m, n] = sum over k of a[m, k] b[k, n] for each of `batch`."""

    def __init__(self, dot: Instruction):
        lhs, rhs = (operand.shape for operand in dot.operands)
        contracting, batch = dot.get("lhs_contracting_dims"), dot.get("lhs_batch_dims")
        self.k = prod(lhs.dims[d] for d in contracting)
        self.batch = prod(lhs.dims[d] for d in batch)
        self.m = lhs.count // max(1, self.k * self.batch)
        self.n = rhs.count // max(1, self.k * self.batch)

    @property
    def is_small(self) -> bool:
        return self.m * self.n * self.k <= SMALL_PRODUCT

    def reads(self, number: int) -> float:
        """How often each element of an operand is asked for."""
        if self.is_small:
            return (self.n, self.m)[number]
        if number == 1 or min(self.m, self.n) <= THIN:
            return 1.0
        return max(1.0, self.n * min(self.k, 256) * 4 // _PACKED_COLUMNS)

    def is_read_in_place(self, number: int) -> bool:
        """Whether an operand is so much larger than the other one that it is best read where it lies."""
        sizes = (self.m, self.n)
        return not self.is_small and sizes[1 - number] <= THIN < sizes[number]


def follows_cheaply(reduce: Instruction, weights: float) -> bool:
    """Whether work on each result of a reduce costs little beside the reduce: it is not done by vectors there."""
    folded = reduce.operands[0].shape.count / max(1, reduce.shape.count)
    return weights <= max(_ROW_WEIGHT, 2 * folded)
