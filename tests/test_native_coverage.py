"""Every opcode runs natively for every family of element types that it allows, with the evaluator's results.

One module a family holds all the opcodes that take its type, each a small use (native_cases.py); collectives
run on two devices. An opcode that leaves out a family fails here, unless its shape rule refuses the type or
EXCEPTIONS says why. Opcodes without a type to choose run in every module.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from native_cases import CASES, CHANNEL, DEVICE_CASES, FAMILIES, REGISTERED, Case, Site

import hloc
from hloc.arrays import compare
from hloc.errors import HloError
from hloc.host.queues import HostQueues
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.ir.opcodes import OPS
from hloc.options import Options
from hloc.reference.evaluate import evaluate_replicated

_NO_ORDER = "complex numbers have no order, though the shape rule (XLA's) takes them"

EXCEPTIONS: dict[tuple[str, str], str] = {
    **dict.fromkeys(((opcode, "complex") for opcode in ("clamp", "maximum", "minimum", "topk")), _NO_ORDER),
}
"""(opcode, family) -> why there is no run."""

OWN_VALUES = {("rng", "pred"), *(("rng-get-and-update-state", name) for name in FAMILIES)}
"""(opcode, family) whose values come from the device's own state: only type and size are compared."""

NOT_ALLOWED = ("TYPE_C1", "TYPE_C2", "COMPLEX_C1", "RNG_C2", "RNG_C3", "FFT_C2")
"""Labels by which a shape rule refuses an element type."""


def turned(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.T)


@pytest.fixture(autouse=True)
def function_of_custom_calls() -> None:
    hloc.register_custom_call(REGISTERED, turned)


class Family:
    """The module of a family: which of the cases are in it, and what refused the others."""

    def __init__(self, name: str, cases: dict[str, Case], replicas: int):
        self.site = Site(FAMILIES[name], name)
        self.refused: dict[str, HloError] = {}
        self.results: list[tuple[str, Instruction]] = []
        opcodes: dict[Case, list[str]] = {}
        for opcode, case in cases.items():
            if (opcode, name) not in EXCEPTIONS:
                opcodes.setdefault(case, []).append(opcode)
        for case, together in opcodes.items():
            try:
                self.results.append((together[0], case(self.site)))
            except HloError as error:
                self.refused |= dict.fromkeys(together, error)
        arrays = [made for _, made in self.results if not made.shape.is_token]
        self.module: Module = self.site.b.build(arrays)
        self.module.replica_count = replicas

    @property
    def opcodes(self) -> set[str]:
        return {instruction.opcode for instruction in self.module.instructions()}

    def names(self) -> list[str]:
        """The opcode behind each leaf of the results."""
        return [opcode for opcode, made in self.results for _, leaf in made.shape.leaves() if leaf.is_array]


@cache
def family(name: str, replicas: int) -> Family:
    return Family(name, CASES if replicas == 1 else DEVICE_CASES, replicas)


def fed_values(dtype: DType) -> list[np.ndarray]:
    """What the host gives to infeed and to recv."""
    return [np.zeros((4, 6), dtype.numpy), np.ones((4, 6), dtype.numpy)]


@pytest.mark.parametrize("target", ["cpu", "cuda-emulated"])
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("name", FAMILIES)
def test_native_results_are_the_evaluators(name: str, replicas: int, target: str) -> None:
    case = family(name, replicas)
    arguments = [case.site.inputs] * replicas
    fed, sent = fed_values(case.site.dtype)
    host = HostQueues()
    guard = "end" if target == "cpu" else ""  # the emulator checks every access
    options = Options(pipeline="none", guard_pages=guard, cache=False)
    executable = hloc.compile(case.module, target, options)
    for queues in (host, executable):
        infeed = queues.infeed if queues is host else queues.infeed()
        infeed.put(fed)
        queues.channel(CHANNEL + 1).put(sent)
    expected = evaluate_replicated(case.module, arguments, queues=[host] * replicas)
    got = executable.execute_replicated(arguments)
    wrong = []
    for results, wanted in zip(got, expected, strict=True):
        for opcode, result, value in zip(case.names(), results, wanted, strict=True):
            difference = compare(result, value)
            if (opcode, name) in OWN_VALUES:
                assert (result.dtype, result.shape) == (value.dtype, value.shape)
            elif not difference.equal:
                wrong.append(f"{opcode}: {difference}")
    if replicas == 1:
        assert compare(executable.outfeed().get(timeout=5), host.outfeed.get(timeout=5)).equal
        assert compare(executable.channel(CHANNEL).get(timeout=5), host.channel(CHANNEL).get(timeout=5)).equal
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_opcode_runs_or_refuses_the_type(name: str) -> None:
    run = family(name, 1).opcodes | family(name, 2).opcodes
    refused = {**family(name, 1).refused, **family(name, 2).refused}
    for opcode, error in refused.items():
        assert error.label in NOT_ALLOWED, f"{opcode}: {error}"
    missing = set(OPS) - run - set(refused) - {opcode for opcode, of in EXCEPTIONS if of == name}
    assert not missing


def test_the_table_has_every_opcode_once() -> None:
    assert {*CASES, *DEVICE_CASES} == set(OPS)
    assert not set(CASES) & set(DEVICE_CASES)
    assert {opcode for opcode, _ in EXCEPTIONS} <= set(OPS)
