"""Options of numbers and of devices: what they change in LLVM IR, in results, and on the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import hloc
from hloc.cli import main
from hloc.codegen.compile import emit_stage
from hloc.options import Options

PRODUCT_AND_SUM = """HloModule numbers
ENTRY e {
  x = f32[64] parameter(0)
  y = f32[64] parameter(1)
  p = f32[64] multiply(x, x)
  ROOT r = f32[64] add(p, y)
}
"""

DEFAULTS = "flush_denormals=on, fast_math=off, fma=off"


def ir(options: Options, text: str = PRODUCT_AND_SUM, stage: str = "llvm") -> str:
    return emit_stage(hloc.parse(text), stage, "cpu", options)


def test_the_defaults_leave_float_ops_plain_and_flush() -> None:
    text = ir(Options())
    assert f"; {DEFAULTS}\n" in text
    assert re.search(r"fmul <\d+ x float>", text) and re.search(r"fadd <\d+ x float>", text)
    assert '"denormal-fp-math"="preserve-sign,preserve-sign"' in text and "ldmxcsr" in text


def test_fma_lets_llvm_join_a_multiply_and_an_add() -> None:
    text = ir(Options(fma=True))
    assert "fma=on" in text
    assert re.search(r"fmul contract <\d+ x", text) and re.search(r"fadd contract <\d+ x", text)
    x = np.full(64, 1 + 2.0**-12, np.float32)
    y = np.full(64, -(1 + 2.0**-11), np.float32)
    exact = hloc.compile(PRODUCT_AND_SUM, options=Options(cache=False))(x, y)
    fused = hloc.compile(PRODUCT_AND_SUM, options=Options(cache=False, fma=True))(x, y)
    assert set(exact) == {0.0}
    joined = "fma" in ir(Options(fma=True), stage="asm")
    assert set(fused) == ({np.float32(2.0**-24)} if joined else {0.0})


def test_fast_math_marks_the_program_and_spares_elementary_functions() -> None:
    text = ir(Options(fast_math=True), PRODUCT_AND_SUM.replace("add(p, y)", "tanh(p)"))
    kernels, _, functions = text.partition("@hloc.tanh")
    assert re.search(r"fmul fast <\d+ x float>", kernels)
    assert " fast " not in functions.partition("define i32 @hloc_entry")[0].partition("define")[2]
    x = np.linspace(-3, 3, 64).astype(np.float32)
    source = PRODUCT_AND_SUM.replace("add(p, y)", "tanh(y)")
    plain, fast = (hloc.compile(source, options=Options(cache=False, fast_math=on))(x, x) for on in (False, True))
    assert np.array_equal(plain, fast)


def test_denormals_stay_when_asked() -> None:
    text = ir(Options(flush_denormals=False))
    assert "flush_denormals=off" in text
    assert "denormal-fp-math" not in text and "ldmxcsr" not in text
    tiny = np.full(64, 1e-40, np.float32)
    zero = np.zeros(64, np.float32)
    kept = hloc.compile(PRODUCT_AND_SUM, options=Options(cache=False, flush_denormals=False))(zero, tiny)
    assert np.array_equal(kept, tiny)
    assert not hloc.compile(PRODUCT_AND_SUM, options=Options(cache=False))(zero, tiny).any()


def test_products_in_dot_are_added_with_one_rounding_whatever_fma_says() -> None:
    text = ir(Options(), """HloModule m
    ENTRY e {
      x = f32[24,24] parameter(0)
      y = f32[24,24] parameter(1)
      ROOT r = f32[24,24] dot(x, y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
    }""")
    assert re.search(r"llvm\.fmuladd\.|fmul (reassoc )?contract ", text)


@pytest.mark.parametrize(("stage", "comment"), [("llvm", ";"), ("llvm-opt", ";"), ("asm", "#")])
def test_texts_say_how_floats_are_computed(stage: str, comment: str) -> None:
    assert f"{comment} {DEFAULTS}\n" in ir(Options(), stage=stage)


def test_the_index_of_dumps_says_how_floats_are_computed(tmp_path: Path) -> None:
    hloc.optimize(PRODUCT_AND_SUM, "cpu", Options(dump_to=tmp_path, fma=True))
    assert json.loads((tmp_path / "index.json").read_text())["numbers"] == Options(fma=True).numbers


# On the command line


def hloc_command(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "program.hlo"
    path.write_text(PRODUCT_AND_SUM)
    return str(path)


def test_emit_takes_options_of_numbers(file: str) -> None:
    done = hloc_command("emit", file, "--fast-math", "--fma", "--no-flush-denormals")
    assert "; flush_denormals=off, fast_math=on, fma=on\n" in done.output
    assert DEFAULTS in hloc_command("emit", file).output


def test_run_takes_options_of_numbers(file: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.zeros(64, np.float32), y=np.full(64, 1e-40, np.float32))
    given = ("run", file, "--inputs", str(tmp_path / "in.npz"), "--no-cache")
    assert "e-4" not in hloc_command(*given).output
    assert "e-4" in hloc_command(*given, "--no-flush-denormals").output


# Devices

ALL_REDUCE = """HloModule devices
add { a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT c = f32[] add(a, b) }
ENTRY e {
  x = f32[3] parameter(0)
  id = u32[] DEVICE-id()
  sum = f32[3] all-reduce(x), GROUPS, to_apply=add
  ROOT r = (f32[3], u32[]) tuple(sum, id)
}
"""

REPLICAS = ALL_REDUCE.replace("DEVICE", "replica").replace("GROUPS", "replica_groups={}")
PARTITIONS = ALL_REDUCE.replace("DEVICE", "partition").replace(
    "GROUPS", "channel_id=1, replica_groups={{0,1,2}}, use_global_device_ids=true"
)


@pytest.mark.parametrize(
    ("text", "options"),
    [(REPLICAS, Options(replica_count=3, cache=False)), (PARTITIONS, Options(num_partitions=3, cache=False))],
)
def test_a_program_runs_on_as_many_devices_as_asked(text: str, options: Options) -> None:
    arguments = [[np.full(3, device, np.float32)] for device in range(3)]
    executable = hloc.compile(text, options=options)
    results = executable.execute_replicated(arguments)
    for device, (sums, number) in enumerate(results):
        assert list(sums) == [3, 3, 3] and number == device
    for got, expected in zip(results, hloc.evaluate_replicated(text, arguments, options), strict=True):
        assert all(map(np.array_equal, got, expected))


def test_the_module_given_stays_as_it_is() -> None:
    module = hloc.parse(REPLICAS)
    hloc.compile(module, options=Options(replica_count=2, cache=False))
    assert module.replica_count == 1


def test_too_few_devices_for_the_groups_are_an_error() -> None:
    with pytest.raises(hloc.HloError, match="replica_groups"):
        hloc.compile(PARTITIONS, options=Options(num_partitions=2, cache=False))


def test_run_prints_device_by_device(tmp_path: Path) -> None:
    path = tmp_path / "program.hlo"
    path.write_text(REPLICAS)
    saved = tmp_path / "out.npz"
    done = hloc_command("run", str(path), "--replicas", "2", "--random", "--check", "-o", str(saved))
    assert done.exit_code == 0, done.output
    names = re.findall(r"^(device\d\.out\d) ", done.output, re.MULTILINE)
    assert names == ["device0.out0", "device0.out1", "device1.out0", "device1.out1"]
    assert done.output.count("ok, largest error 0") == 4
    results = np.load(saved)
    assert [int(results[f"device{d}.out1"]) for d in range(2)] == [0, 1]


def test_each_device_may_have_inputs_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "program.hlo"
    path.write_text(REPLICAS)
    files = []
    for device in range(2):
        files += ["--inputs", str(tmp_path / f"in{device}.npz")]
        np.savez(files[-1], x=np.full(3, 1 + device, np.float32))
    done = hloc_command("run", str(path), "--replicas", "2", *files)
    assert done.output.count("[3. 3. 3.]") == 2
    refused = hloc_command("run", str(path), "--replicas", "3", *files)
    assert refused.exit_code == 2 and "given 2 times, expected once or for each of 3" in refused.output
