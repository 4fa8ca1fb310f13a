"""Masks of an attention that are known now: how many columns each block of its rows can count at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hloc.analysis.softmax import Softmax, columns_of
from hloc.codegen.attention_plan import AttentionPlan
from hloc.ir.instruction import Instruction
from hloc.lazy import lazy
from hloc.records import record

if TYPE_CHECKING:
    from hloc.ir.literals import Literal

evaluator = lazy("hloc.reference.evaluate")

UNIT = 32
"""Columns are left out in such units: whole tiles and vectors."""

_MOST_ELEMENTS, _MOST_OPS = 1 << 24, 24
"""Of a mask that is computed now."""

_ENOUGH = 0.9
"""The part of all columns that blocks may need for it to pay."""


@record
class Mask:
    """`ends` gives a row's columns, up to the last one that is not masked; masked scores are `fill`."""

    ends: np.ndarray
    fill: float

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def columns(self, rows: int, n: int) -> list[int]:
        """Columns of each block of so many rows, of `n` in all; some of them at least."""
        firsts = range(0, len(self.ends), rows)
        return [min(max(-(-int(self.ends[i : i + rows].max()) // UNIT), 1) * UNIT, n) for i in firsts]

    def pays(self, rows: int, n: int) -> bool:
        columns = self.columns(rows, n)
        return sum(columns) <= _ENOUGH * n * len(columns)


def mask_of(plan: AttentionPlan, softmax: Softmax) -> Mask | None:
    """The mask of the scores of a softmax, if they are select(mask, scores, a constant) or the other way around."""
    given = softmax.given
    order = [*plan.found.rows[given][plan.batches :], *columns_of(given, plan.found)]
    return mask_of_select(given, order, plan.m, plan.n)


def mask_of_select(given: Instruction, order: Sequence[int], m: int, n: int) -> Mask | None:
    """The mask that an op puts on m x n scores, whose rows and columns its dimensions `order` count through."""
    if given.opcode != "select" or given.operands[0].shape.count != given.shape.count:
        return None
    for branch, other in ((1, 2), (2, 1)):
        fill = constant_of(given.operands[other])
        if fill is None or constant_of(given.operands[branch]) is not None:
            continue
        seen = _matrix(given, branch == 1, order, m, n)
        if seen is None or math.isnan(fill) or fill == math.inf:
            return None
        ends = np.where(seen.any(1), n - seen[:, ::-1].argmax(1), 0)
        return Mask(ends, fill)
    return None


def constant_of(value: Instruction) -> float | None:
    """The number that all elements are."""
    while value.opcode == "broadcast":
        value = value.operands[0]
    if value.opcode != "constant" or value.shape.count != 1:
        return None
    return float(value.attributes["literal"].array.reshape(-1)[0])


def _matrix(given: Instruction, chosen: bool, order: Sequence[int], m: int, n: int) -> np.ndarray | None:
    """Where a mask is `chosen` in any batch, by rows and columns. None if it is not known now."""
    mask = given.operands[0]
    dims = list(range(given.shape.rank))
    while mask.opcode == "broadcast":
        dims = [dims[d] for d in mask.get("dimensions")]
        mask = mask.operands[0]
    literal = _known(mask, {}) if mask.shape.count <= _MOST_ELEMENTS else None
    if literal is None:
        return None
    wanted = [d for d in order if d in dims]
    others = tuple(axis for axis, d in enumerate(dims) if d not in wanted)
    array = (np.asarray(literal.array, bool) == chosen).any(axis=others)
    left = [d for d in dims if d in wanted]
    array = array.transpose([left.index(d) for d in wanted])
    shape: Sequence[int] = [given.shape.dims[d] for d in order]
    array = array.reshape([size if d in wanted else 1 for d, size in zip(order, shape, strict=True)])
    return np.broadcast_to(array, shape).reshape(m, n)


def _known(value: Instruction, found: dict[Instruction, Literal | None]) -> Literal | None:
    """What a value is, if it is made of constants alone by a few ops on single elements."""
    if value in found:
        return found[value]
    if len(found) > _MOST_OPS or not value.shape.is_array or value.shape.count > _MOST_ELEMENTS:
        return None
    literal = None
    if value.opcode == "constant":
        literal = value.attributes["literal"]
    elif value.op.is_elementwise or value.opcode in ("iota", "broadcast", "reshape", "transpose"):
        found[value] = None
        operands = [_known(operand, found) for operand in value.operands]
        if all(operand is not None for operand in operands):
            literal = evaluator.fold(value, operands)
    found[value] = literal
    return literal
