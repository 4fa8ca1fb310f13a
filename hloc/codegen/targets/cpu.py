"""The CPU of this machine, and LLVM's passes and code generation for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import llvmlite.binding as llvm
from llvmlite.binding.newpassmanagers import ModulePassManager

from hloc.codegen.forms import CPU_KERNELS
from hloc.codegen.llvm import Builder, Value, const
from hloc.codegen.targets.llvm_pages import drop_read_pages
from hloc.codegen.targets.llvm_passes import pass_builder, run_chosen, run_default
from hloc.codegen.targets.llvm_split import split
from hloc.codegen.targets.reading import read
from hloc.codegen.targets.target import Target
from hloc.options import Options

# Bits of MXCSR: results that would be denormal are zero; denormal operands count as zero.
_FLUSH_RESULTS, _FLUSH_OPERANDS = 1 << 15, 1 << 6


_FEW_PASSES = (
    ModulePassManager.add_always_inliner_pass,
    ModulePassManager.add_global_dead_code_eliminate_pass,
    ModulePassManager.add_sroa_pass,
    ModulePassManager.add_simplify_cfg_pass,
    ModulePassManager.add_instruction_combine_pass,
    ModulePassManager.add_dead_code_elimination_pass,
    ModulePassManager.add_simplify_cfg_pass,
)
"""For code that has nothing left to vectorize."""


@cache
def target() -> Target:
    """The record of this machine's CPU."""
    features = frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)
    vector_bytes = 64 if "avx512f" in features else 32 if "avx" in features else 16
    x86 = llvm.get_process_triple().startswith("x86_64")
    machine = _machine()
    drop_read_pages()
    return Target(
        name="cpu",
        pipeline="cpu",
        triple=machine.triple,
        data_layout=str(machine.target_data),
        cpu=llvm.get_host_cpu_name(),
        features=features,
        vector_bytes=vector_bytes,
        function_attributes=_function_attributes(vector_bytes),
        enter_flushing=_enter_flushing if x86 else _enter_unchanged,
        leave_flushing=_leave_flushing if x86 else _leave_unchanged,
        enter_exact=_enter_exact if x86 else _enter_unchanged,
        stages={
            "llvm-opt": optimized_text,
            "asm": assembly,
            "obj": object_code,
            "light-obj": light_object_code,
            "plain-obj": plain_object_code,
            "quick-obj": quick_object_code,
        },
        kernels=CPU_KERNELS,
    )


def _function_attributes(vector_bytes: int) -> str:
    """What tells LLVM the machine: whole-width vectors (it would halve the widest), no traps on floats."""
    flags = llvm.get_host_cpu_features().flatten()
    return (
        f'nounwind "target-cpu"="{llvm.get_host_cpu_name()}" "target-features"="{flags}" '
        f'"prefer-vector-width"="{vector_bytes * 8}" "no-trapping-math"="true"'
    )


def new_machine(level: int = 2) -> llvm.TargetMachine:
    """LLVM's description of this machine, with an optimization level of code generation (0 to 3)."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=level,
        reloc="pic",
        codemodel="small",
    )


@cache
def _machine(level: int = 2) -> llvm.TargetMachine:
    return new_machine(level)


def _enter_flushing(b: Builder) -> Value:
    return _changed(b, lambda before: b.or_(before, const("i32", _FLUSH_RESULTS | _FLUSH_OPERANDS)))


def _enter_exact(b: Builder) -> Value:
    return _changed(b, lambda before: b.and_(before, const("i32", ~(_FLUSH_RESULTS | _FLUSH_OPERANDS))))


def _changed(b: Builder, change: Callable[[Value], Value]) -> Value:
    """Changes MXCSR; what it was before."""
    place = b.alloca("i32")
    b.intrinsic("llvm.x86.sse.stmxcsr", "void", [place], overloads=(), pure=False)
    before = b.load("i32", place)
    b.store(change(before), place)
    b.intrinsic("llvm.x86.sse.ldmxcsr", "void", [place], overloads=(), pure=False)
    return before


def _leave_flushing(b: Builder, before: Value) -> None:
    place = b.alloca("i32")
    b.store(before, place)
    b.intrinsic("llvm.x86.sse.ldmxcsr", "void", [place], overloads=(), pure=False)


def _enter_unchanged(b: Builder) -> Value:
    return const("i32", 0)


def _leave_unchanged(b: Builder, before: Value) -> None:
    return None


def _builder(machine: llvm.TargetMachine) -> llvm.PassBuilder:
    # LLVM's first level takes 5 % less time, but loops of small steps come out a tenth slower. Vector loops are
    # interleaved as they are; unrolling them again doubles the time of a compile.
    return pass_builder(machine, 2, loop_vectorization=True, loop_unrolling=False)


def _optimized(llvm_ir: str, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    few, rest = split(llvm_ir)
    context = llvm.create_context()
    module = None
    if rest:
        module = read(rest, context)
        run_default(module, _builder(machine))
    if few:
        settled = read(few, context)
        run_chosen(settled, pass_builder(machine, 2), _FEW_PASSES)
        if module is None:
            module = settled
        else:
            module.link_in(settled)
    _drop_passes()
    return module


@cache
def _drop_passes() -> None:
    """After the first program's passes: a process that compiles one only has no use for their code any more."""
    drop_read_pages()


def optimized_text(llvm_ir: str, options: Options) -> str:
    """LLVM IR after LLVM's passes."""
    return str(_optimized(llvm_ir, _machine()))


def assembly(llvm_ir: str, options: Options) -> str:
    """Assembly text."""
    return _machine().emit_assembly(_optimized(llvm_ir, _machine()))


def object_code(llvm_ir: str, options: Options) -> bytes:
    """An object file."""
    return _machine().emit_object(_optimized(llvm_ir, _machine()))


def light_object_code(llvm_ir: str, options: Options) -> bytes:
    """An object file made in a twentieth less time: its instructions stand in the order in which they were chosen.

    Long vector loops take 2 % less time in an order that fits the processor.
    """
    return _machine(1).emit_object(_optimized(llvm_ir, _machine(1)))


def plain_object_code(llvm_ir: str, options: Options) -> bytes:
    """An object file made without passes, of code that is written as they would leave it."""
    return _machine(1).emit_object(read(llvm_ir))


def quick_object_code(llvm_ir: str, options: Options) -> bytes:
    """An object file made without passes, in a fraction of the time: for code that mostly calls other code."""
    return _machine(0).emit_object(read(llvm_ir))
