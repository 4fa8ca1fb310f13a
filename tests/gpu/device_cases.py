"""What the tests of devices' emitters share: those of the CPU's, on the emulator, and kernels assembled."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import hloc
from hloc.codegen.targets.ptxas import architectures, assemble, find_ptxas

sys.path.append(str(Path(__file__).parents[1] / "codegen" / "emitters"))

from emitter_cases import NONE, check, computation, program, same, value

__all__ = ["EMULATED", "NONE", "assembles", "check_device", "computation", "program", "ptxas_for", "same", "value"]

EMULATED = "cuda-emulated"

check_device = partial(check, target=EMULATED)
"""`emitter_cases.check` on the emulator."""


def ptxas_for(arch: str) -> str:
    """A ptxas that knows the architecture; a test that needs one fails where there is none."""
    tool = find_ptxas(arch)
    assert tool is not None and arch in architectures(tool), f"no ptxas for {arch}: install hloc[test]"
    return tool


def assembles(text: str, arch: str) -> None:
    """Fails unless ptxas takes the kernels of a program, and none of them spills."""
    tool = ptxas_for(arch)
    compiled = hloc.compile(text, arch, NONE)
    assert compiled.program.device is not None
    for use in assemble(compiled.program.device.image, arch, tool).kernels:
        assert use.spill_stores == use.spill_loads == 0, use
