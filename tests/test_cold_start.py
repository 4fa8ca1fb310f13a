"""What a process loads: hloc alone next to nothing, a plain run only what it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hloc.text.grammar import load_tables

SOFTMAX = str(Path(__file__).parent.parent / "samples" / "softmax.hlo")
SMALL_PARENT = f"""
import os, subprocess, sys
command = [sys.executable, "-m", "hloc", "run", {SOFTMAX!r}, "--random", "--no-cache"]
process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
assert status == 0
print(usage.ru_maxrss)
"""
"""Prints the kilobytes of a run. The kernel counts those of the process that starts another as its own."""

LOADED = "import sys; sys.stderr.write(' '.join(sys.modules))"


def loaded(code: str) -> set[str]:
    """The modules that a process has at its end."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stderr.split())


@pytest.fixture(scope="module")
def run() -> set[str]:
    load_tables()  # from now on they lie in the cache folder
    command = f"hloc.cli.main(['run', {SOFTMAX!r}, '--random', '--no-cache'], standalone_mode=False)"
    return loaded(f"import hloc.cli; {command}; {LOADED}")


def test_import_hloc_loads_next_to_nothing() -> None:
    modules = loaded(f"import hloc; {LOADED}")
    assert {name for name in modules if name.startswith("hloc")} == {"hloc", "hloc.ir", "hloc.ir.hooks"}
    assert not modules & {"numpy", "llvmlite", "lark", "scipy", "jax", "click"}


@pytest.mark.parametrize(
    "name",
    [
        "scipy",
        "lark",
        "jax",
        "concurrent.futures",
        "difflib",
        "statistics",
        "hloc.cli.opt",
        "hloc.cli.emit",
        "hloc.reference",
        "hloc.text.printer",
        "hloc.codegen.emitters.dot",
        "hloc.codegen.emitters.sort",
        "hloc.codegen.math.power",
        "cuda",
        "hloc.codegen.gpu",
        "hloc.codegen.device_program",
        "hloc.host.gpus",
        "hloc.runtime.device_executable",
        "hloc.codegen.call_stub",
        "hloc.runtime.native_call",
    ],
)
def test_a_plain_run_does_not_load(name: str, run: set[str]) -> None:
    assert not {module for module in run if module == name or module.startswith(f"{name}.")}


def test_a_plain_run_loads_what_it_runs(run: set[str]) -> None:
    assert {"hloc.codegen.row_kernel", "hloc.codegen.math.exponential", "llvmlite.binding"} <= run


@pytest.mark.parametrize(("arguments", "status"), [(["check", SOFTMAX], 0), (["run", SOFTMAX], 2), (["run", "no"], 1)])
def test_the_process_ends_with_the_commands_status(arguments: list[str], status: int) -> None:
    result = subprocess.run([sys.executable, "-m", "hloc", *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == status
    assert bool(result.stderr) is bool(status)


def test_the_process_writes_all_before_it_ends() -> None:
    command = [sys.executable, "-m", "hloc", "fmt", SOFTMAX]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("HloModule") and result.stdout.endswith("}\n\n")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux lists the threads of a process")
def test_numpy_starts_no_threads_of_its_own() -> None:
    code = f"""
import os, sys
from hloc import __main__
__main__.end = lambda status: print(len(os.listdir("/proc/self/task")))
sys.argv = ["hloc", "eval", {SOFTMAX!r}, "--random", "--quiet"]
__main__.main()
"""
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert result.stdout == "1\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux says what a process took")
def test_a_plain_run_is_small() -> None:
    load_tables()
    with open(os.devnull, "wb") as nothing:
        process = subprocess.Popen([sys.executable, "-c", SMALL_PARENT], stdout=subprocess.PIPE, stderr=nothing)
        megabytes = float(process.communicate()[0]) / 1024
    assert megabytes < 110
