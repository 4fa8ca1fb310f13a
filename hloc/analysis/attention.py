"""Attention: two products with work on rows in between, dot(rows(dot(q, k)), v), found from the second product.

The first product's result, the scores, has a row for each query and a column for each key. What lies between the
products goes row by row (scale, mask, softmax), and the second product contracts the columns. So a block of rows can
go through all of it while its scores are in a cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod

from hloc.analysis.row_space import Rows, rows_backwards
from hloc.ir.instruction import Instruction
from hloc.records import record

SIDES = ("lhs", "rhs")
"""What the attributes of a dot call its operands."""

_MOST_PACKED = 1 << 26
"""Bytes of a batch's keys and values up to which they are packed: a cache still holds them for all blocks of rows."""


@record
class Attention:
    """What is known of `product` = dot(rows(scores), values).

    `weights` is the number of the product's operand that is made of the scores. `query` is the number of the operand
    of `scores` that has the rows. `rows` gives, for all between and both ends, the dimensions that number the rows:
    batch dimensions first, as digits of one number in this order, those of size 1 left out. There are `batch` batches
    of `m` rows and `n` columns. `between` are the instructions on the way from the scores to the product, in order.
    """

    product: Instruction
    scores: Instruction
    weights: int
    query: int
    rows: Mapping[Instruction, Rows]
    between: tuple[Instruction, ...]
    batch: int
    m: int
    n: int

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def depth(self) -> int:
        """The number of terms of a score."""
        return self.scores.operands[self.query].shape.count // max(1, self.batch * self.m)

    @property
    def width(self) -> int:
        """The number of results a row."""
        return self.product.shape.count // max(1, self.batch * self.m)

    @property
    def is_packable(self) -> bool:
        """Whether the keys and values of a batch, as f64 at most, are few enough to be packed for all of its rows."""
        return self.n * (self.depth + self.width) * 8 <= _MOST_PACKED


def attention_of(product: Instruction, position: Mapping[Instruction, int]) -> Attention | None:
    """How a dot is the second product of an attention, if it is. `position` gives an order, operands first."""
    if product.opcode != "dot":
        return None
    for number in (0, 1):
        found = _from_weights(product, number, position)
        if found is not None:
            return found
    return None


def free_dims(dot: Instruction, number: int) -> list[int]:
    """The dimensions of a dot's operand that are neither batch nor contracting ones."""
    taken = (*dot.get(f"{SIDES[number]}_batch_dims"), *dot.get(f"{SIDES[number]}_contracting_dims"))
    return [d for d in range(dot.operands[number].shape.rank) if d not in taken]


def _from_weights(product: Instruction, number: int, position: Mapping[Instruction, int]) -> Attention | None:
    weights = product.operands[number]
    batch = product.get(f"{SIDES[number]}_batch_dims")
    rows = wide(weights, (*batch, *free_dims(product, number)))
    known: dict[Instruction, Rows] = {weights: rows}
    dependent = _up_to_dot(weights, position)
    if dependent is None:
        return None
    scores, between = dependent
    users = set(between)
    for instruction in reversed(between):
        if instruction not in known:
            return None
        for operand, found in operand_rows(instruction, known[instruction]):
            if operand is not scores and operand not in users:
                continue
            if found is None or known.setdefault(operand, found) != found:
                return None
    return _checked(product, scores, number, known, between, wide(weights, batch))


def span_of(dot: Instruction, number: int) -> range:
    """The dimensions of a dot's result that one of its operands gives, besides the batch."""
    start = len(dot.get("lhs_batch_dims")) + (len(free_dims(dot, 0)) if number else 0)
    return range(start, start + len(free_dims(dot, number)))


def wide(value: Instruction, dims: Iterable[int]) -> Rows:
    """Those of a value's dimensions that are wider than 1."""
    return tuple(d for d in dims if value.shape.dims[d] != 1)


def _up_to_dot(
    weights: Instruction, position: Mapping[Instruction, int]
) -> tuple[Instruction, tuple[Instruction, ...]] | None:
    """The one dot that is met on the way back, and all that depends on it; None if there is not just one.

    The way goes through elementwise ops, reduces, and ops that only rename or repeat elements.
    """
    seen: set[Instruction] = set()
    dots: set[Instruction] = set()
    pending = [weights]
    while pending:
        instruction = pending.pop()
        if instruction in seen:
            continue
        seen.add(instruction)
        if instruction.opcode == "dot":
            dots.add(instruction)
        elif is_passed(instruction):
            pending += [operand for operand in instruction.operands if operand in position]
    if len(dots) != 1:
        return None
    (scores,) = dots
    between: set[Instruction] = set()
    order = sorted(seen - {scores}, key=position.__getitem__)
    for instruction in order:
        if any(operand is scores or operand in between for operand in instruction.operands):
            between.add(instruction)
    return scores, tuple(instruction for instruction in order if instruction in between)


def is_passed(instruction: Instruction) -> bool:
    """Whether an op is elementwise, a reduce, or only renames or repeats elements."""
    if not instruction.shape.is_array or instruction.shape.is_dynamic:
        return False
    if instruction.opcode == "reduce":
        return len(instruction.operands) == 2
    return instruction.op.is_elementwise or instruction.opcode in ("broadcast", "transpose", "reshape")


def operand_rows(instruction: Instruction, rows: Rows) -> Iterator[tuple[Instruction, Rows | None]]:
    """The operands of an instruction with the rows that they have then; None where they get mixed up."""
    for number, operand in enumerate(instruction.operands):
        if instruction.opcode == "reduce":
            kept = [d for d in range(operand.shape.rank) if d not in instruction.get("dimensions")]
            yield operand, tuple(kept[d] for d in rows) if number == 0 else None
        else:
            yield operand, rows_backwards(instruction, number, rows)


def _checked(
    product: Instruction,
    scores: Instruction,
    number: int,
    rows: Mapping[Instruction, Rows],
    between: tuple[Instruction, ...],
    batch: Rows,
) -> Attention | None:
    """The attention, if the rows are the batches of the scores and all that one of their operands has besides."""
    own = rows.get(scores)
    if own is None or not any(i.opcode == "reduce" for i in between) or not _are_full(scores, rows, between):
        return None
    count = len(scores.get("lhs_batch_dims"))
    frees = [len(free_dims(scores, side)) for side in (0, 1)]
    spans = range(count, count + frees[0]), range(count + frees[0], count + sum(frees))
    if set(own[: len(batch)]) != set(wide(scores, range(count))):
        return None
    for query, span in enumerate(spans):
        if set(own[len(batch) :]) == set(wide(scores, span)):
            dims = scores.shape.dims
            sizes = [prod(dims[d] for d in part) for part in (range(count), span, spans[1 - query])]
            return Attention(product, scores, number, query, rows, between, *sizes)
    return None


def _are_full(scores: Instruction, rows: Mapping[Instruction, Rows], between: tuple[Instruction, ...]) -> bool:
    """Whether everything has one element a row, or one for each row and column; reduces fold whole rows."""
    for instruction in between:
        own = prod(instruction.shape.dims[d] for d in rows[instruction])
        if instruction.shape.count not in (own, scores.shape.count):
            return False
        if instruction.opcode == "reduce" and instruction.shape.count != own:
            return False
    return True
