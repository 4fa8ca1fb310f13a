"""The tool that watches a long process's memory."""

from __future__ import annotations

import subprocess
import sys

from tools.bench.steady import growth, is_grown

PROGRAM = """HloModule m
ENTRY e {
  x = f32[40] parameter(0)
  ROOT y = f32[40] tanh(x)
}
"""


def test_growth_is_told_from_warm_up_and_noise() -> None:
    level = [100, 150, 200, 199, 201, 200, 200, 202, 199, 200]
    assert abs(growth(level)) < 3
    assert not is_grown(level)
    assert is_grown([200 + 2 * number for number in range(60)])


def test_a_short_run(tmp_path) -> None:
    file = tmp_path / "m.hlo"
    file.write_text(PROGRAM)
    command = [sys.executable, "-m", "tools.bench.steady", "--minutes", "0.02", "--threads", "2", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "minute   0" in result.stdout and "from the first third to the last" in result.stdout, result.stderr
