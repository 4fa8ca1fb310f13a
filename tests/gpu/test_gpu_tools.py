"""The tools for a machine with a GPU, as far as they go without one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tools import gpu_check
from tools.bench.gpu import JAX, OURS, TORCH, Ours, Row, fault, line, measured, verdict
from tools.bench.gpu_workloads import Workload, product, transpose, workloads
from tools.gpu_check import Setting, Step


@pytest.mark.parametrize("workload", workloads(is_small=True), ids=lambda workload: workload.name)
def test_workloads_are_right_on_the_emulator(workload: Workload) -> None:
    assert measured(workload, Ours("cuda-emulated"), {}, 1).fault is None


def test_a_wrong_result_is_told() -> None:
    workload = transpose(4, 6)
    (given,) = workload.arguments(np.random.default_rng(0))
    assert fault(workload, [given], given.T) is None
    assert fault(workload, [given], given.T + 1) == "off by 1, allowed is 0"
    assert fault(workload, [given], given) == "the result is [4, 6]"


def test_verdicts_compare_speeds() -> None:
    moved = Row(transpose(1000, 1000), {OURS: 4e-6})
    assert verdict(moved, 2.1e12) == "95% of the copy (met: 90%)"
    assert verdict(moved, 4e12) == "50% of the copy (missed: 90%)"
    multiplied = Row(product(64), {OURS: 2e-6, TORCH: 1e-6, JAX: 4e-6})
    assert verdict(multiplied, 2e12) == "50% of torch (missed: 80%)"
    assert "| 0.50 | 2.00 | 50% of torch" in line(multiplied, 2e12)
    assert verdict(Row(product(64), {OURS: 2e-6}), 2e12) == ""


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    programs = [
        {"name": "a", "category": "one"},
        {"name": "b", "category": "one"},
        {"name": "c", "category": "two", "parse_only": True},
        {"name": "d", "category": "two"},
    ]
    (tmp_path / "index.json").write_text(json.dumps({"programs": programs}))
    return Setting(tmp_path, "cuda", tmp_path, True)


def step(code: str, **keywords) -> Step:
    return Step("step", lambda setting: [sys.executable, "-c", code], 1, **keywords)


def test_steps_end_in_a_verdict_and_a_log(setting: Setting) -> None:
    assert gpu_check.run(step("print('done')"), setting) == "ok"
    assert list(gpu_check.last_lines(setting.out / "step.log"))[-1] == "done"
    assert gpu_check.run(step("raise SystemExit(3)"), setting) == "exit status 3"
    assert gpu_check.run(step("print('== ERROR SUMMARY: 0 errors')"), setting) == "ok"
    assert gpu_check.run(step("print('== ERROR SUMMARY: 2 errors')"), setting) == "faults were found"
    slow = Step("step", step("import time; time.sleep(9)").command, 0.005)
    assert gpu_check.run(slow, setting).startswith("not done")
    blocking = step("import os; print(os.environ['CUDA_LAUNCH_BLOCKING'])", is_blocking=True)
    assert gpu_check.run(blocking, setting) == "ok"
    assert gpu_check.run(Step("step", lambda setting: ["/nowhere/tool"], 1), setting) == "/nowhere/tool is not here"


def test_a_quick_check_takes_a_program_of_each_category(setting: Setting) -> None:
    command = next(step for step in gpu_check.STEPS if step.name == "racecheck").command(setting)
    assert command[-1] == "--only=a,d" and "--tool=racecheck" in command
