"""Passes on collectives keep what each of several devices gets, by the evaluator and natively."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hloc
from hloc.arrays import random_inputs
from hloc.passes.pipeline import run_pipeline
from hloc.reference.evaluate import evaluate_replicated
from hloc.text.parser import parse

HERE = Path(__file__).parent
NAMES = ("collective_simplifier", "collective_slices", "collective_combiner")
PROGRAMS = sorted(path for name in NAMES for path in (HERE / name).glob("*.hlo"))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_every_device_gets_the_same(path: Path) -> None:
    module = parse(path.read_text(), path.name)
    count = module.replica_count * module.num_partitions
    arguments = [random_inputs(module, seed=seed) for seed in range(count)]
    expected = evaluate_replicated(module, arguments)
    for name in NAMES:
        changed = parse(path.read_text(), path.name)
        run_pipeline(changed, [name])
        check(evaluate_replicated(changed, arguments), expected)
    check(hloc.compile(path).execute_replicated(arguments), expected)


def check(got: list, expected: list) -> None:
    for mine, wanted in zip(got, expected, strict=True):
        for one, other in zip(mine, wanted, strict=True):
            np.testing.assert_array_equal(one, other)
