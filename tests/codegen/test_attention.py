"""Attention kernels against the evaluator: sizes, layouts, types, masks, and what may stand around the products."""

from __future__ import annotations

import numpy as np
import pytest
from attention_programs import SIZES, Program

import hloc
from hloc.arrays import compare, random_inputs
from hloc.codegen.compile import emit_stage
from hloc.options import Options


def run(program: Program, arguments: list[np.ndarray] | None = None) -> None:
    module = hloc.parse(program.text)
    given = random_inputs(module) if arguments is None else arguments
    executable = hloc.compile(module, options=Options(cache=False))
    if not program.after:
        assert len(executable.program.kernels) == 1
    with np.errstate(all="ignore"):
        expected = hloc.evaluate(module, *given)
    difference = compare(executable(*given), expected)
    assert difference.equal, difference


@pytest.mark.parametrize(
    ("m", "n", "d", "e"),
    [
        (32, 24, 16, 8),
        (7, 9, 3, 5),
        (6, 16, 2, 3),
        (100, 300, 20, 33),
        (13, 600, 5, 70),
        (4, 4, 300, 4),
        (32, 5000, 4, 9),
    ],
)
def test_sizes(m: int, n: int, d: int, e: int) -> None:
    run(Program({"a": 2, "m": m, "n": n, "d": d, "e": e}))


@pytest.mark.parametrize(
    "program",
    [
        Program(SIZES, "md", "nd", "ne"),
        Program(SIZES, "dm", "dn", "en"),
        Program(SIZES, keys_first=True),
        Program(SIZES, "dm", "dn", "en", keys_first=True, weights_first=False, masked=True),
        Program(SIZES, "ambd", "anbd", "anbe", weights_first=False),
        Program(SIZES, "bamd", "bnad", "aben"),
        Program(SIZES, "abmd", "abnd", "bane"),
        Program(SIZES | {"a": 1, "b": 1}, "ambd", "anbd", "anbe"),
        Program(SIZES, scaled_queries=True),
        Program(SIZES, masked=True),
        Program(SIZES, "ambd", "anbd", "anbe", masked=True, weights_first=False),
        Program(SIZES, dtype="f64"),
        Program(SIZES, dtype="bf16"),
        Program(SIZES, dtype="f16", masked=True),
        Program(SIZES, after="ROOT t = {shape} tanh(o)"),
    ],
    ids=str,
)
def test_forms(program: Program) -> None:
    run(program)


def test_what_is_not_finite() -> None:
    program = Program({"a": 1, "m": 8, "n": 12, "d": 4, "e": 4})
    arguments = random_inputs(hloc.parse(program.text))
    arguments[0][0, 1] = np.nan
    arguments[0][0, 2] = np.inf
    arguments[1][0, 3] = -np.inf
    arguments[2][0, 4, 1] = np.inf
    run(program, arguments)


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_weights_that_are_no_softmax(dtype: str) -> None:
    module = hloc.parse(Program(SIZES, dtype=dtype).text.replace("exponential(less)", "tanh(less)"))
    given = random_inputs(module)
    executable = hloc.compile(module, options=Options(cache=False))
    assert len(executable.program.kernels) == 1
    assert compare(executable(*given), hloc.evaluate(module, *given)).equal


def test_rows_of_which_nothing_counts() -> None:
    """Scores of minus infinity alone: all powers are NaN."""
    program = Program({"a": 1, "m": 8, "n": 12, "d": 4, "e": 4})
    arguments = random_inputs(hloc.parse(program.text))
    arguments[0][0, 1], arguments[1][0] = np.inf, -np.abs(arguments[1][0])
    run(program, arguments)


def test_an_epilogue_in_the_text() -> None:
    """A fusion that was written elsewhere, with ops that follow on the second product."""
    program = Program(SIZES, after="t = {shape} transpose(o), dimensions={{0,1,2}}\n  ROOT u = {shape} tanh(t)")
    text = program.text.replace("ENTRY e {", "fused {")
    result = text.split("ROOT u = ")[1].split(" ")[0]
    shapes = [program.shape(getattr(program, name)) for name in "qkv"]
    parameters = "\n".join(f"{name} = {shape} parameter({i})" for i, (name, shape) in enumerate(zip("qkv", shapes)))
    text += f"\nENTRY e {{\n{parameters}\nROOT f = {result} fusion(q, k, v), kind=kOutput, calls=fused\n}}\n"
    module = hloc.parse(text)
    given = random_inputs(module)
    executable = hloc.compile(module, options=Options(cache=False, pipeline="layout_assignment"))
    assert len(executable.program.kernels) == 1
    assert compare(executable(*given), hloc.evaluate(module, *given)).equal


def test_weights_stay_in_the_caches() -> None:
    """However large they are together: those of a block of rows are read again at once."""
    program = Program({"a": 8, "m": 2048, "n": 1024, "d": 8, "e": 8})
    text = emit_stage(hloc.parse(program.text), "llvm", "cpu", Options())
    assert "!nontemporal" not in text


def test_threads_pack_keys_and_values_once_each() -> None:
    """Blocks of rows go to any thread, in any order: what it has packed is another batch's, or this one's."""
    program = Program({"a": 3, "m": 700, "n": 200, "d": 16, "e": 24})
    module = hloc.parse(program.text)
    given = random_inputs(module)
    results = [hloc.compile(module, options=Options(cache=False, num_threads=n))(*given) for n in (1, 2, 5)]
    assert all(np.array_equal(results[0], result) for result in results[1:])
    assert compare(results[0], hloc.evaluate(module, *given)).equal
