"""Modules and computations as text: rows M and C of the language, and the names that come out."""

from __future__ import annotations

import pytest
from parsing import ADD, body, names

from hloc.errors import HloError
from hloc.ir.attributes import Alias, Donor, Raw
from hloc.text.parser import parse, parse_many

ONE = "ENTRY e { ROOT p = f32[] parameter(0) }"


def header(attributes: str, entry: str = ONE):
    return parse(f"HloModule m, {attributes}\n{entry}")


def test_a_header_has_a_name_and_flags() -> None:
    module = header("is_scheduled=true, replica_count=2, num_partitions=4")
    assert (module.name, module.is_scheduled, module.replica_count, module.num_partitions) == ("m", True, 2, 4)


@pytest.mark.parametrize("name", ["%m", "m-1.2", "jit_f"])
def test_a_module_name(name: str) -> None:
    assert parse(f"HloModule {name}\n{ONE}").name == name.removeprefix("%")


def test_entry_layout_is_kept_even_if_it_contradicts_the_entry() -> None:
    (parameter,), result = header("entry_computation_layout={(f32[9,2]{0,1})->f32[9]}").entry_layout
    assert parameter.layout.minor_to_major == (0, 1)
    assert result.layout.minor_to_major == (0,)


def test_without_an_entry_layout_it_follows_from_the_entry() -> None:
    module = parse("HloModule m\nENTRY e { ROOT p = f32[2,3]{0,1} parameter(0) }")
    assert module.entry_layout is None
    assert module.entry_shapes[1].layout.minor_to_major == (0, 1)


def test_aliases_and_donors() -> None:
    entry = "ENTRY e { p = f32[] parameter(0) q = f32[] parameter(1) ROOT t = (f32[], f32[]) tuple(p, q) }"
    module = header("input_output_alias={ {0}: (0, {}), {1}: (1, {}, must-alias) }, buffer_donor={ (0, {}) }", entry)
    assert module.input_output_alias == (Alias((0,), 0), Alias((1,), 1, (), True))
    assert module.buffer_donors == (Donor(0),)


def test_dictionaries_are_sorted_and_keep_braces() -> None:
    module = header('frontend_attributes={k="v",a={mesh = #sdy.mesh<["x"=2], "}">}}')
    assert module.attributes["frontend_attributes"] == (("a", Raw('{mesh = #sdy.mesh<["x"=2], "}">}')), ("k", "v"))


@pytest.mark.parametrize("text, flags", [("true", (True,)), ("{true,false}", (True, False)), ("{}", None), ("false", None)])
def test_propagation_flags(text: str, flags: tuple[bool, ...] | None) -> None:
    name = "allow_spmd_sharding_propagation_to_output"
    assert header(f"{name}={text}").attributes.get(name) == flags


def test_a_recovery_table_holds_programs() -> None:
    row, other = header(f"""origin_recovery_table={{ {{"a" {{1}}}} : {{"b"}}, "{ONE}" {{"c"}} : {{"d"}} }}""").attributes[
        "origin_recovery_table"
    ]
    assert (row.replaced, row.replacing, row.module.name) == ('{"a" {1}}', '{"b"}', "module_e")
    assert other.module is None


def test_what_only_new_xla_knows() -> None:
    module = header('backend_config="x", debug_attributes={{"a"}:({log_mode=default})}')
    assert module.attributes["backend_config"] == "x"
    assert module.attributes["debug_attributes"] == Raw('{{"a"}:({log_mode=default})}')


TABLES = """FileNames
1 "a.py"
FunctionNames
1 "f" 2 'g'
FileLocations
1 {file_name_id=1 function_name_id=1 line=3 end_line=3 column=4 end_column=9}
2 {line=3, end_line=3, column=4, end_column=9, file_name_id=1, function_name_id=2} // fields in another order
StackFrames
1 {file_location_id=1 parent_frame_id=1}
"""


def test_tables_stand_behind_the_header() -> None:
    module = parse(f"HloModule m\n{TABLES}{ONE}")
    assert list(module.tables) == ["FileNames", "FunctionNames", "FileLocations", "StackFrames"]
    assert parse(f"HloModule m\nFileNames FunctionNames FileLocations StackFrames {ONE}").entry.name == "e"


def test_no_header_no_entry() -> None:
    module = parse("a { p = f32[] parameter(0) }\nb { q = f32[] parameter(0) }")
    assert (module.name, module.entry.name) == ("module_b", "b")


def test_signatures_and_threads() -> None:
    text = 'f (x: f32[2], y f32[3]{0}, z: (f32[], s32[])) -> f32[2] { ROOT x = f32[2] parameter(0) }, execution_thread="t"\n'
    computation = body("  ROOT p = f32[2] parameter(0)", text).computations["f"]
    assert computation.execution_thread == "t"
    with pytest.raises(HloError, match=r"result of f is declared as f32\[3\]"):
        parse(text.replace("-> f32[2]", "-> f32[3]"))


def test_the_last_instruction_is_the_root_where_none_is_marked() -> None:
    assert body("  a = f32[] parameter(0)\n  b = f32[] negate(a)").entry.root.name == "b"
    assert body("  ROOT a = f32[] parameter(0)\n  b = f32[] negate(a)").entry.root.name == "a"


def test_bodies_in_place_become_computations() -> None:
    module = body(
        "  p = f32[] parameter(0)\n"
        "  q = f32[] call(p), to_apply={ a = f32[] parameter(0) ROOT b = f32[] negate(a) }\n"
        "  ROOT r = f32[] call(q), to_apply={ a = f32[] parameter(0)\n ROOT c = f32[] call(a), to_apply={\n"
        "    ROOT d = f32[] parameter(0) } }"
    )
    assert names(module) == {"_": ["a", "b"], "_.1": ["d"], "_.2": ["a.1", "c"], "e": ["p", "q", "r"]}


def test_names_become_unique_as_in_xla() -> None:
    module = parse("""
a {
  r = f32[] parameter(0)
  r.0 = f32[] negate(r)
  r.1 = f32[] negate(r.0)
  r.01 = f32[] negate(r.1)
  x.5 = f32[] negate(r.01)
  x.y = f32[] negate(x.5)
  z. = f32[] negate(x.y)
  ROOT w.99999999999999999999 = f32[] negate(z.)
}
a.1 {
  r = f32[] parameter(0)
  x = f32[] negate(r)
  x.5 = f32[] negate(x)
  z. = f32[] negate(x.5)
  ROOT w.99999999999999999999 = f32[] negate(z.)
}
ENTRY a.2 { x.0 = f32[] parameter(0) ROOT n = f32[] add(negate(x.0), negate(negate(x.0))) }
""")
    assert names(module) == {
        "a": ["r", "r.1", "r.2", "r.3", "x.5", "x.y", "z.", "w.99999999999999999999"],
        "a.1": ["r.4", "x", "x.1", "z..1", "w.99999999999999999999.1"],
        "a.2": ["x.2", "negate.anon", "negate.anon.1", "negate.anon.2", "n"],
    }


def test_one_instruction_is_a_module() -> None:
    module = parse("f32[10] add(f32[10], f32[10])")
    assert (module.name, module.is_scheduled, names(module)) == ("_", True, {"_": ["_0", "_1", "_"]})
    assert names(parse("%r = f32[10] add(f32[10] %x, f32[10] %x)")) == {"_": ["x", "r"]}
    fusion = parse("f32[2] fusion(f32[2] %x), kind=kLoop, calls={ a = f32[2] parameter(0) ROOT b = f32[2] negate(a) }")
    assert names(fusion) == {"_": ["x", "_"], "_.1": ["a", "b"]}


def test_many_modules_in_one_text() -> None:
    text = f"// -----\nHloModule a\n{ONE}\n// ----- second\n\n{ONE.replace('e {', 'f {')}\n// -----\n"
    first, second = parse_many(text)
    assert (first.name, second.name) == ("a", "module_f")
    assert second.entry.root.span.source.text == text
    with pytest.raises(HloError) as raised:
        parse_many(text.replace("ENTRY f {", "ENTRY f {{"))
    assert raised.value.span.source.position(raised.value.span.start) == (6, 10)


def test_comments_anywhere() -> None:
    module = body("  p/*a*/= // b\n  f32[/*,*/2]{ 0 } parameter /*)*/ ( 0 ) /* ** */, sharding={/**/replicated}", ADD)
    assert module.entry.root.shape.dims == (2,)
