"""The Python API: what `import hloc` offers, joining the layers.

A `source` is HLO text, a path (`os.PathLike`) of a file that holds it, or a Module. Functions that change a module
work on a copy of the one they are given.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from hloc import collection, program_cache
from hloc.errors import HloError, HloWarning
from hloc.lazy import lazy
from hloc.options import Options
from hloc.runtime.executable import Executable

if TYPE_CHECKING:
    from hloc.analysis.costs import ModuleCost
    from hloc.analysis.verifier import Diagnostic
    from hloc.codegen.program import Program
    from hloc.ir.module import Module
    from hloc.runtime.device_executable import DeviceExecutable

# What a program from the cache does not need.
clone = lazy("hloc.ir.clone")
codegen = lazy("hloc.codegen.compile")
costs = lazy("hloc.analysis.cost_analysis")
device_executable = lazy("hloc.runtime.device_executable")
evaluator = lazy("hloc.reference.evaluate")
parser = lazy("hloc.text.parser")
passes = lazy("hloc.passes.pipeline")
targets = lazy("hloc.codegen.targets.target")
verifier = lazy("hloc.analysis.verifier")

Source: TypeAlias = "str | os.PathLike | Module"


def parse(source: str | os.PathLike, name: str | None = None) -> Module:
    """Read HLO text into a Module. `name` stands for the text in messages.

    Raises HloError at the first fault, with its place in the text. Warns of constants that the text elides.
    """
    if isinstance(source, str):
        text, name = source, name or "<string>"
    else:
        text, name = read_text(Path(source)), name or str(source)
    module = parser.parse(text, name)
    _warn_of_elided(text, name)
    return module


def _warn_of_elided(text: str, name: str) -> None:
    """Constants of which the text does not have the values get some, as in XLA, which were hardly meant."""
    count = text.count("constant({...})")
    if count:
        constants = "one constant is" if count == 1 else f"{count} constants are"
        advice = "print the module with large constants for those it had (XLA's print_large_constants)"
        warnings.warn(f"{name}: {constants} elided as {{...}}: the values are made up; {advice}", HloWarning, 3)


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


def evaluate_replicated(
    source: Source, arguments: Sequence[Sequence[object]], options: Options | None = None
) -> list[list[np.ndarray]]:
    """What `Executable.execute_replicated` gives, by the reference evaluator; `options` tell how many devices."""
    return evaluator.evaluate_replicated(_of_each_device(source, options), arguments)


def _of_each_device(source: Source, options: Options | None = None) -> Module:
    """The program that each device runs: its own, unless the source is written for all devices together.

    Libraries that only other devices have are not called.
    """
    counts = Options() if options is None else Options(
        replica_count=options.replica_count, num_partitions=options.num_partitions
    )
    return optimize(source, "manual_partitioning,linalg_calls", counts)


def optimize(source: Source, pipeline: str = "cpu", options: Options | None = None) -> Module:
    """A copy of the module after the passes of a pipeline, or of a comma-separated list of passes."""
    options = options or Options()
    # Nobody else has a module that was read here.
    module = clone.clone_module(source) if _is_module(source) else parse(source)
    return _optimize(module, pipeline, options)


def _optimize(module: Module, pipeline: str, options: Options) -> Module:
    """The module itself, after the passes."""
    if options.replica_count is not None:
        module.replica_count = options.replica_count
    if options.num_partitions is not None:
        module.num_partitions = options.num_partitions
    passes.run_pipeline(_checked(module), pipeline, options)
    return module


def cost_analysis(source: Source, pipeline: str | None = "cpu") -> ModuleCost:
    """Arithmetic and bytes of one run of a program after the passes of a pipeline; as it stands, with None."""
    return costs.cost_of(_checked(source) if pipeline is None else optimize(source, pipeline))


def compile(
    source: Source, target: str = "cpu", options: Options | None = None, name: str | None = None
) -> Executable | DeviceExecutable:
    """Compile a program to native code, or to kernels of a GPU. `name` stands for the text in messages.

    What was compiled before, from the same source by the same hloc for the same machine, comes from the user's cache
    folder, unless `options.cache` is off, or there are passes in `options.load`, which may change.

    Raises HloError for a fault in the text, or for an op that `target` does not support yet.
    """
    options = options or Options()
    if isinstance(source, os.PathLike):
        source, name = read_text(Path(source)), name or str(source)
    slot = None
    if options.cache and not options.load:
        slot = program_cache.Slot(source if isinstance(source, str) else source.to_text(), target, options)
    program = slot.find() if slot is not None else None
    if program is None:
        program = compile_program(source, target, options, name)
        if slot is not None:
            slot.keep(program)
    else:
        if isinstance(source, str):
            _warn_of_elided(source, name or "<string>")
        if options.dump_to or options.print_after:
            _optimized(source, target, options, name)
    if program.device is not None:
        return device_executable.DeviceExecutable(program)
    return Executable(program, program_cache.new_call_code if slot is None else program_cache.call_code)


def compile_program(
    source: Source, target: str = "cpu", options: Options | None = None, name: str | None = None
) -> Program:
    """What `compile` runs, as data, compiled anew: it may be for a machine that this is not."""
    options = options or Options()
    if isinstance(source, os.PathLike):
        source, name = read_text(Path(source)), name or str(source)
    with collection.paused():
        # No name keeps the module, so that the first search behind the pause finds all of it among the garbage.
        return codegen.compile_module(_optimized(source, target, options, name), targets.target_named(target), options)


def _optimized(source: str | Module, target: str, options: Options, name: str | None) -> Module:
    """The module that a target's code is made of."""
    pipeline = options.pipeline or targets.target_named(target).pipeline
    if isinstance(source, str):
        return _optimize(parse(source, name), pipeline, options)
    return optimize(source, pipeline, options)


def _is_module(source: Source) -> bool:
    return not isinstance(source, str | os.PathLike)


def _checked(source: Source) -> Module:
    """The module of a source, verified."""
    module = source if _is_module(source) else parse(source)
    faults = verifier.verify(module)
    if faults:
        rest = f"{len(faults) - 1} more: `hloc check` lists them all" if len(faults) > 1 else None
        first = faults[0]
        raise HloError(first.message, first.span, label=first.label, hint=rest)
    return module
