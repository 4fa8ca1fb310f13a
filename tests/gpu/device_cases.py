"""What the tests of devices' emitters share: those of the CPU's, on the emulator, and kernels assembled."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

import hloc
from hloc.codegen.targets.ptxas import architectures, assemble, find_ptxas

sys.path.append(str(Path(__file__).parents[1] / "codegen" / "emitters"))

from emitter_cases import NONE, check, computation, program, same, value

__all__ = ["EMULATED", "NONE", "assembles", "check_device", "computation", "program", "same", "value"]

EMULATED = "cuda-emulated"

check_device = partial(check, target=EMULATED)
"""`emitter_cases.check` on the emulator."""


def assembles(text: str, arch: str) -> None:
    """Fails unless ptxas takes the kernels of a program, and none of them spills. Skips where there is no ptxas."""
    tool = find_ptxas(arch)
    if tool is None or arch not in architectures(tool):
        pytest.skip(f"no ptxas for {arch}")
    compiled = hloc.compile(text, arch, NONE)
    assert compiled.program.device is not None
    for use in assemble(compiled.program.device.image, arch, tool).kernels:
        assert use.spill_stores == use.spill_loads == 0, use
