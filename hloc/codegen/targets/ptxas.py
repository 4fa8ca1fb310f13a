"""NVIDIA's assembler of PTX and its disassemblers: found where they are installed, run, and their messages read."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from hloc.errors import HloError
from hloc.records import NamedTuple

_WHEELS = ("nvidia/cuda_nvcc/bin", "nvidia/cu13/bin", "nvidia/cuda_cuobjdump/bin", "nvidia/cuda_nvdisasm/bin")
"""Where the packages of PyPI put NVIDIA's tools, below `site-packages`."""

_MINUTES = 10 * 60


class KernelUse(NamedTuple):
    """What a kernel takes of a multiprocessor, as ptxas says: bytes of `shared` memory are those known to it.

    `spill_stores` and `spill_loads` are bytes that do not fit into registers, `stack` the bytes of a thread's frame.
    """

    name: str
    registers: int
    shared: int
    stack: int
    spill_stores: int
    spill_loads: int


class Assembled(NamedTuple):
    """A cubin, what its kernels take, and what ptxas had to say beside that."""

    cubin: bytes
    kernels: tuple[KernelUse, ...]
    warnings: tuple[str, ...]


class PtxasError(HloError):
    """ptxas refused a text. The message has its first words, and the kernel that they are about."""


def find_tools(name: str) -> Iterator[str]:
    """Where a tool is: on PATH, in the CUDA toolkit ($CUDA_HOME, $CUDA_PATH, its usual place), in wheels."""
    found = shutil.which(name)
    if found:
        yield found
    file = f"{name}.exe" if os.name == "nt" else name
    yield from (str(folder / file) for folder in _folders() if (folder / file).is_file())


def _folders() -> Iterator[Path]:
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            yield Path(os.environ[variable]) / "bin"
    yield Path("/usr/local/cuda/bin")
    for place in sys.path:
        yield from (Path(place or ".") / wheel for wheel in _WHEELS)


def find_ptxas(arch: str = "") -> str | None:
    """The first ptxas that knows an architecture (none knows all of them), else the first there is."""
    found = list(find_tools("ptxas"))
    return next((path for path in found if arch in architectures(path)), found[0] if found else None)


@cache
def architectures(path: str) -> frozenset[str]:
    """What a ptxas makes code for."""
    return frozenset(re.findall(r"'(sm_\d+[af]?)'", _run([path, "--help"]).stdout))


@cache
def version(path: str) -> str:
    """The version of a ptxas, such as `12.9.86`."""
    said = _run([path, "--version"]).stdout
    found = re.search(r"V(\d+(?:\.\d+)+)", said)
    return found[1] if found else said.strip()


def assemble(ptx: str | bytes, arch: str, path: str | None = None) -> Assembled:
    """The cubin of a PTX text for an architecture. PtxasError if ptxas does not take it, HloError if there is none.

    `path` is the ptxas to use in place of the first that is found.
    """
    text = ptx.decode() if isinstance(ptx, bytes) else ptx
    tool = path or find_ptxas(arch)
    if tool is None:
        hint = "pip install nvidia-cuda-nvcc-cu12, or put the bin folder of CUDA's toolkit on PATH"
        raise HloError("ptxas, NVIDIA's assembler, is not here", hint=hint)
    with tempfile.TemporaryDirectory(prefix="hloc-ptxas-") as folder:
        source, target = Path(folder, "kernels.ptx"), Path(folder, "kernels.cubin")
        source.write_text(text, encoding="utf-8")
        run = _run([tool, "-v", f"--gpu-name={arch}", "-o", str(target), str(source)])
        said = run.stdout + run.stderr
        if run.returncode or not target.exists():
            raise PtxasError(_refusal(said, text, arch, run.returncode))
        return Assembled(target.read_bytes(), tuple(kernel_uses(said)), tuple(_warnings(said)))


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_MINUTES, check=False)
    except OSError as error:
        raise HloError(f"{command[0]} does not run: {error.strerror or error}") from None
    except subprocess.TimeoutExpired:
        raise PtxasError(f"{Path(command[0]).name} was not done after {_MINUTES} seconds") from None


_KERNEL = re.compile(r"Compiling entry function '([^']+)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_WARNINGS = ("warning", "performance loss")
_SHARED = re.compile(r"(\d+) bytes smem")


def kernel_uses(said: str) -> Iterator[KernelUse]:
    """What `ptxas -v` says of each kernel, in order. Functions that kernels call count as theirs."""
    parts = _KERNEL.split(said)[1:]
    for name, words in zip(parts[::2], parts[1::2], strict=True):
        registers, shared = _REGISTERS.search(words), _SHARED.search(words)
        spills = [tuple(map(int, found)) for found in _SPILLS.findall(words)] or [(0, 0, 0)]
        stack, stores, loads = (sum(column) for column in zip(*spills, strict=True))
        yield KernelUse(name, _number(registers), _number(shared), stack, stores, loads)


def _number(found: re.Match[str] | None) -> int:
    return int(found[1]) if found else 0


def _warnings(said: str) -> Iterator[str]:
    return (line for line in said.splitlines() if any(words in line.lower() for words in _WARNINGS))


def _refusal(said: str, text: str, arch: str, status: int) -> str:
    """ptxas' first error, with the kernel in which the line lies that it names."""
    lines = said.splitlines()
    errors = [line for line in lines if re.search(r"\b(error|fatal)\b", line)]
    if not errors:
        return f"ptxas, for {arch}, ended with status {status}: {said.strip()[:300]}"
    words = re.sub(r"^ptxas\s+\S*kernels\.ptx, ", "", errors[0])
    found = re.match(r"line (\d+);", words)
    place = _kernel_at(text, int(found[1])) if found else ""
    return f"ptxas refuses the code for {arch}: {' '.join(words.split())}{place}"


def _kernel_at(text: str, line: int) -> str:
    """The kernel that has a line, by its name and the comments of HLO above it."""
    before = text.splitlines()[:line]
    for number in range(len(before) - 1, -1, -1):
        found = re.match(r"\s*(?:\.visible )?\.entry (\w+)", before[number])
        if found:
            comments = [c for c in before[max(0, number - 80) : number] if c.startswith("// HLO: ")]
            what = f" ({comments[-1].removeprefix('// HLO: ')})" if comments else ""
            return f", in kernel {found[1]}{what}"
    return ""


def disassemble(cubin: bytes) -> str:
    """The machine code of a cubin as text, by nvdisasm or cuobjdump; HloError if neither is here."""
    disassembler, dumper = (next(find_tools(name), None) for name in ("nvdisasm", "cuobjdump"))
    if disassembler is None and dumper is None:
        raise HloError("neither nvdisasm nor cuobjdump is here: put the bin folder of NVIDIA's CUDA toolkit on PATH")
    with tempfile.TemporaryDirectory(prefix="hloc-sass-") as folder:
        source = Path(folder, "kernels.cubin")
        source.write_bytes(cubin)
        command = [disassembler, "-c", str(source)] if disassembler else [dumper, "-sass", str(source)]
        run = _run(command)
    if run.returncode:
        raise HloError(f"{Path(command[0]).name} failed: {(run.stderr or run.stdout).strip()[:300]}")
    return run.stdout
