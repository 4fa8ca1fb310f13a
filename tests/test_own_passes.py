"""Passes that are not hloc's own: how they come in, where they run, and what is told of their faults."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import hloc
from hloc.cli import main
from hloc.errors import HloError, InternalError
from hloc.passes import pipeline
from hloc.passes.api import Emit, Module, compiler_pass, replace
from hloc.passes.pipeline import run_pipeline
from hloc.text.parser import parse

SAMPLE = str(Path(__file__).parent.parent / "samples" / "passes" / "strength_reduction.py")
LOGS = """HloModule m

ENTRY main {
  x = f32[64] parameter(0)
  y = f32[64] parameter(1)
  a = f32[64] log(x)
  b = f32[64] log(y)
  ROOT c = f32[64] add(a, b)
}
"""

NEGATION = '''
from hloc.passes.api import Emit, compiler_pass, replace

@compiler_pass(after="cse")
def negate_logs(module):
    """Negates logarithms."""
    logs = [i for i in module.instructions() if i.opcode == "log" and i.shape.dtype.name == "f32"]
    for log in logs:
        emit = Emit.at(log)
        replace(log, emit.map("negate", emit.map("log-plus-one", log.operands[0])))
    return len(logs)
'''


def hloc_command(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


@pytest.fixture
def program(tmp_path: Path) -> str:
    file = tmp_path / "logs.hlo"
    file.write_text(LOGS)
    return str(file)


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    file = tmp_path / "mine.py"
    file.write_text(NEGATION)
    return str(file)


@compiler_pass(after="cse")
def logs_to_sines(module: Module) -> bool:
    """Takes sines for logarithms."""
    logs = [instruction for instruction in module.instructions() if instruction.opcode == "log"]
    for log in logs:
        replace(log, Emit.at(log).map("sine", log.operands[0]))
    return bool(logs)


# Ways in


def test_the_sample_takes_one_function_where_there_were_two(program: str) -> None:
    result = hloc_command("opt", program, "--load", SAMPLE, "--remarks=strength_reduction")
    assert result.exit_code == 0, result.output
    assert result.output.count(" log(") == 1
    assert "strength_reduction: %c: add of two log is now log of one multiply" in result.output


def test_the_sample_keeps_what_others_use(program: str) -> None:
    module = parse(LOGS.replace("ROOT c = f32[64]", "c = f32[64]").replace("}", "ROOT t = tuple(a, c)\n}"))
    assert not run_pipeline(module, "strength_reduction", hloc.Options(load=(SAMPLE,))).changed


def test_a_run_takes_passes_of_a_file(program: str, plugin: str, tmp_path: Path) -> None:
    arrays = np.random.default_rng(0).uniform(1, 2, (2, 64)).astype(np.float32)
    np.savez(tmp_path / "arrays.npz", in0=arrays[0], in1=arrays[1])
    run = ("run", program, "--inputs", str(tmp_path / "arrays.npz"), "--check", "-q")
    assert hloc_command(*run, "--load", SAMPLE).exit_code == 0
    result = hloc_command(*run, "--load", plugin)
    assert result.exit_code == 1 and "WRONG" in result.output


def test_emit_takes_passes_of_a_file(program: str, plugin: str) -> None:
    assert "negate" in hloc_command("emit", program, "--stage=hlo", "--load", plugin).output


def test_compile_takes_functions_and_does_not_keep_the_program() -> None:
    x, y = (np.linspace(1, 2, 64, dtype=np.float32) for _ in range(2))
    expected = np.log(x) + np.log(y)
    np.testing.assert_allclose(hloc.compile(LOGS)(x, y), expected, rtol=1e-5)
    changed = hloc.compile(LOGS, options=hloc.Options(load=(logs_to_sines,)))(x, y)
    np.testing.assert_allclose(changed, np.sin(x) + np.sin(y), rtol=1e-5)
    np.testing.assert_allclose(hloc.compile(LOGS)(x, y), expected, rtol=1e-5)


def test_a_file_is_read_anew_each_time(plugin: str) -> None:
    options = hloc.Options(load=(plugin,))
    assert "negate" in hloc.optimize(LOGS, "cpu", options).to_text()
    Path(plugin).write_text(NEGATION.replace('"negate"', '"cosine"'))
    text = hloc.optimize(LOGS, "cpu", options).to_text()
    assert "cosine" in text and "negate" not in text


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution on sys.path with three entry points, one of them broken."""
    (tmp_path / "their_passes.py").write_text(NEGATION)
    info = tmp_path / "their_passes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-passes\nVersion: 1.0\n")
    points = ("theirs = their_passes:negate_logs", "cse = their_passes:nothing", "broken = their_passes:nothing")
    (info / "entry_points.txt").write_text("[hloc.passes]\n" + "\n".join(points) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("their_passes", None)


@pytest.mark.usefixtures("installed")
def test_passes_of_installed_packages_are_found_by_name() -> None:
    module = parse(LOGS)
    assert run_pipeline(module, "theirs").runs[0].rewrites == 2
    assert not run_pipeline(parse(LOGS), "cse").changed  # hloc's own comes first
    loaded = hloc.optimize(LOGS, "cpu", hloc.Options(load=("theirs",)))
    assert "negate" in loaded.to_text()
    assert "negate" not in hloc.optimize(LOGS).to_text()
    with pytest.raises(HloError, match="cannot load passes from the entry point broken = their_passes:nothing: Attr"):
        run_pipeline(module, "broken")


@pytest.mark.usefixtures("installed")
def test_installed_passes_are_listed_broken_ones_too() -> None:
    listed = hloc_command("opt", "--list-passes").output
    assert "theirs: Negates logarithms." in listed
    assert "cannot load passes from the entry point broken = their_passes:nothing" in listed


@pytest.mark.usefixtures("installed")
def test_a_misspelt_installed_pass_gets_a_hint() -> None:
    with pytest.raises(HloError) as caught:
        run_pipeline(parse(LOGS), "theirz")
    assert caught.value.hint == "did you mean theirs?"


def test_known_names_do_not_look_for_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hloc.passes.plugins.installed", lambda: pytest.fail("looked"))
    run_pipeline(parse(LOGS), "cpu", hloc.Options(disabled_passes=("cse",), load=(SAMPLE,)))


# Their place


def order_of(*passes: object, rows: tuple = (("dce", ""), pipeline.FixedPoint((("cse", ""), ("dce", "")), ""))) -> list:
    own = {}
    for number, (after, before) in enumerate(passes):
        name = f"own{number}"
        marked = compiler_pass(name=name, after=after, before=before)(lambda module: False)
        own |= pipeline.plugins.load_all([marked])
    return [name for name, _ in pipeline.flattened(pipeline.plugins.place(rows, own.values(), "test"))]


def test_passes_run_where_they_ask_to() -> None:
    assert order_of(("cse", None)) == ["dce", "cse", "own0", "dce"]
    assert order_of((None, "cse")) == ["dce", "own0", "cse", "dce"]
    assert order_of(("dce", None)) == ["dce", "own0", "cse", "dce"]  # the first of that name
    assert order_of(("cse", None), ("cse", None)) == ["dce", "cse", "own0", "own1", "dce"]
    assert order_of((None, "cse"), (None, "cse")) == ["dce", "own0", "own1", "cse", "dce"]
    assert order_of(("cse", None), ("own0", None)) == ["dce", "cse", "own0", "own1", "dce"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (("fusion", None), "pass own0 of .* wants to run after fusion, which pipeline test does not have"),
        ((None, None), "pass own0 of .* asks for no place in pipeline test"),
    ],
)
def test_a_place_that_is_none_is_told(place: tuple, message: str) -> None:
    with pytest.raises(HloError, match=message):
        order_of(place)


def test_two_places_are_refused() -> None:
    with pytest.raises(TypeError, match="not both"):
        compiler_pass(after="cse", before="dce")


def test_in_a_list_a_pass_runs_where_it_stands(program: str, plugin: str) -> None:
    result = hloc_command("opt", program, "--load", plugin, "--passes=dce,negate_logs,dce", "--stats")
    assert result.exit_code == 0, result.output
    rows = [line.split()[1] for line in result.output.splitlines() if line[:3].strip().isdecimal()]
    assert rows == ["dce", "negate_logs", "dce"]


def test_own_passes_are_listed(plugin: str) -> None:
    listed = hloc_command("opt", "--list-passes", "--load", plugin).output
    assert "negate_logs: Negates logarithms." in listed and f"from      {plugin}" in listed
    assert "Takes one logarithm" in hloc_command("opt", "--list-passes=strength_reduction", "--load", SAMPLE).output


# Faults


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "has no pass: mark a function or a class with hloc.passes.api.compiler_pass"),
        ("def f(:\n", "cannot load passes from .*mine.py: SyntaxError at .*mine.py:1"),
        ("x = 1\n1 / 0", "cannot load passes from .*mine.py: ZeroDivisionError at .*mine.py:2: division by zero"),
        ("open('/absent')", "cannot load passes from .*mine.py: FileNotFoundError at .*mine.py:1"),
        (NEGATION + NEGATION.replace("negate_logs", "cse"), "pass cse of .*mine.py has the name of one of hloc's own"),
    ],
)
def test_a_file_that_does_not_load_is_told(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(HloError, match=message):
        hloc.optimize(LOGS, "cpu", hloc.Options(load=(file,)))


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (("absent.py",), "there is no file absent.py"),
        (("./",), "there is no file"),
        (("absent",), "there is no file absent, nor an installed pass of that name"),
        ((3,), "3 is no pass"),
        ((logs_to_sines, logs_to_sines), "two passes are named logs_to_sines"),
    ],
)
def test_what_is_no_pass_is_told(load: tuple, message: str) -> None:
    with pytest.raises(HloError, match=message):
        hloc.optimize(LOGS, "cpu", hloc.Options(load=load))


def test_a_fault_is_told_with_the_name_of_the_pass_and_its_file(program: str, plugin: str) -> None:
    Path(plugin).write_text(NEGATION.replace("len(logs)", "logs[7]"))
    result = hloc_command("opt", program, "--load", plugin, "--passes=negate_logs")
    assert result.exit_code == 3
    assert f"error: pass negate_logs of {plugin}, which is not hloc's own, failed with IndexError" in result.output
    assert f"({plugin}:11)" in result.output
    repeat = shlex.split(next(line for line in result.output.splitlines() if line.startswith("  hloc opt")))
    assert repeat[3:] == ["--load", plugin, "--passes=negate_logs"]
    assert hloc_command(*repeat[1:]).exit_code == 3


def test_a_pass_that_breaks_the_module_is_told() -> None:
    @compiler_pass
    def breaker(module: Module) -> bool:
        module.entry.root.shape = module.entry.root.shape.with_dtype(hloc.parse(LOGS).entry.root.shape.dtype)
        module.entry.root.opcode = "not"
        return True

    with pytest.raises(InternalError, match="breaker of test_own_passes, .* left a module that does not verify"):
        run_pipeline(parse(LOGS), "breaker", hloc.Options(load=(breaker,)))
