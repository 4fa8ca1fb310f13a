"""Writing kernels of the gradients of attentions: see `attention_gradient`."""

from __future__ import annotations

from contextlib import ExitStack
from math import prod

from hloc.codegen import scalar
from hloc.codegen.attention_blocks import STEPS
from hloc.codegen.attention_gradient import GradientWay, ProductSides
from hloc.codegen.attention_kernel import Block
from hloc.codegen.attention_packing import Packer
from hloc.codegen.bodies import Body
from hloc.codegen.gemm import Extent
from hloc.codegen.gemm_block import Operand, block_routine, multiply_block
from hloc.codegen.kernel import Index, KernelContext, index_constant
from hloc.codegen.llvm import Value, integer
from hloc.codegen.loops import delinearize
from hloc.codegen.routines import Routines, i64, least
from hloc.codegen.row_kernel import RowWriter


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

    def _block(self, value, row: int, column: int, name: str) -> Block:
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
        with b.for_loop(0, -(-found.m // way.rows), unroll=False) as number:
            first = b.mul(number, i64(way.rows))
            self._rows((first, least(b, i64(way.rows), b.sub(i64(found.m), first))))
        for number, product in enumerate(way.products):
            self._store(number, product)

    def _rows(self, rows: Extent) -> None:
        """A block of rows."""
        for number in range(len(self.way.scores)):
            self._score(number, rows)
        self._between(rows)
        for number, product in enumerate(self.way.products):
            (self._over_rows if product.over_rows else self._over_columns)(number, rows)

    def _pack_other(self, number: int, start: int, steps: Extent) -> None:
        """What a product multiplies by, at some steps, into panels that begin behind those of `start` steps."""
        product, tile = self.way.products[number], self.product_tiles[number]
        lines = i64(0), i64(product.width)
        self.packer.pack(product.other, lines, steps, tile.columns, tile, self._panels(number, start))

    def _panels(self, number: int, start: int) -> Value:
        tile, width = self.product_tiles[number], self.way.products[number].width
        whole = -(-width // tile.columns) * tile.columns
        return self.b.gep(tile.type, self._at(f"other{number}"), i64(start * whole))

    def _score(self, number: int, rows: Extent) -> None:
        """Scores of a block of rows."""
        b, score, tile = self.b, self.way.scores[number], self.score_tiles[number]
        depth, queries = i64(score.depth), self._at(f"queries{number}")
        self.packer.pack(score.queries, rows, (i64(0), depth), tile.rows, tile, queries)
        left = Operand.packed(queries, tile.rows, rows[1], depth)
        right = Operand.packed(self._at(f"keys{number}"), tile.columns, i64(self.found.n), depth)
        to = self._at(f"scores{number}"), i64(self.way.stride), i64(1)
        sizes = rows[1], i64(self.found.n), depth
        multiply_block(b, block_routine(self.routines, tile), (left, right), to, sizes, integer("i1", 0))

    def _over_columns(self, number: int, rows: Extent) -> None:
        """The results of a block of rows, of weights that are read in place: scratch has whole tiles of their rows."""
        b, product, tile, n = self.b, self.way.products[number], self.product_tiles[number], self.found.n
        stride, width = i64(self.way.stride), i64(product.width)
        to = b.gep(tile.type, self._at(f"sums{number}"), b.mul(rows[0], width)), width, i64(1)
        for start in range(0, n, STEPS):
            steps = i64(min(STEPS, n - start))
            weights = b.gep(tile.type, self._at(f"weights{product.weights}"), i64(start))
            left = Operand(weights, stride, stride, i64(1), rows[1])
            right = Operand.packed(self._panels(number, start), tile.columns, width, steps)
            routine, adds = block_routine(self.routines, tile), integer("i1", start > 0)
            multiply_block(b, routine, (left, right), to, (rows[1], width, steps), adds)

    def _over_rows(self, number: int, rows: Extent) -> None:
        """Adds what a block of rows gives for each column; the first block begins the sums."""
        b, product, tile = self.b, self.way.products[number], self.product_tiles[number]
        n, width = i64(self.found.n), i64(product.width)
        self._pack_other(number, 0, rows)
        left = Operand(self._at(f"weights{product.weights}"), i64(1), i64(1), i64(self.way.stride), n)
        right = Operand.packed(self._panels(number, 0), tile.columns, width, rows[1])
        to = self._at(f"sums{number}"), width, i64(1)
        adds = b.icmp_signed(">", rows[0], i64(0))
        multiply_block(b, block_routine(self.routines, tile), (left, right), to, (n, width, rows[1]), adds)

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
