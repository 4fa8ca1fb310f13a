"""LLVM's passes leave no memory behind."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from hloc.codegen.targets.target import target_named
from hloc.options import Options

TINY = "define i32 @f(i32 %a) {\n  ret i32 %a\n}\n"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's figures of a process")
@pytest.mark.parametrize("stage", ["obj", "plain-obj", "quick-obj"])
def test_memory_stays(stage: str) -> None:
    lower = target_named("cpu").lower
    for _ in range(50):
        lower(TINY, stage, Options())
    before = resident_bytes()
    for _ in range(200):
        lower(TINY, stage, Options())
    assert resident_bytes() - before < 4 << 20  # a pass manager that is not freed takes 47 kB


def test_llvm_says_nothing_of_functions_that_it_leaves_alone(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        target_named("cpu").lower(TINY.replace(") {", ") optnone noinline {"), "obj", Options())
    assert capfd.readouterr() == ("", "")
