"""The gradients of an attention on CPUs: computed batch by batch, in each block by block of rows.

All scores of a block of rows are made, go through what lies between the products as `row_stages` plans it, and are
multiplied while they are in a cache: by what has the columns' number for results of the block, by what has the rows'
number for sums that grow from block to block. Operands with the columns' number are packed once a batch. A batch is
one thread's, so sums are the same for any number of threads.

Where a mask is known, a block leaves out the columns that it masks: their scores are taken as zeros, and when weights
turn out to be zeros there, and numbers elsewhere, no product needs them. Otherwise the block is done again with all
columns. What the products multiply has to be numbers, and no huge ones, since no zero makes up for others.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm
from typing import TYPE_CHECKING

from hloc.analysis.attention import SIDES, free_dims, span_of
from hloc.analysis.attention_gradient import AttentionGradient, Product, Scores, gradient_of
from hloc.codegen.attention_blocks import STEPS, Between, between_of
from hloc.codegen.attention_gradient_mask import mask_of_gradient
from hloc.codegen.attention_plan import side_of, steps_of
from hloc.codegen.bodies import Leaf, source
from hloc.codegen.dot_side import Side
from hloc.codegen.gemm import GemmPlan
from hloc.codegen.graphs import are_elements
from hloc.codegen.products import summing_type
from hloc.ir.computation import Computation
from hloc.ir.dtypes import F32, F64, DType
from hloc.ir.instruction import Instruction
from hloc.lazy import lazy
from hloc.records import record

if TYPE_CHECKING:
    from hloc.codegen.kernel import KernelContext

attention_gradient_kernel = lazy("hloc.codegen.attention_gradient_kernel")

_BLOCK_BYTES = 1 << 18
"""Scores and weights of a block of rows: what the second cache holds."""

_TILES, _TILE = (4, 6), 12
"""A block has so many times so many rows, at least and at most: whole tiles of all targets. Each adds to sums of all
columns, so few rows do not pay even where they alone stay in the second cache.
"""

_MASKED_BLOCKS = 5
"""Blocks of rows that leave out columns, at least, if there are so many tiles."""

LANES = 8
"""Columns that are looked at together, to see that they are zeros."""


@record
class ScoreSides:
    """The sides of a product that makes scores, lines x steps, and the number of its steps."""

    queries: Side
    keys: Side
    depth: int


@record
class ProductSides:
    """What a product multiplies weights by, lines x steps; of its result, the dimensions of batches, of the row (or
    column) that it keeps, and of the `width` results for each.
    """

    other: Side
    over_rows: bool
    weights: int
    batch: tuple[int, ...]
    kept: tuple[int, ...]
    lines: tuple[int, ...]
    width: int


class GradientWay:
    """How the gradients of `found` are computed, with sums of `dtype`. A `mask` may leave out columns of blocks."""

    def __init__(self, found: AttentionGradient, dtype: DType, between: Between, weights: Sequence[Instruction]):
        self.found, self.dtype, self.between, self.weights = found, dtype, between, tuple(weights)
        self.scores = [_score_sides(found, scores) for scores in found.scores]
        self.products = [_product_sides(found, product, self.weights) for product in found.products]
        self.mask = mask_of_gradient(found, self.weights) if found.n % LANES == 0 and dtype in (F32, F64) else None
        if self.mask is not None and not self.mask.pays(self.rows, found.n):
            self.mask = None

    @property
    def rows(self) -> int:
        """Rows of a block, blocks about equal."""
        matrices = len(self.scores) + len(self.weights)
        most = _BLOCK_BYTES // (self.stride * matrices * self.dtype.itemsize * _TILE)
        tiles = -(-self.found.m // _TILE)
        most = min(max(most, _TILES[0]), _TILES[1])
        if self.mask is not None:
            most = min(most, max(tiles // _MASKED_BLOCKS, 1))
        return -(-tiles // -(-tiles // most)) * _TILE

    @property
    def stride(self) -> int:
        """Elements from a row of scores or weights to the next: room for whole tiles, and no power of two."""
        return -(-self.found.n // 16) * 16 + 16

    def columns(self, vector_bytes: int) -> list[int]:
        """For each block of rows, the columns that its mask leaves, in whole tiles."""
        tiles = [self.score_tile(number, vector_bytes).tile.columns for number in range(len(self.scores))]
        unit, ends = lcm(*tiles, LANES), self.mask.ends
        firsts = range(0, self.found.m, self.rows)
        return [min(whole(max(int(ends[i : i + self.rows].max()), 1), unit), self.found.n) for i in firsts]

    def score_tile(self, number: int, vector_bytes: int) -> GemmPlan:
        return GemmPlan.of(_TILE, self.found.n, self.scores[number].depth, self.dtype, vector_bytes)

    def product_tile(self, number: int, vector_bytes: int) -> GemmPlan:
        return GemmPlan.of(_TILE, self.products[number].width, STEPS, self.dtype, vector_bytes)

    def places(self, vector_bytes: int) -> dict[str, int]:
        """Where the parts of scratch begin, and at the name "end" how many bytes they take."""
        found, n = self.found, self.found.n
        elements: dict[str, int] = {}
        for number, score in enumerate(self.scores):
            columns = self.score_tile(number, vector_bytes).tile.columns
            elements[f"keys{number}"] = whole(n, columns) * score.depth
            elements[f"queries{number}"] = whole(self.rows, _TILE) * score.depth
            elements[f"scores{number}"] = self.rows * self.stride
        for number in range(len(self.weights)):
            elements[f"weights{number}"] = self.rows * self.stride
        for number, product in enumerate(self.products):
            lines = whole(product.width, self.product_tile(number, vector_bytes).tile.columns)
            elements[f"other{number}"] = lines * (self.rows if product.over_rows else n)
            elements[f"sums{number}"] = product.width * (n if product.over_rows else found.m)
        elements["state"] = 64
        places, end = {}, 0
        for name, count in elements.items():
            places[name] = end
            end += whole(count * self.dtype.itemsize, 64)
        return places | {"stages": end, "end": end + self.between.stages.scratch_bytes}

    @property
    def scratch_bytes(self) -> int:
        return max(self.places(vector_bytes)["end"] for vector_bytes in (16, 32, 64))

    def write(self, k: KernelContext) -> None:
        attention_gradient_kernel.write_gradient(k, self)


def gradient_way(body: Computation, roots: Sequence[Leaf]) -> GradientWay | None:
    """How a fused computation is computed, if its roots are the gradients of an attention."""
    position = {instruction: place for place, instruction in enumerate(body)}
    products = [root for root, _ in roots]
    if any(product.opcode != "dot" for product in products) or len(set(products)) < len(products):
        return None
    dots = [instruction for instruction in body if instruction.opcode == "dot"]
    made = {dot for dot in dots if dot not in products}
    for instruction in body:
        if instruction.opcode != "dot" and any(operand in made for operand in instruction.operands):
            made.add(instruction)
    uses = [(dot, number) for dot in products for number in (0, 1) if dot.operands[number] in made]
    found = gradient_of(uses, position) if len(uses) == len(products) else None
    if found is None or len(found.scores) + len(products) != len(dots) or not _is_suitable(found, len(body)):
        return None
    values = [*(scores.dot for scores in found.scores), *products]
    types = {summing_type(*(operand.shape.dtype for operand in dot.operands), dot.shape.dtype) for dot in values}
    if len(types) != 1 or not (dtype := types.pop()).is_float:
        return None
    weights = list(dict.fromkeys(product.dot.operands[product.weights] for product in found.products))
    between = between_of(weights, [scores.dot for scores in found.scores], found.rows)
    if between is None:
        return None
    return GradientWay(found, dtype, between, weights)


def _is_suitable(found: AttentionGradient, size: int) -> bool:
    """Whether all operands can be read, of types that sums are made of."""
    operands = [operand for scores in found.scores for operand in scores.dot.operands]
    operands += [product.dot.operands[1 - product.weights] for product in found.products]
    dots = [*(scores.dot for scores in found.scores), *(product.dot for product in found.products)]
    are_floats = all(value.shape.dtype.is_float and value.shape.count for value in (*operands, *dots))
    return are_floats and are_elements([source(operand, ()) for operand in operands], size)


def _score_sides(found: AttentionGradient, scores: Scores) -> ScoreSides:
    dot, query = scores.dot, scores.query
    rows = found.rows[dot]
    first = span_of(dot, query).start
    steps = steps_of(dot, query)
    line = free_dims(dot, query)[rows[-1] - first]
    queries = side_of(dot, query, rows[:-1], [line], steps[0])
    keys = side_of(dot, 1 - query, rows[:-1], free_dims(dot, 1 - query), steps[1])
    return ScoreSides(queries, keys, found.depth(scores))


def _product_sides(found: AttentionGradient, product: Product, weights: Sequence[Instruction]) -> ProductSides:
    dot, number = product.dot, product.weights
    value = dot.operands[number]
    own = list(dot.get(f"{SIDES[number]}_batch_dims"))
    batch = [own.index(d) for d in found.rows[value][:-1]]
    kept = found.column(value) if product.over_rows else found.rows[value][-1]
    steps, _ = steps_of(dot, 1 - number)
    other = side_of(dot, 1 - number, batch, free_dims(dot, 1 - number), steps)
    place = span_of(dot, number)[free_dims(dot, number).index(kept)]
    lines = span_of(dot, 1 - number)
    width = found.width(product)
    return ProductSides(other, product.over_rows, weights.index(value), tuple(batch), (place,), tuple(lines), width)


def whole(size: int, unit: int) -> int:
    """The least multiple of `unit` that is not below `size`."""
    return -(-size // unit) * unit
