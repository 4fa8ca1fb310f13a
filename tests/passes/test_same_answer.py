"""No pass changes what a program computes: each alone, whole pipelines, and passes in any order."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from hloc.arrays import random_inputs
from hloc.options import Options
from hloc.passes.pipeline import PASSES, PIPELINES, run_pipeline
from hloc.reference.evaluate import evaluate
from hloc.text.parser import parse
from hloc.text.printer import print_module

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.hlo"))
ORDERS = 12


@cache
def arguments_and_answer(path: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    module = parse(path.read_text(), path.name)
    arguments = random_inputs(module, seed=1)
    return arguments, evaluate(module, arguments)


def check(path: Path, passes: str | list[str]) -> None:
    module = parse(path.read_text(), path.name)
    run_pipeline(module, passes)
    arguments, expected = arguments_and_answer(path)
    printed = parse(print_module(module), "printed")
    for got, want in zip(evaluate(printed, arguments), expected, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
@pytest.mark.parametrize("name", [*PASSES, *PIPELINES])
def test_each_pass_alone(name: str, path: Path) -> None:
    check(path, name)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
@pytest.mark.parametrize("seed", range(ORDERS))
def test_passes_in_any_order(seed: int, path: Path) -> None:
    rng = random.Random(f"{seed} {path.stem}")
    check(path, rng.choices(list(PASSES), k=10))


def test_every_pass_has_something_to_do() -> None:
    """The programs reach all passes, so the tests above can fail. Random numbers have no fixed answer, calls of GPUs'
    libraries none before `linalg_calls`; and starts in one vector are for no other pass than `start_splitter`.
    """
    idle = set(PASSES) - {"rng_expander", "manual_partitioning", "sharding_removal", "linalg_calls", "start_splitter"}
    idle = {name for name in idle if not name.startswith("collective_")}  # see test_collective_passes.py
    for path in PROGRAMS:
        for name in sorted(idle):
            module = parse(path.read_text(), path.name)
            if run_pipeline(module, name).changed:
                idle.discard(name)
    assert idle == set()


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_no_pass_changes_what_does_not_concern_it(path: Path) -> None:
    for row in PASSES.values():
        module = parse(path.read_text(), path.name)
        if not row.concerns(module):
            assert not row.make(Options(), {}).run(module), row.name
