"""Writing kernels of the gradients of attentions: see `attention_gradient`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from math import prod

import numpy as np

from hloc.codegen import scalar
from hloc.codegen.attention_blocks import STEPS
from hloc.codegen.attention_gradient import LANES, GradientWay, ProductSides, whole
from hloc.codegen.attention_kernel import Block
from hloc.codegen.attention_packing import Packer
from hloc.codegen.bodies import Body
from hloc.codegen.gemm import Extent
from hloc.codegen.gemm_block import Operand, block_routine, multiply_block
from hloc.codegen.kernel import Index, KernelContext, index_constant
from hloc.codegen.llvm import Builder, Value, integer, vector_type, zero
from hloc.codegen.loops import delinearize
from hloc.codegen.routines import Routines, i64, least
from hloc.codegen.row_kernel import RowWriter
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction

_MODERATE, _INFINITE = 30, 0
"""Exponents of 2 that bound what is moderate, and what is a number; no sum of products of the former is infinite."""


def write_gradient(k: KernelContext, way: GradientWay) -> None:
    """The code of a kernel whose results are the products, in order."""
    _Writer(k, way).write()


class _Writer:
    """Writes the loops over batches and over blocks of rows."""

    def __init__(self, k: KernelContext, way: GradientWay):
        self.k, self.b, self.way, self.found = k, k.b, way, way.found
        self.routines = Routines(k.b.module, k.target)
        self.packer = Packer(k, self.routines)
        self.places = way.places(k.target.vector_bytes)
        bytes_of = k.target.vector_bytes
        self.score_tiles = [way.score_tile(number, bytes_of).tile for number in range(len(way.scores))]
        self.product_tiles = [way.product_tile(number, bytes_of).tile for number in range(len(way.products))]
        found = way.found
        self.scores = [
            self._block(scores.dot, found.rows[scores.dot][-1], found.column(scores.dot), f"scores{number}")
            for number, scores in enumerate(found.scores)
        ]
        self.weights = [
            self._block(value, found.rows[value][-1], found.column(value), f"weights{number}")
            for number, value in enumerate(way.weights)
        ]

    def _block(self, value: Instruction, row: int, column: int, name: str) -> Block:
        block = Block(self.k, value, [row], [column], self.way.stride, self.way.dtype)
        block.pointer = self._at(name)
        return block

    def _at(self, name: str) -> Value:
        return self.b.gep("i8", self.k.scratch, i64(self.places[name]))

    def write(self) -> None:
        b, sizes = self.b, self.found.sizes[:-1]
        if self.k.range is None:
            with ExitStack() as stack:
                self.packer.batch = [stack.enter_context(b.for_loop(0, size, unroll=False)) for size in sizes]
                self._batch()
            return
        with self.k.ranged(prod(sizes)) as limits, b.for_loop(*limits, unroll=False) as number:
            self.packer.batch = delinearize(b, number, sizes) if sizes else []
            self._batch()

    def _batch(self) -> None:
        """All of the batch whose index is the packer's."""
        b, way, found = self.b, self.way, self.found
        for number, score in enumerate(way.scores):
            tile = self.score_tiles[number]
            columns, depth = (i64(0), i64(found.n)), (i64(0), i64(score.depth))
            self.packer.pack(score.keys, columns, depth, tile.columns, tile, self._at(f"keys{number}"))
        for number, product in enumerate(way.products):
            for start in () if product.over_rows else range(0, found.n, STEPS):
                self._pack_other(number, start, (i64(start), i64(min(STEPS, found.n - start))))
        for number, product in enumerate(way.products):
            if product.over_rows:
                b.memset(self._at(f"sums{number}"), integer("i8", 0), i64(found.n * product.width * way.dtype.itemsize))
        if way.mask is not None:
            b.store(b.zext(self._is_moderate_batch(), "i64"), self._state("batch"))
        with b.for_loop(0, -(-found.m // way.rows), unroll=False) as number:
            first = b.mul(number, i64(way.rows))
            self._rows((first, least(b, i64(way.rows), b.sub(i64(found.m), first))), number)
        for number, product in enumerate(way.products):
            self._store(number, product)

    def _rows(self, rows: Extent, number: Value) -> None:
        """A block of rows, by number."""
        way, all_columns = self.way, i64(self.found.n)
        for place, score in enumerate(way.scores):
            tile, depth = self.score_tiles[place], (i64(0), i64(score.depth))
            self.packer.pack(score.queries, rows, depth, tile.rows, tile, self._at(f"queries{place}"))
        for place, product in enumerate(way.products):
            if product.over_rows:
                self._pack_other(place, 0, rows)
        if way.mask is None:
            columns = all_columns
            self._scores(rows, (i64(0), columns))
            self._between(rows)
        else:
            columns = self._masked(rows, number)
        for place, product in enumerate(way.products):
            (self._over_rows if product.over_rows else self._over_columns)(place, rows, columns)

    def _masked(self, rows: Extent, number: Value) -> Value:
        """Makes the weights of a block, if possible without the columns that are masked; how many are needed."""
        b, way, n = self.b, self.way, i64(self.found.n)
        sizes = np.array(way.columns(self.k.target.vector_bytes), "<i8")
        table = b.module.constant_bytes(sizes.tobytes(), align=8)
        few, needed = b.load("i64", b.gep("i64", table, number)), self._state("columns")
        b.store(i64(0), needed)
        with b.for_loop(0, 2, unroll=False) as turn:
            again = b.icmp_signed(">", turn, i64(0))
            with b.if_then(b.icmp_signed("==", b.load("i64", needed), i64(0))):
                start = b.select(again, few, i64(0))
                end = b.select(again, n, few)
                self._scores(rows, (start, b.sub(end, start)))
                self._clear(rows, end)
                self._between(rows)
                enough = b.or_(again, self._is_enough(rows, few))
                b.store(b.select(enough, end, i64(0)), needed)
        return b.load("i64", needed)

    def _pack_other(self, number: int, start: int, steps: Extent) -> None:
        """What a product multiplies by, at some steps, into panels that begin behind those of `start` steps."""
        product, tile = self.way.products[number], self.product_tiles[number]
        lines = i64(0), i64(product.width)
        self.packer.pack(product.other, lines, steps, tile.columns, tile, self._panels(number, start))

    def _panels(self, number: int, start: int) -> Value:
        tile, width = self.product_tiles[number], self.way.products[number].width
        whole = -(-width // tile.columns) * tile.columns
        return self.b.gep(tile.type, self._at(f"other{number}"), i64(start * whole))

    def _scores(self, rows: Extent, columns: Extent) -> None:
        """Some columns, from a multiple of a tile's on, of the scores of a block."""
        b = self.b
        for number, (score, tile) in enumerate(zip(self.way.scores, self.score_tiles, strict=True)):
            depth = i64(score.depth)
            keys = b.gep(tile.type, self._at(f"keys{number}"), b.mul(columns[0], depth))
            left = Operand.packed(self._at(f"queries{number}"), tile.rows, rows[1], depth)
            right = Operand.packed(keys, tile.columns, columns[1], depth)
            to = b.gep(tile.type, self._at(f"scores{number}"), columns[0]), i64(self.way.stride), i64(1)
            sizes = rows[1], columns[1], depth
            multiply_block(b, block_routine(self.routines, tile), (left, right), to, sizes, integer("i1", 0))

    def _over_columns(self, number: int, rows: Extent, columns: Value) -> None:
        """The results of a block of rows, of weights that are read in place: scratch has whole tiles of their rows."""
        b, product, tile, n = self.b, self.way.products[number], self.product_tiles[number], self.found.n
        stride, width = i64(self.way.stride), i64(product.width)
        to = b.gep(tile.type, self._at(f"sums{number}"), b.mul(rows[0], width)), width, i64(1)
        for start in range(0, n, STEPS):
            most = i64(min(STEPS, n - start))
            weights = b.gep(tile.type, self._at(f"weights{product.weights}"), i64(start))
            left = Operand(weights, stride, stride, i64(1), rows[1])
            right = Operand.packed(self._panels(number, start), tile.columns, width, most)
            routine, adds = block_routine(self.routines, tile), integer("i1", start > 0)
            with b.if_then(b.icmp_signed(">", columns, i64(start))):
                steps = least(b, most, b.sub(columns, i64(start)))
                multiply_block(b, routine, (left, right), to, (rows[1], width, steps), adds)

    def _over_rows(self, number: int, rows: Extent, columns: Value) -> None:
        """Adds what a block of rows gives for each column."""
        product, tile = self.way.products[number], self.product_tiles[number]
        width = i64(product.width)
        left = Operand(self._at(f"weights{product.weights}"), i64(1), i64(1), i64(self.way.stride), columns)
        right = Operand.packed(self._panels(number, 0), tile.columns, width, rows[1])
        to = self._at(f"sums{number}"), width, i64(1)
        routine = block_routine(self.routines, tile)
        multiply_block(self.b, routine, (left, right), to, (columns, width, rows[1]), integer("i1", 1))

    # Masks

    def _state(self, name: str) -> Value:
        """Where it says whether all of a batch is moderate, and how many columns of a block are needed, if known."""
        return self.b.gep("i64", self._at("state"), i64(("batch", "columns").index(name)))

    def _clear(self, rows: Extent, start: Value) -> None:
        """Takes scores from a column on as zeros."""
        b, size = self.b, i64(self.way.dtype.itemsize)
        rest = b.mul(b.sub(i64(self.found.n), start), size)
        with b.for_loop(i64(0), rows[1], unroll=False) as row:
            place = b.mul(b.add(b.mul(row, i64(self.way.stride)), start), size)
            for number in range(len(self.scores)):
                b.memset(b.gep("i8", self._at(f"scores{number}"), place), integer("i8", 0), rest)

    def _is_enough(self, rows: Extent, columns: Value) -> Value:
        """Whether weights are numbers, from a column on zeros, and all that they are multiplied by is moderate."""
        b, way, n, dtype = self.b, self.way, i64(self.found.n), self.way.dtype
        type = scalar.memory_type(dtype)

        def row(number: Value, found: list[Value]) -> list[Value]:
            for place in range(len(way.weights)):
                line = b.gep(type, self._at(f"weights{place}"), b.mul(number, i64(way.stride)))
                are_numbers = is_below(b, greatest(b, dtype, line, i64(0), columns), dtype, _INFINITE)
                rest = greatest(b, dtype, line, columns, n)
                are_zeros = b.icmp_signed("==", rest, integer(rest.type, 0))
                found = [b.and_(found[0], b.and_(are_numbers, are_zeros))]
            return found

        given = b.and_(b.icmp_signed("!=", b.load("i64", self._state("batch")), i64(0)), self._is_moderate_block(rows))
        return b.for_loop_carrying(i64(0), rows[1], [given], row, unroll=False)[0]

    def _is_moderate_batch(self) -> Value:
        """Whether what has the columns' number is."""
        found, way = self.found, self.way
        parts = []
        for number, score in enumerate(way.scores):
            parts.append((f"keys{number}", i64(whole(found.n, self.score_tiles[number].columns) * score.depth)))
        for number, product in enumerate(way.products):
            if not product.over_rows:
                lines = whole(product.width, self.product_tiles[number].columns)
                parts.append((f"other{number}", i64(lines * found.n)))
        return self._are_moderate(parts)

    def _is_moderate_block(self, rows: Extent) -> Value:
        """Whether what has the number of a block's rows is."""
        b, way = self.b, self.way
        parts = []
        for number, score in enumerate(way.scores):
            tile = i64(self.score_tiles[number].rows)
            panels = b.udiv(b.sub(b.add(rows[1], tile), i64(1)), tile)
            parts.append((f"queries{number}", b.mul(b.mul(panels, tile), i64(score.depth))))
        for number, product in enumerate(way.products):
            if product.over_rows:
                lines = whole(product.width, self.product_tiles[number].columns)
                parts.append((f"other{number}", b.mul(rows[1], i64(lines))))
        return self._are_moderate(parts)

    def _are_moderate(self, parts: Sequence[tuple[str, Value]]) -> Value:
        b, dtype = self.b, self.way.dtype
        bits = [greatest(b, dtype, self._at(name), i64(0), count) for name, count in parts]
        found = integer("i1", 1)
        for value in bits:
            found = b.and_(found, is_below(b, value, dtype, _MODERATE))
        return found

    # Rows

    def _between(self, rows: Extent) -> None:
        """Lets the rows of a block go through what lies between scores and weights."""
        k, b, between = self.k, self.b, self.way.between
        for block in (*self.scores, *self.weights):
            block.first = rows[0]
        loads = {(twin, ()): block.load for twin, block in zip(between.scores, self.scores, strict=True)}
        body = Body(loads, {})
        for twin, instruction in between.outside.items():
            body.bind((twin, ()), k.body.element(k, instruction))
        writer = RowWriter(k.inside(body, [*self.weights], self._at("stages")), between.stages, between.roots)
        with b.for_loop(i64(0), rows[1], unroll=False) as number:
            digits = [*self.packer.batch, b.add(rows[0], number)]
            writer.write(tuple(digits[place] for place in between.order))

    def _store(self, number: int, product: ProductSides) -> None:
        """The results of a batch, from their sums; neighbours in memory follow on each other."""
        b, found = self.b, self.found
        output, dtype = self.k.outputs[number], self.way.dtype
        kept = found.n if product.over_rows else found.m
        is_kept_minor = next(d for d in output.shape.minor_to_major if output.shape.dims[d] != 1) in product.kept
        sizes = (product.width, kept) if is_kept_minor else (kept, product.width)
        with b.for_loop(0, sizes[0], unroll=False) as outer, b.for_loop(0, sizes[1], unroll=False) as inner:
            row, line = (inner, outer) if is_kept_minor else (outer, inner)
            place = b.add(b.mul(row, i64(product.width)), line)
            sums = b.gep(scalar.memory_type(dtype), self._at(f"sums{number}"), place)
            value = scalar.convert(b, scalar.load(b, dtype, sums), dtype, found.products[number].dot.shape.dtype)
            output.store(self._index(number, product, row, line), value)

    def _index(self, number: int, product: ProductSides, row: Value, line: Value) -> Index:
        """The index of a product's result."""
        dims = self.found.products[number].dot.shape.dims
        index = [index_constant(0)] * len(dims)
        lines = delinearize(self.b, line, [dims[d] for d in product.lines]) if product.lines else []
        places = (*product.batch, *product.kept, *product.lines)
        for d, value in zip(places, (*self.packer.batch, row, *lines), strict=True):
            index[d] = value
        return tuple(index)


def greatest(b: Builder, dtype: DType, start: Value, first: Value, end: Value) -> Value:
    """The greatest bits, but for the sign, of some numbers: those of infinity and NaN are above all others."""
    number = f"i{8 * dtype.itemsize}"
    vector = vector_type(number, LANES)
    mask = (1 << (8 * dtype.itemsize - 1)) - 1
    whole_end = b.sub(end, b.urem(b.sub(end, first), i64(LANES)))

    def more(type: str) -> Callable[[Value, list[Value]], list[Value]]:
        spread = integer(number, mask) if type == number else b.splat(integer(number, mask), LANES)

        def step(place: Value, found: list[Value]) -> list[Value]:
            bits = b.and_(b.load(type, b.gep(number, start, place), align=dtype.itemsize), spread)
            return [b.intrinsic("llvm.umax", type, [found[0], bits])]

        return step

    (most,) = b.for_loop_carrying(first, whole_end, [zero(vector)], more(vector), step=LANES)
    most = b.intrinsic("llvm.vector.reduce.umax", number, [most], overloads=[vector])
    return b.for_loop_carrying(whole_end, end, [most], more(number))[0]


def is_below(b: Builder, bits: Value, dtype: DType, exponent: int) -> Value:
    """Whether bits without a sign are those of a number below 2**exponent; with exponent 0, of any number."""
    digits, top = (23, 127) if dtype.itemsize == 4 else (52, 1023)
    limit = (exponent + top if exponent else 2 * top + 1) << digits
    return b.icmp_signed("<", bits, integer(bits.type, limit))
