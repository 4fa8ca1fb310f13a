"""Compiled programs on disk: found again, told apart, safe against damage and other processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import hloc
from hloc import cache, program_cache
from hloc.cli import main
from hloc.codegen.program import ALIGNMENT
from hloc.options import Options

TEXT = f"""HloModule scaled
ENTRY e {{
  x = f32[300] parameter(0)
  c = f32[300] constant({{{",".join(str(i % 7) for i in range(300))}}})
  ROOT y = f32[300] multiply(x, c)
}}
"""

X = np.arange(300, dtype=np.float32)
Y = X * (np.arange(300) % 7).astype(np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "hloc"


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the modules for which code is generated."""
    from hloc.codegen import compile as codegen

    names: list[str] = []
    generate = codegen.compile_module

    def counted(module, target, options):
        names.append(module.name)
        return generate(module, target, options)

    monkeypatch.setattr(codegen, "compile_module", counted)
    return names


def programs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if not path.name.startswith(("grammar", "calls", "routine")))


def test_what_was_compiled_before_is_loaded(compiles: list[str]) -> None:
    for _ in range(2):
        np.testing.assert_array_equal(hloc.compile(TEXT)(X), Y)
    assert compiles == ["scaled"]


def test_a_module_is_found_by_its_text(compiles: list[str]) -> None:
    for _ in range(2):
        np.testing.assert_array_equal(hloc.compile(hloc.parse(TEXT))(X), Y)
    assert compiles == ["scaled"]


def test_constants_lie_where_code_expects_them() -> None:
    for _ in range(2):
        constants = hloc.compile(TEXT).program.constants
        assert constants.__array_interface__["data"][0] % ALIGNMENT == 0
        assert not constants.flags.writeable


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (TEXT.replace("multiply", "add"), Options()),
        (TEXT, Options(pipeline="none")),
        (TEXT, Options(disabled_passes=("cse",))),
        (TEXT, Options(flush_denormals=False)),
    ],
    ids=["text", "pipeline", "passes", "numbers"],
)
def test_programs_are_told_apart(text: str, options: Options, compiles: list[str]) -> None:
    hloc.compile(TEXT)
    hloc.compile(text, options=options)
    assert len(compiles) == 2


def test_another_hloc_does_not_take_them(compiles: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    hloc.compile(TEXT)
    monkeypatch.setattr("hloc.program_cache._surroundings", lambda: "another")
    hloc.compile(TEXT)
    assert len(compiles) == 2


def test_without_the_cache(compiles: list[str], folder: Path) -> None:
    for _ in range(2):
        hloc.compile(TEXT, options=Options(cache=False))
    assert len(compiles) == 2
    assert not programs(folder)


@pytest.mark.parametrize("damage", ["empty", "short", "zeros", "cut", "bit in the head", "bit in the code"])
def test_a_damaged_file_is_made_anew(damage: str, folder: Path, compiles: list[str]) -> None:
    hloc.compile(TEXT)
    (kept,) = programs(folder)
    content = bytearray(kept.read_bytes())
    if damage.startswith("bit"):
        content[5 if damage.endswith("head") else len(content) // 2] ^= 1
    kept.write_bytes({"empty": b"", "short": b"x", "zeros": bytes(99), "cut": content[:-9]}.get(damage, content))
    for _ in range(2):
        np.testing.assert_array_equal(hloc.compile(TEXT)(X), Y)
    assert len(compiles) == 2


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    np.testing.assert_array_equal(hloc.compile(TEXT)(X), Y)


def test_several_processes_at_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "p.hlo").write_text(TEXT)
    code = f"import hloc, numpy as np, pathlib; f = hloc.compile(pathlib.Path({str(tmp_path / 'p.hlo')!r})); "
    code += "print(float(f(np.arange(300, dtype=np.float32)).sum()))"
    command = [sys.executable, "-c", code]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) for _ in range(4)]
    assert [float(process.communicate()[0]) for process in started] == [float(Y.sum())] * 4
    assert len(programs(folder)) == 1


def test_the_least_used_go_when_room_is_short(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(cache, "MOST_BYTES", 5000)
    monkeypatch.setattr(cache, "SECONDS", 0.0)
    for number in range(4):
        cache.write(f"n{number}", b"key", bytes(1000), "numbers")
        os.utime(cache.path_of(f"n{number}"), (number, number))
    assert cache.read("n0", b"key") is not None  # used now
    cache.write("n4", b"key", bytes(1000), "numbers")
    assert [cache.read(f"n{number}", b"key") is not None for number in range(5)] == [True, False, False, True, True]


def test_programs_for_other_numbers_of_processors_are_apart(
    monkeypatch: pytest.MonkeyPatch, compiles: list[str]
) -> None:
    for count in (1, 2, 1, 2):
        monkeypatch.setattr(program_cache, "processors", lambda count=count: count)
        hloc.compile(TEXT)
    assert len(compiles) == 2


def test_a_file_under_another_key_is_not_taken() -> None:
    cache.write("name", b"one", b"data", "")
    assert cache.read("name", b"one") == b"data"
    assert cache.read("name", b"another") is None


def test_a_kept_program_still_dumps(tmp_path: Path, compiles: list[str]) -> None:
    for number in range(2):
        hloc.compile(TEXT, options=Options(dump_to=tmp_path / str(number)))
    assert len(compiles) == 1
    first, second = (sorted(os.listdir(tmp_path / str(number))) for number in range(2))
    assert first == second != []


def test_programs_with_functions_of_a_process_are_not_kept(folder: Path) -> None:
    hloc.register_custom_call("twice_for_the_cache", lambda x: x * 2)
    call = 'custom-call(x), custom_call_target="twice_for_the_cache"'
    text = f"ENTRY e {{ x = f32[3] parameter(0) ROOT y = f32[3] {call} }}"
    hloc.compile(text)
    assert not programs(folder)


def test_a_hit_loads_neither_llvm_nor_the_parser() -> None:
    command = [sys.executable, "-c", f"import hloc, sys; hloc.compile({TEXT!r}); print(*sys.modules)"]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(2)]
    first, second = (set(run.stdout.split()) for run in runs)
    heavy = {"llvmlite.binding", "hloc.text.parser", "hloc.passes.pipeline", "hloc.codegen.compile"}
    assert heavy <= first
    assert not heavy & second


def test_the_command_lists_and_clears(folder: Path) -> None:
    hloc.compile(TEXT)
    cache.write("other", b"key", b"data", "other data")
    listed = CliRunner().invoke(main, ["cache", "list"]).output
    assert "scaled for cpu" in listed and "other data" in listed
    kept = len(list(folder.iterdir()))
    assert f"{kept} files" in listed
    assert f"removed {kept} files" in CliRunner().invoke(main, ["cache", "clear"]).output
    assert not list(folder.iterdir())
