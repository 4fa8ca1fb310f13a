"""Kernels of an attention's gradients against the evaluator: sizes, layouts, types, masks, threads."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from attention_programs import Program

import hloc
from hloc.arrays import compare, random_inputs
from hloc.codegen.attention_gradient import GradientWay
from hloc.options import Options

SIZES = {"a": 2, "b": 4, "m": 40, "n": 24, "d": 8, "e": 6}


@dataclass
class Gradients(Program):
    """An attention, and the gradients of `q`, `k` and `v` for that of its result, `g`.

    `swapped` are the products whose operands change places. Masked scores are `fill`; a value that is `kept` is a
    result too.
    """

    g: str = "ame"
    swapped: tuple[str, ...] = ()
    fill: str = "-1e9"
    kept: str = ""

    def product(self, name: str, one: tuple[str, str], other: tuple[str, str], contracted: str) -> tuple[str, str]:
        return self.dot(name, *((other, one) if name in self.swapped else (one, other)), contracted)

    @property
    def text(self) -> str:
        T, given = self.dtype, "s"
        lines = [f"{name} = {self.shape(getattr(self, name))} parameter({i})" for i, name in enumerate("qkvg")]
        first, second = (("k", self.k), ("q", self.q)) if self.keys_first else (("q", self.q), ("k", self.k))
        line, letters = self.dot("s", first, second, "d")
        pair = (("v", self.v), ("g", self.g)) if self.keys_first else (("g", self.g), ("v", self.v))
        gv, other = self.dot("gv", *pair, "e")
        assert letters == other
        full, rows = self.shape(letters), self.shape(letters.replace("n", ""))
        at = "dimensions={" + ",".join(str(i) for i, x in enumerate(letters) if x != "n") + "}"
        fold = f"dimensions={{{letters.index('n')}}}"
        lines += [line, gv, f"low = {T}[] constant(-inf)", f"zero = {T}[] constant(0)"]
        if self.masked:
            lines += [f"i = {self.shape(letters, 's32')} iota(), iota_dimension={letters.index('m')}"]
            lines += [f"j = {self.shape(letters, 's32')} iota(), iota_dimension={letters.index('n')}"]
            lines += [f"past = {self.shape(letters, 'pred')} compare(i, j), direction=GE"]
            lines += [f"no = {T}[] constant({self.fill})", f"nos = {full} broadcast(no), dimensions={{}}"]
            lines += [f"masked = {full} select(past, s, nos)"]
            given = "masked"
        lines += [
            f"most = {rows} reduce({given}, low), {fold}, to_apply=max",
            f"mosts = {full} broadcast(most), {at}",
            f"less = {full} subtract({given}, mosts)",
            f"power = {full} exponential(less)",
            f"sum = {rows} reduce(power, zero), {fold}, to_apply=add",
            f"sums = {full} broadcast(sum), {at}",
            f"p = {full} divide(power, sums)",
            f"pg = {full} multiply(p, gv)",
            f"all = {rows} reduce(pg, zero), {fold}, to_apply=add",
            f"alls = {full} broadcast(all), {at}",
            f"rest = {full} subtract(gv, alls)",
            f"zz = {full} multiply(p, rest)",
        ]
        z = "zz"
        if self.masked:
            lines += [f"zeros = {full} broadcast(zero), dimensions={{}}", f"z = {full} select(past, zz, zeros)"]
            z = "z"
        results = []
        for name, weights, value, contracted in (
            ("o", "p", "v", "n"),
            ("dv", "p", "g", "m"),
            ("dq", z, "k", "n"),
            ("dk", z, "q", "m"),
        ):
            line, made = self.product(name, (weights, letters), (value, getattr(self, value)), contracted)
            lines.append(line)
            results.append((name, self.shape(made)))
        if self.kept:
            results.append((self.kept, full))
        shapes = ", ".join(shape for _, shape in results)
        lines.append(f"ROOT r = ({shapes}) tuple({', '.join(name for name, _ in results)})")
        body = "\n  ".join(lines)
        reducers = "\n".join(
            f"{name} {{ x = {T}[] parameter(0) y = {T}[] parameter(1) ROOT r = {T}[] {op}(x, y) }}"
            for name, op in (("max", "maximum"), ("add", "add"))
        )
        return f"HloModule m\n{reducers}\nENTRY e {{\n  {body}\n}}\n"


def run(program: Gradients, arguments: list[np.ndarray] | None = None, kernels: int | None = 2) -> None:
    """Compiles to so many kernels, the attention and its gradients, and gives what the evaluator does."""
    module = hloc.parse(program.text)
    given = random_inputs(module) if arguments is None else arguments
    executable = hloc.compile(module, options=Options(cache=False))
    if program.masked and kernels is not None:
        assert len(executable.program.kernels) == kernels
    with np.errstate(all="ignore"):
        expected = hloc.evaluate(module, *given)
    results = executable(*given)
    for one, other in zip(results, expected, strict=True):
        difference = compare(one, other)
        assert difference.equal, difference
    alone = executable.with_threads(1)(*given)
    for one, other in zip(results, alone, strict=True):
        np.testing.assert_array_equal(np.asarray(one).view(np.uint8), np.asarray(other).view(np.uint8))


@pytest.mark.parametrize(
    ("m", "n", "d", "e"),
    [(16, 16, 4, 4), (40, 24, 16, 8), (23, 17, 3, 5), (100, 300, 20, 33), (300, 70, 32, 32), (73, 33, 40, 1)],
)
@pytest.mark.parametrize("masked", [False, True])
def test_sizes(m: int, n: int, d: int, e: int, masked: bool) -> None:
    run(Gradients({"a": 8, "m": m, "n": n, "d": d, "e": e}, masked=masked))


@pytest.mark.parametrize(
    "program",
    [
        Gradients(SIZES, "ambd", "anbd", "anbe", g="ambe", masked=True),
        Gradients(SIZES, "abmd", "bnad", "aben", g="ambe", masked=True),
        Gradients(SIZES, "abmd", "abnd", "bane", g="abem", swapped=("o", "dv", "dq", "dk"), masked=True),
        Gradients(SIZES, "ambd", "anbd", "anbe", g="ambe", swapped=("dv",), masked=True),
        Gradients(SIZES, "abmd", "abnd", "abne", g="abme", swapped=("dk",), keys_first=True, masked=True),
        Gradients(SIZES | {"a": 1, "b": 8}, "ambd", "anbd", "anbe", g="ambe", masked=True),
        Gradients(SIZES, "abmd", "abnd", "abne", g="abme", masked=True, fill="-inf"),
        Gradients(SIZES, "abmd", "abnd", "abne", g="abme", dtype="f64", masked=True),
    ],
)
def test_forms(program: Gradients) -> None:
    run(program)


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_small_floats(dtype: str) -> None:
    run(Gradients(SIZES, "abmd", "abnd", "abne", g="abme", dtype=dtype, masked=True, fill="-1e4"), kernels=None)


@pytest.mark.parametrize(
    "program",
    [
        Gradients(SIZES, "abmd", "abnd", "abne", g="abme", masked=True, kept="p"),
        Gradients(SIZES, "abmd", "abnd", "abne", g="abme", masked=True, kept="gv"),
        Gradients({"a": 2, "m": 40, "n": 24, "d": 8, "e": 6}, masked=True),
        Gradients({"a": 16, "m": 8, "n": 24, "d": 8, "e": 6}, masked=True),
        Gradients(SIZES, "abmd", "abnd", "abne", g="abme"),
    ],
)
def test_what_is_left_alone(program: Gradients) -> None:
    """Weights or scores that others need, and few batches or rows: several kernels, and the same answer."""
    module = hloc.parse(program.text)
    given = random_inputs(module)
    executable = hloc.compile(module, options=Options(cache=False))
    assert len(executable.program.kernels) > 2
    for one, other in zip(executable(*given), hloc.evaluate(module, *given), strict=True):
        assert compare(one, other).equal


@pytest.mark.parametrize("value", [np.inf, np.nan, 3e38])
@pytest.mark.parametrize("which", range(4))
def test_values_that_are_no_numbers(value: float, which: int) -> None:
    """They reach, by way of zeros, what the text says they reach, masked or not."""
    program = Gradients({"a": 8, "m": 40, "n": 40, "d": 4, "e": 4}, masked=True)
    given = [array.copy() for array in random_inputs(hloc.parse(program.text))]
    given[which][3, 37, 2] = value
    given[which][5, 0, 1] = value
    run(program, given)


MASKED = Gradients({"a": 8, "m": 80, "n": 80, "d": 4, "e": 4}, masked=True)


@pytest.mark.parametrize("fill", ["-1e9", "-inf", "-3", "2"])
def test_masked_columns_are_left_out_where_their_powers_are_zeros(fill: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []
    columns = GradientWay.columns

    def noted(way: GradientWay, vector_bytes: int) -> list[int]:
        asked.append(columns(way, vector_bytes))
        return asked[-1]

    monkeypatch.setattr(GradientWay, "columns", noted)
    run(replace(MASKED, fill=fill))
    assert asked
    assert all(sum(found) < 0.8 * 80 * len(found) for found in asked)


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("zz = {full} multiply(p, rest)", "zz = {full} add(p, rest)"),  # no zero where p is
        ("pg = {full} multiply(p, gv)", "pg = {full} multiply(gv, gv)"),  # a sum over what is masked
        ("rest = {full} subtract(gv, alls)", "rest = {full} multiply(gv, gv)"),  # perhaps infinite
        ("p = {full} divide(power, sums)", "p = {full} multiply(power, gv)"),  # zero where power is not
    ],
)
def test_masked_columns_are_needed(what: str, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same answer, without a look at what can be left out."""
    monkeypatch.setattr(GradientWay, "columns", None)
    full = "f32[8,80,80]"
    text = MASKED.text.replace(what.format(full=full), other.format(full=full))
    assert text != MASKED.text
    module = hloc.parse(text)
    given = random_inputs(module)
    results = hloc.compile(module, options=Options(cache=False))(*given)
    for one, expected in zip(results, hloc.evaluate(module, *given), strict=True):
        difference = compare(one, expected)
        assert difference.equal, difference
