"""Attention as one kernel: the sides of the two products of a fused dot(rows(dot(q, k)), v), and how its rows count.

How it is computed is each kind of target's own matter: see `attention_blocks.py`, and `gpu/attention.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.analysis.attention import SIDES, Attention, attention_of, free_dims, span_of
from hloc.codegen.bodies import Leaf, source
from hloc.codegen.dot_side import Side
from hloc.codegen.epilogue import Epilogue
from hloc.codegen.graphs import are_elements
from hloc.codegen.llvm import Builder, Value
from hloc.codegen.loops import Index, delinearize, index_constant
from hloc.codegen.products import summing_type
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction


class AttentionPlan:
    """The sides of both products, `queries`, `keys` and `values` (lines x steps), of m x n scores for each batch.

    `sizes` are those of the row number's digits, batches first; `batches` of them are of the batch. `depth` is the
    number of terms of a score, `width` that of results a row.
    """

    def __init__(self, found: Attention, epilogue: Epilogue | None):
        self.found, self.epilogue = found, epilogue
        scores, product = found.scores, found.product
        rows, taken = found.rows[scores], found.rows[product.operands[found.weights]]
        batch = len(scores.get("lhs_batch_dims"))
        self.batches = sum(d < batch for d in rows)
        self.sizes = tuple(scores.shape.dims[d] for d in rows)
        # The dimensions of the scores and of the weights that count through the rows of a batch, and the columns.
        self.score_rows, self.score_columns = rows[self.batches :], span_of(scores, 1 - found.query)
        self.weight_rows = taken[self.batches :]
        own, first = free_dims(scores, found.query), span_of(scores, found.query).start
        steps = steps_of(scores, found.query)
        at = rows[: self.batches]
        self.queries = side_of(scores, found.query, at, [own[d - first] for d in self.score_rows], steps[0])
        self.keys = side_of(scores, 1 - found.query, at, free_dims(scores, 1 - found.query), steps[1])
        weight_batch = list(product.get(f"{SIDES[found.weights]}_batch_dims"))
        self.product_batch = [weight_batch.index(d) for d in taken[: self.batches]]
        free = free_dims(product, found.weights)
        self.product_rows = [span_of(product, found.weights)[free.index(d)] for d in self.weight_rows]
        self.product_columns = span_of(product, 1 - found.weights)
        value_steps, self.weight_columns = steps_of(product, 1 - found.weights)
        values = free_dims(product, 1 - found.weights)
        self.values = side_of(product, 1 - found.weights, self.product_batch, values, value_steps)
        self.m, self.n = found.m, found.n
        self.depth, self.width = found.depth, found.width
        self.first = summing_type(*(operand.shape.dtype for operand in scores.operands), scores.shape.dtype)
        self.second = summing_type(*(operand.shape.dtype for operand in product.operands), product.shape.dtype)

    def digits(self, b: Builder, row: Value) -> list[Value]:
        """The digits of the number of a row in its batch."""
        sizes = self.sizes[self.batches :]
        return delinearize(b, row, sizes) if sizes else []

    def product_index(self, b: Builder, batch: Sequence[Value], row: Value, column: Value) -> Index:
        """The index of the second product's result."""
        index = [index_constant(0)] * self.found.product.shape.rank
        columns = delinearize(b, column, self.values.sizes(self.values.rows))
        dims = (*self.product_batch, *self.product_rows, *self.product_columns)
        for dimension, value in zip(dims, (*batch, *self.digits(b, row), *columns), strict=True):
            index[dimension] = value
        return tuple(index)


def attention_plan(
    body: Computation, roots: Sequence[Leaf], epilogue_of: Callable[[Instruction], Epilogue | None]
) -> AttentionPlan | None:
    """The plan of a fused computation, if it is an attention with at most an epilogue.

    `epilogue_of(own)` gives what follows on an op up to the roots, None if that is no epilogue.
    """
    dots = [instruction for instruction in body if instruction.opcode == "dot"]
    if len(dots) != 2:
        return None
    position = {instruction: place for place, instruction in enumerate(body)}
    found = attention_of(dots[1], position)
    if found is None or not _is_suitable(found):
        return None
    epilogue = None
    if tuple(roots) != ((found.product, ()),):
        epilogue = epilogue_of(found.product)
        if epilogue is None:
            return None
    return AttentionPlan(found, epilogue) if _are_readable(found, len(body)) else None


def _is_suitable(found: Attention) -> bool:
    """Whether the products are of floats, and of something."""
    values = (found.scores, found.product, *found.scores.operands, *found.product.operands)
    return all(value.shape.dtype.is_float and value.shape.count for value in values)


def _are_readable(found: Attention, size: int) -> bool:
    operands = (*found.scores.operands, found.product.operands[1 - found.weights])
    return are_elements([source(operand, ()) for operand in operands], size)


def steps_of(dot: Instruction, number: int) -> tuple[list[int], list[int]]:
    """The contracting dimensions of an operand, major ones first, and the other operand's in the same order."""
    own, other = (dot.get(f"{SIDES[side]}_contracting_dims") for side in (number, 1 - number))
    strides = dot.operands[number].shape.strides
    pairs = sorted(zip(own, other, strict=True), key=lambda pair: -strides[pair[0]])
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def side_of(dot: Instruction, number: int, batch: Sequence[int], lines: Sequence[int], steps: Sequence[int]) -> Side:
    """An operand with the batch dimensions that belong to these of the result."""
    own = dot.get(f"{SIDES[number]}_batch_dims")
    return Side(number, dot.operands[number], [own[d] for d in batch], lines, steps, is_fused=True)
