"""Collectives among threads: every op and way of grouping as the evaluator has it, and devices that never
come.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from emitter_cases import NONE, value
from emitter_cases import check_collective as check
from emitter_cases import collective as module

import hloc
from hloc.errors import HloError
from hloc.options import Options


@pytest.mark.parametrize(
    "groups", ["{}", "{{0,1},{2,3}}", "{{3,1,0},{2}}", "{{0},{1},{2},{3}}", "[2,2]<=[2,2]T(1,0)"]
)
def test_groups_of_replicas(groups: str) -> None:
    check(["f32[6]"], f"  ROOT r = f32[6] all-reduce(p0), replica_groups={groups}, to_apply=add")


@pytest.mark.parametrize(
    "attributes",
    [
        "replica_groups={}",
        "replica_groups={{0},{1}}, channel_id=1",
        "replica_groups={{0,1}}, channel_id=1",
        "replica_groups={{0,3},{2,1}}, channel_id=1, use_global_device_ids=true",
    ],
)
def test_replicas_and_partitions(attributes: str) -> None:
    check(["f32[6]"], f"  ROOT r = f32[6] all-reduce(p0), {attributes}, to_apply=add", 2, 2)


@pytest.mark.parametrize(
    ("parameters", "root"),
    [
        (["f32[6]", "f32[3,2]"], "(f32[6], f32[3,2]) all-reduce(p0, p1), replica_groups={}, to_apply=add"),
        (["f32[2,3]"], "f32[8,3] all-gather(p0), replica_groups={}, dimensions={0}"),
        (["f32[2,3]"], "f32[2,6]{0,1} all-gather(p0), replica_groups={{0,2},{3,1}}, dimensions={1}"),
        (["f32[8,4]"], "f32[2,4] reduce-scatter(p0), replica_groups={}, dimensions={0}, to_apply=add"),
        (
            ["f32[8,4]"],
            "f32[8,2] reduce-scatter(p0), replica_groups={{0,3},{1,2}}, dimensions={1}, to_apply=add",
        ),
        (["f32[8,4]"], "f32[8,4] all-to-all(p0), replica_groups={{0,1,2,3}}, dimensions={0}"),
        (["f32[8,4]"], "f32[8,4] all-to-all(p0), replica_groups={{1,0},{2,3}}, dimensions={1}"),
        (["f32[5]", "f32[5]"], "(f32[5], f32[5]) all-to-all(p0, p1), replica_groups={{0,1},{3,2}}"),
        (["f32[6]"], "f32[6] collective-permute(p0), source_target_pairs={{0,1},{1,2},{2,3},{3,0}}"),
        (["f32[6]"], "f32[6] collective-permute(p0), source_target_pairs={{0,3},{2,1}}"),
        (["f32[6]"], "f32[6] collective-permute(p0), source_target_pairs={{0,0},{2,2}}"),
        (["f32[6]"], "f32[6] collective-broadcast(p0), replica_groups={{2,0},{1,3}}"),
    ],
)
def test_ops(parameters: list[str], root: str) -> None:
    check(parameters, f"  ROOT r = {root}")


def test_permutations_of_partitions() -> None:
    root = "  ROOT r = f32[6] collective-permute(p0), channel_id=1, source_target_pairs={{0,1},{1,0}}"
    check(["f32[6]"], root, 2, 2)


@pytest.mark.parametrize(
    ("start", "done"),
    [
        (
            "f32[6] all-reduce-start(p0), replica_groups={{0,1},{2,3}}, to_apply=add",
            "f32[6] all-reduce-done(s)",
        ),
        (
            "(f32[6], f32[24]) all-gather-start(p0), replica_groups={}, dimensions={0}",
            "f32[24] all-gather-done(s)",
        ),
        (
            "(f32[6], f32[6]) collective-permute-start(p0), source_target_pairs={{0,1},{1,0}}",
            "f32[6] collective-permute-done(s)",
        ),
    ],
)
def test_starts_and_ends(start: str, done: str) -> None:
    check(["f32[6]"], f"  s = {start}\n  ROOT r = {done}")


def test_ragged_all_to_all() -> None:
    parameters = ["f32[8,2]", "f32[8,2]", *["s32[4]"] * 4]
    root = "  ROOT r = f32[8,2] ragged-all-to-all(p0, p1, p2, p3, p4, p5), replica_groups={{0,1,2,3}}"
    sizes, starts = np.array([1, 2, 1, 2], np.int32), np.array([0, 2, 4, 6], np.int32)
    arguments = [
        [value("f32[8,2]", d), value("f32[8,2]", 9 + d), starts, sizes, np.full(4, 2 * d, np.int32), sizes]
        for d in range(4)
    ]
    check(parameters, root, arguments=arguments)


def test_permuted_slices() -> None:
    root = (
        "  ROOT r = f32[8,4] collective-permute(p0, p1, p2, p3), source_target_pairs={{0,1},{1,0},{2,3}}, "
        "slice_sizes={{2,4}}"
    )
    arguments = [
        [
            value("f32[8,4]", d),
            value("f32[8,4]", 9 + d),
            np.array([2 + d, 0], np.int32),
            np.array([d, 0], np.int32),
        ]
        for d in range(4)
    ]
    check(["f32[8,4]", "f32[8,4]", "s32[2]", "s32[2]"], root, arguments=arguments)


def test_one_meeting_after_another() -> None:
    """Groups that cross, so that no device may run ahead of those that still read its operands."""
    steps = ["p0"]
    lines = []
    for number in range(12):
        groups = ("{{0,1},{2,3}}", "{{0,2},{1,3}}", "{}")[number % 3]
        lines.append(
            f"  sum{number} = f32[3000] all-reduce({steps[-1]}), replica_groups={groups}, to_apply=add"
        )
        lines.append(f"  t{number} = f32[3000] tanh(sum{number})")
        steps.append(f"t{number}")
    lines.append(f"  ROOT r = f32[3000] negate({steps[-1]})")
    check(["f32[3000]"], "\n".join(lines))


def test_a_device_that_never_comes_ends_the_run_of_all() -> None:
    branches = """t {
  x = f32[4] parameter(0)
  ROOT r = f32[4] all-reduce(x), replica_groups={}, to_apply=add
}

u {
  x = f32[4] parameter(0)
  ROOT r = f32[4] negate(x)
}

"""
    root = "  ROOT r = f32[4] conditional(p1, p0, p0), true_computation=t, false_computation=u"
    text = module(["f32[4]", "pred[]"], root, 2, 1).replace("ENTRY", branches + "ENTRY")
    executable = hloc.compile(text, options=NONE)
    executable.patience = 0.3
    began = time.monotonic()
    with pytest.raises(HloError, match="in time|device"):
        executable.execute_replicated([[value("f32[4]"), np.bool_(first)] for first in (True, False)])
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("pipeline", ["none", "cpu"])
@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("f32[24] all-gather(p0), replica_groups={}, dimensions={0}", "goes from 12 to 24"),
        ("(f32[24], f32[24]) all-gather(p0, p0), replica_groups={}, dimensions={0}", "goes from 12 to 24"),
        ("f32[6] reduce-scatter(p0), replica_groups={}, dimensions={0}, to_apply=add", "goes from 12 to 6"),
        ("(f32[12], f32[12]) all-to-all(p0, p0), replica_groups={}", "2 operands"),
    ],
)
def test_ops_made_for_more_or_fewer_devices(root: str, message: str, replicas: int, pipeline: str) -> None:
    text = module(["f32[12]"], f"  ROOT r = {root}", replicas, 1)
    devices = f"{replicas} device"
    with pytest.raises(HloError, match=f"{message} in a group of {devices}") as caught:
        hloc.compile(text, options=Options(pipeline=pipeline, cache=False))
    assert caught.value.span is not None
    with pytest.raises(HloError, match=f"{message} in a group of {devices}"):
        hloc.evaluate_replicated(text, [[value("f32[12]")]] * replicas)


def test_slices_of_several_arrays_are_refused_at_their_place() -> None:
    lines = (
        "  o = (f32[4,6], f32[4,6]) tuple(p0, p0)\n"
        "  z = s32[] constant(0)\n"
        "  i = (s32[], s32[]) tuple(z, z)\n"
        "  j = ((s32[], s32[]), (s32[], s32[])) tuple(i, i)\n"
        "  ROOT r = (f32[4,6], f32[4,6]) collective-permute(p0, o, i, j), source_target_pairs={{0,1}}, "
        "slice_sizes={{2,6},{2,6}}"
    )
    text = module(["f32[4,6]"], lines, 2, 1)
    with pytest.raises(HloError, match="slices of several arrays is not supported") as caught:
        hloc.compile(text, options=NONE)
    assert caught.value.span is not None
    with pytest.raises(HloError, match="slices of several arrays is not supported"):
        hloc.evaluate_replicated(text, [[value("f32[4,6]")]] * 2)
