"""Control flow, tokens, asynchronous pairs, the host's queues, arguments, errors and folding."""

from __future__ import annotations

import numpy as np
import pytest
from evaluating import f32, leaves, one, s32, same

from hloc.errors import ArgumentError, HloError
from hloc.host.queues import HostQueues
from hloc.ir.literals import Literal
from hloc.reference.evaluate import evaluate, evaluate_structured, fold
from hloc.text.parser import parse

COUNT = """cond {
  s = (s32[], f32[2]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  n = s32[] constant(LIMIT)
  ROOT p = pred[] compare(i, n), direction=LT
}
body {
  s = (s32[], f32[2]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  x = f32[2] get-tuple-element(s), index=1
  one = s32[] constant(1)
  j = s32[] add(i, one)
  y = f32[2] add(x, x)
  ROOT r = (s32[], f32[2]) tuple(j, y)
}
"""
LOOP = f"""HloModule m
{COUNT}ENTRY e {{
  x = f32[2] parameter(0)
  zero = s32[] constant(0)
  t = (s32[], f32[2]) tuple(zero, x)
  ROOT w = (s32[], f32[2]) while(t), condition=cond, body=body
}}"""


def test_while() -> None:
    count, x = evaluate(parse(LOOP.replace("LIMIT", "10")), [f32(1, 2)])
    assert int(count) == 10
    same(x, [1024, 2048])
    count, x = evaluate(parse(LOOP.replace("LIMIT", "0")), [f32(1, 2)])
    same(x, [1, 2])


@pytest.mark.parametrize("index, branch", [(0, 0), (2, 2), (3, 2), (-1, 2)])
def test_conditional_takes_the_last_branch_out_of_range(index: int, branch: int) -> None:
    branches = "\n".join(
        f"b{k} {{\n x = s32[] parameter(0)\n k = s32[] constant({k})\n ROOT r = s32[] add(x, k)\n}}"
        for k in range(3)
    )
    line = "s32[] conditional(p0, p1, p1, p1), branch_computations={b0, b1, b2}"
    same(one(line, np.int32(index), np.int32(10), computations=branches), 10 + branch)


def test_conditional_by_a_pred() -> None:
    computations = (
        "t {\n x = s32[] parameter(0)\n ROOT r = s32[] negate(x)\n}\nf {\n ROOT x = s32[] parameter(0)\n}"
    )
    line = "s32[] conditional(p0, p1, p2), true_computation=t, false_computation=f"
    for choice, expected in ((True, -1), (False, 2)):
        same(one(line, np.bool_(choice), np.int32(1), np.int32(2), computations=computations), expected)


def test_calls_may_nest_deeper_than_python_recurses() -> None:
    depth = 3000
    steps = ["c0 {\n ROOT x = s32[] parameter(0)\n}"]
    for i in range(1, depth):
        steps.append(
            f"c{i} {{\n x = s32[] parameter(0)\n one = s32[] constant(1)\n y = s32[] add(x, one)\n"
            f" ROOT r = s32[] call(y), to_apply=c{i - 1}\n}}"
        )
    same(one(f"s32[] call(p0), to_apply=c{depth - 1}", np.int32(0), computations="\n".join(steps)), depth - 1)


def test_a_long_chain_of_instructions() -> None:
    lines = [f"x{i} = s32[] add(x{i - 1}, x0)" for i in range(1, 10_000)]
    text = (
        "HloModule m\nENTRY e {\nx0 = s32[] parameter(0)\n"
        + "\n".join(lines)
        + "\nROOT r = s32[] copy(x9999)\n}"
    )
    same(evaluate(parse(text), [np.int32(1)])[0], 10_000)


def test_asynchronous_pairs_give_what_their_computation_gives() -> None:
    text = """HloModule m
wrapped {
  p = f32[2] parameter(0)
  ROOT n = f32[2] negate(p)
}
ENTRY e {
  x = f32[2] parameter(0)
  s = ((f32[2]), f32[2], s32[]) async-start(x), calls=wrapped
  u = ((f32[2]), f32[2], s32[]) async-update(s)
  d = f32[2] async-done(u)
  c = (f32[2], f32[2], u32[]) copy-start(d)
  e = f32[2] copy-done(c)
  t = token[] after-all()
  ROOT r = f32[2] add-dependency(e, t)
}"""
    same(evaluate(parse(text), [f32(1, 2)])[0], [-1, -2])


HOST = """HloModule m
ENTRY e {
  t = token[] after-all()
  i = (f32[2], token[]) infeed(t)
  x = f32[2] get-tuple-element(i), index=0
  u = token[] get-tuple-element(i), index=1
  o = token[] outfeed(x, u), outfeed_shape=f32[2]
  s = (f32[2], u32[], token[]) send(x, o), channel_id=1, is_host_transfer=true
  sd = token[] send-done(s), channel_id=1, is_host_transfer=true
  r = (s32[], u32[], token[]) recv(sd), channel_id=2, is_host_transfer=true
  rd = (s32[], token[]) recv-done(r), channel_id=2, is_host_transfer=true
  ROOT z = s32[] get-tuple-element(rd), index=0
}"""


def fed(value: np.ndarray) -> HostQueues:
    queues = HostQueues()
    queues.infeed.put(value)
    return queues


def test_the_host_feeds_and_is_fed() -> None:
    queues = fed(f32(1, 2))
    queues.channel(2).put(np.array(7, np.int32))
    assert int(evaluate(parse(HOST), [], queues=queues)[0]) == 7
    same(queues.outfeed.get(timeout=0), [1, 2])
    same(queues.channel(1).get(timeout=0), [1, 2])


@pytest.mark.parametrize(
    "queues, message",
    [
        (None, "infeed needs a host"),
        (HostQueues(), "infeed queue is empty"),
        (fed(f32(1)), r"the host, for infeed, gave float32\[1\], expected f32\[2\]"),
        (fed(f32(1, 2)), "nothing to send on channel 2"),
    ],
)
def test_a_host_that_is_missing_or_wrong_is_an_error_at_its_op(
    queues: HostQueues | None, message: str
) -> None:
    with pytest.raises(HloError, match=message) as caught:
        evaluate(parse(HOST), [], queues=queues)
    assert caught.value.span is not None


NESTED = """HloModule m
ENTRY e {
  p = (f32[2], (s32[], token[])) parameter(0)
  q = f32[2] parameter(1)
  x = f32[2] get-tuple-element(p), index=0
  y = f32[2] add(x, q)
  ROOT r = ((f32[2], f32[2]), (f32[2], f32[2])) tuple(t, t)
}""".replace("  ROOT", "  t = (f32[2], f32[2]) tuple(y, x)\n  ROOT")


def test_arguments_are_leaves_or_nested_tuples() -> None:
    module = parse(NESTED)
    flat = evaluate(module, [f32(1, 2), np.int32(0), f32(3, 4)])
    nested = evaluate_structured(module, [(f32(1, 2), (np.int32(0),)), f32(3, 4)])
    same(flat[0], [4, 6])
    assert isinstance(nested, tuple) and isinstance(nested[1], tuple)
    same(nested[1][0], [4, 6])


def test_results_are_the_callers_own() -> None:
    x = f32(1, 2)
    text = "HloModule m\nENTRY e {\n x = f32[2] parameter(0)\n ROOT r = (f32[2], f32[2]) tuple(x, x)\n}"
    first, second = evaluate(parse(text), [x])
    first[0] = 9
    assert x[0] == 1 and second[0] == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([f32(1, 2)], "expected 3 arrays, got 1"),
        ([f32(1, 2), np.int32(0), f32(1, 2, 3)], r"argument 1 \(%q\): expected f32\[2\], got float32\[3\]"),
        ([f32(1, 2), np.int64(0), f32(1, 2)], r"argument 0 \(%p\).1.0: expected s32\[\], got int64\[\]"),
    ],
)
def test_arguments_that_do_not_fit(arguments: list, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        evaluate(parse(NESTED), arguments)


def test_what_numpy_refuses_is_an_error_at_the_instruction() -> None:
    with pytest.raises(HloError, match="operands of add differ in size") as caught:
        leaves("f32[2] add(p0, p1)", f32(1, 2), f32(1, 2, 3))
    assert "ROOT r = f32[2] add" in str(caught.value)


def test_a_value_that_contradicts_its_shape_is_an_error() -> None:
    with pytest.raises(HloError, match=r"transpose gives float32\[3, 2\] here, not f32\[2,3\]"):
        leaves("f32[2,3] transpose(p0), dimensions={1,0}", np.zeros((2, 3), np.float32))


def test_an_array_that_cannot_be_held_is_an_error() -> None:
    with pytest.raises(HloError, match="not enough memory|can't be evaluated"):
        leaves(
            "f32[1048576,1048576,1024] pad(p0, p1), padding=0_1048575x0_1048575x0_1023",
            np.zeros((1, 1, 1), np.float32),
            np.float32(0),
        )


def test_fold_gives_the_literal_of_an_instruction() -> None:
    text = "HloModule m\nENTRY e {\n a = f32[2]{0} constant({1, 2})\n ROOT r = f32[2]{0} add(a, a)\n}"
    module = parse(text)
    root = module.entry.root
    folded = fold(root, [operand.attributes["literal"] for operand in root.operands])
    assert folded == Literal(root.shape, f32(2, 4))


def test_fold_of_a_call_runs_it() -> None:
    module = parse(
        "HloModule m\nc {\n a = s32[] parameter(0)\n ROOT n = s32[] negate(a)\n}\n"
        "ENTRY e {\n a = s32[] constant(3)\n ROOT r = s32[] call(a), to_apply=c\n}"
    )
    assert fold(module.entry.root, [Literal.of(np.int32(3))]).scalar() == -3


def test_fold_refuses_what_has_no_constant() -> None:
    module = parse("HloModule m\nENTRY e {\n ROOT t = token[] after-all()\n}")
    with pytest.raises(HloError, match="is no constant"):
        fold(module.entry.root, [])


def test_evaluation_does_not_change_its_arguments() -> None:
    line = "s32[3] dynamic-update-slice(p0, p1, p2)"
    x = s32(1, 2, 3)
    same(one(line, x, s32(9), np.int32(1)), [1, 9, 3])
    same(x, [1, 2, 3])
