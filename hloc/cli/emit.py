"""`hloc emit`: the text or bytes of one stage of a compile."""

from __future__ import annotations

import sys

import click

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
from hloc.options import Options


@click.command()
@FILE
@click.option("--stage", type=click.Choice(list(STAGES)), default="llvm", show_default=True, help="What to write.")
@TARGET
@PIPELINE
@steering_options
@number_options
@OUTPUT
def emit(file, stage, target, pipeline, output, **steering):
    """Write one stage of a compile.

    \b
    hlo       the module after its passes
    llvm      LLVM IR as generated
    llvm-opt  LLVM IR after LLVM's passes
    asm       assembly
    obj       an object file
    """
    module = read_module(file)
    require_valid(module)
    content = emit_stage(module, stage, target, Options(pipeline=pipeline, **steering))
    if isinstance(content, bytes) and output is None and sys.stdout.isatty():
        raise click.UsageError(f"stage {stage} is binary: say where with --output")
    write_out(content, output)
