"""tools/corpus.py: every program is one row, whatever it does to the process that runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What a corpus brings along; inputs of some programs end or stop the process that reads them.
CORPUS_IO = """
import json, os, time
import numpy as np

def load_index(directory):
    with open(os.path.join(directory, "index.json")) as f:
        return json.load(f)

def inputs(directory, entry):
    if entry["name"] == "crashes":
        os._exit(7)
    if entry["name"] == "hangs":
        time.sleep(1000)
    return [np.array(p["values"], {"f32": np.float32, "bf16": np.uint16}[p["dtype"]]) for p in
    entry["params"]]

def check(directory, entry, outputs):
    return [(o.tolist() == w["values"] and str(o.dtype) == w["stored_as"], f"got {o.tolist()}")
            for o, w in zip(outputs, entry["results"])]
"""

NEGATE = "HloModule m\nENTRY e {\n  x = f32[2] parameter(0)\n  ROOT r = f32[2] negate(x)\n}"
DOUBLE = "HloModule m\nENTRY e {\n  x = bf16[2] parameter(0)\n  ROOT r = bf16[2] add(x, x)\n}"
REDUCE = """HloModule m, replica_count=2
add {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT c = f32[] add(a, b)
}
ENTRY e {
  x = f32[1] parameter(0)
  ROOT r = f32[1] all-reduce(x), replica_groups={}, to_apply=add
}"""


def entry(
    name: str, values: list, expected: list, dtype: str = "f32", replicas: int = 1, **more: object
) -> dict:
    stored = {"f32": "float32", "bf16": "uint16"}[dtype]
    return {
        "name": name, "category": "made", "hlo": f"{name}.hlo", "num_replicas": replicas, "num_partitions": 1,
        "params": [{"dtype": dtype, "values": values}],
        "results": [{"dtype": dtype, "values": expected, "stored_as": stored}], **more,
    }  # fmt: skip


PROGRAMS = [
    (entry("right", [1, 2], [-1, -2]), NEGATE),
    (entry("wrong", [1, 2], [1, 2]), NEGATE),
    (entry("broken", [1, 2], [-1, -2]), "HloModule m\nENTRY e {"),
    (entry("crashes", [1, 2], [-1, -2]), NEGATE),
    (entry("hangs", [1, 2], [-1, -2]), NEGATE),
    (entry("raw_bits", [0x3F80, 0x4000], [0x4000, 0x4080], "bf16"), DOUBLE),
    (entry("two_devices", [[1], [2]], [[3], [3]], replicas=2), REDUCE),
    (entry("only_parsed", [], [], parse_only=True), NEGATE),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "corpus_io.py").write_text(CORPUS_IO)
    (tmp_path / "index.json").write_text(json.dumps({"programs": [row for row, _ in PROGRAMS]}))
    for row, text in PROGRAMS:
        (tmp_path / row["hlo"]).write_text(text)
    return tmp_path


def run(folder: Path, *options: str) -> tuple[int, dict[str, str], str]:
    """(exit status, status by program, all output)."""
    command = [sys.executable, "-m", "tools.corpus", str(folder), "--limit", "3", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    table = done.stdout.partition("\ncategory")[0]
    rows = [line.split() for line in table.splitlines() if line.strip()]
    return done.returncode, {row[0]: row[1] for row in rows}, done.stdout + done.stderr


def test_every_program_is_a_row(folder: Path) -> None:
    code, rows, output = run(folder)
    assert rows == {
        "right": "ok", "wrong": "FAIL", "broken": "FAIL", "crashes": "CRASH", "hangs": "TIMEOUT", "raw_bits":
        "ok", "two_devices": "ok",
    }, output  # fmt: skip
    assert code == 1
    assert "exit status 7" in output and "over 3 s" in output


def test_chosen_programs_alone(folder: Path) -> None:
    code, rows, output = run(folder, "--only", "ra*", "--jobs", "1")
    assert (code, rows) == (0, {"raw_bits": "ok"}), output


def test_programs_without_optimized_text_are_skipped(folder: Path) -> None:
    code, rows, output = run(folder, "--only", "right", "--optimized")
    assert (code, rows) == (0, {}), output
    assert "skip" in output


def test_through_passes(folder: Path) -> None:
    code, rows, output = run(folder, "--only", "*[gt]", "--executor", "pass:each")
    assert rows == {"right": "ok", "wrong": "FAIL"}, output
    assert "pass:schedule: got [-1.0, -2.0]" in output
    code, rows, output = run(folder, "--only", "two_devices", "--executor", "orders:2")
    assert (code, rows) == (0, {"two_devices": "ok"}), output
    code, rows, output = run(folder, "--executor", "pass:nothing")
    assert "pass:nothing is none of" in output
