"""Which values share memory: seen from the plans, and from what must never happen."""

from __future__ import annotations

import numpy as np
import pytest

import hloc
from hloc.codegen import emitters  # noqa: F401  fills the tables that a schedule asks
from hloc.codegen.buffers import ARENA, RESULT, STACK, Buffers, Place, assign
from hloc.codegen.schedule import Schedule, schedule
from hloc.codegen.values import argument_shapes, array_shapes


def planned(text: str, in_place: bool = False) -> tuple[Schedule, Buffers]:
    entry = hloc.parse("HloModule m\n\nENTRY main {\n" + text + "\n}\n").entry
    arguments = argument_shapes(entry)
    slots = tuple(range(len(arguments))) if in_place else None
    plan = schedule(entry, arguments, array_shapes(entry.root.shape), slots)
    return plan, assign(plan, [0] * len(plan.steps))


def place_of(plan: Schedule, buffers: Buffers, name: str) -> Place:
    step = next(step for step in plan.steps if step.instruction.name == name)
    return buffers.places[step.outputs[0].value]


def test_a_chain_of_elementwise_ops_lies_in_the_result() -> None:
    plan, buffers = planned("""
  x = f32[100] parameter(0)
  a = f32[100] negate(x)
  b = f32[100] abs(a)
  ROOT c = f32[100] add(b, b)""")
    assert {place_of(plan, buffers, name) for name in "abc"} == {Place(RESULT, 0)}
    assert buffers.arena_bytes == 0


def test_dead_memory_is_used_again() -> None:
    plan, buffers = planned("""
  x = f32[100,3] parameter(0)
  a = f32[3,100] transpose(x), dimensions={1,0}
  b = f32[100,3] transpose(a), dimensions={1,0}
  c = f32[3,100] transpose(b), dimensions={1,0}
  d = f32[100,3] transpose(c), dimensions={1,0}
  ROOT e = f32[3,100] transpose(d), dimensions={1,0}""")
    assert place_of(plan, buffers, "a") == place_of(plan, buffers, "c")
    assert place_of(plan, buffers, "b") == place_of(plan, buffers, "d")
    assert buffers.arena_bytes == 2 * 1216


def test_an_operand_needed_later_is_not_written_over() -> None:
    plan, buffers = planned("""
  x = f32[100] parameter(0)
  a = f32[100] negate(x)
  b = f32[100] abs(a)
  ROOT c = f32[100] subtract(a, b)""")
    assert place_of(plan, buffers, "a") != place_of(plan, buffers, "b")


def test_an_operand_read_at_other_indices_is_not_written_over() -> None:
    plan, buffers = planned("""
  x = f32[100] parameter(0)
  a = f32[100] negate(x)
  ROOT r = f32[100] reverse(a), dimensions={0}""")
    assert place_of(plan, buffers, "a").kind == ARENA
    assert place_of(plan, buffers, "r") == Place(RESULT, 0)


def test_results_that_are_arguments_or_each_other_are_copied() -> None:
    _, buffers = planned("""
  x = f32[100] parameter(0)
  y = f32[100] negate(x)
  ROOT t = (f32[100], f32[100], f32[100]) tuple(x, y, y)""")
    assert [(number, offset) for _, number, offset in buffers.copies] == [(0, None), (2, None)]


def test_a_loop_carried_array_is_updated_in_its_own_memory() -> None:
    plan, buffers = planned("""
  p = (s32[], f32[100]) parameter(0)
  i = s32[] get-tuple-element(p), index=0
  x = f32[100] get-tuple-element(p), index=1
  u = f32[1] constant({1})
  y = f32[100] dynamic-update-slice(x, u, i)
  one = s32[] constant(1)
  j = s32[] add(i, one)
  ROOT t = (s32[], f32[100]) tuple(j, y)""", in_place=True)
    assert place_of(plan, buffers, "y") == Place(RESULT, 1)
    assert place_of(plan, buffers, "j") == Place(RESULT, 0)
    assert not buffers.copies


def test_a_small_result_that_no_step_reads_is_made_in_its_place() -> None:
    plan, buffers = planned("""
  x = f32[3] parameter(0)
  a = f32[3] negate(x)
  b = f32[3] exponential(a)
  ROOT t = (f32[3], f32[3]) tuple(a, b)""")
    assert place_of(plan, buffers, "b") == Place(RESULT, 1)
    assert place_of(plan, buffers, "a").kind == STACK
    assert [(view.value, number) for view, number, _ in buffers.copies] == [(plan.results[0].value, 0)]


def test_a_small_state_of_a_loop_lies_on_the_stack() -> None:
    """There LLVM can keep it in registers, turn by turn."""
    module = hloc.parse("""HloModule m

body {
  x = f32[] parameter(0)
  ROOT y = f32[] multiply(x, x)
}

condition {
  x = f32[] parameter(0)
  one = f32[] constant(1)
  ROOT c = pred[] compare(x, one), direction=LT
}

ENTRY main {
  x = f32[] parameter(0)
  ROOT w = f32[] while(x), condition=condition, body=body
}
""")
    plan = schedule(module.entry, argument_shapes(module.entry), array_shapes(module.entry.root.shape))
    assert place_of(plan, assign(plan, [0] * len(plan.steps)), "w").kind == STACK


def test_scalars_lie_on_the_stack_until_the_end() -> None:
    plan, buffers = planned("""
  x = f32[] parameter(0)
  a = f32[] negate(x)
  b = f32[] add(a, x)
  ROOT c = f32[] multiply(b, a)""")
    assert place_of(plan, buffers, "c").kind == STACK
    assert [number for _, number, _ in buffers.copies] == [0]
    assert buffers.arena_bytes == 0


def test_a_loop_result_waits_for_the_last_reader_of_the_old_value() -> None:
    plan, buffers = planned("""
  p = (f32[100], f32[100]) parameter(0)
  x = f32[100] get-tuple-element(p), index=0
  y = f32[100] get-tuple-element(p), index=1
  a = f32[100] add(x, y)
  b = f32[100] reverse(x), dimensions={0}
  ROOT t = (f32[100], f32[100]) tuple(a, b)""", in_place=True)
    assert place_of(plan, buffers, "a") != Place(RESULT, 0)
    assert [number for _, number, _ in buffers.copies] == [0]


def test_leaves_that_change_places_go_aside() -> None:
    _, buffers = planned("""
  p = (f32[4], f32[4]) parameter(0)
  x = f32[4] get-tuple-element(p), index=0
  y = f32[4] get-tuple-element(p), index=1
  ROOT t = (f32[4], f32[4]) tuple(y, x)""", in_place=True)
    assert all(offset is not None for _, _, offset in buffers.copies)
    assert len({offset for _, _, offset in buffers.copies}) == 2


def test_a_result_takes_its_own_memory_when_that_is_free_again() -> None:
    """The copy of x is not where the result will be, so the sum is not written over the copy."""
    plan, buffers = planned("""
  p = (f32[100], f32[100]) parameter(0)
  x = f32[100] get-tuple-element(p), index=0
  y = f32[100] get-tuple-element(p), index=1
  r = f32[100] reverse(x), dimensions={0}
  s = f32[100] add(r, y)
  ROOT t = (f32[100], f32[100]) tuple(s, y)""", in_place=True)
    assert place_of(plan, buffers, "r").kind == ARENA
    assert place_of(plan, buffers, "s") == Place(RESULT, 0)
    assert not buffers.copies


LOOP = """HloModule m
body {
  p = (s32[], f32[100], f32[100]) parameter(0)
  i = s32[] get-tuple-element(p), index=0
  x = f32[100] get-tuple-element(p), index=1
  w = f32[100] get-tuple-element(p), index=2
  y = f32[100] add(x, w)
  one = s32[] constant(1)
  j = s32[] add(i, one)
  ROOT t = (s32[], f32[100], f32[100]) tuple(j, y, w)
}
condition {
  p = (s32[], f32[100], f32[100]) parameter(0)
  i = s32[] get-tuple-element(p), index=0
  n = s32[] constant(10)
  ROOT c = pred[] compare(i, n), direction=LT
}
ENTRY e {
  zero = s32[] constant(0)
  a = f32[100] parameter(0)
  b = f32[100] parameter(1)
  t = (s32[], f32[100], f32[100]) tuple(zero, INITIAL)
  w = (s32[], f32[100], f32[100]) while(t), condition=condition, body=body
  x = f32[100] get-tuple-element(w), index=1
  y = f32[100] get-tuple-element(w), index=2
  ROOT s = f32[100] subtract(x, y)
}
"""


def test_what_a_loop_passes_on_is_not_copied() -> None:
    text = LOOP.replace("INITIAL", "a, b")
    entry = hloc.parse(text).entry
    plan = schedule(entry, argument_shapes(entry), array_shapes(entry.root.shape))
    loop = next(step for step in plan.steps if step.instruction.opcode == "while")
    assert [view.value.bytes for view in loop.outputs] == [4, 400]
    assert loop.operands[0][2].value is plan.arguments[1].value


def test_a_loop_may_pass_on_what_it_also_changes() -> None:
    """The same array is the start of a leaf that changes and a leaf that does not."""
    sum_first = "b = f32[100] parameter(1)\n  d = f32[100] add(a, b)"
    executable = hloc.compile(LOOP.replace("INITIAL", "d, d").replace("b = f32[100] parameter(1)", sum_first))
    a, b = np.arange(100, dtype=np.float32), np.ones(100, np.float32)
    np.testing.assert_array_equal(executable(a, b), 11 * (a + b) - (a + b))


CHOICE = """HloModule m
set { q = (f32[100], s32[]) parameter(0)
  x = f32[100] get-tuple-element(q), index=0
  i = s32[] get-tuple-element(q), index=1
  u = f32[1] constant({7})
  ROOT y = f32[100] dynamic-update-slice(x, u, i) }
other { q = (f32[100], s32[]) parameter(0)
  x = f32[100] get-tuple-element(q), index=0
  ROOT y = f32[100] reverse(x), dimensions={0} }
ENTRY e {
  c = pred[] parameter(0)
  p = f32[100] parameter(1)
  i = s32[] parameter(2)
  array = f32[100] sine(p)
  q = (f32[100], s32[]) tuple(array, i)
  r = f32[100] conditional(c, q, q), true_computation=set, false_computation=other
  ROOT t = RESULT
}
"""


def choice(result: str) -> tuple[Schedule, Buffers, str]:
    text = CHOICE.replace("RESULT", result)
    entry = hloc.parse(text).entry
    plan = schedule(entry, argument_shapes(entry), array_shapes(entry.root.shape))
    return plan, assign(plan, [0] * len(plan.steps)), text


def test_a_branch_changes_an_array_where_it_lies() -> None:
    plan, buffers, _ = choice("f32[100] add(r, p)")
    assert place_of(plan, buffers, "array") == place_of(plan, buffers, "r")


def test_a_branch_does_not_change_what_is_needed_later() -> None:
    plan, buffers, _ = choice("f32[100] add(r, array)")
    assert place_of(plan, buffers, "array") != place_of(plan, buffers, "r")


@pytest.mark.parametrize("result", ["f32[100] add(r, p)", "f32[100] add(r, array)", "f32[100] negate(r)"])
@pytest.mark.parametrize("taken", [True, False])
def test_branches_give_the_same_wherever_arrays_lie(result: str, taken: bool) -> None:
    text = choice(result)[2]
    arguments = np.bool_(taken), np.arange(100, dtype=np.float32), np.int32(3)
    module = hloc.parse(text)
    executable = hloc.compile(module, options=hloc.Options(pipeline="none"))
    np.testing.assert_allclose(executable(*arguments), hloc.evaluate(module, *arguments), rtol=1e-6)


def test_one_array_may_start_two_leaves_of_a_loop() -> None:
    """The first leaf lies where the array was; the second one is copied from there before anything changes."""
    text = LOOP.replace("tuple(j, y, w)", "tuple(j, y, x)").replace("INITIAL", "d, d").replace(
        "b = f32[100] parameter(1)", "b = f32[100] parameter(1)\n  d = f32[100] add(a, b)"
    )
    module = hloc.parse(text)
    plan = schedule(module.entry, argument_shapes(module.entry), array_shapes(module.entry.root.shape))
    buffers = assign(plan, [0] * len(plan.steps))
    loop = next(step for step in plan.steps if step.instruction.opcode == "while")
    assert buffers.places[loop.outputs[1].value] == place_of(plan, buffers, "d")
    assert buffers.places[loop.outputs[2].value] != place_of(plan, buffers, "d")
    a, b = np.arange(100, dtype=np.float32), np.ones(100, np.float32)
    expected = hloc.evaluate(module, a, b)
    for pipeline in ("none", "cpu"):
        executable = hloc.compile(module, options=hloc.Options(pipeline=pipeline, cache=False))
        np.testing.assert_array_equal(executable(a, b), expected)
