"""The assembler of PTX: found, run, and its messages read. It is part of the `test` extra; without it, this fails."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hloc.api import compile_program
from hloc.cli import main
from hloc.codegen.targets import kernel_stats, occupancy, ptxas
from hloc.codegen.targets.nvptx import _ARCHITECTURES
from hloc.errors import HloError
from hloc.runtime import cuda_graph

SOFTMAX = str(Path(__file__).parents[2] / "samples" / "softmax.hlo")
ARCHITECTURES = ("sm_80", "sm_90a", "sm_120")


def ptx(arch: str) -> bytes:
    program = compile_program(Path(SOFTMAX), arch)
    assert program.device is not None
    return program.device.image


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_ptxas_is_here_and_takes_what_hloc_writes(arch: str) -> None:
    assert ptxas.find_ptxas(arch), "there is no ptxas: pip install nvidia-cuda-nvcc-cu12, which is in hloc[test]"
    made = ptxas.assemble(ptx(arch), arch)
    assert made.cubin.startswith(b"\x7fELF")
    assert made.kernels and all(use.registers and not use.spill_stores for use in made.kernels)


def test_what_ptxas_says_is_read() -> None:
    said = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'first' for 'sm_80'
ptxas info    : Function properties for first
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 16384 bytes smem, 400 bytes cmem[0]
ptxas info    : Function properties for helper
    4 bytes stack frame, 0 bytes spill stores, 4 bytes spill loads
ptxas info    : Compiling entry function 'second' for 'sm_80'
ptxas info    : Function properties for second
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 0 barriers
"""
    first, second = ptxas.kernel_uses(said)
    assert first == ptxas.KernelUse("first", 255, 16384, 20, 8, 16)
    assert second == ptxas.KernelUse("second", 10, 0, 0, 0, 0)


def test_a_refusal_names_the_kernel_and_its_instructions() -> None:
    text = ptx("sm_80").decode()
    place = text.index("ld.global")
    said = r"refuses the code for sm_80: line \d+; error .*, in kernel k_\w+ \(%\w+"
    with pytest.raises(ptxas.PtxasError, match=said):
        ptxas.assemble(f"{text[:place]}oops.{text[place:]}", "sm_80")


def test_a_ptxas_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HloError, match="/nowhere/ptxas does not run"):
        ptxas.assemble("", "sm_80", "/nowhere/ptxas")
    monkeypatch.setattr(ptxas, "find_tools", lambda name: iter(()))
    with pytest.raises(HloError, match="ptxas, NVIDIA's assembler, is not here"):
        ptxas.assemble("", "sm_80")
    with pytest.raises(HloError, match="neither nvdisasm nor cuobjdump is here"):
        ptxas.disassemble(b"")


def test_tools_are_looked_for_on_path_in_the_toolkit_and_in_wheels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [tmp_path / "path", tmp_path / "home/bin", tmp_path / "site/nvidia/cu13/bin"]
    for place in places:
        place.mkdir(parents=True)
        (place / "ptxas").write_text("#!/bin/sh\necho \"'sm_80'\"\n")
        (place / "ptxas").chmod(0o755)
    (places[1] / "ptxas").write_text("#!/bin/sh\necho \"'sm_120','sm_120a'\"\n")
    monkeypatch.setenv("PATH", str(places[0]), prepend=":")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    found = [path for path in ptxas.find_tools("ptxas") if path.startswith(str(tmp_path))]
    assert found == [str(place / "ptxas") for place in places]
    assert ptxas.find_ptxas("sm_120a") == found[1]
    assert ptxas.find_ptxas("sm_80") == found[0]
    assert ptxas.find_ptxas("sm_999") == found[0]


def test_the_kernels_that_set_handles_assemble(tmp_path: Path) -> None:
    """Their call is resolved by the driver; all else is checked here."""
    own = b"\n.extern .func cudaGraphSetConditional"
    text = cuda_graph.setters(ptx("sm_90a")).removesuffix(b"\0")
    assert own in text
    head, rest = text.split(own)
    declared, rest = rest.split(b";", 1)
    defined = b"\n.visible .func cudaGraphSetConditional" + declared.rstrip() + b"\n{\n    ret;\n}\n"
    names = {use.name for use in ptxas.assemble(head + defined + rest, "sm_90a").kernels}
    assert names == {cuda_graph.SET_BY_BYTE, cuda_graph.SET_BY_INDEX}


@pytest.mark.parametrize(
    ("sm", "threads", "registers", "shared", "blocks", "part", "limit"),
    [
        (90, 256, 32, 0, 8, 1.0, "threads"),
        (80, 256, 128, 0, 2, 0.25, "registers"),
        (80, 128, 255, 0, 2, 0.125, "registers"),
        (80, 128, 32, 48 * 1024, 3, 0.1875, "shared memory"),
        (90, 384, 168, 200 * 1024, 1, 0.1875, "registers"),
        (86, 32, 16, 0, 16, 1 / 3, "blocks"),
        (86, 1024, 64, 0, 1, 2 / 3, "threads"),
    ],
)
def test_occupancy(sm: int, threads: int, registers: int, shared: int, blocks: int, part: float, limit: str) -> None:
    found = occupancy.occupancy(sm, threads, registers, shared)
    assert (found.blocks, found.limit) == (blocks, limit)
    np.testing.assert_allclose(found.part, part)


def test_every_architecture_has_limits_that_agree() -> None:
    assert list(occupancy.LIMITS) == list(_ARCHITECTURES)
    for sm, (_, shared, threads) in _ARCHITECTURES.items():
        assert occupancy.LIMITS[sm].threads == threads
        assert 0 <= occupancy.LIMITS[sm].shared - shared <= 1024


def test_stats_have_a_line_for_each_kernel() -> None:
    program = compile_program(Path(SOFTMAX), "sm_90a")
    stats = kernel_stats.kernel_stats(program.device, 90)
    assert [each.name for each in stats] == [kernel.name for kernel in program.device.kernels]
    lines = kernel_stats.table(stats).splitlines()
    assert lines[0].split()[:4] == ["kernel", "threads", "registers", "shared"]
    assert len(lines) == len(stats) + 1 and "%" in lines[1]


# The command line


def run(*words: str, status: int = 0) -> str:
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == status, result.output
    return result.output


def test_emit_writes_ptx_for_a_gpu_without_being_told_so() -> None:
    text = run("emit", SOFTMAX, "--target=sm_90a")
    assert ".target sm_90a" in text and "// HLO: %" in text and text.startswith("// flush_denormals=on")


def test_emit_writes_a_cubin(tmp_path: Path) -> None:
    run("emit", SOFTMAX, "--target=sm_120", "--stage=cubin", "-o", str(tmp_path / "k.cubin"))
    assert (tmp_path / "k.cubin").read_bytes().startswith(b"\x7fELF")


def test_emit_says_what_it_takes_to_disassemble(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = ptxas.find_tools
    monkeypatch.setattr(ptxas, "find_tools", lambda name: tools(name) if name == "ptxas" else iter(()))
    said = run("emit", SOFTMAX, "--target=sm_80", "--stage=sass", status=1)
    assert said.startswith("error: neither nvdisasm nor cuobjdump is here")


def test_emit_tells_the_stages_of_a_target() -> None:
    said = run("emit", SOFTMAX, "--stage=ptx", status=1)
    assert said.startswith('error: target cpu has no stage "ptx"; it has: hlo, llvm, llvm-opt, asm, obj')


def test_emit_prints_what_kernels_take() -> None:
    said = run("emit", SOFTMAX, "--target=sm_80", "--stats")
    assert "occupancy" in said and "k_" in said
    assert "has no kernels that ptxas knows of" in run("emit", SOFTMAX, "--stats", status=1)


def test_run_on_the_emulator() -> None:
    assert "check out0: ok" in run("run", SOFTMAX, "--random", "--check", "-q", "--target=cuda-emulated", "--no-cache")


def test_run_says_that_code_to_look_at_does_not_run() -> None:
    said = run("run", SOFTMAX, "--random", "--target=sm_80", "--no-cache", status=1)
    assert "was compiled for sm_80, to look at" in said


def test_devices_lists_targets_and_what_is_missing() -> None:
    said = run("devices")
    assert "cuda-emulated" in said and "ptxas" in said
    assert "no GPU: " in said or "cuda:0" in said


@pytest.mark.parametrize(("arch", "count"), [("sm_75", 0), ("sm_80", 4)])
def test_bf16_is_rounded_by_the_machine(arch: str, count: int) -> None:
    """Two elements at a time, of the eight that a thread stores."""
    text = "HloModule m\nENTRY e {\n  x = f32[1048576] parameter(0)\n  ROOT h = bf16[1048576] convert(x)\n}"
    image = compile_program(text, arch).device.image
    assert image.count(b"cvt.rn.bf16x2.f32") == count
