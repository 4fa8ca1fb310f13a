"""Collectives among emulated devices: every op and way of grouping as the evaluator has it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from device_cases import EMULATED, NONE, assembles, value
from emitter_cases import check_collective
from emitter_cases import collective as module

import hloc
from hloc.codegen.gpu.emitters import collectives
from hloc.errors import HloError

check = partial(check_collective, target=EMULATED)


@pytest.mark.parametrize("groups", ["{}", "{{0,1},{2,3}}", "{{3,1,0},{2}}", "{{0},{1},{2},{3}}", "[2,2]<=[2,2]T(1,0)"])
def test_groups_of_replicas(groups: str) -> None:
    check(["f32[6]"], f"  ROOT r = f32[6] all-reduce(p0), replica_groups={groups}, to_apply=add")


@pytest.mark.parametrize(
    "root",
    [
        "all-reduce(p0), replica_groups={}, to_apply=add",
        "all-reduce(p0), replica_groups={{0},{1}}, channel_id=1, to_apply=add",
        "all-reduce(p0), replica_groups={{0,1}}, channel_id=1, to_apply=add",
        "all-reduce(p0), replica_groups={{0,3},{2,1}}, channel_id=1, use_global_device_ids=true, to_apply=add",
        "collective-permute(p0), channel_id=1, source_target_pairs={{0,1},{1,0}}",
    ],
)
def test_replicas_and_partitions(root: str) -> None:
    check(["f32[6]"], f"  ROOT r = f32[6] {root}", 2, 2)


@pytest.mark.parametrize(
    ("parameters", "root"),
    [
        (["f32[6]", "f32[3,2]"], "(f32[6], f32[3,2]) all-reduce(p0, p1), replica_groups={}, to_apply=add"),
        (["f32[2,3]"], "f32[8,3] all-gather(p0), replica_groups={}, dimensions={0}"),
        (["f32[2,3]"], "f32[2,6]{0,1} all-gather(p0), replica_groups={{0,2},{3,1}}, dimensions={1}"),
        (["f32[8,4]"], "f32[2,4] reduce-scatter(p0), replica_groups={}, dimensions={0}, to_apply=add"),
        (["f32[8,4]"], "f32[8,2] reduce-scatter(p0), replica_groups={{0,3},{1,2}}, dimensions={1}, to_apply=add"),
        (["f32[8,4]"], "f32[8,4] all-to-all(p0), replica_groups={{0,1,2,3}}, dimensions={0}"),
        (["f32[5]", "f32[5]"], "(f32[5], f32[5]) all-to-all(p0, p1), replica_groups={{0,1},{3,2}}"),
        (["f32[6]"], "f32[6] collective-permute(p0), source_target_pairs={{0,1},{1,2},{2,3},{3,0}}"),
        (["f32[6]"], "f32[6] collective-permute(p0), source_target_pairs={{0,3},{2,2}}"),
        (["f32[6]"], "f32[6] collective-broadcast(p0), replica_groups={{2,0},{1,3}}"),
        (["f32[6]"], "f32[6] collective-reduce(p0), replica_groups={{2,0},{1,3}}, to_apply=add"),
        (["f32[0]"], "f32[0] all-reduce(p0), replica_groups={}, to_apply=add"),
    ],
)
def test_ops(parameters: list[str], root: str) -> None:
    check(parameters, f"  ROOT r = {root}")


@pytest.mark.parametrize(
    ("start", "done"),
    [
        ("f32[6] all-reduce-start(p0), replica_groups={{0,1},{2,3}}, to_apply=add", "f32[6] all-reduce-done(s)"),
        ("(f32[6], f32[24]) all-gather-start(p0), replica_groups={}, dimensions={0}", "f32[24] all-gather-done(s)"),
        (
            "(f32[6], f32[6]) collective-permute-start(p0), source_target_pairs={{0,1},{1,0}}",
            "f32[6] collective-permute-done(s)",
        ),
    ],
)
def test_starts_and_ends(start: str, done: str) -> None:
    check(["f32[6]"], f"  s = {start}\n  ROOT r = {done}")


def test_ragged_all_to_all() -> None:
    """The last of the rows that come to one place stay."""
    parameters = ["f32[8,2]", "f32[8,2]", *["s32[4]"] * 4]
    root = "  ROOT r = f32[8,2] ragged-all-to-all(p0, p1, p2, p3, p4, p5), replica_groups={{0,1,2,3}}"
    sizes, starts = np.array([1, 2, 2, 2], np.int32), np.array([0, 2, 4, 6], np.int32)
    arguments = [
        [value("f32[8,2]", d), value("f32[8,2]", 9 + d), starts, sizes, np.full(4, d, np.int32), sizes]
        for d in range(4)
    ]
    check(parameters, root, arguments=arguments)


def test_permuted_slices() -> None:
    attributes = "source_target_pairs={{0,1},{1,0},{2,3}}, slice_sizes={{2,4}}"
    arguments = [
        [value("f32[8,4]", d), value("f32[8,4]", 9 + d), np.array([2 + d, 0], np.int32), np.array([d, 0], np.int32)]
        for d in range(4)
    ]
    root = f"  ROOT r = f32[8,4] collective-permute(p0, p1, p2, p3), {attributes}"
    check(["f32[8,4]", "f32[8,4]", "s32[2]", "s32[2]"], root, arguments=arguments)


def test_permuted_slices_that_overlap() -> None:
    """They are written in order."""
    numbers = [f"  n{i} = s32[] constant({i})" for i in range(4)]
    pairs = "((s32[], s32[]), (s32[], s32[]))"
    tuples = ["a = (s32[], s32[]) tuple(n1, n0)", "b = (s32[], s32[]) tuple(n3, n2)", f"t = {pairs} tuple(a, b)"]
    attributes = "source_target_pairs={{0,1},{1,0},{2,3}}, slice_sizes={{4,4},{3,2}}"
    root = f"  ROOT r = f32[8,4] collective-permute(p0, p1, t, t), {attributes}"
    check(["f32[8,4]", "f32[8,4]"], "\n".join([*numbers, *(f"  {line}" for line in tuples), root]))


def test_one_meeting_after_another() -> None:
    """Groups that cross, so that no device may run ahead of those that still read its operands."""
    steps, lines = ["p0"], []
    for number in range(6):
        groups = ("{{0,1},{2,3}}", "{{0,2},{1,3}}", "{}")[number % 3]
        lines.append(f"  sum{number} = f32[300] all-reduce({steps[-1]}), replica_groups={groups}, to_apply=add")
        lines.append(f"  t{number} = f32[300] tanh(sum{number})")
        steps.append(f"t{number}")
    lines.append(f"  ROOT r = f32[300] negate({steps[-1]})")
    check(["f32[300]"], "\n".join(lines))


def test_kernels_know_their_device() -> None:
    root = "  a = u32[] replica-id()\n  b = u32[] partition-id()\n  ROOT r = (u32[], u32[]) tuple(a, b)"
    check(["f32[]"], root, 2, 3)


def test_more_arrays_than_a_kernel_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are shown in parts, where each result is made of one operand; one array may be shown twice."""
    monkeypatch.setattr(collectives, "_MOST_ARRAYS", 4 + 5)
    names = ["p0", "p1", "p2", "p0", "p3"]
    shape = ", ".join(["f32[6]"] * 5)
    root = f"  ROOT r = ({shape}) all-reduce({', '.join(names)}), replica_groups={{{{0,1}},{{2,3}}}}, to_apply=add"
    check(["f32[6]"] * 4, root)
    text = module(["f32[6]"] * 3, "  ROOT r = f32[6] collective-permute(p0), source_target_pairs={{0,1}}", 9, 1)
    with pytest.raises(HloError, match="at most"):
        hloc.compile(text, EMULATED, NONE)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_120"])
def test_kernels_assemble_without_spills(arch: str) -> None:
    root = "  ROOT r = (f32[6], f32[3,2]) all-reduce(p0, p1), replica_groups={{0,1},{2,3}}, to_apply=add"
    assembles(module(["f32[6]", "f32[3,2]"], root, 4, 1), arch)
