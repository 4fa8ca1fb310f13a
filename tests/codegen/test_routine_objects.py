"""Routines are compiled apart from the programs that call them, once: in a process, and on a machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import hloc
from hloc import cache
from hloc.codegen import routine_objects
from hloc.codegen.routines import LIGHT, OPTIMIZED, PLAIN, QUICK
from hloc.codegen.targets.target import target_named
from hloc.options import Options

PRODUCT = """HloModule product
ENTRY e {{
  a = f32[{m},40] parameter(0)
  b = f32[40,50] parameter(1)
  ROOT c = f32[{m},50] dot(a, b), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
}}
"""


@pytest.fixture
def lowered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that LLVM gets from now on; nothing is known at first."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(routine_objects, "_made", {})
    machine, texts = target_named("cpu"), []

    def counted(compiled: Callable[[str, Options], bytes], text: str, options: Options) -> bytes:
        texts.append(text)
        return compiled(text, options)

    for stage in (OPTIMIZED, LIGHT, PLAIN, QUICK):
        monkeypatch.setitem(machine.stages, stage, partial(counted, machine.stages[stage]))
    return texts


def check(m: int, options: Options) -> None:
    a, b = np.arange(m * 40, dtype=np.float32).reshape(m, 40), np.arange(2000, dtype=np.float32).reshape(40, 50) / 64
    executable = hloc.compile(PRODUCT.format(m=m), options=options)
    assert executable.program.routines
    np.testing.assert_allclose(executable(a, b), a @ b, rtol=1e-5)


def test_a_process_compiles_a_routine_once(lowered: list[str]) -> None:
    check(30, Options(cache=False))
    assert len(lowered) > 1
    del lowered[:]
    check(42, Options(cache=False))
    assert len(lowered) == 1
    assert not any(entry.about.startswith("routine") for entry in cache.entries())


def test_a_machine_compiles_a_routine_once(lowered: list[str]) -> None:
    check(30, Options())
    assert any(entry.about.startswith("routine hloc.gemm") for entry in cache.entries())
    del lowered[:]
    routine_objects._made.clear()
    check(42, Options())
    assert len(lowered) == 1


def test_routines_have_the_same_text_in_all_programs(lowered: list[str]) -> None:
    """Whatever else the program is made of: numbers of metadata and constants, other routines."""
    check(30, Options(cache=False))
    del lowered[:]
    hloc.compile(
        """HloModule more
ENTRY e {
  x = f32[7,300] parameter(0)
  t = f32[7,300] tanh(x)
  y = f32[300,7] transpose(t), dimensions={1,0}
  a = f32[30,40] parameter(1)
  b = f32[40,50] parameter(2)
  c = f32[30,50] dot(a, b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT r = (f32[300,7], f32[30,50]) tuple(y, c)
}""",
        options=Options(cache=False),
    )
    assert len(lowered) == 1


def test_a_routine_that_llvm_refuses_is_named(lowered: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(text: str, options: Options) -> bytes:
        if "@hloc_entry" in text:
            return b""
        raise RuntimeError("no")

    for stage in (OPTIMIZED, LIGHT, PLAIN, QUICK):
        monkeypatch.setitem(target_named("cpu").stages, stage, refuse)
    with pytest.raises(RuntimeError, match=r"no\nin routine hloc\."):
        hloc.compile(PRODUCT.format(m=30), options=Options(cache=False))


def test_what_only_calls_routines_is_not_optimized(lowered: list[str]) -> None:
    """Of a program of long products alone, nothing but what they call."""
    machine = target_named("cpu")
    before, optimized = machine.stages[LIGHT], []
    machine.stages[LIGHT] = lambda text, options: optimized.append(text) or before(text, options)
    check(40, Options(cache=False))
    assert not any("@hloc_entry" in text for text in optimized)
    check(2, Options(cache=False))
    assert any("@hloc_entry" in text for text in optimized)


def test_the_code_of_threads_is_one_object(lowered: list[str]) -> None:
    text = "HloModule m\nENTRY e {\n  x = f32[4096,512] parameter(0)\n  ROOT y = f32[4096,512] tanh(x)\n}\n"
    program = hloc.compile(text, options=Options(cache=False, num_threads=2)).program
    assert program.threads == 2
    assert len(program.routines) == 1
    assert [text.count("define ") for text in lowered if "define void @hloc.worker(" in text] == [5]
