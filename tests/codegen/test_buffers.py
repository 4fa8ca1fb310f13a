"""Which values share memory: seen from the plans, and from what must never happen."""

from __future__ import annotations

import hloc
from hloc.codegen import emitters  # noqa: F401  fills the tables that a schedule asks
from hloc.codegen.buffers import ARENA, RESULT, STACK, Buffers, Place, assign
from hloc.codegen.schedule import Schedule, schedule
from hloc.codegen.values import argument_shapes, array_shapes


def planned(text: str, in_place: bool = False) -> tuple[Schedule, Buffers]:
    entry = hloc.parse("HloModule m\n\nENTRY main {\n" + text + "\n}\n").entry
    plan = schedule(entry, argument_shapes(entry), array_shapes(entry.root.shape))
    return plan, assign(plan, [0] * len(plan.steps), in_place)


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
