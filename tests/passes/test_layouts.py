"""Layouts agree after layout_assignment, and what finds faults in them does find them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hloc.analysis.layouts import layout_faults, reshaped_order
from hloc.ir.dtypes import F32
from hloc.ir.shapes import Layout, array
from hloc.passes.pipeline import PIPELINES, run_pipeline
from hloc.text.parser import parse

HERE = Path(__file__).parent
PROGRAMS = sorted(HERE.glob("programs/*.hlo")) + sorted(HERE.parent.parent.glob("samples/*.hlo"))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
@pytest.mark.parametrize("passes", [*PIPELINES, "layout_assignment"])
def test_layouts_agree(passes: str, path: Path) -> None:
    module = parse(path.read_text(), path.name)
    run_pipeline(module, passes)
    assert layout_faults(module) == []


def test_faults_are_found() -> None:
    module = parse("""HloModule m, entry_computation_layout={(f32[2,3]{0,1})->(f32[2,3]{1,0}, f32[2,3]{1,0})}

    twice {
      a = f32[2,3]{0,1} parameter(0)
      ROOT b = f32[2,3]{0,1} add(a, a)
    }

    ENTRY main {
      x = f32[2,3]{1,0} parameter(0)
      y = f32[2,3]{1,0} call(x), to_apply=twice
      ROOT t = (f32[2,3]{1,0}, f32[2,3]{0,1}) tuple(x, y)
    }""")
    faults = "\n".join(layout_faults(module))
    for fault in (
        "%y: operand 0 has another layout",
        "%y: the result has another layout",
        "%t: operand 1 has another layout",
        "%x: the entry layout is another one",
        "%t: the entry layout is another one",
    ):
        assert fault in faults


@pytest.mark.parametrize(
    ("dims", "order", "target", "expected"),
    [
        ((2, 3, 8), (0, 1, 2), (6, 8), (0, 1)),
        ((2, 3, 8), (1, 0, 2), (6, 8), None),
        ((2, 3, 8), (2, 0, 1), (6, 8), (1, 0)),
        ((2, 3, 8), (1, 0, 2), (2, 3, 4, 2), (1, 0, 2, 3)),
        ((2, 1, 3), (2, 1, 0), (2, 3), (1, 0)),
        ((2, 3), (1, 0), (2, 1, 3), (2, 1, 0)),
        ((4,), (0,), (2, 2), (0, 1)),
        ((0, 3), (1, 0), (3, 0), (0, 1)),
    ],
)
def test_orders_in_which_a_reshape_moves_nothing(dims, order, target, expected) -> None:
    shape = array(F32, *dims, layout=Layout(tuple(reversed(order))))
    assert reshaped_order(shape, target) == expected
