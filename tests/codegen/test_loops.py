"""Index arithmetic: parts of a loop over several dimensions find together again without division."""

from __future__ import annotations

import itertools
import math

import pytest

from hloc.codegen.llvm import Builder, Constant, Module
from hloc.codegen.loops import (
    Flat,
    Part,
    delinearize,
    index_constant,
    linear,
    loop_groups,
    reshape_index,
    reshape_runs,
    row_major_strides,
)


@pytest.fixture
def b() -> Builder:
    function = Module().function("f", "void", [("i64", "i")])
    return Builder(function)


def test_parts_of_a_dense_array_are_the_loop_itself(b: Builder) -> None:
    flat = Flat(b, b.function.args[0], (4, 5, 6))
    assert linear(b, tuple(flat.parts()), (4, 5, 6), (30, 6, 1)) is flat.value
    assert not flat.splits


def test_dimensions_of_size_one_do_not_keep_parts_apart(b: Builder) -> None:
    flat = Flat(b, b.function.args[0], (4, 6))
    x, y = flat.parts()
    index = (x, index_constant(0), y)
    assert linear(b, index, (4, 1, 6), (6, 77, 1)) is flat.value


def test_a_part_alone_is_computed_and_asks_for_a_split(b: Builder) -> None:
    flat = Flat(b, b.function.args[0], (4, 5, 6))
    middle = flat.parts()[1]
    assert middle.text.startswith("%")
    assert flat.splits == {1, 2}


def test_parts_in_another_order_stay_apart(b: Builder) -> None:
    flat = Flat(b, b.function.args[0], (4, 5))
    x, y = flat.parts()
    linear(b, (y, x), (5, 4), (4, 1))
    assert flat.splits == {1}


def test_splitting_a_part_along_the_dimensions_of_its_loop_needs_no_division(b: Builder) -> None:
    flat = Flat(b, b.function.args[0], (4, 5, 6))
    both = Part(flat, 1, 3)
    parts = delinearize(b, both, (5, 1, 6))
    assert [(p.first, p.end) for p in parts if isinstance(p, Part)] == [(1, 2), (2, 3)]
    assert linear(b, (flat.parts()[0], *parts), (4, 5, 1, 6), (30, 6, 6, 1)) is flat.value
    assert not flat.splits


@pytest.mark.parametrize(
    "before, after",
    [
        ((6,), (2, 3)),
        ((2, 3), (6,)),
        ((4, 6), (3, 8)),
        ((2, 1, 3), (6, 1)),
        ((), (1, 1)),
        ((5, 4), (5, 2, 2)),
    ],
)
def test_reshape_runs_hold_equally_many(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    runs = reshape_runs(before, after)
    assert [d for run, _ in runs for d in run] == list(range(len(before)))
    assert [d for _, run in runs for d in run] == list(range(len(after)))
    for f, t in runs:
        assert math.prod(before[d] for d in f) == math.prod(after[d] for d in t)


@pytest.mark.parametrize("before, after", [((4, 6), (3, 8)), ((24,), (2, 3, 4)), ((2, 3, 4), (6, 2, 2))])
def test_reshape_index_is_the_same_row_major_element(
    b: Builder, before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    for place in itertools.product(*map(range, after)):
        index = reshape_index(b, tuple(index_constant(i) for i in place), after, before)
        position = sum(i * s for i, s in zip(place, row_major_strides(after), strict=True))
        folded = [value.number if isinstance(value, Constant) else int(value.text) for value in index]
        assert sum(i * s for i, s in zip(folded, row_major_strides(before), strict=True)) == position


def test_loop_groups_end_before_starts_and_skip_ones() -> None:
    assert loop_groups((4, 1, 5, 6), set()) == [[0, 2, 3]]
    assert loop_groups((4, 1, 5, 6), {1}) == [[0], [2, 3]]
    assert loop_groups((1, 1), set()) == []
