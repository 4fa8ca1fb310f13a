"""When two kernel steps have the same code."""

from __future__ import annotations

from typing import Any

from hloc.codegen.bodies import Leaf
from hloc.codegen.kernel_steps import KernelStep
from hloc.host.custom_calls import config_text
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import call_order


class Keys:
    """Keys of the steps of one program."""

    def __init__(self) -> None:
        self._structures: dict[Computation, int] = {}
        self._numbers: dict[object, int] = {}

    def key(self, step: KernelStep, shared: dict[int, int]) -> object:
        """Equal for kernels with the same code."""
        border: dict[Leaf, object] = {leaf: number for number, leaf in enumerate(step.bound)}
        border |= dict(step.immediates)
        operands = tuple(tuple(border[leaf] for leaf in leaves) for leaves in step.operand_leaves())
        shapes = tuple(view.shape for view in (*step.inputs, *step.outputs))
        return self._structure(step.instruction), operands, shapes, step.scratch_bytes, tuple(sorted(shared.items()))

    def _structure(self, instruction: Instruction) -> object:
        """An op without its name and operands."""
        attributes = tuple((name, self._attribute(value)) for name, value in instruction.attributes.items())
        config = config_text(instruction) if instruction.opcode == "custom-call" else ""
        return instruction.opcode, instruction.shape, attributes, config

    def _attribute(self, value: Any) -> object:
        if isinstance(value, Computation):
            return self._computation(value)
        if isinstance(value, tuple) and value and isinstance(value[0], Computation):
            return tuple(map(self._computation, value))
        return value

    def _computation(self, computation: Computation) -> int:
        """A number that equal computations share."""
        if computation not in self._structures:
            for callee in call_order(computation):
                if callee not in self._structures:
                    rows = self._rows_of(callee)
                    self._structures[callee] = self._numbers.setdefault(rows, len(self._numbers))
        return self._structures[computation]

    def _rows_of(self, computation: Computation) -> object:
        numbers = {instruction: number for number, instruction in enumerate(computation)}
        rows = tuple(
            (self._structure(instruction), tuple(numbers[operand] for operand in instruction.operands))
            for instruction in computation
        )
        return rows, numbers[computation.root]
