"""Programs of this folder, run by the reference evaluator and natively: the same results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hloc
from hloc.arrays import compare, random_inputs
from hloc.options import Options
from hloc.reference.evaluate import evaluate

PROGRAMS = sorted(Path(__file__).parent.glob("*.hlo"))


@pytest.mark.parametrize("pipeline", ["cpu", "none"])
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_native_results_are_the_evaluators(path: Path, pipeline: str) -> None:
    module = hloc.parse(path)
    arguments = random_inputs(module)
    before = [argument.copy() for argument in arguments]
    with np.errstate(all="ignore"):
        expected = evaluate(hloc.parse(path), arguments)
    got = hloc.compile(module, options=Options(pipeline=pipeline)).execute(*arguments)
    for argument, unchanged in zip(arguments, before, strict=True):
        assert argument.tobytes() == unchanged.tobytes()
    assert len(got) == len(expected)
    for number, (result, wanted) in enumerate(zip(got, expected, strict=True)):
        difference = compare(result, np.asarray(wanted))
        assert difference.equal, f"result {number}: {difference}"
