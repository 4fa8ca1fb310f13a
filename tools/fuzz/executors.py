"""One module through every executor: what is found wrong."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

import hloc
from hloc.arrays import in_layout, parameter_leaves
from hloc.errors import HloError
from hloc.ir.equality import structurally_equal
from hloc.ir.module import Module
from hloc.options import Options
from tools.fuzz.compare import PLAIN, SIMPLIFIED, XLA, Judge, evaluated
from tools.passes import Variant, is_variant, live, transformed, variants
from tools.roundtrip import explain

NATIVE = {"cpu": ("cpu", "cpu"), "none": ("cpu", "none")}
"""Executors of native code: target and pipeline. Targets of GPUs, with an architecture or not, are executors too."""


def native(executor: str) -> tuple[str, str | None] | None:
    """The target and pipeline of an executor of compiled code; None for what is none."""
    if executor.partition(":")[0] in ("cuda", "cuda-emulated"):
        return executor, None
    return NATIVE.get(executor)


@dataclass
class Program:
    """A module as text, with its arguments, and whether XLA's CPU backend should run it the same.

    `seed` decides what random orders of passes are tried on it.
    """

    text: str
    arguments: list[np.ndarray]
    portable: bool = True
    seed: int = 0


@dataclass
class XlaResult:
    """What XLA made of a program: its print, results, or why there are none."""

    printed: str | None = None
    results: list[np.ndarray] | None = None
    refusal: str | None = None


@dataclass
class Finding:
    """Something wrong: which executor or check, and what."""

    where: str
    detail: str


@dataclass
class Outcome:
    """All findings about a program; `refused` are executors that said that they can't run it, and why."""

    findings: list[Finding] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def check(program: Program, executors: Sequence[str], xla: XlaResult | None = None) -> Outcome:
    """Everything that can be held against the program in this process."""
    outcome = Outcome()
    try:
        module = hloc.parse(program.text)
        _check_text(module, program.text, outcome, xla)
        expected = evaluated(module, program.arguments)
    except Exception as error:
        outcome.findings.append(Finding("reference", _last_words(error)))
        return outcome
    judge = Judge(module, program.arguments, expected)
    for name in executors:
        if native(name) is not None:
            _check_native(name, module, program, judge, outcome)
        elif is_variant(name):
            for variant in variants(name, program.seed):
                _check_passes(variant, module, program, judge, outcome)
    if xla is not None and xla.results is not None and program.portable:
        _note(outcome, "jaxlib", judge.difference(xla.results, XLA))
    return outcome


def _note(outcome: Outcome, where: str, difference: str | None) -> None:
    if difference is not None:
        outcome.findings.append(Finding(where, difference))


def _check_text(module: Module, text: str, outcome: Outcome, xla: XlaResult | None) -> None:
    faults = hloc.verify(module)
    if faults:
        _note(outcome, "verify", faults[0].message)
    printed = module.to_text()
    _note(outcome, "print", structurally_equal(module, hloc.parse(printed)))
    if xla is not None and xla.printed is not None:
        _note(outcome, "print beside XLA's", explain(printed, xla.printed)[1])


def _check_native(name: str, module: Module, program: Program, judge: Judge, outcome: Outcome) -> None:
    target, pipeline = native(name)
    if target != "cpu" and any(computation.name.startswith("ordered") for computation in module):
        # What `folds.reduce_in_order` makes: threads fold parts, as HLO allows, and XLA does.
        outcome.refused[name] = "a computation that folds and is not associative"
        return
    arguments = laid_out(module, program.arguments)
    try:
        executable = hloc.compile(module, target, Options(pipeline=pipeline, cache=False))
        results = executable.execute_replicated([arguments] * executable.device_count)
        flat = [np.asarray(result) for of_device in results for result in of_device]
        _note(outcome, name, judge.difference(flat, PLAIN if name == "none" else SIMPLIFIED))
    except HloError as error:
        if "not supported" in str(error):
            outcome.refused[name] = error.message
        else:
            _note(outcome, name, _last_words(error))
    except Exception as error:
        _note(outcome, name, _last_words(error))


def _check_passes(
    variant: Variant, module: Module, program: Program, judge: Judge, outcome: Outcome
) -> None:
    """The evaluator on what passes make of the module, by way of its text."""
    try:
        made = transformed(module, variant.passes)
    except HloError as error:
        outcome.refused[variant.name] = error.message
        return
    except Exception as error:
        _note(outcome, variant.name, _last_words(error))
        return
    if made is None:
        return
    try:
        results = live(evaluated(hloc.parse(made.to_text()), program.arguments), made)
        _note(outcome, variant.name, judge.difference(results, SIMPLIFIED))
    except Exception as error:
        _note(outcome, variant.name, _last_words(error))


def laid_out(module: Module, arguments: list[np.ndarray]) -> list[np.ndarray]:
    """The arguments in the layouts that the entry asks for."""
    return [in_layout(a, shape) for a, (_, shape) in zip(arguments, parameter_leaves(module), strict=True)]


def without_layouts(text: str) -> str:
    """The program with every array row-major."""
    module = hloc.parse(text)
    module.entry_layout = None
    for instruction in module.instructions():
        instruction.shape = instruction.shape.without_layout().with_default_layout()
    return module.to_text()


def _last_words(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {error} ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})"


class Xla:
    """jaxlib's CPU client, for programs as text. Raises ImportError where there is no jaxlib."""

    def __init__(self) -> None:
        import jax
        from jaxlib import _hlo, _jax

        self._jax, self._hlo, self._jaxlib = jax, _hlo, _jax

    def run(self, program: Program) -> XlaResult:
        """Parse, print, and run with default layouts; a refusal by XLA is its message."""
        result = XlaResult()
        try:
            options = self._hlo.HloPrintOptions()
            options.print_large_constants = True
            result.printed = self._hlo.hlo_module_from_text(program.text).to_string(options)
            if program.portable:
                result.results = self._execute(program)
        except Exception as error:  # jaxlib raises many types
            result.refusal = str(error).strip().split("\n")[0][:200]
        return result

    def _execute(self, program: Program) -> list[np.ndarray]:
        """The results of all replicas, one after the other."""
        text = without_layouts(program.text)
        module = self._hlo.hlo_module_from_text(text)
        computation = self._hlo.XlaComputation(module.as_serialized_hlo_module_proto())
        mlir = self._jaxlib.mlir.xla_computation_to_mlir_module(computation)
        devices = self._jax.devices()[: hloc.parse(text).replica_count]
        options = self._jaxlib.CompileOptions()
        options.env_option_overrides = [("xla_allow_excess_precision", False)]
        options.num_replicas = len(devices)
        order = np.arange(len(devices)).reshape(-1, 1)
        options.device_assignment = self._jaxlib.DeviceAssignment.create(order)
        executable = devices[0].client.compile_and_load(mlir, self._jaxlib.DeviceList(tuple(devices)), options)
        given = [self._everywhere(array, devices) for array in program.arguments]
        results = executable.execute_sharded(given).disassemble_into_single_device_arrays()
        return [np.asarray(array[number]) for number in range(len(devices)) for array in results]

    def _everywhere(self, array: np.ndarray, devices: list) -> object:
        """An array that is the same on all devices."""
        mesh = self._jax.sharding.Mesh(np.array(devices), "replicas")
        sharding = self._jax.sharding.NamedSharding(mesh, self._jax.sharding.PartitionSpec())
        return self._jax.device_put(np.ascontiguousarray(array).reshape(array.shape), sharding)
