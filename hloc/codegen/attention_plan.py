"""Attention as one kernel: how a fused dot(rows(dot(q, k)), v) is computed block by block of rows.

The scores of a block of rows are made, go through what is between the products as `row_stages` plans it, and are
multiplied by the values, all in scratch: the matrix of scores is never in memory as a whole. Keys and values are
packed once a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.analysis.attention import SIDES, Attention, attention_of, free_dims
from hloc.analysis.row_space import rows_reduced
from hloc.codegen.bodies import Leaf, source
from hloc.codegen.dot_plan import Side
from hloc.codegen.epilogue import Epilogue
from hloc.codegen.gemm import GemmPlan
from hloc.codegen.graphs import are_elements, post_order
from hloc.codegen.products import summing_type
from hloc.codegen.row_stages import RowStages, inputs_of, row_stages
from hloc.ir.clone import clone_instruction
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.ir.shapes import ArrayShape, Layout
from hloc.records import record

STEPS = 256
"""Terms of the second product that are summed at a time: a panel of values that long stays in the first cache."""

_BLOCK_BYTES = 1 << 19
"""Scores and weights of a block of rows: what the second cache holds."""


@record
class Between:
    """What is between the products as a computation of its own.

    `body` has a parameter in the place of the scores (`scores`) and of every value from outside; `outside` tells of
    which, for these. Its root are the weights. `order` says which digit of the row number each digit of the rows of
    `stages` is.
    """

    body: Computation
    scores: Instruction
    outside: dict[Instruction, Instruction]
    stages: RowStages
    root: Leaf
    order: tuple[int, ...]

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class AttentionPlan:
    """The sides of both products, `queries`, `keys` and `values` (lines x steps), and the sizes of blocks.

    `sizes` are those of the row number's digits, batches first; `batches` of them are of the batch. `depth` is the
    number of terms of a score, `width` that of results a row.
    """

    def __init__(self, found: Attention, between: Between, epilogue: Epilogue | None):
        self.found, self.between, self.epilogue = found, between, epilogue
        scores, product = found.scores, found.product
        rows, taken = found.rows[scores], found.rows[product.operands[found.weights]]
        batch = len(scores.get("lhs_batch_dims"))
        self.batches = sum(d < batch for d in rows)
        self.sizes = tuple(scores.shape.dims[d] for d in rows)
        # The dimensions of the scores and of the weights that count through the rows of a batch, and the columns.
        self.score_rows, self.score_columns = rows[self.batches :], _span(scores, 1 - found.query)
        self.weight_rows = taken[self.batches :]
        own, first = free_dims(scores, found.query), _span(scores, found.query).start
        steps = _steps(scores, found.query)
        at = rows[: self.batches]
        self.queries = _side(scores, found.query, at, [own[d - first] for d in self.score_rows], steps[0])
        self.keys = _side(scores, 1 - found.query, at, free_dims(scores, 1 - found.query), steps[1])
        weight_batch = list(product.get(f"{SIDES[found.weights]}_batch_dims"))
        self.product_batch = [weight_batch.index(d) for d in taken[: self.batches]]
        free = free_dims(product, found.weights)
        self.product_rows = [_span(product, found.weights)[free.index(d)] for d in self.weight_rows]
        self.product_columns = _span(product, 1 - found.weights)
        value_steps, self.weight_columns = _steps(product, 1 - found.weights)
        values = free_dims(product, 1 - found.weights)
        self.values = _side(product, 1 - found.weights, self.product_batch, values, value_steps)
        self.m, self.n = found.m, found.n
        self.depth, self.width = found.depth, found.width
        self.first = summing_type(*(operand.shape.dtype for operand in scores.operands), scores.shape.dtype)
        self.second = summing_type(*(operand.shape.dtype for operand in product.operands), product.shape.dtype)

    @property
    def rows(self) -> int:
        """Rows of a block: whole tiles."""
        wanted = _BLOCK_BYTES // (self.n * (self.first.itemsize + self.second.itemsize))
        return min(max(wanted // 6, 1), 16, -(-self.m // 6)) * 6

    def tiles(self, vector_bytes: int) -> tuple[GemmPlan, GemmPlan]:
        """The tiles of both products."""
        first = GemmPlan.of(12, self.n, self.depth, self.first, vector_bytes, split=True)
        return first, GemmPlan.of(12, self.width, self.n, self.second, vector_bytes, split=True)

    def places(self, vector_bytes: int) -> dict[str, int]:
        """Where the parts of scratch begin, and at the name "end" how many bytes they take."""
        first, second = (plan.tile.columns for plan in self.tiles(vector_bytes))
        elements = {
            "keys": (_whole(self.n, first) * self.depth, self.first),
            "values": (_whole(self.width, second) * self.n, self.second),
            "queries": (self.rows * self.depth, self.first),
            "scores": (self.rows * self.n, self.first),
            "weights": (self.rows * self.n, self.second),
            "packed": (self.rows * min(STEPS, self.n), self.second),
            "sums": (self.rows * self.width, self.second),
        }
        found, end = {}, 0
        for name, (count, dtype) in elements.items():
            found[name] = end
            end += _whole(count * dtype.itemsize, 64)
        return found | {"stages": end, "end": end + self.between.stages.scratch_bytes}

    @property
    def scratch_bytes(self) -> int:
        return max(self.places(vector_bytes)["end"] for vector_bytes in (16, 32, 64))


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
    between = _between(found)
    if between is None or not _are_readable(found, len(body)):
        return None
    return AttentionPlan(found, between, epilogue)


def _is_suitable(found: Attention) -> bool:
    """Whether the products are of floats, of something, and of few enough keys and values to be packed."""
    values = (found.scores, found.product, *found.scores.operands, *found.product.operands)
    return all(value.shape.dtype.is_float and value.shape.count for value in values) and found.is_packable


def _are_readable(found: Attention, size: int) -> bool:
    operands = (*found.scores.operands, found.product.operands[1 - found.weights])
    return are_elements([source(operand, ()) for operand in operands], size)


def _between(found: Attention) -> Between | None:
    """A computation of its own for what is between the products; None if that does not go by loops over rows."""
    weights = source(found.product.operands[found.weights], ())
    scores = (found.scores, ())
    order = post_order([weights], {scores})
    body = Module("between").add_computation(Computation("between"), entry=True)
    twins: dict[Instruction, Instruction] = {}
    outside: dict[Instruction, Instruction] = {}
    for instruction, leaf in order:
        if leaf:
            return None
        if instruction.opcode == "parameter" or instruction is found.scores:
            number = {"number": len(body.parameters)}
            twin = Instruction("parameter", instruction.shape, [], number, name=instruction.name)
            outside[twin] = instruction
        else:
            twin = clone_instruction(instruction, [twins[source(o, ())[0]] for o in instruction.operands])
            if instruction.opcode == "constant":
                outside[twin] = instruction
        if instruction in found.rows:
            twin.shape = _rows_first(instruction.shape, found.rows[instruction])
        twins[instruction] = body.add(twin)
    body.root = twins[weights[0]]
    root = (body.root, ())
    stages = row_stages(body, [root])
    if stages is None or root in stages.values:
        return None
    reduces = [i for i, _ in order if i.opcode == "reduce"]
    if any(reduce not in found.rows for reduce in reduces):
        return None
    first = reduces[0]
    digits = found.rows[inputs_of(first)[0][0]]
    rows = tuple(digits.index(d) for d in rows_reduced(first))
    scores_twin = twins[found.scores]
    outside.pop(scores_twin)
    return Between(body, scores_twin, outside, stages, root, rows)


def _rows_first(shape: ArrayShape, rows: Sequence[int]) -> ArrayShape:
    """A shape as it lies in scratch: row by row."""
    columns = [d for d in range(shape.rank) if d not in rows]
    return shape.with_layout(Layout((*columns[::-1], *reversed(rows))))


def _span(dot: Instruction, number: int) -> range:
    """The dimensions of a dot's result that one of its operands gives, besides the batch."""
    start = len(dot.get("lhs_batch_dims")) + (len(free_dims(dot, 0)) if number else 0)
    return range(start, start + len(free_dims(dot, number)))


def _steps(dot: Instruction, number: int) -> tuple[list[int], list[int]]:
    """The contracting dimensions of an operand, major ones first, and the other operand's in the same order."""
    own, other = (dot.get(f"{SIDES[side]}_contracting_dims") for side in (number, 1 - number))
    strides = dot.operands[number].shape.strides
    pairs = sorted(zip(own, other, strict=True), key=lambda pair: -strides[pair[0]])
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _side(dot: Instruction, number: int, batch: Sequence[int], lines: Sequence[int], steps: Sequence[int]) -> Side:
    """An operand with the batch dimensions that belong to these of the result."""
    own = dot.get(f"{SIDES[number]}_batch_dims")
    return Side(number, dot.operands[number], [own[d] for d in batch], lines, steps, is_fused=True)


def _whole(size: int, unit: int) -> int:
    return -(-size // unit) * unit


