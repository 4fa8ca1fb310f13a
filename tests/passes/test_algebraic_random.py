"""Random graphs of small ops compute the same before and after the algebraic rules."""

from __future__ import annotations

import random

import numpy as np
import pytest

from hloc.arrays import random_inputs
from hloc.ir.builder import Builder
from hloc.ir.dtypes import BF16, F32, PRED, S16, S32, U8
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.ir.shapes import array
from hloc.passes.pipeline import run_pipeline
from hloc.reference.evaluate import evaluate
from hloc.text.parser import parse

GRAPHS = 90
MOST = 300
"""Elements of one array, at most."""


class Graphs:
    """Makes a random module: some parameters, then ops on what there is; the last few values are the results."""

    def __init__(self, seed: int):
        self.rng = random.Random(seed)
        self.makers = MAKERS if seed % 3 else ELEMENTWISE
        self.b = Builder("random")
        self.values: list[Instruction] = []

    def module(self, ops: int = 14) -> Module:
        for _ in range(3):
            dims = [self.rng.choice((1, 2, 3, 4)) for _ in range(self.rng.randrange(1, 4))]
            self.values.append(self.b.parameter(array(self.rng.choice((F32, F32, S32)), *dims)))
        while len(self.values) < ops:
            made = self.rng.choice(self.makers)(self, self.rng.choice(self.values[-5:]))
            if made is not None and made.shape.count <= MOST:
                self.values.append(made)
        return self.b.build(self.values[-3:])

    def scalar(self, like: Instruction) -> Instruction:
        return self.b.constant(self.rng.choice((0, 1, 2, -1, 3)), like.shape.dtype)

    def index(self) -> Instruction:
        known = self.b.constant(self.rng.randrange(-1, 4), S32)
        return known if self.rng.random() < 0.6 else self.b.reduce(self.b.iota(array(S32, 3)), "add")


def unary(g: Graphs, x: Instruction) -> Instruction:
    return g.b.op(g.rng.choice(("negate", "abs", "sign")), x)


def binary(g: Graphs, x: Instruction) -> Instruction | None:
    if x.shape.dtype is PRED:
        return None
    same = [v for v in g.values if v.shape == x.shape]
    y = g.rng.choice([*same, g.b.broadcast(g.scalar(x), x.shape)])
    opcode = g.rng.choice(("add", "subtract", "multiply", "maximum", "minimum"))
    return g.b.op(opcode, *g.rng.sample((x, y), 2))


def chosen(g: Graphs, x: Instruction) -> Instruction:
    y = g.b.broadcast(g.scalar(x), x.shape)
    return g.b.select(g.b.compare(x, y, g.rng.choice(("LT", "EQ", "GE"))), *g.rng.sample((x, y), 2))


def reshape(g: Graphs, x: Instruction) -> Instruction:
    dims, rest = [], x.shape.count
    while rest > 1 and len(dims) < 4:
        dims.append(g.rng.choice([d for d in range(1, rest + 1) if rest % d == 0]))
        rest //= dims[-1]
    return g.b.reshape(x, [*dims, rest])


def transpose(g: Graphs, x: Instruction) -> Instruction:
    return g.b.transpose(x, dimensions=g.rng.sample(range(x.shape.rank), x.shape.rank))


def broadcast(g: Graphs, x: Instruction) -> Instruction:
    rank = x.shape.rank + g.rng.randrange(1, 3)
    places = g.rng.sample(range(rank), x.shape.rank)
    dims = [g.rng.choice((1, 2, 3)) for _ in range(rank)]
    for d, place in enumerate(places):
        dims[place] = x.shape.dims[d]
    return g.b.broadcast(x, dims, places)


def cut(g: Graphs, x: Instruction) -> Instruction | None:
    starts = [g.rng.randrange(size) for size in x.shape.dims]
    limits = [g.rng.randrange(start + 1, size + 1) for start, size in zip(starts, x.shape.dims)]
    return g.b.slice(x, starts, limits, [g.rng.choice((1, 1, 2)) for _ in starts])


def pad(g: Graphs, x: Instruction) -> Instruction:
    edges = [(g.rng.randrange(-1, 3), g.rng.randrange(3), g.rng.choice((0, 0, 1))) for _ in x.shape.dims]
    edges = [edge if size > 1 else (abs(edge[0]), *edge[1:]) for edge, size in zip(edges, x.shape.dims)]
    return g.b.pad(x, g.scalar(x), edges)


def concatenate(g: Graphs, x: Instruction) -> Instruction | None:
    if not x.shape.rank:
        return None
    along = g.rng.randrange(x.shape.rank)
    parts = [x, g.rng.choice([x, g.b.broadcast(g.scalar(x), x.shape), cut(g, x)])]
    others = [all(a == b for d, (a, b) in enumerate(zip(p.shape.dims, x.shape.dims)) if d != along) for p in parts]
    return g.b.concatenate(g.rng.sample(parts, 2), along) if all(others) else None


def reverse(g: Graphs, x: Instruction) -> Instruction:
    return g.b.reverse(x, dimensions=[d for d in range(x.shape.rank) if g.rng.random() < 0.6])


def fold(g: Graphs, x: Instruction) -> Instruction:
    along = [d for d in range(x.shape.rank) if g.rng.random() < 0.6]
    return g.b.reduce(x, g.rng.choice(("add", "maximum", "minimum")), along)


def dot(g: Graphs, x: Instruction) -> Instruction | None:
    y = g.rng.choice([v for v in g.values if v.shape.dtype is x.shape.dtype])
    pairs = [(i, j) for i, a in enumerate(x.shape.dims) for j, b in enumerate(y.shape.dims) if a == b]
    g.rng.shuffle(pairs)
    named: list[tuple[int, int]] = []
    for i, j in pairs:
        if i not in [p for p, _ in named] and j not in [q for _, q in named]:
            named.append((i, j))
    split = g.rng.randrange(len(named) + 1)
    batch, steps = named[:split], named[split:]
    if np.prod([*x.shape.dims, *y.shape.dims], dtype=float) > 5 * MOST:
        return None
    return g.b.dot(
        x,
        y,
        lhs_batch_dims=tuple(i for i, _ in batch),
        rhs_batch_dims=tuple(j for _, j in batch),
        lhs_contracting_dims=tuple(i for i, _ in steps),
        rhs_contracting_dims=tuple(j for _, j in steps),
    )


def read(g: Graphs, x: Instruction) -> Instruction:
    sizes = [g.rng.randrange(1, size + 1) for size in x.shape.dims]
    return g.b.dynamic_slice(x, *(g.index() for _ in sizes), dynamic_slice_sizes=sizes)


def write(g: Graphs, x: Instruction) -> Instruction:
    update = read(g, x)
    return g.b.dynamic_update_slice(x, update, *(g.index() for _ in x.shape.dims))


def gather(g: Graphs, x: Instruction) -> Instruction | None:
    if not x.shape.rank:
        return None
    along = g.rng.randrange(x.shape.rank)
    indices = g.b.constant(np.array(g.rng.choice(([1], [0, 1], [0, 2], [2, 0], [3, 1, 1])), np.int32))
    sizes = [1 if d == along else size for d, size in enumerate(x.shape.dims)]
    place = g.rng.randrange(x.shape.rank)
    return g.b.gather(
        x,
        indices,
        offset_dims=[d for d in range(x.shape.rank) if d != place],
        collapsed_slice_dims=[along],
        start_index_map=[along],
        index_vector_dim=1,
        slice_sizes=sizes,
    )


def scatter(g: Graphs, x: Instruction) -> Instruction | None:
    if not x.shape.rank:
        return None
    along = g.rng.randrange(x.shape.rank)
    row = cut(g, g.b.reverse(x, dimensions=[along]))
    whole = [size if d != along else 1 for d, size in enumerate(x.shape.dims)]
    if list(row.shape.dims) != whole:
        return None
    return g.b.scatter(
        x,
        g.b.reshape(g.index(), (1,)),
        row,
        to_apply=g.b.reducer(g.rng.choice(("add", "multiply", "maximum")), x.shape.dtype),
        update_window_dims=tuple(range(x.shape.rank)),
        inserted_window_dims=[],
        scatter_dims_to_operand_dims=[along],
        index_vector_dim=0,
    )


def iota(g: Graphs, x: Instruction) -> Instruction | None:
    if not x.shape.rank:
        return None
    return g.b.iota(array(g.rng.choice((S32, U8, F32)), *x.shape.dims), g.rng.randrange(x.shape.rank))


def converted(g: Graphs, x: Instruction) -> Instruction:
    kinds = (S32, S16, U8, F32) if x.shape.dtype in (S32, S16, U8, PRED) else (F32, BF16)
    return g.b.convert(x, g.rng.choice(kinds))


def whole_numbers(g: Graphs, x: Instruction) -> Instruction | None:
    """Ops of integers with numbers at which rules look, or with each other."""
    if not x.shape.dtype.is_integer:
        return None
    opcode = g.rng.choice(
        (
            *("divide", "remainder", "shift-left", "shift-right-logical", "shift-right-arithmetic"),
            *("and", "or", "xor", "add", "multiply", "subtract", "maximum", "minimum", "power"),
        )
    )
    number = g.rng.choice((0, 1, 2, 3, 4, 7, 8, 10, 32, 127))
    same = [v for v in g.values if v.shape == x.shape]
    y = g.rng.choice([*same[-1:], *[g.b.broadcast(g.b.constant(number, x.shape.dtype), x.shape)] * 3])
    if opcode == "power":
        y = g.b.broadcast(g.b.constant(number % 4, x.shape.dtype), x.shape)
    return g.b.op(opcode, x, y)


def truth(g: Graphs, x: Instruction) -> Instruction:
    """Comparisons, and logic of their results."""
    if x.shape.dtype is PRED:
        known = g.b.broadcast(g.b.constant(g.rng.random() < 0.5, PRED), x.shape)
        other = g.rng.choice([known, g.b.not_(x), *(v for v in g.values if v.shape == x.shape)])
        made = g.rng.choice(("and", "or", "xor", "not", "select", "compare"))
        if made == "not":
            return g.b.not_(x)
        if made == "select":
            return g.b.select(x, *g.rng.sample((other, known), 2))
        return g.b.compare(x, other, "NE") if made == "compare" else g.b.op(made, x, other)
    direction = g.rng.choice(("LT", "LE", "GT", "GE", "EQ", "NE"))
    number = g.rng.choice((0, 1, 3, 4, 127))
    y = g.b.broadcast(g.b.constant(number, x.shape.dtype), x.shape)
    return g.b.compare(*g.rng.sample((x, g.rng.choice((x, y, y, y))), 2), direction)


def bounded(g: Graphs, x: Instruction) -> Instruction | None:
    if x.shape.dtype is PRED:
        return None
    low, high = (g.b.constant(n, x.shape.dtype) for n in (g.rng.choice((0, 1)), g.rng.choice((3, 100))))
    return g.b.clamp(low, x, high)


ELEMENTWISE = (iota, converted, whole_numbers, whole_numbers, whole_numbers, truth, truth, bounded, broadcast, binary)
MAKERS = (
    *(unary, binary, binary, chosen, reshape, reshape, transpose, transpose, broadcast, broadcast, cut, cut),
    *(pad, concatenate, reverse, fold, fold, dot, read, write, gather, scatter),
)


@pytest.mark.parametrize("seed", range(GRAPHS))
def test_results_stay(seed: int) -> None:
    module = Graphs(seed).module()
    text = module.to_text()
    arguments = random_inputs(module, seed=seed)
    want = evaluate(module, arguments)
    run_pipeline(module, "algebraic,constant_folding,algebraic,cse,dce")
    for answer in (module, parse(module.to_text(), "printed")):
        for a, b in zip(evaluate(answer, arguments), want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, err_msg=text)
