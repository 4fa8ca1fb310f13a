"""LLVM's passes, run on a module, and their memory given back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import llvmlite.binding as llvm
from llvmlite.binding.newpassmanagers import ModulePassManager, NewPassManager

if llvm.llvm_version_info[0] == 22:
    # Its search for CRCs goes every way through what a loop's value is computed from: five logarithms, each of the one
    # before, take it a minute. For other versions nothing is set: an option that LLVM does not know ends the process.
    llvm.set_option("hloc", "-disable-loop-idiom-hashrecognize")


def pass_builder(machine: llvm.TargetMachine, level: int, **tuning: bool) -> llvm.PassBuilder:
    """What makes pass managers for a machine, at an optimization level of 0 to 3.

    `tuning` sets LLVM's choices by their names in llvmlite's PipelineTuningOptions. A builder is for one run: each adds
    to what it does at every pass.
    """
    options = llvm.create_pipeline_tuning_options(speed_level=level)
    for name, value in tuning.items():
        setattr(options, name, value)
    return llvm.create_pass_builder(machine, options)


def run_default(module: llvm.ModuleRef, builder: llvm.PassBuilder) -> None:
    """LLVM's own passes for the builder's level."""
    _run(builder.getModulePassManager(), module, builder)


def run_chosen(
    module: llvm.ModuleRef, builder: llvm.PassBuilder, passes: Sequence[Callable[[ModulePassManager], None]]
) -> None:
    """Passes one after the other, each given as the method of ModulePassManager that adds it."""
    manager = llvm.create_new_module_pass_manager()
    for add in passes:
        add(manager)
    _run(manager, module, builder)


def _run(manager: ModulePassManager, module: llvm.ModuleRef, builder: llvm.PassBuilder) -> None:
    """Runs a manager, for which one run is all, and frees it: llvmlite up to 0.50 never does.

    The method that would is in a base class behind one that has an empty method of the same name.
    """
    try:
        manager.run(module, builder)
    finally:
        NewPassManager._dispose(manager)
        manager.detach()
