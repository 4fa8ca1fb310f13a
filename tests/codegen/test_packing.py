"""Packing by transposing squares in registers: every vector of the result is a column of the given rows."""

from __future__ import annotations

import pytest

from hloc.codegen.llvm import Value
from hloc.codegen.packing import ANYHOW, LINES, STEPS, order_of, transposed
from hloc.ir.dtypes import BF16, F32, PRED


class Lanes(Value):
    """A vector whose lanes are known."""

    __slots__ = ("lanes",)

    def __init__(self, type: str, lanes: list):
        super().__init__(type, "%x")
        self.lanes = lanes


class Shuffles:
    """What of a builder transposing needs."""

    def shufflevector(self, x: Value, y: Value, mask: list[int]) -> Value:
        lanes = [*getattr(x, "lanes", [None] * len(mask)), *getattr(y, "lanes", [None] * len(mask))]
        return Lanes(x.type, [lanes[lane] for lane in mask])


@pytest.mark.parametrize(("lanes", "itemsize"), [(4, 4), (8, 4), (16, 4), (2, 8), (4, 8), (8, 8), (8, 2)])
@pytest.mark.parametrize("missing", [0, 1, 2])
def test_columns_of_rows(lanes: int, itemsize: int, missing: int) -> None:
    count = max(lanes - missing, 1)
    rows = [Lanes(f"<{lanes} x float>", [(row, column) for column in range(lanes)]) for row in range(count)]
    columns = transposed(Shuffles(), rows, itemsize)
    for number, column in enumerate(columns):
        assert column.lanes[:count] == [(row, number) for row in range(count)]


def test_orders() -> None:
    assert order_of(F32, 1, 1) == order_of(BF16, 1, 7) == LINES
    assert order_of(F32, 7, 1) == STEPS
    assert order_of(F32, 7, 3) == order_of(PRED, 1, 7) == ANYHOW
