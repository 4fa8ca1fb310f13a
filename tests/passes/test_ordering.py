"""An order that need not change is told without sorting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hloc.analysis.effects import Effects
from hloc.passes.ordering import Order, is_in_order
from hloc.text.parser import parse

SAMPLES = sorted((Path(__file__).parent.parent.parent / "samples").glob("*.hlo"))
IN_PLACE = """HloModule m

ENTRY main {
  x = f32[8] parameter(0)
  u = f32[2] parameter(1)
  i = s32[] parameter(2)
  d = f32[8] dynamic-update-slice(x, u, i)
  n = f32[8] negate(x)
  ROOT t = (f32[8], f32[8]) tuple(d, n)
}
"""


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_an_order_is_told_to_be_one_where_sorting_keeps_it(path: Path) -> None:
    draw = np.random.default_rng(0)
    for computation in parse(path.read_text()):
        sequence = computation.instructions
        for _ in range(4):
            assert is_in_order(sequence) == (Order(sequence, Effects()).sorted() == sequence)
            sequence = [sequence[place] for place in draw.permutation(len(sequence))]


def test_readers_come_before_what_changes_an_array() -> None:
    sequence = parse(IN_PLACE).entry.instructions
    x, u, i, d, n, t = sequence
    assert not is_in_order(sequence)
    assert Order(sequence, Effects()).sorted() == [x, u, i, n, d, t]
    assert is_in_order([x, u, i, n, d, t])
