"""The numbers that rng_expander draws: their range, mean and spread, and that two draws differ."""

from __future__ import annotations

import numpy as np
import pytest

from hloc.passes.pipeline import run_pipeline
from hloc.reference.evaluate import evaluate
from hloc.text.parser import parse

COUNT = 20_000


def draw(dtype: str, first: str, second: str, distribution: str, times: int = 1) -> list[np.ndarray]:
    shape = f"{dtype}[{COUNT}]"
    lines = [f"r{i} = {shape} rng(a, b), distribution={distribution}" for i in range(times)]
    names = ", ".join(f"r{i}" for i in range(times))
    text = f"""ENTRY main {{
      a = {dtype}[] constant({first})
      b = {dtype}[] constant({second})
      {chr(10).join(lines)}
      ROOT t = ({", ".join([shape] * times)}) tuple({names})
    }}"""
    module = parse(text)
    run_pipeline(module, "rng_expander")
    assert all(i.opcode != "rng" for i in module.instructions())
    return evaluate(module, [])


@pytest.mark.parametrize("dtype", ["f64", "f32", "f16", "bf16"])
def test_uniform_floats(dtype: str) -> None:
    values = draw(dtype, "-1", "3", "rng_uniform")[0].astype(np.float64)
    assert values.min() >= -1
    assert values.max() < 3
    assert abs(values.mean() - 1) < 0.04
    assert abs(values.std() - 4 / np.sqrt(12)) < 0.02


@pytest.mark.parametrize("dtype", ["s8", "s16", "s32", "s64", "u8", "u32", "u64"])
def test_uniform_integers(dtype: str) -> None:
    values = draw(dtype, "3", "12", "rng_uniform")[0]
    counts = np.bincount(values.astype(np.int64), minlength=12)
    assert counts.size == 12
    assert counts[:3].sum() == 0
    assert (abs(counts[3:] - COUNT / 9) < 6 * np.sqrt(COUNT / 9)).all()


def test_uniform_predicates() -> None:
    assert abs(draw("pred", "false", "true", "rng_uniform")[0].mean() - 0.5) < 0.02


@pytest.mark.parametrize("dtype", ["f64", "f32", "f16", "bf16"])
def test_normal_floats(dtype: str) -> None:
    values = draw(dtype, "2", "0.5", "rng_normal")[0].astype(np.float64)
    assert np.isfinite(values).all()
    assert abs(values.mean() - 2) < 0.02
    assert abs(values.std() - 0.5) < 0.01
    assert abs(np.mean(values > 2.5) - 0.1587) < 0.015


def test_two_draws_differ() -> None:
    first, second = draw("f32", "0", "1", "rng_uniform", times=2)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert not np.array_equal(first, second)
