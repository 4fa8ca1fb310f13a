"""The `hloc` command, run in this process, and the Python API behind it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import hloc
from hloc.cli import main

SAMPLES = Path(__file__).parent.parent / "samples"
SOFTMAX = str(SAMPLES / "softmax.hlo")
BAD_OPCODE = "ENTRY e {\n  p = f32[4] parameter(0)\n  ROOT r = f32[4] exponentail(p)\n}\n"
BAD_SHAPES = """ENTRY e {
  p = f32[4] parameter(0)
  q = f32[8] parameter(1)
  a = f32[4] add(p, q)
  ROOT r = f32[8] subtract(p, q)
}
"""


def hloc_command(*arguments: str, **kwargs: object) -> Result:
    return CliRunner().invoke(main, list(arguments), **kwargs)


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.hlo")), ids=lambda path: path.stem)
def test_samples_agree_with_the_evaluator(sample: Path) -> None:
    result = hloc_command("run", str(sample), "--random", "--check")
    assert result.exit_code == 0, result.output
    assert "check out0: ok" in result.output


def test_run_needs_arguments() -> None:
    result = hloc_command("run", SOFTMAX)
    assert result.exit_code == 2
    assert "x.1 f32[64,512]" in result.output


def test_run_reads_and_writes_npz(tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((64, 512)).astype(np.float32)
    np.savez(tmp_path / "x.npz", in0=x)
    result = hloc_command("run", SOFTMAX, "--inputs", str(tmp_path / "x.npz"), "-o", str(tmp_path / "y.npz"), "-q")
    assert result.exit_code == 0, result.output
    y = np.load(tmp_path / "y.npz")["out0"]
    e = np.exp(x - x.max(1, keepdims=True))
    np.testing.assert_allclose(y, e / e.sum(1, keepdims=True), rtol=1e-5)


def test_run_takes_a_number_of_threads() -> None:
    result = hloc_command("run", SOFTMAX, "--random", "--check", "--quiet", "--num-threads", "1")
    assert result.exit_code == 0 and "ok" in result.output


def test_run_repeat_prints_times() -> None:
    result = hloc_command("run", SOFTMAX, "--random", "-q", "--repeat", "3")
    assert result.exit_code == 0
    assert "3 runs: median" in result.output


def test_eval_prints_results() -> None:
    result = hloc_command("eval", str(SAMPLES / "random_normal.hlo"))
    assert result.exit_code == 0, result.output
    assert "out0 float32[4, 4]" in result.output


def test_check_points_at_the_fault(tmp_path: Path) -> None:
    file = tmp_path / "bad.hlo"
    file.write_text(BAD_OPCODE)
    result = hloc_command("check", str(file))
    assert result.exit_code == 1
    assert f"{file}:3:19: error:" in result.output
    assert "ROOT r = f32[4] exponentail(p)" in result.output
    assert "exponential" in result.output.replace("exponentail", "")


def test_check_lists_every_fault(tmp_path: Path) -> None:
    file = tmp_path / "bad.hlo"
    file.write_text(BAD_SHAPES)
    result = hloc_command("check", "--json", str(file))
    assert result.exit_code == 1
    assert {fault["line"] for fault in json.loads(result.output)} == {4, 5}


def test_check_reads_standard_input() -> None:
    assert hloc_command("check", "-", input=BAD_OPCODE).exit_code == 1
    assert hloc_command("check", "-", input=Path(SOFTMAX).read_text()).exit_code == 0


def test_a_missing_or_binary_file_is_one_message(tmp_path: Path) -> None:
    binary = tmp_path / "binary.hlo"
    binary.write_bytes(b"\xff\xfe\x00HloModule")
    for file in (str(tmp_path / "absent.hlo"), str(binary), str(tmp_path)):
        result = hloc_command("check", file)
        assert result.exit_code == 1
        assert "Traceback" not in result.output


ELIDED = "HloModule m\nENTRY e {\n  ROOT c = s32[12] constant({...})\n}\n"


def test_elided_constants_are_told_once(tmp_path: Path) -> None:
    """Compiled anew or from the cache, and checked: on standard error, one line."""
    path = tmp_path / "elided.hlo"
    path.write_text(ELIDED)
    for _ in range(2):
        result = hloc_command("run", str(path), "--check")
        assert result.exit_code == 0, result.output
        assert result.stderr.count("warning: ") == 1
        assert f"{path}: one constant is elided as {{...}}: the values are made up" in result.stderr


def test_the_api_warns_of_elided_constants() -> None:
    for run in (hloc.parse, hloc.evaluate, hloc.compile, hloc.compile):
        with pytest.warns(hloc.HloWarning, match="one constant is elided"):
            run(ELIDED)
    with pytest.warns(hloc.HloWarning, match="2 constants are elided"):
        hloc.parse(ELIDED.replace("ROOT c", "b = s32[12] constant({...})\n  ROOT c"))


def test_fmt_is_stable() -> None:
    once = hloc_command("fmt", SOFTMAX).output
    assert once.startswith("HloModule jit_softmax, entry_computation_layout=")
    assert hloc_command("fmt", "-", input=once).output == once


def test_opt_lists_passes_and_prints_a_module() -> None:
    assert "cse" in hloc_command("opt", "--list-passes").output
    result = hloc_command("opt", str(SAMPLES / "chain.hlo"))
    assert result.exit_code == 0, result.output
    assert result.output.count(" fusion(") == 1


def test_opt_tells_of_one_pass_in_full() -> None:
    listed = hloc_command("opt", "--list-passes=constant_folding").output
    for part in ("Requires:", "Ensures:", "Leaves:", "work = 20000000 (or as Options.fold_work says)", "cpu: "):
        assert part in listed
    unknown = hloc_command("opt", "--list-passes=constant_foldin")
    assert unknown.exit_code == 1 and "did you mean constant_folding?" in unknown.output


def test_opt_prints_what_passes_remark(tmp_path: Path) -> None:
    file = tmp_path / "constants.hlo"
    file.write_text("ENTRY e {\n  x = f32[2] constant({1, 2})\n  ROOT y = f32[2] negate(x)\n}\n")
    passes = "--passes=constant_folding{work=1}"
    result = hloc_command("opt", str(file), passes, "--remarks=constant_folding")
    assert "constant_folding: %y: negate of constants, left unfolded: " in result.stderr
    assert hloc_command("opt", str(file), passes, "--remarks=all").stderr == result.stderr
    assert hloc_command("opt", str(file), passes, "--remarks=cse").stderr == ""
    assert hloc_command("opt", str(file), passes, "--remarks=csee").exit_code == 1


def test_a_dash_is_standard_output() -> None:
    chain = str(SAMPLES / "chain.hlo")
    assert hloc_command("opt", chain, "-o", "-").output == hloc_command("opt", chain).output


def test_run_and_emit_leave_passes_out_and_dump(tmp_path: Path) -> None:
    chain = str(SAMPLES / "chain.hlo")
    steer = ("--disable-pass", "fusion", "--disable-pass", "row_fusion", "--dump-to", str(tmp_path))
    result = hloc_command("run", chain, "--random", "-q", "--check", *steer)
    assert result.exit_code == 0, result.output
    index = json.loads((tmp_path / "index.json").read_text())
    assert {"fusion", "row_fusion"}.isdisjoint(row["pass"] for row in index["passes"])
    assert " fusion(" not in hloc_command("emit", chain, "--stage=hlo", *steer).output
    assert hloc_command("run", chain, "--random", "--disable-pass", "fussion").exit_code == 1


def test_a_reader_that_leaves_is_no_error() -> None:
    command = [sys.executable, "-m", "hloc", "fmt", SOFTMAX]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


MARKS = [("hlo", "HloModule"), ("llvm", "define"), ("llvm-opt", "define"), ("asm", ".text")]


@pytest.mark.parametrize("stage, mark", MARKS)
def test_emit_stages(stage: str, mark: str) -> None:
    result = hloc_command("emit", SOFTMAX, "--stage", stage)
    assert result.exit_code == 0, result.output
    assert mark in result.output


def test_emit_writes_an_object_file(tmp_path: Path) -> None:
    result = hloc_command("emit", SOFTMAX, "--stage", "obj", "-o", str(tmp_path / "softmax.o"))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "softmax.o").read_bytes()[:4] == b"\x7fELF"


def test_api_runs_a_tuple_program() -> None:
    text = """HloModule pair
ENTRY e {
  p = (f32[2], s32[]) parameter(0)
  x = f32[2] get-tuple-element(p), index=0
  n = s32[] get-tuple-element(p), index=1
  y = f32[2] negate(x)
  inner = (s32[]) tuple(n)
  ROOT r = (f32[2], (s32[])) tuple(y, inner)
}
"""
    program = hloc.compile(text)
    x = np.array([1, -2], np.float32)
    for arguments in ((x, np.int32(7)), ((x, np.int32(7)),)):
        y, (n,) = program(*arguments)
        assert y.tolist() == [-1, 2] and n == 7
        assert [leaf.tolist() for leaf in program.execute(*arguments)] == [[-1, 2], 7]
    y, (n,) = hloc.evaluate(text, x, np.int32(7))
    assert y.tolist() == [-1, 2] and n == 7


def test_compile_reports_the_verifier_s_first_fault() -> None:
    with pytest.raises(hloc.HloError, match="1 more"):
        hloc.compile(BAD_SHAPES)


def test_compile_leaves_the_module_alone() -> None:
    module = hloc.parse(Path(SOFTMAX).read_text())
    before = module.to_text()
    hloc.compile(module)
    hloc.optimize(module)
    assert module.to_text() == before


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ((), "expected 1"),
        ((np.zeros((64, 512)),), "f64"),
        ((np.zeros((64, 511), np.float32),), "511"),
        ((np.zeros((512, 64), np.float32).T,), "layout"),
    ],
)
def test_wrong_arguments_say_expected_and_got(arguments: tuple, expected: str) -> None:
    program = hloc.compile(Path(SOFTMAX).read_text())
    with pytest.raises(hloc.ArgumentError, match=expected):
        program(*arguments)


def test_a_defect_of_a_pass_is_told_with_the_command_that_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(module: hloc.Module) -> bool:
        raise RuntimeError("planted")

    monkeypatch.setattr("hloc.passes.dce.run", broken)
    result = hloc_command("opt", SOFTMAX, "--passes=dce")
    assert result.exit_code == 3
    assert result.output.startswith("internal error: pass dce failed with RuntimeError: planted")
    assert "hloc opt" in result.output and "--passes='dce'" in result.output
