"""NVIDIA's GPUs as the emulator runs them: kernels are written as for an architecture, and made code of this CPU."""

from __future__ import annotations

from functools import cache

import llvmlite.binding as llvm

from hloc.codegen.gpu.emitters import FORMS
from hloc.codegen.gpu.emulated import Emulated
from hloc.codegen.targets import cpu, nvptx
from hloc.codegen.targets.llvm_passes import pass_builder, run_chosen
from hloc.codegen.targets.reading import read
from hloc.codegen.targets.target import Target
from hloc.options import Options
from hloc.records import replace


@cache
def target(arch: str) -> Target:
    """The record of an emulated architecture, such as `sm_80`; HloError for one that is not known."""
    machine, real = cpu.target(), nvptx.target(arch).device
    assert real is not None
    return Target(
        name="cuda-emulated" if arch == "sm_80" else f"cuda-emulated:{arch}",
        pipeline="gpu",
        triple=machine.triple,
        data_layout=machine.data_layout,
        cpu=machine.cpu,
        features=machine.features,
        vector_bytes=16,
        function_attributes=machine.function_attributes,
        enter_flushing=machine.enter_flushing,
        leave_flushing=machine.leave_flushing,
        enter_exact=machine.enter_exact,
        stages={"llvm-opt": optimized_text, "asm": assembly, "obj": object_code},
        kernels=FORMS,
        image="obj",
        device=replace(real, dialect=Emulated(machine)),
    )


_Passes = llvm.newpassmanagers.ModulePassManager
_PASSES = (
    _Passes.add_ipsccp_pass,
    _Passes.add_sroa_pass,
    _Passes.add_simplify_cfg_pass,
    _Passes.add_instruction_combine_pass,
    _Passes.add_simplify_cfg_pass,
    _Passes.add_dead_code_elimination_pass,
    _Passes.add_global_dead_code_eliminate_pass,
)
"""A quarter of the time of LLVM's own least level, for code that is a third slower. Not NewGVN: of a convolution's loop
it made one that reads what a condition guards."""


@cache
def _machine() -> llvm.TargetMachine:
    llvm.initialize_native_asmparser()
    return cpu.new_machine(1)


def _builder() -> llvm.PassBuilder:
    return pass_builder(_machine(), 1)


def _optimized(llvm_ir: str) -> llvm.ModuleRef:
    """Cheap passes: a kernel runs once or twice, over arrays that are small."""
    module = read(llvm_ir)
    run_chosen(module, _builder(), _PASSES)
    return module


def optimized_text(llvm_ir: str, options: Options) -> str:
    """LLVM IR after LLVM's passes."""
    return str(_optimized(llvm_ir))


def assembly(llvm_ir: str, options: Options) -> str:
    """Assembly text."""
    return _machine().emit_assembly(_optimized(llvm_ir))


def object_code(llvm_ir: str, options: Options) -> bytes:
    """An object file."""
    return _machine().emit_object(_optimized(llvm_ir))
