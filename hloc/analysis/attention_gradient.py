"""The backward pass of an attention: products of what is made, row by row, of the results of other products.

With s = q k', p = softmax(s) and o = p v, and g the gradient of o, the gradients are v: p' g, q: z k and k: z' q, where
z is made of s and of g v' row by row. All of s, g v', p and z have a row for each query and a column for each key. So
a block of rows can go through all of it while these are in a cache: products that contract the columns give results
for the block, those that contract the rows are sums over blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod

from hloc.analysis.attention import SIDES, free_dims, is_passed, operand_rows, span_of, wide
from hloc.analysis.row_space import Rows, rows_through
from hloc.ir.instruction import Instruction
from hloc.records import record

_MOST_BYTES = 1 << 24
"""Of what a batch packs and sums, as f64, at most: a cache still holds it for all blocks of rows."""

Uses = Sequence[tuple[Instruction, int]]
"""Products, each with the number of the operand that is made of scores."""


@record
class Scores:
    """A product with a row for each query; `query` is the number of the operand that has the rows."""

    dot: Instruction
    query: int


@record
class Product:
    """A product of `weights`, an operand by number, that contracts the rows of a batch (`over_rows`) or the columns."""

    dot: Instruction
    weights: int
    over_rows: bool


@record
class AttentionGradient:
    """The `scores`, the `products`, and all that lies `between`, in order.

    `rows` gives the dimensions of the scores and of what lies between that number the rows: those of the batch, and
    last the one of the row in its batch, sizes 1 left out. `sizes` are those of these digits; there are `n` columns.
    """

    scores: tuple[Scores, ...]
    products: tuple[Product, ...]
    between: tuple[Instruction, ...]
    rows: Mapping[Instruction, Rows]
    sizes: tuple[int, ...]
    n: int

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def m(self) -> int:
        """Rows of a batch."""
        return self.sizes[-1]

    @property
    def batch(self) -> int:
        return prod(self.sizes[:-1])

    @property
    def is_packable(self) -> bool:
        """Whether what a batch packs for all of its rows, and its results, stay in a cache."""
        elements = sum(self.n * self.depth(scores) for scores in self.scores)
        elements += sum((self.n + self.m) * self.width(product) for product in self.products)
        return 8 * elements <= _MOST_BYTES

    def column(self, value: Instruction) -> int:
        """The dimension of a matrix that numbers the columns."""
        return _columns(value, self.rows[value])[0]

    def width(self, product: Product) -> int:
        """Results of a product for each row, or column, that it keeps."""
        return product.dot.shape.count // (self.batch * (self.n if product.over_rows else self.m))

    def depth(self, scores: Scores) -> int:
        """Terms of a score."""
        return scores.dot.operands[scores.query].shape.count // (self.batch * self.m)


def gradient_of(uses: Uses, position: Mapping[Instruction, int]) -> AttentionGradient | None:
    """What some products of matrices have in common, if rows of these are made of rows of scores.

    `position` gives an order, operands first.
    """
    dots, between = _back(uses, position)
    reduces = [instruction for instruction in between if instruction.opcode == "reduce"]
    if not dots or not reduces:
        return None
    rows = _rows(reduces[0], dots, between)
    if rows is None or any(value not in rows for value in (*dots, *between)):
        return None
    rows = _batch_first(dots[0], rows)
    columns = _columns(dots[0], rows[dots[0]])
    if len(columns) != 1 or not rows[dots[0]]:
        return None
    sizes = tuple(dots[0].shape.dims[d] for d in rows[dots[0]])
    n = dots[0].shape.dims[columns[0]]
    if not all(_fits(value, rows[value], sizes, n) for value in (*dots, *between)):
        return None
    scores = [_scores(dot, rows[dot]) for dot in dots]
    products = [_product(dot, number, rows) for dot, number in uses]
    if None in scores or None in products:
        return None
    return AttentionGradient(tuple(scores), tuple(products), between, rows, sizes, n)


def _back(uses: Uses, position: Mapping[Instruction, int]) -> tuple[list[Instruction], tuple[Instruction, ...]]:
    """The dots that are met on the way back, and all that depends on them, in order."""
    seen: dict[Instruction, None] = {}
    pending = [dot.operands[number] for dot, number in uses]
    while pending:
        instruction = pending.pop()
        if instruction in seen or instruction not in position:
            continue
        seen[instruction] = None
        if instruction.opcode != "dot" and is_passed(instruction):
            pending += instruction.operands
    order = sorted(seen, key=position.__getitem__)
    dots = [instruction for instruction in order if instruction.opcode == "dot"]
    made = set(dots)
    for instruction in order:
        if is_passed(instruction) and any(operand in made for operand in instruction.operands):
            made.add(instruction)
    return dots, tuple(i for i in order if i in made and i.opcode != "dot")


def _rows(
    reduce: Instruction, dots: Sequence[Instruction], between: Sequence[Instruction]
) -> dict[Instruction, Rows] | None:
    """The rows of everything, from those that a reduce folds; None where they get mixed up."""
    first = reduce.operands[0]
    values = {*dots, *between}
    if first not in values:
        return None
    known = {first: wide(first, [d for d in range(first.shape.rank) if d not in reduce.get("dimensions")])}
    count = 0
    while count != len(known):
        count = len(known)
        for user in between:
            for number, operand in enumerate(user.operands):
                if operand in known and user not in known and operand in values:
                    found = rows_through(user, number, known[operand])
                    if found is not None:
                        known[user] = found
        for user in reversed(between):
            for operand, found in operand_rows(user, known[user]) if user in known else ():
                if operand in values and (found is None or known.setdefault(operand, found) != found):
                    return None
    return known


def _batch_first(scores: Instruction, rows: dict[Instruction, Rows]) -> dict[Instruction, Rows]:
    """The same with the digits of the batch in front."""
    own, count = rows[scores], len(scores.get("lhs_batch_dims"))
    order = sorted(range(len(own)), key=lambda digit: (own[digit] >= count, own[digit]))
    return {value: tuple(found[digit] for digit in order) for value, found in rows.items()}


def _columns(value: Instruction, rows: Iterable[int]) -> Rows:
    return tuple(d for d in wide(value, range(value.shape.rank)) if d not in rows)


def _fits(value: Instruction, rows: Rows, sizes: tuple[int, ...], n: int) -> bool:
    """Whether a value has one element a row, or one for each row and column; reduces fold whole rows."""
    dims = value.shape.dims
    if tuple(dims[d] for d in rows) != sizes:
        return False
    columns = [dims[d] for d in _columns(value, rows)]
    if value.opcode == "reduce":
        return not columns and value.operands[0].shape.count == prod(sizes) * n
    return columns in ([], [n])


def _scores(dot: Instruction, rows: Rows) -> Scores | None:
    """A product whose rows are its batches and all that one of its operands has besides."""
    batch = wide(dot, range(len(dot.get("lhs_batch_dims"))))
    if set(rows[:-1]) != set(batch):
        return None
    for query in (0, 1):
        if wide(dot, span_of(dot, query)) == rows[-1:] and len(wide(dot, span_of(dot, 1 - query))) == 1:
            return Scores(dot, query)
    return None


def _product(dot: Instruction, number: int, known: Mapping[Instruction, Rows]) -> Product | None:
    """A product of a matrix that keeps its batches, and contracts all else of its rows or its columns."""
    weights = dot.operands[number]
    rows = known.get(weights)
    if rows is None or set(wide(weights, dot.get(f"{SIDES[number]}_batch_dims"))) != set(rows[:-1]):
        return None
    contracted = wide(weights, dot.get(f"{SIDES[number]}_contracting_dims"))
    kept = wide(weights, free_dims(dot, number))
    columns = _columns(weights, rows)
    if (contracted, kept) == (columns, rows[-1:]):
        return Product(dot, number, False)
    return Product(dot, number, True) if (contracted, kept) == (rows[-1:], columns) else None
