"""The benchmark: its ratios, its goals, its limits, and a tiny run from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tools.bench import limits, peers, report, tasks
from tools.bench.driver import Outcome, Plan, Process, Timing, difference
from tools.bench.goals import GOALS, Goal
from tools.bench.measure import geometric_mean, spread
from tools.bench.ratios import Summary, row_of
from tools.bench.workloads import WORKLOADS

ROOT = Path(__file__).parent.parent
SMALL_BYTES = 1 << 20


def timing(*seconds: float, cpu: float = 1.0) -> Timing:
    return Timing(list(seconds), [cpu] * len(seconds), min(seconds))


def outcome(**timings: Timing) -> Outcome:
    return Outcome("gemm_16", "gemm", timings=timings)


def test_every_workload_has_a_goal() -> None:
    assert list(GOALS) == list(WORKLOADS)
    assert len(GOALS) == 76
    assert all(0 < goal.stretch < goal.bar for goal in GOALS.values())


def test_verdicts() -> None:
    goal = Goal(0.7, 0.5)
    assert [goal.verdict(ratio) for ratio in (0.5, 0.51, 0.7, 0.71)] == ["stretch", "bar", "bar", "missed"]


def test_ratios_are_taken_round_by_round() -> None:
    # The second round was slow for both: the ratio of the medians would be 2, that of the rounds is 0.5.
    row = row_of(outcome(hloc=timing(1, 8, 2), xla=timing(2, 16, 1), numpy=timing(9, 40, 9)), None)
    assert row.to_xla.median == 0.5
    assert row.best == "xla" and row.to_best == row.to_xla
    assert row.to_best_least == 1.0
    assert row.verdict == "stretch" and row.verdict_of_least == "missed"


def test_best_peer_is_the_hardest_to_reach() -> None:
    row = row_of(outcome(hloc=timing(1, 1), xla=timing(4, 4), torch=timing(0.5, 0.5), numpy=timing(2, 2)), None)
    assert row.best == "torch" and row.to_best_cpu == 1
    assert row.to_best.median == 2 and row.to_xla.median == 0.25 and row.verdict == "missed"


def test_wrong_results_are_not_raced() -> None:
    result = outcome(hloc=timing(1), xla=timing(4), iree=timing(0.1))
    result.wrong["iree"] = "differs"
    assert row_of(result, None).best == "xla"
    result.wrong["hloc"] = "differs"
    row = row_of(result, None)
    assert row.to_best is None and row.verdict is None and row.best == "xla"


def test_without_hloc_there_is_no_ratio() -> None:
    row = row_of(outcome(xla=timing(4), numpy=timing(3)), None)
    assert row.best == "numpy" and row.to_best is None and row.to_xla is None


def test_summary() -> None:
    rows = [row_of(outcome(hloc=timing(a, cpu=2.0), xla=timing(1.0)), None) for a in (0.25, 1.0, 4.0)]
    summary = Summary.of(rows)
    assert summary.of_xla == pytest.approx(1.0) and summary.at_most_xla == pytest.approx(2 / 3)
    assert summary.of_xla_cpu == summary.of_best_cpu == pytest.approx(2.0)
    assert summary.verdicts == summary.verdicts_of_least == {"stretch": 1, "bar": 0, "missed": 2}


def test_spread() -> None:
    assert spread([3.0]).low == spread([3.0]).high == 3.0
    values = spread([4.0, 1.0, 2.0, 3.0, 5.0])
    assert (values.low, values.median, values.high) == (2.0, 3.0, 4.0)
    assert geometric_mean([0.5, 8.0]) == pytest.approx(2.0) and np.isnan(geometric_mean([]))


def test_floor_is_of_the_slower_of_memory_and_arithmetic() -> None:
    rates = {1 << 10: 4e9, 1 << 20: 1e9}
    machine = limits.Limits(1, rates, rates, {1 << 10: 1e9, 1 << 20: 2e9}, {"f32": 1e9})
    assert machine.floor(1 << 19, 1 << 19, 0, "f32") == pytest.approx((1 << 20) / 2e9)
    assert machine.floor(1 << 20, 0, 0, "f32") == pytest.approx((1 << 20) / 1e9)
    assert machine.floor(1 << 10, 0, 5e9, "f32") == pytest.approx(5.0)
    assert machine.floor(1 << 10, 0, 5e9, "s8") == pytest.approx((1 << 10) / 4e9)
    assert machine.floor(1 << 15, 0, 0, "f32") == pytest.approx((1 << 15) / 2.5e9)


def test_limits_are_of_memory_that_was_written() -> None:
    assert limits.aligned(1 << 16).all()


def test_limits_are_measured() -> None:
    gauge = limits.Gauge(1)
    gauge.look()
    first = gauge.limits
    assert set(first.read) == set(first.write) == set(first.copy) == set(limits.SIZES)
    assert all(rate > 1e8 for rate in [*first.read.values(), *first.copy.values(), first.flops["f32"]])
    gauge.look()
    assert all(gauge.limits.read[size] >= first.read[size] for size in limits.SIZES)


def test_difference() -> None:
    nan, one = np.array([np.nan, 1.0]), np.array([1.0, 1.0])
    assert difference([np.array([1.0, 99.0])], [np.array([0.0, 100.0])]) == pytest.approx(0.01)
    assert difference([nan], [nan]) == 0 and difference([one], [nan]) == difference([nan], [one]) == np.inf
    assert difference([np.array([-np.inf])], [np.array([np.inf])]) == np.inf
    assert difference([np.array([1, 2])], [np.array([1, 3])]) == 1
    assert difference([one], [one, one]) == np.inf
    assert difference([np.array([3j])], [np.array([4j])]) == pytest.approx(0.25)


@pytest.mark.parametrize("name", ["softmax_3", "tenargs_3", "chain10_1k", "layernorm_64x512", "gemm_32", "gemm_128"])
def test_spellings_agree(name: str) -> None:
    workload = WORKLOADS[name]
    inputs = workload.make_inputs()
    assert sum(array.nbytes for array in inputs) < SMALL_BYTES
    expected = np.asarray(workload.jax(*inputs))
    assert difference([workload.numpy(*inputs)], [expected]) <= workload.tolerance


def test_names_and_families_choose_workloads() -> None:
    assert tasks.chosen(["attn_*"], None)[0] == ["attn_512", "attn_2048"]
    assert tasks.chosen(["fft", "sort_1m"], None)[0] == ["sort_1m", "fft_1m", "fft_1024x1024"]


def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peers.missing("numpy") == []
    monkeypatch.setattr(peers, "find_spec", lambda module: None)
    assert peers.missing("torch") == ["torch"]


def test_gaps_are_said() -> None:
    run = report.Run({}, ["hloc", "numpy"], {"torch": ["torch"]})
    assert report.gaps(run) == [
        "No torch: torch is missing.",
        "Without XLA nobody checks the results of workloads.",
    ]
    assert report.gaps(report.Run({}, ["hloc", "xla"], {})) == []


def test_a_worker_that_ends_is_said_so_and_started_again(tmp_path: Path) -> None:
    lame = tmp_path / "python"
    lame.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')  # without installed packages
    lame.chmod(0o755)
    worker = Process(str(lame), tmp_path, Plan())
    try:
        for _ in range(2):
            assert "No module named" in worker.ask("missing", peer="numpy")["error"]
    finally:
        worker.stop()


def test_run_from_end_to_end(tmp_path: Path) -> None:
    kept, written = tmp_path / "run.json", tmp_path / "run.md"
    command = [sys.executable, "-m", "tools.bench", "--only", "add_3", "--peers", "xla,numpy", "--rounds", "2"]
    command += ["--threads", "1", "--batch-ms", "1", "--json", str(kept), "--markdown", str(written)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.startswith("add_3")
    run = report.Run.from_json(json.loads(kept.read_text()))
    (row,) = run.rows()
    assert row.outcome.absent == row.outcome.wrong == {}
    assert set(row.outcome.timings) == {"hloc", "xla", "numpy"} == set(run.peers)
    assert row.outcome.facts["hloc"]["error"] == 0
    assert all(len(each.seconds) == 2 and each.least > 0 for each in row.outcome.timings.values())
    assert (row.outcome.read_bytes, row.outcome.write_bytes) == (24, 12)
    assert row.verdict in ("stretch", "bar", "missed")
    assert written.read_text() == report.markdown(run)
    assert "Of 1 workloads" in written.read_text()
