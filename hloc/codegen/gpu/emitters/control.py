"""while and conditional over scalars, run by one thread: no host asks for their conditions.

Those over arrays are commands of the host's; see `schedule.py` and `commands.py`.
"""

from __future__ import annotations

from hloc.codegen.gpu.emitters import gpu_kernel
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.scalar_control import results_of
from hloc.ir.instruction import Instruction


@gpu_kernel("while", "conditional", element_operands="all")
def scalar_control(g: GpuStep, instruction: Instruction) -> None:
    with g.launch(1, 1) as k:
        operands = [
            [k.input(number, leaf)(()) for leaf, _ in operand.shape.leaves()]
            for number, operand in enumerate(instruction.operands)
        ]
        for output, value in zip(k.outputs, results_of(k, instruction, operands), strict=True):
            output.store((), value)
