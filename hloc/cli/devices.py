"""`hloc devices`: what programs can be compiled for here, and what is missing."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import click

from hloc.codegen.targets import ptxas
from hloc.errors import HloError
from hloc.host import gpus

_TARGETS = (
    ("cpu", "this machine's processor ({processor})"),
    ("cuda, cuda:N", "a GPU of this machine"),
    ("cuda-emulated, cuda-emulated:sm_90a", "a GPU's kernels on the processor, every access checked"),
    ("sm_70 ... sm_121a", "code for such a GPU, to look at (see `hloc emit`)"),
)


@click.command()
def devices():
    """List targets, this machine's GPUs, and what is missing to use them."""
    width = max(len(name) for name, _ in _TARGETS)
    for name, what in _TARGETS:
        click.echo(f"{name.ljust(width)}  {what.format(processor=platform.machine())}")
    click.echo()
    for line in (*_gpus(), *_tools()):
        click.echo(line)


def _gpus() -> Iterator[str]:
    """A table of the GPUs, or the sentence that says why there are none."""
    try:
        found = [gpus.gpu(number) for number in range(gpus.gpu_count())]
        version = "driver for CUDA {}.{}".format(*gpus.driver_version())
    except HloError as error:
        yield f"no GPU: {error.message}"
        return
    width = max(len(gpu.name) for gpu in found)
    for gpu in found:
        old = "" if gpu.sm >= gpus.LEAST_SM else f"  too old: sm_{gpus.LEAST_SM} is the least"
        memory = f"{gpu.memory / 2**30:.1f} GiB"
        yield f"cuda:{gpu.number}  {gpu.name.ljust(width)}  {gpu.arch}  {memory}  {version}{old}"


def _tools() -> Iterator[str]:
    """What assembles PTX here."""
    path = ptxas.find_ptxas()
    if path is None:
        yield "no ptxas, which `hloc emit --stage=cubin` needs (pip install nvidia-cuda-nvcc-cu12): GPUs run without"
    else:
        yield f"ptxas {ptxas.version(path)}: {path}"
    found = next((tool for name in ("nvdisasm", "cuobjdump") for tool in ptxas.find_tools(name)), None)
    if found is None:
        yield "neither nvdisasm nor cuobjdump, of which `hloc emit --stage=sass` needs one (CUDA's toolkit has them)"
    else:
        yield f"disassembler: {found}"
