"""Writing attention kernels: both products and the rows between them, block by block (see `attention_blocks`)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from math import prod

import numpy as np

from hloc.codegen import scalar
from hloc.codegen.arrays import Register
from hloc.codegen.attention_blocks import STEPS, AttentionBlocks
from hloc.codegen.attention_packing import Packer
from hloc.codegen.attention_softmax import SoftmaxRows, all_finite
from hloc.codegen.bodies import Body
from hloc.codegen.dot_side import Side
from hloc.codegen.gemm import Extent, GemmPlan
from hloc.codegen.gemm_block import Operand, block_routine, multiply_block
from hloc.codegen.kernel import Index, KernelContext
from hloc.codegen.llvm import Value, integer
from hloc.codegen.loops import delinearize, linear, row_major_strides
from hloc.codegen.routines import Routines, i64, least
from hloc.codegen.row_kernel import RowWriter
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction


def write_attention(k: KernelContext, way: AttentionBlocks) -> None:
    """The code of a kernel whose result is the second product, or what its epilogue makes of it."""
    _Writer(k, way).write()


class Block:
    """The scores or weights of a block of rows in scratch, row by row, as elements of `dtype` of a larger array.

    `shape` is that of `value`; its `rows` and `columns` dimensions count through the rows of a batch and the columns.
    Stored are elements of `stored`, rows a `stride` apart. `first` is the number of the block's first row.
    """

    def __init__(
        self,
        k: KernelContext,
        value: Instruction,
        rows: Sequence[int],
        columns: Sequence[int],
        stride: int,
        stored: DType,
    ):
        self.k, self.b, self.shape, self.stride, self.stored = k, k.b, value.shape, stride, stored
        self.rows, self.columns = rows, columns
        self.pointer: Value | None = None
        self.first: Value | None = None

    def address(self, index: Index) -> Value:
        row, column = (self._number(index, dims) for dims in (self.rows, self.columns))
        place = self.b.add(self.b.mul(self.b.sub(row, self.first), i64(self.stride)), column)
        return self.b.gep(scalar.memory_type(self.stored), self.pointer, place)

    def _number(self, index: Index, dims: Sequence[int]) -> Value:
        sizes = [self.shape.dims[d] for d in dims]
        return linear(self.b, tuple(index[d] for d in dims), sizes, row_major_strides(sizes)) if dims else i64(0)

    def load(self, index: Index) -> Register:
        value = scalar.load(self.b, self.stored, self.address(index))
        return scalar.convert(self.b, value, self.stored, self.shape.dtype)

    def store(self, index: Index, value: Register) -> None:
        value = scalar.convert(self.b, value, self.shape.dtype, self.stored)
        scalar.store(self.b, self.stored, value, self.address(index))


class _Writer:
    """Writes the loops over batches and over blocks of rows."""

    def __init__(self, k: KernelContext, way: AttentionBlocks):
        self.k, self.b, self.way, self.plan = k, k.b, way, way.plan
        plan = way.plan
        self.routines = Routines(k.b.module, k.target)
        self.first, self.second = way.tiles(k.target.vector_bytes)
        self.places = way.places(k.target.vector_bytes)
        self.packer = Packer(k, self.routines)
        self.batch: list[Value] = []
        scores, weights = plan.found.scores, plan.found.product.operands[plan.found.weights]
        self.scores = Block(k, scores, plan.score_rows, plan.score_columns, way.stride, plan.first)
        self.weights = Block(k, weights, plan.weight_rows, plan.weight_columns, way.stride, plan.second)
        self.scores.pointer, self.weights.pointer = self._at("scores"), self._at("weights")

    def _at(self, name: str) -> Value:
        return self.b.gep("i8", self.k.scratch, i64(self.places[name]))

    def write(self) -> None:
        plan, b, k = self.plan, self.b, self.k
        sizes = plan.sizes[: plan.batches]
        if k.range is None:
            with ExitStack() as stack:
                self.batch = [stack.enter_context(b.for_loop(0, size, unroll=False)) for size in sizes]
                self._pack_matrix()
                with b.for_loop(0, -(-plan.m // self.way.rows), unroll=False) as number:
                    self._block(number)
            return
        parts, packed = -(-plan.m // self.way.rows), self._at("packed")
        k.cleared = 8
        with k.ranged(prod(sizes) * parts) as limits, b.for_loop(*limits, unroll=False) as unit:
            matrix, part = delinearize(b, unit, [prod(sizes), parts])
            self.batch = delinearize(b, matrix, sizes)
            number = b.add(matrix, i64(1))
            with b.if_then(b.icmp_signed("!=", b.load("i64", packed), number)):
                self._pack_matrix()
                b.store(number, packed)
            self._block(part)

    def _pack_matrix(self) -> None:
        """Packs the keys and values of the batch that `batch` is the index of."""
        plan = self.plan
        self._pack(plan.keys, (i64(0), i64(plan.n)), (0, plan.depth), self.first, "keys", columns=True)
        for start in range(0, plan.n, STEPS):
            steps = start, min(STEPS, plan.n - start)
            self._pack(plan.values, (i64(0), i64(plan.width)), steps, self.second, "values", columns=True)
        if self.way.mask is not None:
            finite = all_finite(self.b, self.second.tile.type, self._at("values"), plan.n * plan.width)
            self.b.store(self.b.zext(finite, "i64"), self.b.gep("i64", self._at("packed"), i64(1)))

    def _block(self, number: Value) -> None:
        """The block of rows of that number."""
        plan, b, size = self.plan, self.b, i64(self.way.rows)
        first = b.mul(number, size)
        rows = first, least(b, size, b.sub(i64(plan.m), first))
        self._pack(plan.queries, rows, (0, plan.depth), self.first, "queries", columns=False)
        if self.way.mask is None:
            self._scores(rows[1], (i64(0), i64(plan.n)))
            self._between(rows)
            columns = i64(plan.n)
        else:
            columns = self._masked(rows, number)
        for start in range(0, plan.n, STEPS):
            self._add(rows[1], start, columns)
        self._finish(rows)

    def _masked(self, rows: Extent, number: Value) -> Value:
        """Makes powers of the scores that may count; how many columns there are of them.

        What is masked need not be looked at if its powers are zeros, and values that are multiplied by them finite.
        """
        plan, b, way = self.plan, self.b, self.way
        sizes = np.array(way.mask.columns(way.rows, plan.n), "<i8")
        table = b.module.constant_bytes(sizes.tobytes(), align=8)
        columns = b.load("i64", b.gep("i64", table, number))
        softmax, scores = self._softmax_rows(), self._at("scores")
        self._scores(rows[1], (i64(0), columns))
        is_above = softmax.write_most(rows, scores, way.stride, columns, way.mask.fill)
        finite = b.icmp_signed("!=", b.load("i64", b.gep("i64", self._at("packed"), i64(1))), i64(0))
        enough = b.and_(is_above, finite)
        with b.if_then(b.not_(enough)):
            self._scores(rows[1], (columns, b.sub(i64(plan.n), columns)))
            softmax.write_most(rows, scores, way.stride, i64(plan.n), way.mask.fill)
        columns = b.select(enough, columns, i64(plan.n))
        softmax.write_powers(rows, scores, way.stride, columns)
        return columns

    def _scores(self, rows: Value, columns: Extent) -> None:
        """Some columns, from a multiple of a tile's on, of the scores of a block."""
        plan, b, tile = self.plan, self.b, self.first.tile
        keys = b.gep(tile.type, self._at("keys"), b.mul(columns[0], i64(plan.depth)))
        left = Operand.packed(self._at("queries"), tile.rows, rows, i64(plan.depth))
        right = Operand.packed(keys, tile.columns, columns[1], i64(plan.depth))
        to = b.gep(tile.type, self._at("scores"), columns[0]), i64(self.way.stride), i64(1)
        sizes = rows, columns[1], i64(plan.depth)
        multiply_block(b, block_routine(self.routines, tile), (left, right), to, sizes, integer("i1", 0))

    def _add(self, rows: Value, start: int, columns: Value) -> None:
        """Adds the products of some of the weights, read in place: scratch has whole tiles of their rows.

        These are STEPS columns from `start` on, or those of so many `columns` that there are.
        """
        plan, b, tile, stride = self.plan, self.b, self.second.tile, i64(self.way.stride)
        most = i64(min(STEPS, plan.n - start))
        left = Operand(b.gep(tile.type, self._at("weights"), i64(start)), stride, stride, i64(1), rows)
        panels = self._panels("values", self.second, plan.width, start)
        right = Operand.packed(panels, tile.columns, i64(plan.width), most)
        to = self._at("sums"), i64(plan.width), i64(1)
        with b.if_then(b.icmp_signed(">", columns, i64(start))):
            sizes = rows, i64(plan.width), least(b, most, b.sub(columns, i64(start)))
            multiply_block(b, block_routine(self.routines, tile), (left, right), to, sizes, integer("i1", start > 0))

    def _panels(self, name: str, blocks: GemmPlan, lines: int, start: int) -> Value:
        """Where the packed panels from step `start` on begin."""
        whole = -(-lines // blocks.tile.columns) * blocks.tile.columns
        return self.b.gep(blocks.tile.type, self._at(name), i64(start * whole))

    def _pack(
        self, side: Side, lines: Extent, steps: tuple[int, int], blocks: GemmPlan, name: str, columns: bool
    ) -> None:
        """Panels of lines of an operand for one product."""
        tile = blocks.tile
        total = self.plan.n if name == "keys" else self.plan.width
        target = self._panels(name, blocks, total, steps[0]) if columns else self._at(name)
        extent = i64(steps[0]), i64(steps[1])
        self.packer.batch = self.batch
        self.packer.pack(side, lines, extent, tile.columns if columns else tile.rows, tile, target)

    # Rows

    def _between(self, rows: Extent) -> None:
        """Lets the rows of a block go through what is between the products."""
        k, b, between = self.k, self.b, self.way.between
        if between is None:
            self._softmax_rows().write(rows, self._at("scores"), self.way.stride)
            return
        self.scores.first = self.weights.first = rows[0]
        body = Body({(between.scores[0], ()): self.scores.load}, {})
        for twin, instruction in between.outside.items():
            body.bind((twin, ()), k.body.element(k, instruction))
        writer = RowWriter(k.inside(body, [self.weights], self._at("stages")), between.stages, between.roots)
        with b.for_loop(i64(0), rows[1], unroll=False) as number:
            digits = [*self.batch, *self.plan.digits(b, b.add(rows[0], number))]
            writer.write(tuple(digits[place] for place in between.order))

    def _finish(self, rows: Extent) -> None:
        """Stores a block of results, or what the epilogue makes of it."""
        plan, b, product = self.plan, self.b, self.plan.found.product
        sums = self._at("sums")
        softmax = None if self.way.between else self._softmax_rows()
        with b.for_loop(i64(0), rows[1], unroll=False) as row:
            finish = softmax.finish(rows[0], row) if softmax else _unchanged
            with b.for_loop(0, plan.width, unroll=False) as column:
                place = b.add(b.mul(row, i64(plan.width)), column)
                total = finish(scalar.load(b, plan.second, b.gep(scalar.memory_type(plan.second), sums, place)))
                index = plan.product_index(b, self.batch, b.add(rows[0], row), column)
                self.k.store(index, [scalar.convert(b, total, plan.second, product.shape.dtype)])

    def _softmax_rows(self) -> SoftmaxRows:
        return SoftmaxRows(self.k, self.way, self.batch, self._at("most"), self._at("total"))


def _unchanged(value: Value) -> Value:
    return value
