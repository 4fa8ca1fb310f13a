"""A module's code for a device: one LLVM module of kernels, and the commands of its computations."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hloc.codegen.computations import ConstantPool, Variant
from hloc.codegen.device_program import DeviceComputation, DeviceKernel
from hloc.codegen.gpu.commands import Commanded, ComputationCommands
from hloc.codegen.gpu.kernels import GpuKernels
from hloc.codegen.llvm import Module
from hloc.codegen.program import External, Kernel, MemoryPlan
from hloc.codegen.schedule import Schedule
from hloc.codegen.targets.target import Target
from hloc.options import Options
from hloc.records import record


@record
class DeviceParts:
    """What a module becomes, before its kernels are lowered."""

    llvm: Module
    kernels: tuple[Kernel, ...]
    device_kernels: tuple[DeviceKernel, ...]
    computations: tuple[DeviceComputation, ...]
    constants: ConstantPool
    externals: Mapping[External, int]
    memory: tuple[MemoryPlan, ...]


def generate(name: str, plans: Mapping[Variant, Schedule], target: Target, options: Options) -> DeviceParts:
    """The parts of a program whose computations are scheduled in `plans`, callees first, the entry last."""
    flush = _FLUSH if options.flush_denormals else ""
    llvm = Module(name, target.triple, target.data_layout, options.numbers, flush)
    kernels = GpuKernels(llvm, target, options)
    constants = ConstantPool()
    made: dict[Variant, Commanded] = {}
    for variant, plan in plans.items():
        made[variant] = ComputationCommands(plan, kernels, constants, made).made()
    return DeviceParts(
        llvm,
        kernels.kernels,
        kernels.device_kernels,
        tuple(part.computation for part in made.values()),
        constants,
        kernels.externals,
        tuple(part.memory for part in made.values()),
    )


_FLUSH = '"denormal-fp-math-f32"="preserve-sign,preserve-sign"'
"""f32 alone: devices have no instructions that flush doubles."""

_ENTRY = re.compile(r"^\s*(?:\.visible )?\.entry (\w+)\(", re.MULTILINE)


def with_comments(ptx: str, kernels: tuple[Kernel, ...]) -> str:
    """PTX text in which each entry has a comment of the HLO instructions that it stands for."""
    names = {kernel.name: kernel.instructions for kernel in kernels}

    def commented(entry: re.Match[str]) -> str:
        return f"// HLO: {', '.join('%' + name for name in names.get(entry[1], ()))}\n{entry[0]}"

    return _ENTRY.sub(commented, ptx)
