"""What ops see of the run that they are part of, and what they may ask of it.

An op of control flow or of communication is a generator: it yields a `Call` or an `Exchange` and is resumed
with the answer. All other ops are plain functions of (instruction, operand values, context).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hloc.host.queues import HostQueues
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.records import record
from hloc.reference.values import Value


@dataclass
class Call:
    """Please run a computation on these arguments."""

    computation: Computation
    arguments: list[Value]
    caller: Instruction


@dataclass
class Exchange:
    """Please let these devices meet at this instruction; the answer is this device's result.

    `members` are flattened device numbers in the order of the group; `meeting` tells instructions apart that
    may not meet.
    """

    instruction: Instruction
    operands: list[Value]
    members: tuple[int, ...]
    meeting: object


@record
class Device:
    """Which device this is: number `replica * partitions + partition` of `replicas * partitions`."""

    replica: int = 0
    partition: int = 0
    replicas: int = 1
    partitions: int = 1

    @property
    def number(self) -> int:
        return self.replica * self.partitions + self.partition


class Context(Protocol):
    """The run of one device."""

    device: Device
    queues: HostQueues | None
    random: np.random.Generator
    random_state: int

    def apply(self, computation: Computation, arguments: list[Value]) -> Value:
        """The computation's result, once."""

    def lift(
        self, computation: Computation, arguments: list[np.ndarray], root: Instruction | None = None
    ) -> Value:
        """The result of a computation of scalars for every element of equally shaped arrays.

        `root` is another instruction of the computation whose value to give instead.
        """
