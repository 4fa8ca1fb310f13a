"""Every algebraic rule has a test of its name, in which it fires once and must not fire once, and keeps results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hloc.passes.algebraic.simplifier as simplifier
from hloc.arrays import random_inputs
from hloc.ir.module import Module
from hloc.options import Options
from hloc.passes.algebraic.rules import RULES
from hloc.passes.pipeline import run_pipeline
from hloc.reference.evaluate import evaluate
from hloc.text.parser import parse

FILES = sorted((Path(__file__).parent / "algebraic").glob("*.hlo"))

ROUNDING = {
    "add_zero",
    "dilation_to_features",
    "divide_by_constant",
    "divide_by_exponential",
    "divide_by_inverse_root",
    "dot_to_multiply",
    "inverse_of_root",
    "join_constants",
    "log_of_exponential",
    "multiply_exponentials",
    "reduce_broadcast",
    "small_power",
}
"""Rules that XLA applies by default and that round otherwise, or mind a sign of zero; and one that leaves out products
of zeros, as XLA's convolutions do, where an infinity would make NaN of them."""

SPECIAL = (0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), float("nan"), 2.5, -3.0, 1e30)


def test_every_rule_has_a_test() -> None:
    names = {rule.__name__ for rules in RULES.values() for rule in rules}
    assert names - {path.stem for path in FILES} == set()


def with_special_values(arguments: list[np.ndarray], seed: int) -> list[np.ndarray]:
    """The arguments with half of the floats replaced by special ones, and integers by extreme ones."""
    rng = np.random.default_rng(seed)
    found = []
    for argument in arguments:
        values = np.array(SPECIAL)
        if argument.dtype.kind in "iu":
            limits = np.iinfo(argument.dtype)
            values = np.array([0, 1, 2, limits.max, limits.min, limits.max - 1, 7], argument.dtype)
        if argument.dtype.kind in "fiu":
            chosen = rng.choice(values, argument.shape).astype(argument.dtype)
            argument = np.where(rng.random(argument.shape) < 0.5, chosen, argument)
        found.append(argument)
    return found


def simplified(path: Path) -> Module:
    module = parse(path.read_text(), path.name)
    run_pipeline(module, "algebraic")
    return module


def same_bits(got: np.ndarray, want: np.ndarray) -> bool:
    """Whether all values are the same, NaN like NaN, signs of zero included."""
    if not np.array_equal(got, want, equal_nan=got.dtype.kind in "fc"):
        return False
    return got.dtype.kind != "f" or bool((np.isnan(want) | (np.signbit(got) == np.signbit(want))).all())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_results_stay(path: Path) -> None:
    """Bit for bit on special and on random values, or nearly so on ordinary ones where the rule rounds."""
    before, after = parse(path.read_text(), path.name), simplified(path)
    rounds = path.stem in ROUNDING
    for seed in range(4):
        arguments = random_inputs(before, seed=seed)
        if not rounds:
            arguments = with_special_values(arguments, seed)
        for got, want in zip(evaluate(after, arguments), evaluate(before, arguments), strict=True):
            assert got.dtype == want.dtype
            if rounds:
                np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-30)
            else:
                assert same_bits(np.asarray(got), np.asarray(want)), path.stem


def test_the_rule_of_a_test_fires() -> None:
    for path in FILES:
        rewriter = simplifier.Rewriter(RULES)
        rewriter.run(parse(path.read_text(), path.name))
        assert rewriter.fired[path.stem], path.stem


def test_a_limit_stops_the_rules() -> None:
    module = parse((FILES[0].parent / "negate_twice.hlo").read_text(), "limited")
    untouched = module.to_text()
    run_pipeline(module, "algebraic{limit=0}", Options())
    assert module.to_text() == untouched
    assert run_pipeline(module, "algebraic{limit=1}").changed


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_rule_that_is_not_tried_would_fire(path: Path) -> None:
    left_out = [
        (rule, instruction)
        for instruction in parse(path.read_text(encoding="utf-8")).instructions()
        for rule in RULES.get(instruction.opcode, ())
        if getattr(rule, "behind", None) and rule.behind.isdisjoint(o.opcode for o in instruction.operands)
    ]
    assert not [rule.__name__ for rule, instruction in left_out if rule(instruction) is not None]
