"""What the parser says of wrong texts, and where it points."""

from __future__ import annotations

import pytest
from parsing import ADD

from hloc.errors import HloError
from hloc.text.parser import parse

P = "ENTRY e {\n  p = f32[4] parameter(0)\n  "

# (text, line, column, message, hint)
CASES = [
    ("", 1, 1, "expected an instruction, a computation, a shape or 'HloModule', got the end of the text", None),
    ("HloModule", 1, 10, "expected a name, got the end of the text", None),
    ('HloModule "m"', 1, 11, "expected a name, got '\"m\"'", None),
    ("HloModule m", 1, 12, "expected a computation, ',' or 'FileNames', got the end of the text", None),
    ("HloModule m, is_schedled=true\n", 1, 14, "there is no attribute 'is_schedled'", "did you mean 'is_scheduled'?"),
    ("HloModule m, index=3\nENTRY e { ROOT p = f32[] parameter(0) }", 1, 14, "a module has no attribute 'index'", None),
    ("HloModule m, is_scheduled=true, is_scheduled=true\nENTRY e { ROOT p = f32[] parameter(0) }", 1, 33,
     "attribute is_scheduled is given twice", None),
    ("HloModule m, input_output_alias={ {1}: (0, {}) }\nENTRY e { ROOT p = f32[] parameter(0) }", 1, 14,
     "output {1} does not exist: the result is f32[]", None),
    ("HloModule m\nFileNames\n1 \"a\"\nENTRY e { ROOT p = f32[] parameter(0) }", 4, 1,
     "expected 'FunctionNames' or an integer, got 'ENTRY'", None),
    ("HloModule m\nFileNames FunctionNames FileLocations\n1 {line=1}\nStackFrames", 3, 1, "the row lacks file_name_id", None),
    ("ENTRY e { }", 1, 11, "expected an instruction, got '}'", None),
    ("ENTRY e { ROOT p = f32[] parameter(0) }\nENTRY f { ROOT p = f32[] parameter(0) }", 2, 1,
     "a second ENTRY: e is the entry", None),
    ("e { ROOT p = f32[] parameter(0) }\ne { ROOT p = f32[] parameter(0) }", 2, 1,
     "computation e is defined already, at 1:1", None),
    ("ENTRY e { p = f32[] parameter(0) }, execution_thred=\"x\"", 1, 37, "there is no attribute 'execution_thred'",
     "did you mean 'execution_thread'?"),
    ("ENTRY e {\n  ROOT p = f32[] parameter(0)\n  ROOT q = f32[] negate(p)\n}", 3, 3, "a second ROOT: p is the root", None),
    ("ENTRY e {\n  p = f32[] parameter(0)\n  p = f32[] negate(p)\n}", 3, 3, "instruction p is defined already, at 2:3", None),
    ("ENTRY e {\n  %0 = f32[] parameter(0)\n}", 2, 3, "unexpected character '%'", None),
    ("ENTRY e {\n  f32 = f32[] parameter(0)\n}", 2, 3, "expected an instruction, got 'f32'", None),
    ("ENTRY e {\n  true = f32[] parameter(0)\n}", 2, 3, "expected an instruction, got 'true'", None),
    ("ENTRY e {\n  %f32 = f32[] parameter(0)\n}", 2, 3, "'f32' cannot be the name of an instruction", None),
    ("ENTRY e {\n  __p = f32[] parameter(0)\n}", 2, 3, "'__p' cannot be the name of an instruction", None),
    (P + "ROOT q = f32[4] negate(p);\n}", 3, 28, "unexpected character ';'", None),
    (P + "ROOT q = f32[4] neggate(p)\n}", 3, 19, "unknown opcode 'neggate'", "did you mean 'negate'?"),
    (P + "ROOT q = f32[4] negate(pp)\n}", 3, 26, "instruction 'pp' is not defined before its use", "did you mean 'p'?"),
    (P + "ROOT q = f32[4] negate(q)\n}", 3, 26, "instruction 'q' is not defined before its use", None),
    (P + "ROOT q = f32[4] negate(f32[5] p)\n}", 3, 33, "operand p is declared as f32[5], but is f32[4]", None),
    (P + "ROOT q = f32[4] add(p)\n}", 3, 19, "add takes 2 operands, got 1", None),
    (P + "ROOT q = f32[4] tuple(p)\n}", 3, 19, "a tuple cannot have the shape f32[4]", None),
    (P + "ROOT q = (f32[4]) tuple(p, p)\n}", 3, 21, "a tuple of 1 elements takes as many operands, got 2", None),
    (P + "ROOT q = f32[4] negate(p, )\n}", 3, 29, "expected a shape, a name or an integer, got ')'", None),
    (P + "ROOT q = f32[4] negate(3)\n}", 3, 26, "expected an operand, got 3", None),
    (P + "ROOT q = f32[4] negate(p), index=1\n}", 3, 30, "negate has no attribute 'index'",
     "it takes only those that every instruction takes"),
    (P + "ROOT q = f32[4] reduce(p, p), dimension={0}\n}", 3, 33, "reduce has no attribute 'dimension'",
     "did you mean 'dimensions'?"),
    (P + "ROOT q = f32[4] transpose(p)\n}", 3, 19, "transpose needs the attribute dimensions", None),
    (P + "ROOT q = f32[4] transpose(p), dimensions={a}\n}", 3, 45, "expected '}' or an integer, got 'a'", None),
    (P + "ROOT q = f32[4] transpose(p), dimensions={0}, dimensions={0}\n}", 3, 49, "attribute dimensions is given twice", None),
    (P + "ROOT q = pred[4] compare(p, p), direction=lt\n}", 3, 45, "expected one of EQ, NE, GE, GT, LE, LT; got 'lt'", None),
    (P + "ROOT q = f32[4] call(p), to_apply=ad\n}", 3, 37, "computation 'ad' is not defined before its use", None),
    (P + "ROOT q = f32[4] collective-permute(p), source_target_pairs={{0,1},{1}}\n}", 3, 42, "expected pairs of devices", None),
    (P + "ROOT q = f32[4] negate(p), parameter_replication={true}\n}", 3, 30, "only a parameter has", None),
    (P + "ROOT q = f32[4] negate(p), control-predecessors={x}\n}", 3, 52, "instruction 'x' is not defined", None),
    (P + 'ROOT q = f32[4] negate(p), metadata={op_nam="x"}\n}', 3, 40, "metadata has no field 'op_nam'",
     "did you mean 'op_name'?"),
    (P + 'ROOT q = f32[4] negate(p), metadata={op_name="x" op_name="x"}\n}', 3, 52, "metadata has op_name twice", None),
    (P + "ROOT q = f32[4] negate(p), metadata={source_line=99999999999}\n}", 3, 40, "metadata source_line is a 32-bit", None),
    (P + 'ROOT q = f32[4] negate(p), metadata={op_name="\\q"}\n}', 3, 48, "is not an escape", None),
    (P + "ROOT q = f32[4] negate(p), backend_config={a\n", 3, 45, "expected a '}' that closes this brace", None),
    (P + 'ROOT q = f32[4] negate(p), backend_config="a\n}', 3, 45, "unterminated string", None),
    (P + "ROOT q = f32[4] negate(p) /* a\n}", 3, 29, "unterminated comment", None),
    (P + "q = f32[4] parameter(0)\n}", 3, 24, "parameter 0 is defined already, as p", None),
    ("ENTRY e {\n  p = f32[4] parameter(1)\n}", 2, 3, "parameter 0 is missing", None),
    ("ENTRY e {\n  p = f32[4] parameter(99999999999)\n}", 2, 24, "expected a parameter number from 0", None),
    ("ENTRY e {\n  p = f33[4] parameter(0)\n}", 2, 7, "unknown element type 'f33'", "did you mean 'f32'?"),
    ("HloModule m\0", 1, 12, "unexpected NUL character", None),
    ("f32[10] add(f32[10] x, y)", 1, 24, "instruction 'y' is not defined before its use", None),
    ("f32[10] add(f32[10], f32[10]) foo", 1, 31, "expected", None),
]  # fmt: skip


@pytest.mark.parametrize("text, line, column, message, hint", CASES, ids=[repr(case[0])[-40:] for case in CASES])
def test_messages(text: str, line: int, column: int, message: str, hint: str | None) -> None:
    with pytest.raises(HloError) as raised:
        parse(text, "a.hlo")
    error = raised.value
    assert message in error.message
    assert error.hint == hint
    assert error.span.source.position(error.span.start) == (line, column)
    assert str(error).startswith(f"a.hlo:{line}:{column}: error: ")


def test_a_name_is_known_only_in_its_computation() -> None:
    with pytest.raises(HloError, match="instruction 'a' is not defined"):
        parse(ADD + "ENTRY e { ROOT r = f32[] negate(a) }")


def test_bodies_in_place_nest_only_so_deep() -> None:
    text = "f32[] call(p), to_apply={ p = f32[] parameter(0) ROOT r = " * 200 + "f32[] negate(p)" + "}" * 200
    with pytest.raises(HloError, match="computations nest deeper than"):
        parse("ENTRY e { p = f32[] parameter(0) ROOT r = " + text + " }")
