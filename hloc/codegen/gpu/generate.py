"""A module's code for a device: one LLVM module of kernels, and the commands of its computations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

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
    comments: Mapping[str, Sequence[str]]
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
        kernels.comments(),
        tuple(part.computation for part in made.values()),
        constants,
        kernels.externals,
        tuple(part.memory for part in made.values()),
    )


_FLUSH = '"denormal-fp-math-f32"="preserve-sign,preserve-sign"'
"""f32 alone: devices have no instructions that flush doubles."""

_ENTRY = re.compile(r"^\s*(?:\.visible )?\.entry (\w+)\(", re.MULTILINE)


def with_comments(ptx: str, comments: Mapping[str, Sequence[str]]) -> str:
    """PTX text in which each entry has its comments above it, a line each."""

    def commented(entry: re.Match[str]) -> str:
        lines = [f"// {' '.join(line.split())}\n" for line in comments.get(entry[1], ())]
        return "".join(lines) + entry[0].lstrip("\n")

    return _ENTRY.sub(commented, ptx)
