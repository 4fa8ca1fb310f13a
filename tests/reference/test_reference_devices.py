"""Several devices: collectives, their groups, and devices that wait in vain."""

from __future__ import annotations

import numpy as np
import pytest
from evaluating import f32, same

from hloc.errors import ArgumentError, HloError
from hloc.reference.evaluate import evaluate, evaluate_replicated
from hloc.text.parser import parse

ADD = "add {\n a = f32[] parameter(0)\n b = f32[] parameter(1)\n ROOT c = f32[] add(a, b)\n}"
SHIFT = """shift {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  two = f32[] constant(2)
  c = f32[] multiply(a, two)
  ROOT d = f32[] add(c, b)
}"""


def run(line: str, values: list[np.ndarray], replicas: int, partitions: int = 1) -> list[np.ndarray]:
    """The first result of every device of a program with one argument x."""
    shape = f"f32[{','.join(map(str, values[0].shape))}]"
    text = f"""HloModule m, replica_count={replicas}, num_partitions={partitions}
{ADD}
{SHIFT}
ENTRY e {{
  x = {shape} parameter(0)
  {line}
}}"""
    return [results[0] for results in evaluate_replicated(parse(text), [[value] for value in values])]


def each(count: int, width: int = 1) -> list[np.ndarray]:
    """10 to the device, in every element."""
    return [np.full(width, 10.0**i, np.float32) for i in range(count)]


@pytest.mark.parametrize(
    "attributes, expected",
    [
        ("replica_groups={}", [101, 1010, 101, 1010]),
        ("replica_groups={{0},{1}}", [1, 10, 100, 1000]),
        ("replica_groups={}, channel_id=1", [1111] * 4),
        ("replica_groups={{0},{1}}, channel_id=1", [11, 11, 1100, 1100]),
        ("replica_groups={{0,3},{1,2}}, channel_id=1, use_global_device_ids=true", [1001, 110, 110, 1001]),
        (
            "replica_groups=[2,2]<=[2,2]T(1,0), channel_id=1, use_global_device_ids=true",
            [101, 1010, 101, 1010],
        ),
    ],
)
def test_groups_of_replicas_of_both_and_of_devices(attributes: str, expected: list[float]) -> None:
    """Two replicas of two partitions: device 2 r + p."""
    got = run(f"ROOT r = f32[1] all-reduce(x), {attributes}, to_apply=add", each(4), 2, 2)
    assert [float(value[0]) for value in got] == expected


@pytest.mark.parametrize(
    "line, expected",
    [
        ("collective-permute(x), source_target_pairs={{0,1}}", [0, 1, 0, 100]),
        ("collective-permute(x), channel_id=1, source_target_pairs={{0,1}}", [0, 1, 0, 100]),
        ("collective-broadcast(x), channel_id=1, replica_groups={{1,0}}", [10, 10, 1000, 1000]),
        ("collective-broadcast(x), replica_groups={{1,0}}", [100, 1000, 100, 1000]),
    ],
)
def test_ops_without_global_ids_take_a_channel_for_partitions(line: str, expected: list[float]) -> None:
    if "channel" not in line and "permute" in line:
        expected = [0, 0, 1, 10]
    got = run(f"ROOT r = f32[1] {line}", each(4), 2, 2)
    assert [float(value[0]) for value in got] == expected


def test_all_reduce_folds_in_order_of_the_group() -> None:
    got = run("ROOT r = f32[1] all-reduce(x), replica_groups={{2,0,1}}, to_apply=shift", each(3), 3)
    assert [float(value[0]) for value in got] == [2 * (2 * 100 + 1) + 10] * 3


def test_all_gather_joins_in_order_of_the_group() -> None:
    got = run("ROOT r = f32[4] all-gather(x), replica_groups={{0,2},{3,1}}, dimensions={0}", each(4, 2), 4)
    same(got[0], [1, 1, 100, 100])
    same(got[1], [1000, 1000, 10, 10])


def test_reduce_scatter_gives_each_member_its_part() -> None:
    values = [np.arange(4, dtype=np.float32) + 10 * i for i in range(2)]
    got = run(
        "ROOT r = f32[2] reduce-scatter(x), replica_groups={{1,0}}, dimensions={0}, to_apply=add", values, 2
    )
    same(got[1], [10, 12])
    same(got[0], [14, 16])


def test_all_to_all_exchanges_parts() -> None:
    values = [np.arange(4, dtype=np.float32) + 10 * i for i in range(2)]
    got = run("ROOT r = f32[4] all-to-all(x), replica_groups={{0,1}}, dimensions={0}", values, 2)
    same(got[0], [0, 1, 10, 11])
    same(got[1], [2, 3, 12, 13])
    line = (
        "y = f32[1] negate(x)\n"
        "  t = (f32[1], f32[1]) all-to-all(x, y), replica_groups={{0,1}}\n"
        "  ROOT r = f32[1] get-tuple-element(t), index=1"
    )
    assert [float(value[0]) for value in run(line, each(2), 2)] == [10, -10]


def test_ragged_all_to_all_lands_where_the_sender_says() -> None:
    text = """HloModule m, replica_count=2
ENTRY e {
  x = f32[4] parameter(0)
  o = f32[4] parameter(1)
  a = s32[2] parameter(2)
  b = s32[2] parameter(3)
  c = s32[2] parameter(4)
  d = s32[2] parameter(5)
  ROOT z = f32[4] ragged-all-to-all(x, o, a, b, c, d), replica_groups={{0,1}}
}"""
    empty = np.zeros(4, np.float32)
    vector = lambda *values: np.array(values, np.int32)  # noqa: E731
    devices = [
        [f32(1, 2, 3, 4), empty, vector(0, 1), vector(1, 3), vector(0, 0), vector(1, 1)],
        [f32(5, 6, 7, 8), empty, vector(0, 1), vector(1, 1), vector(3, 3), vector(3, 1)],
    ]
    got = evaluate_replicated(parse(text), devices)
    same(got[0][0], [1, 0, 0, 5])
    same(got[1][0], [2, 3, 4, 6])


def test_start_and_done_give_what_the_op_gives() -> None:
    line = (
        "s = (f32[1], f32[2]) all-gather-start(x), replica_groups={}, dimensions={0}\n"
        "  g = f32[2] all-gather-done(s)\n"
        "  t = f32[2] all-reduce-start(g), replica_groups={}, to_apply=add\n"
        "  u = f32[2] all-reduce-done(t)\n"
        "  p = (f32[2], f32[2], u32[], u32[]) collective-permute-start(u), source_target_pairs={{0,1}}\n"
        "  ROOT r = f32[2] collective-permute-done(p)"
    )
    got = run(line, each(2), 2)
    same(got[0], [0, 0])
    same(got[1], [2, 20])


def test_collective_reduce_folds_on_the_root_alone() -> None:
    got = run("ROOT r = f32[1] collective-reduce(x), replica_groups={{1,0}}, to_apply=add", each(2), 2)
    assert [float(value[0]) for value in got] == [1, 11]


def test_ids() -> None:
    text = """HloModule m, replica_count=2, num_partitions=2
ENTRY e {
  r = u32[] replica-id()
  p = u32[] partition-id()
  ROOT t = (u32[], u32[]) tuple(r, p)
}"""
    got = evaluate_replicated(parse(text), [[]] * 4)
    assert [[int(value) for value in results] for results in got] == [[0, 0], [0, 1], [1, 0], [1, 1]]


DIVERGING = """HloModule m, replica_count=2
add {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT c = f32[] add(a, b)
}
meets {
  x = f32[1] parameter(0)
  ROOT r = f32[1] all-reduce(x), replica_groups={}, to_apply=add
}
leaves {
  ROOT x = f32[1] parameter(0)
}
ENTRY e {
  x = f32[1] parameter(0)
  id = u32[] replica-id()
  zero = u32[] constant(0)
  first = pred[] compare(id, zero), direction=EQ
  ROOT c = f32[1] conditional(first, x, x), true_computation=meets, false_computation=leaves
}"""


def test_a_device_that_never_comes_is_an_error_and_no_hang() -> None:
    message = "device 0 waits forever at %r = all-reduce: device 1 has come to its end"
    with pytest.raises(HloError, match=message) as caught:
        evaluate_replicated(parse(DIVERGING), [[f32(1)], [f32(2)]])
    assert caught.value.span is not None


def test_devices_that_wait_at_different_ops_are_told_apart() -> None:
    gather = (
        "y = f32[1] parameter(0)\n  ROOT s = f32[2] all-gather(y), replica_groups={{0,1}}, dimensions={0}"
    )
    text = DIVERGING.replace("leaves {\n  ROOT x = f32[1] parameter(0)", "leaves {\n  " + gather)
    with pytest.raises(HloError, match="device 1 waits at %s"):
        evaluate_replicated(parse(text), [[f32(1)], [f32(2)]])


def test_a_group_of_devices_that_are_not_there() -> None:
    with pytest.raises(HloError, match="there is no device 5 among 2"):
        run("ROOT r = f32[1] all-reduce(x), replica_groups={{0,5},{1}}, to_apply=add", each(2), 2)
    with pytest.raises(HloError, match="device 1 is in none of the groups"):
        run("ROOT r = f32[1] all-reduce(x), replica_groups={{0}}, to_apply=add", each(2), 2)


def test_arguments_for_every_device() -> None:
    with pytest.raises(ArgumentError, match="expected the arguments of 2 devices, got 1"):
        run("ROOT r = f32[1] negate(x)", each(1), 2)


def test_collectives_inside_loops_meet_every_time_round() -> None:
    text = f"""HloModule m, replica_count=2
{ADD}
cond {{
  s = (s32[], f32[1]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  n = s32[] constant(3)
  ROOT p = pred[] compare(i, n), direction=LT
}}
body {{
  s = (s32[], f32[1]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  x = f32[1] get-tuple-element(s), index=1
  one = s32[] constant(1)
  j = s32[] add(i, one)
  y = f32[1] all-reduce(x), replica_groups={{}}, to_apply=add
  ROOT r = (s32[], f32[1]) tuple(j, y)
}}
ENTRY e {{
  x = f32[1] parameter(0)
  zero = s32[] constant(0)
  t = (s32[], f32[1]) tuple(zero, x)
  ROOT w = (s32[], f32[1]) while(t), condition=cond, body=body
}}"""
    got = evaluate_replicated(parse(text), [[f32(1)], [f32(2)]])
    assert [float(results[1][0]) for results in got] == [12, 12]


def test_evaluate_runs_all_devices_on_the_same_arguments() -> None:
    text = f"""HloModule m, replica_count=3
{ADD}
ENTRY e {{
  x = f32[1] parameter(0)
  ROOT r = f32[1] all-reduce(x), replica_groups={{}}, to_apply=add
}}"""
    (got,) = evaluate(parse(text), [f32(2)])
    same(got, [6])
