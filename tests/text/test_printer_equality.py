"""What makes two modules differ, and what does not."""

from __future__ import annotations

import pytest

from hloc.ir.clone import clone_module
from hloc.ir.equality import structurally_equal
from hloc.text.parser import parse
from hloc.text.printer import print_module

TEXT = """HloModule m, input_output_alias={ {0}: (0, {}, may-alias) }, frontend_attributes={a="b"}

FileNames
1 "a.py"
2 "b.py"

FunctionNames
1 "f"

FileLocations
1 {file_name_id=1 function_name_id=1 line=3 end_line=3 column=4 end_column=9}
2 {file_name_id=2 function_name_id=1 line=4 end_line=4 column=4 end_column=9}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}

add {
  x = f32[] parameter(0)
  y = f32[] parameter(1)
  ROOT r = f32[] add(x, y)
}

ENTRY e {
  p = f32[4] parameter(0), sharding={replicated}
  q = f32[4] parameter(1)
  z = f32[] constant(1)
  s = f32[] reduce(p, z), dimensions={0}, to_apply=add, metadata={op_name="s" stack_frame_id=2}
  b = f32[4] broadcast(s), dimensions={}, control-predecessors={q}, backend_config={"a":1}
  d = f32[4] subtract(p, q)
  ROOT t = (f32[4], f32[4]) tuple(b, d)
}
"""

CHANGES = {
    "header": ("HloModule m,", "HloModule n,"),
    "alias": ("{0}: (0,", "{1}: (0,"),
    "header attributes": ('{a="b"}', '{a="c"}'),
    "opcode": ("f32[4] subtract", "f32[4] divide"),
    "operands": ("subtract(p, q)", "subtract(q, p)"),
    "literal": ("constant(1)", "constant(-1)"),
    "layout": ("q = f32[4]", "q = f32[4]{0:T(4)}"),
    "instruction names": ("d = f32[4] subtract(p, q)", "k = f32[4] subtract(p, q)"),
    "metadata": ('op_name="s"', 'op_name="t"'),
    "stack frame": ("line=4 end_line=4", "line=5 end_line=4"),
    "calling stack frame": ("parent_frame_id=2}", "parent_frame_id=1}"),
    "sharding": ("{replicated}", "{manual}"),
    "control edge": (", control-predecessors={q}", ""),
    "backend_config": ('{"a":1}', '{"a":2}'),
    "called computation": ("f32[] add(x, y)", "f32[] add(y, x)"),
    "root of a computation": ("ROOT r = f32[] add(x, y)", "r = f32[] add(x, y)\n  ROOT w = f32[] add(x, r)"),
}


def changed(old: str, new: str) -> str:
    assert old in TEXT
    text = TEXT.replace(old, new)
    return text.replace("tuple(b, d)", "tuple(b, k)") if new.startswith("k =") else text


@pytest.mark.parametrize("name", CHANGES)
def test_difference_is_told(name: str) -> None:
    found = structurally_equal(parse(TEXT), parse(changed(*CHANGES[name])))
    assert found is not None


def test_difference_names_the_place() -> None:
    found = structurally_equal(parse(TEXT), parse(changed("subtract(p, q)", "subtract(q, p)")))
    assert found == "in %e: %d: operands is ['p', 'q'] and ['q', 'p']"


def test_same_text_clones_and_prints_are_equal() -> None:
    module = parse(TEXT)
    assert structurally_equal(module, parse(TEXT)) is None
    assert structurally_equal(module, clone_module(module)) is None
    assert structurally_equal(module, parse(print_module(module))) is None


def test_numbers_of_frames_and_order_of_lines_do_not_matter() -> None:
    other = TEXT.replace("1 {file_location_id=1 p", "3 {file_location_id=1 p")
    other = other.replace(
        "2 {file_location_id=2 parent_frame_id=2", "7 {file_location_id=2 parent_frame_id=4"
    )
    other = other.replace("stack_frame_id=2", "stack_frame_id=7")
    line = "  q = f32[4] parameter(1)\n"
    other = other.replace(line, "").replace("  p = f32[4]", line + "  p = f32[4]")
    assert structurally_equal(parse(TEXT), parse(other)) is None


def test_order_of_a_schedule_matters() -> None:
    scheduled = TEXT.replace("HloModule m,", "HloModule m, is_scheduled=true,")
    line = "  q = f32[4] parameter(1)\n"
    other = scheduled.replace(line, "").replace("  p = f32[4]", line + "  p = f32[4]")
    assert structurally_equal(parse(scheduled), parse(other)) is not None
