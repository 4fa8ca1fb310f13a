"""The device of a program's target, opened."""

from __future__ import annotations

from hloc.codegen.program import Program
from hloc.errors import HloError
from hloc.lazy import lazy
from hloc.runtime.device import Device

cuda = lazy("hloc.runtime.cuda")
emulator = lazy("hloc.runtime.emulator")


def open_device(program: Program, number: int) -> Device:
    """Device `number` of a run, with the program's image; HloError, in one sentence, if there is none."""
    kind, _, rest = program.target.partition(":")
    if kind == "cuda-emulated":
        return emulator.EmulatedDevice(program)
    if kind == "cuda":
        return cuda.open_device(program, int(rest or 0), number)
    raise HloError(
        f"{program.name} was compiled for {program.target}, to look at: `--target=cuda` compiles for this machine's GPU"
    )
