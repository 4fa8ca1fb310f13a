"""`hloc emit`: the text or bytes of one stage of a compile."""

from __future__ import annotations

import sys

import click

from hloc import api
from hloc.cli.common import (
    FILE,
    OUTPUT,
    PIPELINE,
    TARGET,
    number_options,
    read_module,
    require_valid,
    steering_options,
    write_out,
)
from hloc.codegen.compile import STAGES, emit_stage
from hloc.codegen.targets.target import target_named
from hloc.errors import HloError
from hloc.lazy import lazy
from hloc.options import Options

kernel_stats = lazy("hloc.codegen.targets.kernel_stats")


@click.command()
@FILE
@click.option("--stage", type=click.Choice(STAGES), help="What to write; llvm by default, ptx for a GPU.")
@TARGET
@click.option("--stats", is_flag=True, help="Print what each kernel takes of a GPU (by ptxas), and write no stage.")
@click.option("--ptxas", metavar="PATH", help="The ptxas to assemble with, if not the first that is found.")
@PIPELINE
@steering_options
@number_options
@OUTPUT
def emit(file, stage, target, stats, ptxas, pipeline, output, **steering):
    """Write one stage of a compile.

    \b
    hlo       the module after its passes
    llvm      LLVM IR as generated
    llvm-opt  LLVM IR after LLVM's passes
    asm       assembly
    obj       an object file
    ptx       the text of a GPU's kernels
    cubin     machine code of a GPU's kernels, by ptxas
    sass      the same as text, by nvdisasm or cuobjdump

    For a GPU's code, name its architecture: --target=sm_90a. That takes neither a GPU nor a driver.
    """
    module = read_module(file)
    require_valid(module)
    options = Options(pipeline=pipeline, **steering)
    if stats:
        write_out(_stats(module, target, options, ptxas), output)
        return
    stage = stage or ("ptx" if "ptx" in target_named(target).stages else "llvm")
    content = emit_stage(module, stage, target, options, ptxas)
    if isinstance(content, bytes) and output is None and sys.stdout.isatty():
        raise click.UsageError(f"stage {stage} is binary: say where with --output")
    write_out(content, output)


def _stats(module, target, options, ptxas):
    """A table of the kernels' registers, memory and occupancy."""
    machine = target_named(target)
    if "cubin" not in machine.assembly:
        raise HloError(f"{machine.name} has no kernels that ptxas knows of: --target=sm_90a, for instance, has")
    program = api.compile_program(module, target, options)
    return kernel_stats.table(kernel_stats.kernel_stats(program.device, machine.device.sm, ptxas))
