"""The Python API: what `import hloc` offers, joining the layers.

A `source` is HLO text, a path (`os.PathLike`) of a file that holds it, or a Module. Functions that change a module
work on a copy of the one they are given.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hloc.analysis import verifier
from hloc.analysis.verifier import Diagnostic
from hloc.codegen.compile import compile_module
from hloc.codegen.targets.target import target_named
from hloc.errors import HloError
from hloc.ir.clone import clone_module
from hloc.ir.module import Module
from hloc.lazy import lazy
from hloc.options import Options
from hloc.passes.pipeline import run_pipeline
from hloc.runtime.executable import Executable
from hloc.text import parser

evaluator = lazy("hloc.reference.evaluate")

Source = str | os.PathLike | Module


def parse(source: str | os.PathLike, name: str | None = None) -> Module:
    """Read HLO text into a Module. `name` stands for the text in messages.

    Raises HloError at the first fault, with its place in the text.
    """
    if isinstance(source, str):
        return parser.parse(source, name or "<string>")
    path = Path(source)
    return parser.parse(read_text(path), name or str(path))


def read_text(path: Path) -> str:
    """The text of a file; HloError if it isn't UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise HloError(f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from None


def verify(module: Module) -> list[Diagnostic]:
    """All faults of a module, in order; none if it is well formed."""
    return verifier.verify(module)


def evaluate(source: Source, *arguments: object) -> object:
    """Run a program by the reference evaluator, slowly and by definition; takes and gives what an Executable does."""
    return evaluator.evaluate_structured(_of_each_device(source), arguments)


def evaluate_leaves(source: Source, arguments: Sequence[object]) -> list[np.ndarray]:
    """The same with the result's leaves in order, as `Executable.execute` gives them."""
    return evaluator.evaluate(_of_each_device(source), arguments)


def _of_each_device(source: Source) -> Module:
    """The program that each device runs: its own, unless the source is written for all devices together."""
    return optimize(source, "manual_partitioning")


def optimize(source: Source, pipeline: str = "cpu", options: Options | None = None) -> Module:
    """A copy of the module after the passes of a pipeline, or of a comma-separated list of passes."""
    module = clone_module(_checked(source))
    run_pipeline(module, pipeline, options or Options())
    return module


def compile(source: Source, target: str = "cpu", options: Options | None = None) -> Executable:
    """Compile a program to native code.

    Raises HloError for a fault in the text, or for an op that `target` does not support yet.
    """
    options = options or Options()
    machine = target_named(target)
    module = clone_module(_checked(source))
    run_pipeline(module, options.pipeline or machine.pipeline, options)
    return Executable(compile_module(module, machine, options))


def _checked(source: Source) -> Module:
    """The module of a source, verified."""
    module = source if isinstance(source, Module) else parse(source)
    faults = verifier.verify(module)
    if faults:
        rest = f"{len(faults) - 1} more: `hloc check` lists them all" if len(faults) > 1 else None
        first = faults[0]
        raise HloError(first.message, first.span, label=first.label, hint=rest)
    return module
