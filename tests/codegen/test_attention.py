"""Attention kernels against the evaluator: sizes, layouts, types, masks, and what may stand around the products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import hloc
from hloc.arrays import compare, random_inputs
from hloc.options import Options


@dataclass
class Program:
    """dot(softmax(f(dot(q, k))), v) over batch dimensions, with the parts of its text.

    `q`, `k`, `v` are lists of the dimensions' letters in the operands: a and b are batches, m rows, n columns, d the
    depth, e the width. `keys_first` and `weights_first` tell the order of the products' operands.
    """

    sizes: dict[str, int]
    q: str = "amd"
    k: str = "and"
    v: str = "ane"
    dtype: str = "f32"
    keys_first: bool = False
    weights_first: bool = True
    masked: bool = False
    scaled_queries: bool = False
    after: str = ""

    def shape(self, letters: str, dtype: str | None = None) -> str:
        return f"{dtype or self.dtype}[{','.join(str(self.sizes[x]) for x in letters)}]"

    def dot(self, name: str, one: tuple[str, str], other: tuple[str, str], contracted: str) -> tuple[str, str]:
        """The text of a product, and the letters of its result."""
        batch = [x for x in one[1] if x in other[1] and x not in contracted]
        rest = [x for x in one[1] + other[1] if x not in batch and x not in contracted]
        letters = "".join([*batch, *rest])
        parts = []
        for side, (_, given) in (("lhs", one), ("rhs", other)):
            parts.append(f"{side}_batch_dims={{{','.join(str(given.index(x)) for x in batch)}}}")
            parts.append(f"{side}_contracting_dims={{{','.join(str(given.index(x)) for x in contracted)}}}")
        return f"{name} = {self.shape(letters)} dot({one[0]}, {other[0]}), {', '.join(parts)}", letters

    @property
    def text(self) -> str:
        T = self.dtype
        lines = [f"{name} = {self.shape(getattr(self, name))} parameter({i})" for i, name in enumerate("qkv")]
        query = "q"
        if self.scaled_queries:
            lines += [f"two = {T}[] constant(2)", f"twos = {self.shape(self.q)} broadcast(two), dimensions={{}}"]
            lines += [f"qq = {self.shape(self.q)} divide(q, twos)"]
            query = "qq"
        given = (query, self.q), ("k", self.k)
        line, letters = self.dot("scores", *(given[::-1] if self.keys_first else given), "d")
        lines.append(line)
        full, rows = self.shape(letters), letters.replace("n", "")
        at = ",".join(str(letters.index(x)) for x in rows)
        given = "scores"
        if self.masked:
            lines += [f"i = {self.shape(letters, 's32')} iota(), iota_dimension={letters.index('m')}"]
            lines += [f"j = {self.shape(letters, 's32')} iota(), iota_dimension={letters.index('n')}"]
            lines += [f"past = {self.shape(letters, 'pred')} compare(i, j), direction=GE"]
            lines += [f"no = {T}[] constant(-inf)", f"nos = {full} broadcast(no), dimensions={{}}"]
            lines += [f"masked = {full} select(past, scores, nos)"]
            given = "masked"
        fold = f"dimensions={{{letters.index('n')}}}"
        lines += [f"low = {T}[] constant(-inf)", f"zero = {T}[] constant(0)"]
        lines += [f"most = {self.shape(rows)} reduce({given}, low), {fold}, to_apply=max"]
        lines += [f"mosts = {full} broadcast(most), dimensions={{{at}}}", f"less = {full} subtract({given}, mosts)"]
        lines += [f"power = {full} exponential(less)"]
        lines += [f"sum = {self.shape(rows)} reduce(power, zero), {fold}, to_apply=add"]
        lines += [f"sums = {full} broadcast(sum), dimensions={{{at}}}", f"p = {full} divide(power, sums)"]
        operands = (("p", letters), ("v", self.v))
        line, letters = self.dot("o", *(operands if self.weights_first else operands[::-1]), "n")
        root = line if not self.after else f"{line}\n  {self.after.format(shape=self.shape(letters))}"
        lines.append(root if self.after else f"ROOT {root}")
        body = "\n  ".join(lines)
        reducers = [
            f"{name} {{ x = {T}[] parameter(0) y = {T}[] parameter(1) ROOT r = {T}[] {op}(x, y) }}"
            for name, op in (("max", "maximum"), ("add", "add"))
        ]
        return "HloModule m\n" + "\n".join(reducers) + f"\nENTRY e {{\n  {body}\n}}\n"


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
    [(32, 24, 16, 8), (7, 9, 3, 5), (6, 16, 2, 3), (100, 300, 20, 33), (13, 600, 5, 70), (4, 4, 300, 4)],
)
def test_sizes(m: int, n: int, d: int, e: int) -> None:
    run(Program({"a": 2, "m": m, "n": n, "d": d, "e": e}))


SIZES = {"a": 2, "b": 3, "m": 14, "n": 20, "d": 8, "e": 6}


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
