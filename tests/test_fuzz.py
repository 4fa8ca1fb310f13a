"""The fuzzer: a short run of it, and that it sees what is wrong and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

import hloc
from hloc.reference import machine
from hloc.reference.evaluate import evaluate
from tools.fuzz.compare import Judge
from tools.fuzz.executors import Program, check
from tools.fuzz.generate import generate
from tools.fuzz.shrink import shrink

NATIVE = ("cpu", "none")
BATCH = 10


def program(seed: int) -> Program:
    case = generate(seed)
    return Program(case.module.to_text(), case.arguments, case.portable)


@pytest.mark.parametrize("first", range(0, 70, BATCH))
def test_executors_agree(first: int) -> None:
    for seed in range(first, first + BATCH):
        assert check(program(seed), NATIVE).findings == [], f"seed {seed}"


def test_a_seed_is_one_program() -> None:
    for seed in (3, 4):
        one, other = program(seed), program(seed)
        assert one.text == other.text
        assert [a.tobytes() for a in one.arguments] == [a.tobytes() for a in other.arguments]
    assert program(3).text != program(4).text


def judge(body: str, *arguments: np.ndarray) -> tuple[Judge, list[np.ndarray]]:
    module = hloc.parse(f"HloModule m\nENTRY e {{\n{body}\n}}")
    with np.errstate(all="ignore"):
        expected = [np.asarray(result) for result in evaluate(module, arguments)]
    return Judge(module, list(arguments), expected), expected


X = np.array([1.5, -2.25, 3.0, 100.0], np.float32)


def test_exact_results_differ_by_nothing() -> None:
    verdict, expected = judge("x = f32[4] parameter(0)\nROOT r = f32[4] multiply(x, x)", X)
    assert verdict.difference(expected) is None
    assert "result 0 (0,)" in verdict.difference([np.nextafter(expected[0], np.float32(0))])


def test_rounded_results_differ_by_some_units_and_no_more() -> None:
    verdict, expected = judge("x = f32[4] parameter(0)\nROOT r = f32[4] sine(x)", X)
    assert verdict.difference([np.nextafter(expected[0], np.float32(0))]) is None
    assert verdict.difference([expected[0] * np.float32(1.0001)]) is not None


def test_cancellation_is_told_from_error() -> None:
    body = "x = f32[4] parameter(0)\ns = f32[4] exponential(x)\n"
    body += "h = f32[4] add(s, x)\nROOT r = f32[4] subtract(h, s)"
    small = np.array([1.0, 8.0, 12.0, 3.0], np.float32)
    verdict, expected = judge(body, small)
    assert verdict.difference([small]) is None
    assert verdict.difference([small * 2]) is not None


def test_nan_in_another_place_is_a_difference() -> None:
    verdict, expected = judge("x = f32[4] parameter(0)\nROOT r = f32[4] logistic(x)", X)
    wrong = expected[0].copy()
    wrong[1] = np.nan
    assert verdict.difference([wrong]) is not None


def test_what_differs_is_found_and_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    text = """HloModule m

ENTRY e {
  x = s32[4] parameter(0)
  y = s32[4] parameter(1)
  n = s32[4] negate(x)
  a = s32[4] add(n, y)
  b = s32[4] xor(a, y)
  m = s32[4] maximum(b, x)
  ROOT t = (s32[4], s32[4]) tuple(a, m)
}
"""
    numbers = [np.arange(4, dtype=np.int32), np.arange(4, 8, dtype=np.int32)]
    given = Program(text, numbers)
    assert check(given, NATIVE).findings == []
    right = machine.FUNCTIONS["xor"]
    monkeypatch.setitem(machine.FUNCTIONS, "xor", lambda *what: right(*what) + 1)
    found = check(given, NATIVE).findings
    assert [finding.where for finding in found] == ["cpu", "none"]
    small = shrink(given, lambda candidate: bool(check(candidate, ("none",)).findings))
    opcodes = {i.opcode for i in hloc.parse(small.text).instructions()}
    assert opcodes == {"parameter", "xor"}
