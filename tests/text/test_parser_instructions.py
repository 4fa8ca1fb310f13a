"""Instructions as text: rows I, OV and AS of the language."""

from __future__ import annotations

import pytest
from parsing import ADD, body, names, root

from hloc.errors import HloError
from hloc.ir.shapes import TOKEN_SHAPE

PAIR = "  p = (f32[4], s32[2]) parameter(0)\n"


@pytest.mark.parametrize("operands", ["p, q", "%p, %q", "f32[4] p, f32[4]{0} %q", "p ,q", "/*index=0*/p, /*1*/ q"])
def test_operands(operands: str) -> None:
    add = root(f"  p = f32[4] parameter(0)\n  q = f32[4] parameter(1)\n  ROOT r = f32[4] add({operands})")
    assert [operand.name for operand in add.operands] == ["p", "q"]
    assert add.operands[0].users == {add: 1}


def test_many_operands_with_their_comments() -> None:
    listed = ", ".join(f"/*index={i}*/%p" if i and i % 5 == 0 else "%p" for i in range(12))
    shape = f"({', '.join(['f32[4]'] * 12)})"
    tuple_ = root(f"  p = f32[4] parameter(0)\n  ROOT r = {shape} tuple({listed})\n")
    assert len(tuple_.operands) == 12
    assert tuple_.operands[0].users == {tuple_: 12}


def test_nested_operands_come_first() -> None:
    module = body("  p = f32[4] parameter(0)\n  ROOT r = f32[4] add(f32[4] negate(p), multiply(p, abs(p)))")
    assert names(module)["e"] == ["p", "negate.anon", "abs.anon", "multiply.anon", "r"]


def test_nesting_has_no_limit() -> None:
    depth = 20_000
    module = body(f"  p = f32[4] parameter(0)\n  ROOT r = f32[4] {'negate(' * depth}p{')' * depth}")
    assert len(module.entry) == depth + 1


def test_elements_of_tuples_in_short() -> None:
    module = body("  p = ((f32[4], s32[2]), f32[]) parameter(0)\n  ROOT r = s32[2] negate(%p#0#1)")
    inner, outer = module.entry.root.operands[0], module.entry.root.operands[0].operands[0]
    assert (inner.opcode, inner.get("index"), outer.get("index")) == ("get-tuple-element", 1, 0)
    with pytest.raises(HloError, match="has no element 2"):
        body(PAIR + "  ROOT r = s32[2] negate(p#2)")


def test_shapes_are_inferred() -> None:
    module = body(
        PAIR + "  a = get-tuple-element(p), index=0\n  b = add(a, a)\n  c = compare(a, b), direction=LT\n"
        "  d = select(c, a, b)\n  z = f32[] constant(0)\n  ROOT r = reduce(d, z), dimensions={0}, to_apply=add", ADD)  # fmt: skip
    assert str(module.entry.root.shape) == "f32[]"
    assert module.entry.root.operands[0].shape.layout.minor_to_major == (0,)
    with pytest.raises(HloError, match="the shape of convert is omitted and cannot be inferred"):
        body("  p = f32[4] parameter(0)\n  ROOT r = convert(p)")


def test_parameters_by_number() -> None:
    entry = body("  b = f32[] parameter(1)\n  a = s32[] parameter(0)\n  ROOT r = f32[] negate(b)").entry
    assert [parameter.name for parameter in entry.parameters] == ["a", "b"]


def test_control_predecessors() -> None:
    module = body(
        "  p = f32[4] parameter(0)\n  q = f32[4] negate(p)\n"
        "  ROOT r = f32[4] abs(p), control-predecessors={%q, p}, metadata={op_name=\"x\"}"
    )  # fmt: skip
    r, q = module.entry.root, module.entry.root.control_predecessors[0]
    assert (q.name, q.control_successors) == ("q", (r,))


def test_trivial_differences_vanish() -> None:
    compare = root("  p = s32[4] parameter(0)\n  ROOT r = pred[4] compare(p, p), direction=LT, type=SIGNED")
    assert compare.attributes == {"direction": "LT"}
    mapped = root("  p = f32[4] parameter(0)\n  ROOT r = f32[4] map(p, p), to_apply=add", ADD)
    assert mapped.get("dimensions") == (0,)
    called = root('  p = f32[] parameter(0)\n  ROOT r = f32[] custom-call(p), custom_call_target="x", to_apply=add', ADD)
    assert [c.name for c in called.called] == ["add"] and "to_apply" not in called.attributes
    reduced = root("  p = f32[4] parameter(0)\n  ROOT r = f32[4] all-reduce(p), replica_groups={}, mode=flattened_id, "
                   "constrain_layout=false, to_apply=add", ADD)  # fmt: skip
    assert list(reduced.attributes) == ["to_apply"]


def test_a_wrapped_operation() -> None:
    module = body(
        "  p = f32[8] parameter(0)\n"
        '  s = ((f32[8]), f32[4], s32[]) slice-start(p), async_execution_thread="t", slice={[2:6]}, metadata={op_name="x"}\n'
        "  u = ((f32[8]), f32[4], s32[]) slice-update(s)\n  ROOT d = f32[4] slice-done(u)"
    )
    start = module.entry.root.operands[0].operands[0]
    assert [i.opcode for i in module.entry] == ["parameter", "async-start", "async-update", "async-done"]
    wrapped = start.get("calls")
    assert (wrapped.root.opcode, wrapped.root.get("slice")[0].limit, wrapped.root.metadata.op_name) == ("slice", 6, "x")
    assert (start.get("async_execution_thread"), wrapped.execution_thread) == ("t", "t")
    assert names(module) == {"async_wrapped": ["async_param", "slice"], "e": ["p", "s", "u", "d"]}


def test_a_generic_asynchronous_computation() -> None:
    module = body(
        "  p = f32[8] parameter(0)\n  s = ((f32[8]), f32[8], s32[]) async-start(p), calls=w\n"
        "  ROOT d = f32[8] async-done(s), calls=w",
        "w { a = f32[8] parameter(0) b = f32[8] negate(a) ROOT c = f32[8] abs(b) }, execution_thread=\"other\"\n",
    )  # fmt: skip
    assert module.entry.root.operands[0].get("calls").execution_thread == "main"
    assert module.entry.root.attributes == {}


@pytest.mark.parametrize("line, message", [
    ("f32[8] negate-done(p)", "takes an asynchronous operation"),
    ("f32[8] abs-done(s)", "s began negate, not abs"),
    ('f32[8] negate-done(s), async_execution_thread="x"', "expected the thread of the start, 'main'"),
    ("f32[8] negate-start(p)", r"expected the shape \(\(operands\), result"),
    ("((f32[8]), f32[9]) negate-update(s)", "expected the shape of the operand"),
    ("((f32[8]), f32[8]) parameter-start(p)", "unknown opcode 'parameter-start'"),
    ("((f32[8]), f32[8]) nagate-start(p)", "unknown opcode 'nagate-start'"),
])  # fmt: skip
def test_wrong_asynchronous_operations(line: str, message: str) -> None:
    with pytest.raises(HloError, match=message):
        body(f"  p = f32[8] parameter(0)\n  s = ((f32[8]), f32[8]) negate-start(p)\n  ROOT r = {line}")


def test_every_instruction_has_its_place() -> None:
    module = body("  %p = f32[] parameter(0)\n  ROOT %r.1 = f32[] negate(%p)\n")
    assert [str(i.span) for i in module.entry] == ["<string>:3:3", "<string>:4:8"]
    assert [i.span.end - i.span.start for i in module.entry] == [2, 4]
    assert str(module.entry.span) == "<string>:2:7"
    assert module.entry.root.span.source is module.source


def test_tokens_have_no_layout() -> None:
    assert root("  ROOT t = token[] after-all()").shape == TOKEN_SHAPE
