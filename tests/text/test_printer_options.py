"""What the options of a print show and hide; with jaxlib, that they do as XLA's do."""

from __future__ import annotations

import pytest

from hloc.text.parser import parse
from hloc.text.printer import PrintOptions, print_computation, print_instruction, print_module

TEXT = """HloModule m, frontend_attributes={a="b"}

FileNames
1 "a.py"

FunctionNames
1 "f"

FileLocations
1 {file_name_id=1 function_name_id=1 line=3 end_line=3 column=4 end_column=9}

StackFrames
1 {file_location_id=1 parent_frame_id=1}

add.1 {
  x.1 = f32[] parameter(0)
  y.1 = f32[] parameter(1)
  ROOT r.1 = f32[] add(x.1, y.1), metadata={op_name="sum" stack_frame_id=1}
}, execution_thread="side"

ENTRY e.1 {
  p = f32[3,4]{0,1:T(2,2)} parameter(0), sharding={replicated metadata={op_name="s"}}
  z = f32[] constant(0)
  c = s32[12] constant({0,1,2,3,4,5,6,7,8,9,10,11})
  d = (f32[2], s32[]) constant(({1, 2}, 3))
  s = f32[3] reduce(p, z), dimensions={1}, to_apply=add.1, control-predecessors={c}
  k = f32[3] custom-call(s), custom_call_target="t", backend_config={"a":1}, frontend_attributes={k="v"}
  ROOT t = (f32[3], f32[3], f32[3], f32[3], f32[3], s32[12]) tuple(s, k, s, s, k, c)
}
"""

MODULE = parse(TEXT)

# Our option, XLA's, and values of both.
XLA_OPTIONS = (
    ("large_constants", "print_large_constants"),
    ("metadata", "print_metadata"),
    ("backend_config", "print_backend_config"),
    ("ids", "print_ids"),
    ("percent", "print_percent"),
    ("layouts", "include_layout_in_shapes"),
    ("result_shapes", "print_result_shape"),
    ("operand_shapes", "print_operand_shape"),
    ("operand_names", "print_operand_names"),
    ("compact_operands", "compact_operands"),
    ("program_shapes", "print_program_shape"),
    ("attributes", "print_extra_attributes"),
    ("control_dependencies", "print_control_dependencies"),
)


@pytest.mark.parametrize("option", [ours for ours, _ in XLA_OPTIONS])
def test_every_option_does_as_in_xla(option: str) -> None:
    hlo = pytest.importorskip("jaxlib._hlo")
    names = dict(XLA_OPTIONS)
    xla = hlo.HloPrintOptions()
    xla.print_large_constants = True
    changed = not getattr(PrintOptions(), option)
    setattr(xla, names[option], changed)
    text = hlo.hlo_module_from_text(TEXT).to_string(xla)
    assert print_module(MODULE, PrintOptions(**{option: changed})) == text


def test_indent_does_as_in_xla() -> None:
    hlo = pytest.importorskip("jaxlib._hlo")
    xla = hlo.HloPrintOptions()
    xla.print_large_constants = True
    xla.indent_amount = 2
    assert print_module(MODULE, PrintOptions(indent=2)) == hlo.hlo_module_from_text(TEXT).to_string(xla)


def test_short_print_does_as_in_xla() -> None:
    hlo = pytest.importorskip("jaxlib._hlo")
    text = hlo.hlo_module_from_text(TEXT).to_string(hlo.HloPrintOptions.short_parsable())
    assert print_module(MODULE, PrintOptions.short()) == text


def entry_line(name: str, **options: object) -> str:
    instruction = next(i for i in MODULE.entry if i.name == name)
    return print_instruction(instruction, PrintOptions(**options))


def test_constants_of_more_than_ten_elements_and_tuples_are_elided() -> None:
    assert entry_line("c", large_constants=False) == "%c = s32[12]{0} constant({...})"
    assert entry_line("d", large_constants=False) == "%d = (f32[2]{0}, s32[]) constant({...})"
    assert entry_line("z", large_constants=False) == "%z = f32[] constant(0)"
    assert entry_line("d") == "%d = (f32[2]{0}, s32[]) constant(( {1, 2}, 3 ))"


def test_operand_shapes_stand_before_names() -> None:
    assert entry_line("s", operand_shapes=True).startswith(
        "%s = f32[3]{0} reduce(f32[3,4]{0,1:T(2,2)} %p, f32[] %z), dimensions={1}, to_apply=%add.1"
    )


def test_fifth_operand_is_numbered_and_compact_prints_show_four() -> None:
    assert "tuple(%s, %k, %s, %s, %k, /*index=5*/%c)" in entry_line("t")
    assert "tuple(%s, %k, %s, %s, ...(+2))" in entry_line("t", compact_operands=True)


def test_metadata_goes_from_shardings_and_tables_too() -> None:
    text = print_module(MODULE, PrintOptions(metadata=False))
    assert "sharding={replicated}" in text
    assert "metadata" not in text and "FileNames" not in text


def test_without_percent_and_layouts() -> None:
    assert entry_line("p", percent=False, layouts=False, metadata=False) == (
        "p = f32[3,4] parameter(0), sharding={replicated}"
    )


def test_computation_alone() -> None:
    add = MODULE.computations["add.1"]
    assert print_computation(add, PrintOptions(metadata=False)) == (
        "%add.1 (x.1: f32[], y.1: f32[]) -> f32[] {\n"
        "  %x.1 = f32[] parameter(0)\n"
        "  %y.1 = f32[] parameter(1)\n"
        "  ROOT %r.1 = f32[] add(%x.1, %y.1)\n"
        '}, execution_thread="side"'
    )
    assert print_computation(MODULE.entry).startswith("ENTRY %e.1 (p: f32[3,4])")
