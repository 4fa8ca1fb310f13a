"""The fuzzer: a short run of it, and that it sees what is wrong and nothing else."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import hloc
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.passes.pipeline import ORDER, Pass
from hloc.passes.pipeline import PASSES as PASS_TABLE
from hloc.reference import machine
from hloc.reference.evaluate import evaluate
from tools.fuzz.compare import SIMPLIFIED, WITHOUT_NAN, Judge
from tools.fuzz.executors import Program, check
from tools.fuzz.generate import generate
from tools.fuzz.shrink import shrink
from tools.fuzz.values import FLOATS, PROFILES, Draw
from tools.passes import random_order, variants

NATIVE = ("cpu", "none")
PASSES = ("pass:each", "orders:2")
BATCH = 10


def program(seed: int) -> Program:
    case = generate(seed)
    return Program(case.module.to_text(), case.arguments, case.portable)


@pytest.mark.parametrize("first", range(0, 70, BATCH))
def test_executors_agree(first: int) -> None:
    for seed in range(first, first + BATCH):
        assert check(program(seed), NATIVE).findings == [], f"seed {seed}"


@pytest.mark.parametrize("first", range(100, 140, BATCH))
def test_passes_keep_the_answer(first: int) -> None:
    for seed in range(first, first + BATCH):
        assert check(program(seed), PASSES).findings == [], f"seed {seed}"


def test_orders_keep_the_rows_of_the_table() -> None:
    orders = [order.passes for order in variants("orders:20", seed=3)]
    assert len(set(orders)) == 20
    assert orders[4] == random_order(64).passes
    for earlier, later, _ in ORDER:
        for order in orders:
            assert earlier not in order[order.index(later) :] if later in order else True


def test_a_pass_that_changes_the_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Subtracts:
        """Writes subtractions for additions."""

        @staticmethod
        def run(module: Module) -> bool:
            sums = [i for i in module.entry if i.opcode == "add"]
            for i in sums:
                difference = Instruction("subtract", i.shape, i.operands, {}, name="d")
                module.entry.replace_uses(i, module.entry.add(difference, before=i))
            return bool(sums)

    monkeypatch.setitem(sys.modules, "hloc.passes.subtracts", Subtracts)
    monkeypatch.setitem(PASS_TABLE, "subtracts", Pass("subtracts"))
    text = "HloModule m\nENTRY e {\nx = s32[2] parameter(0)\nROOT y = s32[2] add(x, x)\n}"
    found = check(Program(text, [np.array([1, 2], np.int32)]), ("pass:each",)).findings
    assert [finding.where for finding in found] == ["pass:subtracts"]
    assert "the evaluator says np.int32(2)" in found[0].detail


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


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("profile", PROFILES)
def test_only_special_values_are_no_numbers(dtype: DType, profile: str) -> None:
    values = Draw(5).array(dtype, (400,), profile).astype(float)
    assert np.isfinite(values).all() == (profile != "special" or dtype.numpy in WITHOUT_NAN)


def test_exact_results_differ_by_nothing() -> None:
    verdict, expected = judge("x = f32[4] parameter(0)\nROOT r = f32[4] multiply(x, x)", X)
    assert verdict.difference(expected) is None
    assert "result 0 (0,)" in verdict.difference([np.nextafter(expected[0], np.float32(0))])


def test_rounded_results_differ_by_some_units_and_no_more() -> None:
    verdict, expected = judge("x = f32[4] parameter(0)\nROOT r = f32[4] sine(x)", X)
    assert verdict.difference([np.nextafter(expected[0], np.float32(0))]) is None
    assert verdict.difference([expected[0] * np.float32(1.0001)]) is not None


def test_rules_may_divide_by_constants_in_their_way() -> None:
    body = "x = f32[4] parameter(0)\nc = f32[4] constant({3, 7, 3, 7})\nROOT r = f32[4] divide(x, c)"
    verdict, expected = judge(body, X)
    other = [X * (np.float32(1) / np.array([3, 7, 3, 7], np.float32))]
    assert verdict.difference(other, SIMPLIFIED) is None
    assert verdict.difference(other) is not None
    body = "x = f32[4] parameter(0)\nROOT r = f32[4] divide(x, x)"
    verdict, expected = judge(body, X)
    assert verdict.difference([np.nextafter(expected[0], np.float32(0))], SIMPLIFIED) is not None


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
    instructions = list(hloc.parse(small.text).instructions())
    assert {i.opcode for i in instructions} == {"parameter", "xor"}
    assert {i.shape.dims for i in instructions} == {(1,)}
    assert {a.shape for a in small.arguments} == {(1,)}
