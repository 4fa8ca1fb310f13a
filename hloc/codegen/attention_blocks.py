"""Attention on CPUs: computed block by block of rows.

The scores of a block of rows are made, go through what is between the products, and are multiplied by the values, all
in scratch: the matrix of scores is never in memory as a whole. Keys and values are packed once a batch. Of a softmax,
it is the powers that are multiplied by the values, and results are divided (`attention_rows.py`); anything else goes as
`row_stages` plans it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from hloc.analysis.row_space import Rows, rows_reduced
from hloc.analysis.softmax import Softmax, softmax_of
from hloc.codegen.attention_plan import AttentionPlan
from hloc.codegen.bodies import Leaf, source
from hloc.codegen.gemm import GemmPlan
from hloc.codegen.graphs import post_order
from hloc.codegen.row_stages import RowStages, in_place, inputs_of, row_stages
from hloc.ir.clone import clone_instruction
from hloc.ir.computation import Computation
from hloc.ir.dtypes import S64, DType
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.ir.shapes import ArrayShape, Layout
from hloc.lazy import lazy
from hloc.records import record

if TYPE_CHECKING:
    from hloc.codegen.attention_mask import Mask
    from hloc.codegen.kernel import KernelContext

attention_kernel = lazy("hloc.codegen.attention_kernel")
attention_mask = lazy("hloc.codegen.attention_mask")

STEPS = 256
"""Terms of the second product that are summed at a time: a panel of values that long stays in the first cache."""

_WIDEST = 32
"""Columns of a tile at most."""

_BLOCK_BYTES = 1 << 18
"""Scores and weights of a block of rows: what the second cache holds."""


@record
class Between:
    """What is between products as a computation of its own.

    `body` has a parameter in the place of each of the scores (`scores`) and of every value from outside; `outside`
    tells of which, for these. The `roots` are the weights. `order` says which digit of the row number each digit of
    the rows of `stages` is.
    """

    body: Computation
    scores: tuple[Instruction, ...]
    outside: dict[Instruction, Instruction]
    stages: RowStages
    roots: tuple[Leaf, ...]
    order: tuple[int, ...]

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class AttentionBlocks:
    """The sizes of blocks, and what is between the products of `plan`: a `softmax`, or else a computation.

    A softmax may have a `mask` that leaves out columns of some blocks.
    """

    def __init__(self, plan: AttentionPlan, softmax: Softmax | None, between: Between | None):
        self.plan, self.softmax, self.between = plan, softmax, between
        self.mask: Mask | None = None
        mask = None if softmax is None else attention_mask.mask_of(plan, softmax)
        if mask is not None and plan.width % _WIDEST == 0:
            self.mask = mask
            if not mask.pays(self.rows, plan.n):
                self.mask = None

    @property
    def dtype(self) -> DType:
        """The type of sums, and of a softmax."""
        return self.plan.first

    @cached_property
    def is_in_place(self) -> bool:
        """Whether weights lie where the scores do that they are made of."""
        if self.between is None:
            return True
        plan, stages = self.plan, self.between.stages
        alike = plan.first is plan.second and (plan.score_rows, [*plan.score_columns]) == (
            plan.weight_rows,
            [*plan.weight_columns],
        )
        scores = (self.between.scores[0], ())
        return alike and (scores, 0) in in_place(stages, self.between.roots, [scores])

    @property
    def rows(self) -> int:
        """Rows of a block: whole tiles, blocks about equal."""
        sizes = self.plan.first.itemsize + (0 if self.is_in_place else self.plan.second.itemsize)
        most = min(max(_BLOCK_BYTES // (self.plan.n * sizes) // 6, 1), 16)
        tiles = -(-self.plan.m // 6)
        if self.mask is not None:
            most = min(most, max(tiles // 6, 4))
        return -(-tiles // -(-tiles // most)) * 6

    @property
    def stride(self) -> int:
        """Elements from one row of scores or weights to the next: not a power of two, which would be the same sets of
        the first cache.
        """
        return _whole(self.plan.n, 16) + 16

    def tiles(self, vector_bytes: int) -> tuple[GemmPlan, GemmPlan]:
        """The tiles of both products."""
        first = GemmPlan.of(12, self.plan.n, self.plan.depth, self.plan.first, vector_bytes)
        return first, GemmPlan.of(12, self.plan.width, self.plan.n, self.plan.second, vector_bytes)

    def places(self, vector_bytes: int) -> dict[str, int]:
        """Where the parts of scratch begin, and at the name "end" how many bytes they take.

        The first one is the number of the batch, plus 1, whose keys and values a thread has packed; with it, whether
        these values are finite.
        """
        first, second = (tiles.tile.columns for tiles in self.tiles(vector_bytes))
        elements = {
            "packed": (2, S64),
            "keys": (_whole(self.plan.n, first) * self.plan.depth, self.plan.first),
            "values": (_whole(self.plan.width, second) * self.plan.n, self.plan.second),
            "queries": (self.rows * self.plan.depth, self.plan.first),
            "scores": (self.rows * self.stride, self.plan.first),
            "weights": (0 if self.is_in_place else self.rows * self.stride, self.plan.second),
            "sums": (self.rows * self.plan.width, self.plan.second),
            "most": (self.rows if self.softmax else 0, self.dtype),
            "total": (self.rows if self.softmax else 0, self.dtype),
        }
        found, end = {}, 0
        for name, (count, dtype) in elements.items():
            found[name] = end
            end += _whole(count * dtype.itemsize, 64)
        if self.is_in_place:
            found["weights"] = found["scores"]
        return found | {"stages": end, "end": end + (self.between.stages.scratch_bytes if self.between else 0)}

    @property
    def scratch_bytes(self) -> int:
        return max(self.places(vector_bytes)["end"] for vector_bytes in (16, 32, 64))

    def write(self, k: KernelContext) -> None:
        attention_kernel.write_attention(k, self)


def attention_blocks(plan: AttentionPlan) -> AttentionBlocks | None:
    """How a CPU computes an attention; None if it cannot in one kernel."""
    if not plan.found.is_packable:
        return None
    found = plan.found
    softmax = softmax_of(found) if plan.first is plan.second and plan.first.is_float else None
    between = None if softmax else between_of([found.product.operands[found.weights]], [found.scores], found.rows)
    return AttentionBlocks(plan, softmax, between) if softmax or between else None


def between_of(
    weights: Sequence[Instruction], scores: Sequence[Instruction], rows: Mapping[Instruction, Rows]
) -> Between | None:
    """A computation of its own for what is between products; None if that does not go by loops over rows.

    `rows` has the rows of scores, weights, and all that is made of the ones on the way to the others.
    """
    leaves = [source(value, ()) for value in weights]
    order = post_order(leaves, {(value, ()) for value in scores})
    body = Module("between").add_computation(Computation("between"), entry=True)
    twins: dict[Instruction, Instruction] = {}
    outside: dict[Instruction, Instruction] = {}
    for instruction, leaf in order:
        if leaf:
            return None
        if instruction.opcode == "parameter" or instruction in scores:
            number = {"number": len(body.parameters)}
            twin = Instruction("parameter", instruction.shape, [], number, name=instruction.name)
            outside[twin] = instruction
        else:
            twin = clone_instruction(instruction, [twins[source(o, ())[0]] for o in instruction.operands])
            if instruction.opcode == "constant":
                outside[twin] = instruction
        if instruction in rows:
            twin.shape = _rows_first(instruction.shape, rows[instruction])
        twins[instruction] = body.add(twin)
    body.root = twins[leaves[-1][0]]
    roots = tuple((twins[value], ()) for value, _ in leaves)
    stages = row_stages(body, roots)
    if stages is None or any(root in stages.values for root in roots):
        return None
    reduces = [i for i, _ in order if i.opcode == "reduce"]
    if any(reduce not in rows for reduce in reduces):
        return None
    first = reduces[0]
    digits = rows[inputs_of(first)[0][0]]
    places = tuple(digits.index(d) for d in rows_reduced(first))
    given = tuple(twins[value] for value in scores)
    for twin in given:
        outside.pop(twin)
    return Between(body, given, outside, stages, roots, places)


def _rows_first(shape: ArrayShape, rows: Sequence[int]) -> ArrayShape:
    """A shape as it lies in scratch: row by row."""
    columns = [d for d in range(shape.rank) if d not in rows]
    return shape.with_layout(Layout((*columns[::-1], *reversed(rows))))


def _whole(size: int, unit: int) -> int:
    return -(-size // unit) * unit
