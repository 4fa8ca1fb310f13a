"""hloc bisect on planted bugs: it names the pass and the rewrite, and hands over a small module that shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import hloc
from hloc.arrays import random_inputs
from hloc.bisect.search import NATIVE, bisect
from hloc.bisect.shrink import Case, shrink
from hloc.cli import main
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.passes.algebraic.rules import RULES
from hloc.passes.pipeline import Pass

# Something to do for passes of every family: a call, a loop, a fusion, batch norm, equal and constant values, a
# transposed product, elementwise chains and sums.
TEXT = """HloModule everything

add { a = f32[] parameter(0) b = f32[] parameter(1) ROOT s = f32[] add(a, b) }
twice { x = f32[6,8] parameter(0) ROOT y = f32[6,8] add(x, x) }
fused { x = f32[6,8] parameter(0) e = f32[6,8] exponential(x) ROOT y = f32[6,8] subtract(e, x) }

more {
  s = (s32[], f32[6,8]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  n = s32[] constant(12)
  ROOT go = pred[] compare(i, n), direction=LT
}

turn {
  s = (s32[], f32[6,8]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  x = f32[6,8] get-tuple-element(s), index=1
  one = s32[] constant(1)
  two = s32[] constant(2)
  three = s32[] add(one, two)
  less = s32[] subtract(three, two)
  next = s32[] add(i, less)
  c = f32[6,8] cosine(x)
  ROOT t = (s32[], f32[6,8]) tuple(next, c)
}

ENTRY e {
  x = f32[6,8] parameter(0)
  w = f32[8,8]{0,1} parameter(1)
  scale = f32[8] parameter(2)
  called = f32[6,8] call(x), to_apply=twice
  f = f32[6,8] fusion(called), kind=kLoop, calls=fused
  h = f32[6,8] tanh(f)
  again = f32[6,8] tanh(f)
  sum = f32[6,8] add(h, again)
  norm = (f32[6,8], f32[8], f32[8]) batch-norm-training(sum, scale, scale), epsilon=0.1, feature_index=1
  normal = f32[6,8] get-tuple-element(norm), index=0
  zero = s32[] constant(0)
  start = (s32[], f32[6,8]) tuple(zero, normal)
  loop = (s32[], f32[6,8]) while(start), condition=more, body=turn
  looped = f32[6,8] get-tuple-element(loop), index=1
  wt = f32[8,8]{0,1} transpose(w), dimensions={1,0}
  d = f32[6,8] dot(looped, wt), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  init = f32[] constant(0)
  rows = f32[6] reduce(d, init), dimensions={1}, to_apply=add
  wide = f32[6,8] broadcast(rows), dimensions={0}
  ROOT out = f32[6,8] subtract(d, wide)
}
"""


class Planted:
    """A pass that does what another one does, and then makes a product or a sum of something else."""

    def __init__(self, inner: object):
        self.inner = inner

    def run(self, module: Module) -> bool:
        if not self.inner.run(module):
            return False
        for instruction in module.instructions():
            if instruction.opcode in ("cosine", "tanh") and instruction.shape.rank == 2:
                wrong = instruction.computation.add(
                    Instruction("negate", instruction.shape, [instruction.operands[0]], {}, name="planted"), instruction
                )
                instruction.computation.replace_uses(instruction, wrong)
                return True
        raise AssertionError("nothing to plant a bug in")


def plant(monkeypatch: pytest.MonkeyPatch, name: str, wrap: type) -> None:
    make = Pass.make

    def planted(self, options, given):
        made = make(self, options, given)
        return wrap(made) if self.name == name else made

    monkeypatch.setattr(Pass, "make", planted)
    monkeypatch.setattr(Pass, "defaults", property(lambda self: {}))


FAMILIES = [
    *("defusion", "call_inliner", "batch_norm_expander", "algebraic", "constant_folding", "cse", "dce"),
    *("tuple_simplifier", "layout_assignment", "fusion", "schedule"),
]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_pass_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = hloc.parse(TEXT)
    pipeline = [name] if name in ("schedule", "tuple_simplifier") else "cpu"
    if name == "tuple_simplifier":
        pipeline = ["defusion", "batch_norm_expander", name]
    plant(monkeypatch, name, Planted)
    culprit = bisect(module, pipeline=pipeline, seconds=3)
    assert culprit is not None and culprit.pass_name == name
    assert culprit.reason.startswith("result 0 at ")
    assert culprit.smallest.size < culprit.before.size or name == "dce"  # without dead code dce has nothing to do


def test_a_pass_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Planted):
        def run(self, module: Module) -> bool:
            assert not any(i.opcode == "reduce" for i in module.instructions()), "no reduce, please"
            return self.inner.run(module)

    plant(monkeypatch, "cse", Failing)
    culprit = bisect(hloc.parse(TEXT), seconds=5)
    assert culprit is not None and culprit.pass_name == "cse"
    assert "AssertionError: no reduce, please" in culprit.reason
    opcodes = [i.opcode for i in culprit.smallest.module.entry]
    assert "reduce" in opcodes and len(opcodes) <= 3


@pytest.fixture
def wrong_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget_tanh(instruction: Instruction) -> Instruction:
        return instruction.operands[0]

    monkeypatch.setitem(RULES, "tanh", [*RULES.get("tanh", []), forget_tanh])


def test_the_rewrite_is_found(wrong_rule: None) -> None:
    culprit = bisect(hloc.parse(TEXT), seconds=5)
    assert culprit is not None and culprit.pass_name == "algebraic"
    assert culprit.step == f"algebraic{{limit={culprit.rewrites}}}"
    assert "forget_tanh" in culprit.rewrite
    assert [i.opcode for i in culprit.smallest.module.entry] == ["parameter", "tanh"]


def test_native_code_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from hloc.codegen.kernel import ELEMENTS

    ELEMENTS["cosine"]
    monkeypatch.setitem(ELEMENTS._rows, "cosine", lambda k, instruction, operands, index: operands[0](index))
    culprit = bisect(hloc.parse(TEXT), seconds=5)
    assert culprit is not None and culprit.step == NATIVE
    assert [i.opcode for i in culprit.smallest.module.entry] == ["parameter", "cosine"]


def test_nothing_to_find() -> None:
    assert bisect(hloc.parse(TEXT)) is None


def test_the_command_writes_what_it_found(wrong_rule: None, tmp_path: Path) -> None:
    (tmp_path / "e.hlo").write_text(TEXT)
    result = CliRunner().invoke(main, ["bisect", str(tmp_path / "e.hlo"), "-o", str(tmp_path), "--seconds=5"])
    assert result.exit_code == 1
    assert result.output.startswith("pass algebraic, run ")
    smallest = tmp_path / "bisect.algebraic.smallest.hlo"
    again = ["bisect", str(smallest), "--inputs", str(tmp_path / "bisect.algebraic.npz"), "--pipeline=algebraic"]
    assert " ".join(again) in result.output
    assert CliRunner().invoke(main, [*again, "-o", str(tmp_path)]).exit_code == 1


def test_the_command_says_that_all_is_well(tmp_path: Path) -> None:
    (tmp_path / "e.hlo").write_text(TEXT)
    result = CliRunner().invoke(main, ["bisect", str(tmp_path / "e.hlo")])
    assert (result.exit_code, result.output) == (0, "all passes and native code keep the answer\n")


def test_shrinking_goes_into_loops() -> None:
    module = hloc.parse(TEXT)
    arguments = random_inputs(module)

    def fails(case: Case) -> bool:
        return any(i.opcode == "cosine" for i in case.module.instructions())

    small = shrink(Case(module, arguments), fails, seconds=10)
    assert [i.opcode for i in small.module.instructions()] == ["parameter", "cosine"]
    assert (small.arguments[0] == small.arguments[0].flat[0]).all()


@pytest.mark.parametrize("name", ["fusion", "row_fusion"])
def test_the_kernel_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in the second kernel that a pass makes."""
    from hloc.passes import fusion_rewrite

    build = fusion_rewrite._body

    def wrong(group, members, inputs, outputs):
        body = build(group, members, inputs, outputs)
        for instruction in body.instructions if group.last.name == "bp" else ():
            if instruction.opcode in ("exponential", "tanh"):
                body.replace_uses(instruction, instruction.operands[0])
        return body

    monkeypatch.setattr(fusion_rewrite, "_body", wrong)
    softmax = """
      {0}x = f32[9,17] parameter({1})
      {0}low = f32[] constant(-inf)
      {0}most = f32[9] reduce({0}x, {0}low), dimensions={{1}}, to_apply=max
      {0}mosts = f32[9,17] broadcast({0}most), dimensions={{0}}
      {0}less = f32[9,17] subtract({0}x, {0}mosts)
      {0}e = f32[9,17] exponential({0}less)
      {0}zero = f32[] constant(0)
      {0}sum = f32[9] reduce({0}e, {0}zero), dimensions={{1}}, to_apply=add
      {0}sums = f32[9,17] broadcast({0}sum), dimensions={{0}}
      {0}p = f32[9,17] divide({0}e, {0}sums)"""
    chain = """
      {0}x = f32[{2}] parameter({1})
      {0}y = f32[{2}] multiply({0}x, {0}x)
      {0}p = f32[{2}] tanh({0}y)"""
    body = softmax if name == "row_fusion" else chain
    shapes = ("f32[9,17]", "f32[9,17]") if name == "row_fusion" else ("f32[5]", "f32[7]")
    reducers = "".join(
        f"{r} {{ a = f32[] parameter(0) b = f32[] parameter(1) ROOT r = f32[] {op}(a, b) }}\n"
        for r, op in (("add", "add"), ("max", "maximum"))
    )
    root = f"ROOT t = ({', '.join(shapes)}) tuple(ap, bp)"
    text = f"{reducers}ENTRY e {{{body.format('a', 0, 5)}{body.format('b', 1, 7)}\n{root}\n}}"
    culprit = bisect(hloc.parse(text), pipeline=["layout_assignment", name], seconds=3)
    assert culprit is not None and culprit.pass_name == name
    assert culprit.rewrites == 2
    assert "one kernel" in culprit.rewrite
