"""Compiled programs on disk: what was compiled once, on this machine and by this hloc, is only loaded again.

A program is kept under all that it depends on: the text of its source (a Module's canonical text), the target, the
options, the processor or the GPU's architecture, and the versions of hloc, of its own files, of LLVM and of the
interpreter.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
from functools import cache as once

import numpy as np

from hloc import __version__, cache
from hloc.codegen.program import CUSTOM, Program, aligned_copy
from hloc.host.processors import processors
from hloc.lazy import lazy
from hloc.options import Options
from hloc.records import replace

gpus = lazy("hloc.host.gpus")
call_stub = lazy("hloc.codegen.call_stub")
targets = lazy("hloc.codegen.targets.target")

_OUTSIDE_OF_PROGRAMS = {"cache": True, "dump_to": None, "dump_constants": True, "print_after": ()}
"""Options that change nothing in a program."""


class Slot:
    """The place of one program in the cache."""

    def __init__(self, text: str, target: str, options: Options):
        threads = options.num_threads or processors()
        settings = repr((target, replace(options, num_threads=threads, **_OUTSIDE_OF_PROGRAMS)))
        self._key = "\0".join((settings, _machine(target), _surroundings(), text)).encode("utf-8", "surrogatepass")
        self._name = hashlib.blake2b(self._key, digest_size=20).hexdigest()
        self._digest = self._name.encode()

    def find(self) -> Program | None:
        """The program, if it was kept here and is whole."""
        data = cache.read(self._name, self._digest)
        if data is None:
            return None
        program, constants = pickle.loads(data)
        return replace(program, constants=aligned_copy(np.frombuffer(constants, np.uint8)))

    def keep(self, program: Program) -> None:
        """Keep a program for later runs. One that calls functions of this process is not: they may not be there."""
        if any(external.kind == CUSTOM for external in program.externals):
            return
        data = pickle.dumps((replace(program, constants=None), program.constants.tobytes()), protocol=5)
        cache.write(self._name, self._digest, data, f"{program.name} for {program.target}")
        if program.object_code:
            call_code()  # a process that finds the program is to find this too


def call_code() -> tuple[bytes, ...]:
    """What `new_call_code` makes, from the cache if it is there; it is afterwards."""
    digest = hashlib.blake2b(_surroundings().encode(), digest_size=20).hexdigest()
    name, key = f"calls-{digest}", digest.encode()
    data = cache.read(name, key)
    if data is not None:
        return pickle.loads(data)
    files = new_call_code()
    cache.write(name, key, pickle.dumps(files), "calls of all programs for cpu")
    return files


@once
def new_call_code() -> tuple[bytes, ...]:
    """The object files that call programs of this machine's processor without Python."""
    return call_stub.object_files(targets.target_named("cpu"))


@once
def _surroundings() -> str:
    """Everything but source and options that may change what a compile makes."""
    return "\n".join((__version__, sys.version, cache.compiler(), np.__version__))


def _machine(target: str) -> str:
    """What the code of a target depends on, of this machine."""
    kind, _, number = target.partition(":")
    if kind != "cuda":
        return _processor()
    gpu = gpus.target_gpu(number)
    return f"{gpu.arch} {gpu.multiprocessors}"


@once
def _processor() -> str:
    """What the processor is and can do. Linux tells it in a file; elsewhere LLVM has to be asked."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            first = file.read(16384).split("\n\n")[0].splitlines()
    except OSError:
        machine = targets.target_named("cpu")
        return f"{machine.cpu} {sorted(machine.features)}"
    # Clock rates and the like change while one looks at them.
    steady = ("vendor_id", "cpu family", "model", "stepping", "flags", "CPU ", "Features", "cache size")
    return "\n".join(line for line in first if line.startswith(steady))
