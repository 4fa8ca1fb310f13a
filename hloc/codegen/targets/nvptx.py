"""NVIDIA's GPUs: LLVM's NVPTX back end, and the facts of architectures."""

from __future__ import annotations

import re
from functools import cache, partial

import llvmlite.binding as llvm

from hloc.codegen.gpu.emitters import FORMS
from hloc.codegen.gpu.nvvm import Nvvm
from hloc.codegen.llvm import Builder, Value, const
from hloc.codegen.targets import ptxas
from hloc.codegen.targets.llvm_passes import pass_builder, run_default
from hloc.codegen.targets.reading import read
from hloc.codegen.targets.target import DeviceTraits, Target
from hloc.errors import HloError
from hloc.host.gpus import target_gpu
from hloc.options import Options
from hloc.records import replace

_TRIPLE = "nvptx64-nvidia-cuda"

_KIB = 1024
_ARCHITECTURES: dict[int, tuple[int, int, int]] = {
    70: (70, 96 * _KIB, 2048),
    72: (70, 96 * _KIB, 2048),
    75: (70, 64 * _KIB, 1024),
    80: (70, 163 * _KIB, 2048),
    86: (71, 99 * _KIB, 1536),
    87: (74, 163 * _KIB, 1536),
    89: (78, 99 * _KIB, 1536),
    90: (80, 227 * _KIB, 2048),
    100: (86, 227 * _KIB, 2048),
    103: (88, 227 * _KIB, 2048),
    120: (87, 99 * _KIB, 1536),
    121: (88, 99 * _KIB, 1536),
}
"""sm -> (least version of PTX, shared memory of a block at most, threads of a multiprocessor).

From the tables "Technical Specifications per Compute Capability" of the CUDA C++ Programming Guide, and the PTX ISA's
release notes.
"""

_MULTIPROCESSORS = 132
"""Of an H100: what kernels are written for where the GPU that runs them is not known."""


@cache
def target(arch: str) -> Target:
    """The record of an architecture such as `sm_80` or `sm_90a`; HloError for one that is not known."""
    found = re.fullmatch(r"sm_(\d+)([af]?)", arch)
    if found is None or int(found[1]) not in _ARCHITECTURES:
        known = ", ".join(f"sm_{sm}" for sm in _ARCHITECTURES)
        raise HloError(f'no architecture "{arch}"; there is: {known}, from sm_90 on also with an "a"')
    sm = int(found[1])
    version, *sizes = _ARCHITECTURES[sm]
    features = f"+ptx{max(version, 80 if found[2] else version)}"
    machine = _machine(arch, features)
    return Target(
        name=arch,
        pipeline="gpu",
        triple=_TRIPLE,
        data_layout=str(machine.target_data),
        cpu=arch,
        features=frozenset({features}),
        vector_bytes=16,
        function_attributes=f'nounwind "target-cpu"="{arch}" "target-features"="{features}"',
        enter_flushing=_unchanged,
        leave_flushing=_left,
        enter_exact=_unchanged,
        stages={
            "llvm-opt": partial(_optimized_text, arch, features),
            "ptx": partial(_ptx, arch, features),
        },
        kernels=FORMS,
        image="ptx",
        assembly={"cubin": partial(_cubin, arch), "sass": partial(_sass, arch)},
        device=DeviceTraits(arch, sm, bool(found[2]), *sizes, _MULTIPROCESSORS, Nvvm(sm), arch == "sm_90a"),
    )


@cache
def device_target(number: str) -> Target:
    """The record of a GPU of this machine, by its number or "" for the first; HloError if it cannot be used.

    A GPU newer than all architectures that are known gets code for the latest before it, which it runs.
    """
    found = target_gpu(number)
    arch = found.arch if found.sm in _ARCHITECTURES else f"sm_{max(sm for sm in _ARCHITECTURES if sm < found.sm)}"
    made = target(arch)
    assert made.device is not None
    device = replace(made.device, multiprocessors=found.multiprocessors)
    return replace(made, name=f"cuda:{found.number}", device=device)


@cache
def _machine(arch: str, features: str) -> llvm.TargetMachine:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm.Target.from_triple(_TRIPLE).create_target_machine(cpu=arch, features=features, opt=3)


def _builder(arch: str, features: str) -> llvm.PassBuilder:
    # A thread has no vectors but for memory, which code generation finds by itself.
    return pass_builder(_machine(arch, features), 3, loop_vectorization=False, slp_vectorization=False)


def _optimized(arch: str, features: str, llvm_ir: str) -> llvm.ModuleRef:
    module = read(llvm_ir)
    run_default(module, _builder(arch, features))
    return module


def _optimized_text(arch: str, features: str, llvm_ir: str, options: Options) -> str:
    return str(_optimized(arch, features, llvm_ir))


def _ptx(arch: str, features: str, llvm_ir: str, options: Options) -> str:
    return _machine(arch, features).emit_assembly(_optimized(arch, features, llvm_ir))


def _cubin(arch: str, ptx: str, path: str | None) -> bytes:
    return ptxas.assemble(ptx, arch, path).cubin


def _sass(arch: str, ptx: str, path: str | None) -> str:
    return ptxas.disassemble(ptxas.assemble(ptx, arch, path).cubin)


def _unchanged(b: Builder) -> Value:
    return const("i32", 0)


def _left(b: Builder, before: Value) -> None:
    return None
