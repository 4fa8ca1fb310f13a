"""Every opcode has a meaning."""

from __future__ import annotations

from hloc.ir.opcodes import OPS
from hloc.reference.table import FUNCTIONS, GENERATORS


def test_every_row_has_one_function() -> None:
    given = {"parameter"}
    assert set(OPS) - given == set(FUNCTIONS) | set(GENERATORS)
    assert not set(FUNCTIONS) & set(GENERATORS)
