"""Loop nests over results, spread over threads: each thread makes a few neighbours in memory.

Elements that are neighbours are evaluated together before any is stored, so that LLVM makes one access of 16 bytes of
theirs where the memory allows it. Roots of unequal sizes have blocks of their own in one launch.

Where all arrays lie alike, a position in memory is all that is needed. Where the index along some dimension is asked
for, the kernel is written again with an index made once for all of a thread's elements.
"""

from __future__ import annotations

from collections.abc import Sequence

from hloc.codegen.arrays import ArrayRef
from hloc.codegen.bodies import Leaf
from hloc.codegen.forms import loop_nests
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.spread import over_elements
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value
from hloc.codegen.loops import Flat
from hloc.codegen.routines import i64
from hloc.ir.shapes import ArrayShape
from hloc.lazy import lazy

transposes = lazy("hloc.codegen.gpu.transposes")

THREADS = 256

_ENOUGH_THREADS = 1 << 16
"""Threads that keep a large device busy: a thread makes several elements only if there are more."""

_LONG = 60
"""Instructions of a fusion beyond which a thread makes fewer elements: they are live together."""


def write_loops(g: GpuStep) -> None:
    """A kernel without an op that has loops of its own."""
    if len(loop_nests(g.form)) == 1 and transposes.write_tiles(g):
        return
    nests = [nest for nest in loop_nests(g.form) if g.step.outputs[nest[0]].shape.count]
    if not nests:
        return
    widths = [_width(g, nest) for nest in nests]
    blocks = [_blocks(g.step.outputs[nest[0]].shape, width) for nest, width in zip(nests, widths, strict=True)]
    for by_rows in (False, True):
        flats: list[Flat] = []
        with g.launch(sum(blocks), THREADS) as k:
            first = 0
            for nest, width, count in zip(nests, widths, blocks, strict=True):
                block = k.b.sub(k.block_index(), i64(first))
                if len(nests) == 1:
                    _nest(g, k, nest, width, block, by_rows, flats)
                    continue
                with k.b.if_then(k.b.icmp_unsigned("<", block, i64(count))):
                    _nest(g, k, nest, width, block, by_rows, flats)
                first += count
        if not any(flat.splits for flat in flats):
            return
        if not by_rows:
            g.discard()


def _blocks(shape: ArrayShape, width: int) -> int:
    return -(-shape.count // (width * THREADS))


def _width(g: GpuStep, nest: Sequence[int]) -> int:
    """Elements that a thread makes: as many of the widest root as 16 bytes hold."""
    shapes = [g.step.outputs[number].shape for number in nest]
    widest = max(shape.dtype.itemsize for shape in shapes)
    instruction = g.step.instruction
    size = len(instruction.called[0]) if instruction.opcode == "fusion" else 1
    width = max(1, 16 // widest)
    if size > _LONG:
        width = min(width, 4)
    while width > 1 and shapes[0].count // width < _ENOUGH_THREADS:
        width //= 2
    return width


def _nest(
    g: GpuStep, k: GpuContext, nest: Sequence[int], width: int, block: Value, by_rows: bool, flats: list[Flat]
) -> None:
    """All elements of one nest; `block` counts its blocks."""
    b = k.b
    pairs: list[tuple[Leaf, ArrayRef]] = [(g.form.roots[number], k.outputs[number]) for number in nest]
    thread = b.add(b.mul(block, i64(THREADS)), k.thread_index())

    def together(indices: list[Index]) -> None:
        values = [[k.body.evaluate(k, *leaf, index) for leaf, _ in pairs] for index in indices]
        for number, (_, output) in enumerate(pairs):
            for index, made in zip(indices, values, strict=True):
                output.store(index, made[number])

    flats += over_elements(k, thread, pairs[0][1].shape, width, together, by_rows)
