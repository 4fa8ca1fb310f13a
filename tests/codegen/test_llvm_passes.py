"""LLVM's passes leave no memory behind."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import hloc
from hloc.codegen.targets.target import target_named
from hloc.options import Options

TINY = "define i32 @f(i32 %a) {\n  ret i32 %a\n}\n"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's figures of a process")
@pytest.mark.parametrize("stage", ["obj", "light-obj", "plain-obj", "quick-obj"])
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


TANH = "HloModule m\nENTRY e {{\n  x = f32[{0}] parameter(0)\n  ROOT y = f32[{0}] tanh(x)\n}}\n"
LOOP = """HloModule m
more {
  x = f32[] parameter(0)
  c = f32[] constant(1e9)
  ROOT p = pred[] compare(x, c), direction=LT
}
next {
  x = f32[] parameter(0)
  ROOT y = f32[] multiply(x, x)
}
ENTRY e {
  x = f32[] parameter(0)
  ROOT y = f32[] while(x), condition=more, body=next
}
"""


@pytest.mark.parametrize(
    ("text", "stage"),
    [(TANH.format(1000), "light-obj"), (TANH.format(1_000_000), "obj"), (LOOP, "obj")],
    ids=["little", "much", "nobody knows"],
)
def test_code_of_little_work_is_made_lightly(text: str, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, used = target_named("cpu"), []

    def noted(name: str, lower: Callable[[str, Options], bytes], text: str, options: Options) -> bytes:
        used.append(name)
        return lower(text, options)

    for name in ("obj", "light-obj"):
        monkeypatch.setitem(machine.stages, name, partial(noted, name, machine.stages[name]))
    hloc.compile(text, options=Options(cache=False, num_threads=1))
    assert used == [stage]


def test_loops_with_long_ways_to_their_values_compile_soon() -> None:
    logs = "\n".join(f"  l{i} = f32[] log({f'l{i - 1}' if i else 'p0'})" for i in range(5))
    text = f"""HloModule m
fold {{
  p0 = f32[] parameter(0)
  p1 = f32[] parameter(1)
{logs}
  ROOT greater = f32[] maximum(l4, p1)
}}
ENTRY main {{
  start = f32[] constant(0)
  x = f32[8,128] parameter(0)
  ROOT r = f32[8] reduce(x, start), dimensions={{1}}, to_apply=fold
}}"""
    began = time.process_time()
    hloc.compile(text, options=Options(cache=False))
    assert time.process_time() - began < 5
