"""The tool that times the stages of compiles."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SAMPLES = Path(__file__).parent.parent / "samples"


def test_each_stage_is_timed() -> None:
    command = [sys.executable, "-m", "tools.bench.compile", str(SAMPLES), "--programs", "chain"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    name, instructions, *times, ratio = output.splitlines()[1].split()
    assert name == "chain" and int(instructions) > 10
    assert len(times) == 5 and all(float(time) > 0 for time in times)
    assert float(ratio) > 0
    assert "1 programs: median ratio" in output
    assert "fusion" in output  # the passes of a single program
