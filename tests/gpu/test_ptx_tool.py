"""The tools that hold whole folders of programs against ptxas and the emulator."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tools.fuzz.executors import Program, check, native
from tools.ptx import Outcome, programs, show

GOOD = "HloModule m\nENTRY e {\n  p = f32[100] parameter(0)\n  ROOT s = f32[100] add(p, p)\n}\n"
BAD = "HloModule m\nENTRY e {\n  p = f32[100] parameter(0)\n  ROOT s = f32[101] add(p, p)\n}\n"


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.ptx", str(folder), "--jobs=1", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])


def test_every_program_is_assembled_for_every_architecture(tmp_path: Path) -> None:
    (tmp_path / "good.hlo").write_text(GOOD)
    (tmp_path / "good.opt.hlo").write_text(BAD)
    done = run(tmp_path, "--arch=sm_80,sm_90a", "--kernels")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ptxas ")
    assert lines[1].split()[:2] == ["good", "sm_80"] and "registers, 0 + 0 bytes spilled" in lines[1]
    assert [line.split()[:4] for line in lines[-2:]] == [["sm_80", "1", "0", "1"], ["sm_90a", "1", "0", "1"]]


def test_a_program_that_fails_is_a_row_and_the_exit_status(tmp_path: Path) -> None:
    (tmp_path / "bad.hlo").write_text(BAD)
    done = run(tmp_path, "--arch=sm_80")
    assert done.returncode == 1
    assert "bad" in done.stdout and "FAIL  HloError" in done.stdout


def test_warnings_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show(Outcome("m", "sm_90a", None, warnings=("wgmma.mma_async instructions are serialized",)), every_kernel=False)
    assert capsys.readouterr().out.split(None, 2) == ["m", "sm_90a", "wgmma.mma_async instructions are serialized\n"]


def test_optimized_texts_are_named(tmp_path: Path) -> None:
    for name in ("a", "b", "a.opt"):
        (tmp_path / f"{name}.hlo").write_text(GOOD)
    assert [path.name for path in programs(tmp_path, "*")] == ["a.hlo", "b.hlo"]
    assert [path.name for path in programs(tmp_path, "*.opt")] == ["a.opt.hlo"]


@pytest.mark.parametrize("executor", ["cuda-emulated", "cuda-emulated:sm_90a"])
def test_the_fuzzer_runs_the_emulator(executor: str) -> None:
    assert native(executor) == (executor, None)
    outcome = check(Program(GOOD, [np.arange(100, dtype=np.float32)]), [executor])
    assert not outcome.findings and not outcome.refused


def test_other_names_are_no_targets() -> None:
    assert native("reference") is None and native("cpu") == ("cpu", "cpu")
