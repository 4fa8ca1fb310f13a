"""Pieces of index spaces: a few neighbours that one thread takes together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Builder, Value
from hloc.codegen.loops import Flat
from hloc.codegen.routines import i64


def without_divisions(g: GpuStep, write: Callable[[bool], list[Flat]]) -> None:
    """Writes a launch by positions in memory, or, if its indices needed divisions for that, by dimensions.

    `write(by_dimension)` writes it and gives the Flats of its indices.
    """
    if any(flat.splits for flat in write(False)):
        g.discard()
        write(True)


def neighbours(
    b: Builder, piece: Value, width: int, runs: Sequence[Sequence[int]], by_dimension: bool
) -> tuple[list[Index], list[Flat]]:
    """The indices of the `width` neighbours that are a piece, and the Flats of those along the last run.

    The space has a run of sizes for dimensions that are neighbours in memory each; no size is 1. A piece lies in one
    run: if there are several, the last one has to be a multiple of `width`. With `by_dimension`, a piece lies in one
    dimension if its size allows that, so that the index along the others is the same for all of it.
    """
    runs = [run for run in runs if run]
    if not runs:
        return [()] * width, []
    if by_dimension and len(runs[-1]) > 1 and runs[-1][-1] % width == 0:
        runs = [*runs[:-1], runs[-1][:-1], runs[-1][-1:]]
    outer: list[Value] = []
    if len(runs) > 1:
        counts = [prod(run) for run in runs]
        *before, piece = Flat(b, piece, [*counts[:-1], counts[-1] // width]).parts()
        for value, run in zip(before, runs, strict=False):
            outer += Flat(b, value, run).parts()
    start = b.mul(piece, i64(width))
    flats = [Flat(b, b.add(start, i64(number)), runs[-1]) for number in range(width)]
    return [(*outer, *flat.parts()) for flat in flats], flats
