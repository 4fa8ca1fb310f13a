"""Everything that only a GPU can show, in one command: for a short time on a machine that has one.

    python -m tools.gpu_check FOLDER [--target cuda:0] [--skip STEP,...] [--out DIR] [--quick]

FOLDER is a corpus (see `tools.corpus`). The steps, in this order; each writes its output to DIR/STEP.log:

    devices    what is here: GPUs, driver, ptxas
    corpus     every program on the GPU, against the stored results
    bench      the table of `tools.bench.gpu`, DIR/gpu.md
    fuzz       random programs on the GPU, against the evaluator
    memcheck   the corpus under compute-sanitizer: accesses beyond memory
    racecheck  the same: races in shared memory

`--quick` takes a part of the corpus and of the fuzzer's programs for the slow ones. A step whose tool is missing fails.
Exit status 1 if a step fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent

_FOUND = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: [1-9]\d* (?:error|hazard)")
"""What compute-sanitizer writes of a process in which it has found something."""


@dataclass(frozen=True)
class Setting:
    """What a check is told."""

    folder: Path
    target: str
    out: Path
    is_quick: bool


@dataclass(frozen=True)
class Step:
    """A command; `is_blocking` lets the driver wait for each kernel, so that faults have a name."""

    name: str
    command: Callable[[Setting], list[str]]
    minutes: float
    is_blocking: bool = False


def _python(module: str, *words: str) -> list[str]:
    return [sys.executable, "-m", module, *words]


def _corpus(setting: Setting, *words: str) -> list[str]:
    return _python("tools.corpus", str(setting.folder), f"--executor={setting.target}", *words)


def _sanitized(tool: str) -> Callable[[Setting], list[str]]:
    def command(setting: Setting) -> list[str]:
        sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
        watch = [sanitizer, f"--tool={tool}", "--target-processes=all"]
        return [*watch, *_corpus(setting, "--jobs=1", "--limit=600", *_some(setting))]

    return command


def _some(setting: Setting) -> list[str]:
    """Of a corpus, for a quick check: the first program of each category."""
    if not setting.is_quick:
        return []
    index = json.loads((setting.folder / "index.json").read_text(encoding="utf-8"))
    firsts: dict[str, str] = {}
    for entry in index["programs"]:
        if not entry.get("parse_only"):
            firsts.setdefault(entry["category"], entry["name"])
    return [f"--only={','.join(firsts.values())}"]


STEPS = (
    Step("devices", lambda setting: _python("hloc", "devices"), 1),
    Step("corpus", lambda setting: _corpus(setting), 20),
    Step(
        "bench",
        lambda setting: _python(
            "tools.bench.gpu", f"--target={setting.target}", f"--markdown={setting.out / 'gpu.md'}"
        ),
        20,
    ),
    Step(
        "fuzz",
        lambda setting: _python(
            "tools.fuzz", f"--executors={setting.target}", f"--count={50 if setting.is_quick else 500}",
            f"--out={setting.out / 'fuzz'}",
        ),
        20,
    ),
    Step("memcheck", _sanitized("memcheck"), 60, is_blocking=True),
    Step("racecheck", _sanitized("racecheck"), 60, is_blocking=True),
)


def run(step: Step, setting: Setting) -> str:
    """Does a step; how it ended: "ok", or what is wrong."""
    environment = dict(os.environ)
    if step.is_blocking:
        environment["CUDA_LAUNCH_BLOCKING"] = "1"
    command = step.command(setting)
    with open(setting.out / f"{step.name}.log", "w", encoding="utf-8") as log:
        log.write(" ".join(command) + "\n")
        log.flush()
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, timeout=step.minutes * 60,
                check=False,
            )
        except FileNotFoundError:
            return f"{command[0]} is not here"
        except subprocess.TimeoutExpired:
            return f"not done after {step.minutes:g} minutes"
    if _FOUND.search((setting.out / f"{step.name}.log").read_text(encoding="utf-8", errors="replace")):
        return "faults were found"
    return "ok" if done.returncode == 0 else f"exit status {done.returncode}"


def last_lines(path: Path, count: int = 4) -> Iterator[str]:
    """The end of a log."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    yield from (line[:160] for line in lines[-count:])


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools.gpu_check", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", default="cuda")
    parser.add_argument("--skip", default="", metavar="STEP,...", help="steps to leave out")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), metavar="DIR", help="where logs and table go")
    parser.add_argument("--quick", action="store_true", help="less of what is slow")
    options = parser.parse_args()
    skipped = set(filter(None, options.skip.split(",")))
    unknown = skipped - {step.name for step in STEPS}
    if unknown:
        parser.error(f"there is no step {', '.join(sorted(unknown))}")
    options.out.mkdir(parents=True, exist_ok=True)
    setting = Setting(options.folder.resolve(), options.target, options.out.resolve(), options.quick)
    failed = False
    for step in STEPS:
        if step.name in skipped:
            continue
        start = time.monotonic()
        verdict = run(step, setting)
        failed |= verdict != "ok"
        print(f"{step.name:10} {verdict}  ({time.monotonic() - start:.0f} s)", flush=True)
        for line in last_lines(setting.out / f"{step.name}.log"):
            print(f"    {line}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
