"""Decimals read all at once are those that are read one by one, to the last bit."""

from __future__ import annotations

import random

import numpy as np
import pytest

from hloc.errors import HloError
from hloc.text import literal_arrays
from hloc.text.literal_decimals import decimals, numbers
from hloc.text.parser import parse


def texts(count: int, seed: int) -> list[str]:
    """Numbers in many forms."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        value = draw.choice((draw.gauss(0, 1), draw.gauss(0, 1e6), draw.uniform(0, 1e-6), float(draw.randint(-9, 9))))
        form = draw.choice(("{:.9g}", "{:.6f}", "{:.3e}", "{:.0f}", "{:.0f}.", "{:.8E}", "{:g}"))
        found.append(form.format(value))
    return found


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return left.shape == right.shape and bool((left.view(np.int64) == right.view(np.int64)).all())


@pytest.mark.parametrize(("seed", "count"), [(0, 1), (1, 5000), (2, 6000), (3, 30000)])
def test_the_same_bits(seed: int, count: int) -> None:
    flat = f" {'  '.join(texts(count, seed))} ".encode()
    got = decimals(flat)
    assert got is not None and same(got, numbers(flat, np.float64))


def test_what_needs_a_conversion_of_its_own() -> None:
    rare = ["-0", "-0.000", "0e5", "-0e-40", "1e-30", "3.4028235e38", "123456789012345678", "-.5", "1e23"]
    flat = f" {' '.join([*texts(2000, 9), *rare])} ".encode()
    got = decimals(flat)
    assert got is not None and same(got, numbers(flat, np.float64))
    assert np.signbit(got[-9:-5]).tolist() == [True, True, False, True]


def test_too_many_long_ones_are_left_alone() -> None:
    assert decimals(b" " + b"0.12345678901234567 " * 100) is None


@pytest.mark.parametrize(
    "wrong",
    ["1.2.3", "1e", "1e-", "--1", "1-2", "1e5-3", "e5", "-e5", "1ee5", "1e5.5", "-.", ".", "-.e5", "1+2", "1e5e5", "-"],
)
@pytest.mark.parametrize("beside", ["", "2-3", "1e", "e5"])
def test_no_reading_of_what_is_malformed(wrong: str, beside: str) -> None:
    flat = f" 1.5 {wrong} {beside} 2e3 ".encode()
    assert decimals(flat) is None


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16", "c64"])
def test_literals(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [word for word in texts(4000, 3) if abs(float(word)) < 6e4][:2000]
    if dtype == "c64":
        words = [f"({real}, {imaginary})" for real, imaginary in zip(words[::2], words[1::2])]
    text = f"ENTRY e {{\n  ROOT c = {dtype}[{len(words)}] constant({{ {', '.join(words)} }})\n}}\n"
    quick = parse(text).entry.root.attributes["literal"]
    monkeypatch.setattr(literal_arrays, "decimals", lambda flat: None)
    assert parse(text).entry.root.attributes["literal"] == quick
    wrong = text.replace(words[0], "(1e39, 0)" if dtype == "c64" else "1e39", 1)
    with pytest.raises(HloError, match="out of range"):
        parse(wrong)
