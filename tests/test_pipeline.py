"""The tables of passes and pipelines, and what the runner promises of every run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from hloc.cli import main
from hloc.errors import HloError
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.ir.shapes import array
from hloc.options import Options
from hloc.passes import pipeline
from hloc.passes.describe import describe_passes
from hloc.passes.pipeline import ORDER, PASSES, PIPELINES, InternalError, Pass, Remark, run_pipeline
from hloc.text.parser import parse
from hloc.text.printer import print_module

TEXT = """HloModule m

ENTRY main {
  x = f32[4] parameter(0)
  a = f32[4] add(x, x)
  b = f32[4] add(x, x)
  unused = f32[4] negate(x)
  ROOT t = (f32[4], f32[4]) tuple(a, b)
}
"""


def module() -> Module:
    return parse(TEXT, "m.hlo")


@pytest.fixture
def add_pass(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Module], bool]], None]]:
    """Enters a pass named `under_test` in the table, for the test's time."""

    def enter(action: Callable[[Module], bool]) -> None:
        kind = type("UnderTest", (), {"__doc__": "Under test.", "run": staticmethod(action)})
        monkeypatch.setitem(sys.modules, "hloc.passes.under_test", kind)
        monkeypatch.setitem(PASSES, "under_test", Pass("under_test"))

    return enter


# The tables


@pytest.mark.parametrize("name", PIPELINES)
def test_pipelines_keep_the_order(name: str) -> None:
    pipeline.plan(name)


def test_an_order_that_is_broken_is_told() -> None:
    with pytest.raises(ValueError, match="fusion comes after schedule"):
        pipeline.check_order(["schedule", "dce", "fusion"])


def test_rows_name_passes_and_give_reasons() -> None:
    rows = [row for rows in PIPELINES.values() for row in pipeline.flattened(rows)]
    assert {name for name, _ in rows} <= set(PASSES)
    assert all(reason for _, reason in rows)
    assert {name for earlier, later, _ in ORDER for name in (earlier, later)} <= set(PASSES)
    assert all(why for *_, why in ORDER)


def test_every_pass_is_in_a_pipeline() -> None:
    assert {name for rows in PIPELINES.values() for name, _ in pipeline.flattened(rows)} == set(PASSES)


@pytest.mark.parametrize("name", PASSES)
def test_passes_say_what_they_need_and_leave(name: str) -> None:
    kind = PASSES[name].kind
    doc = kind.__doc__ if isinstance(kind, type) else kind.run.__doc__
    for word in ("Requires:", "Ensures:", "Leaves:"):
        assert word in doc, f"{name} has no {word}"
    assert PASSES[name].doc.endswith(".")


def test_passes_are_listed_for_people() -> None:
    text = describe_passes({})
    assert all(name in text for name in (*PASSES, *PIPELINES))


# Which passes run


def names_run(report: pipeline.Report) -> list[str]:
    return [run.name for run in report.runs]


def test_a_list_of_passes_runs_in_its_order() -> None:
    assert names_run(run_pipeline(module(), "dce,cse,dce")) == ["dce", "cse", "dce"]
    assert names_run(run_pipeline(module(), ["cse", "dce"])) == ["cse", "dce"]


def test_disabled_passes_are_left_out() -> None:
    m = module()
    run_pipeline(m, "cse,dce", Options(disabled_passes=("dce",)))
    assert "unused" in print_module(m)


def test_until_is_the_last_pass() -> None:
    report = run_pipeline(module(), "cpu", Options(until="algebraic"))
    assert names_run(report)[-1] == "algebraic"
    assert names_run(report).count("algebraic") == 1


def test_a_fixed_point_ends_with_a_round_that_changes_nothing() -> None:
    text = TEXT.replace("ROOT", "c = f32[4] negate(unused)\n  ROOT").replace("tuple(a, b)", "tuple(a, c)")
    report = run_pipeline(parse(text), "cpu", Options(until="layout_assignment"))
    rounds = [run for run in report.runs if run.name == "algebraic"]
    assert [run.changed for run in rounds] == [True, False]
    assert rounds[1].seconds > 0


def test_a_pass_at_rest_is_asked_again_only_after_a_change(
    add_pass: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Module] = []
    add_pass(lambda m: bool(asked.append(m)))
    monkeypatch.setitem(PIPELINES, "behind", (pipeline.FixedPoint((("cse", ""), ("under_test", "")), ""),))
    monkeypatch.setitem(PIPELINES, "before", (pipeline.FixedPoint((("under_test", ""), ("cse", "")), ""),))
    assert names_run(run_pipeline(module(), "behind")) == ["cse", "under_test"] * 2
    assert len(asked) == 1
    assert names_run(run_pipeline(module(), "before")) == ["under_test", "cse"] * 2
    assert len(asked) == 3


def test_print_after_keeps_the_text() -> None:
    report = run_pipeline(module(), "cse,dce", Options(print_after=("cse",)))
    assert len(report.printed) == 1
    assert report.printed[0].startswith("// after pass 1, cse\n")
    assert "tuple(%a, %a)" in report.printed[0]
    assert "unused" in report.printed[0]


@pytest.mark.parametrize(
    ("passes", "options", "message"),
    [
        ("cze", Options(), "no pass or pipeline named cze"),
        ("cse", Options(until="never"), "no pass or pipeline named never"),
        ("cse", Options(until="dce"), "pass dce is not among those to run"),
        ("cse", Options(disabled_passes=("never",)), "no pass or pipeline named never"),
        ("cse{x=1}", Options(), "pass cse has no option x: it has none"),
        ("fusion{operands=many}", Options(), "option operands of pass fusion: 'many' is not a number"),
    ],
)
def test_unknown_names_are_told(passes: str, options: Options, message: str) -> None:
    with pytest.raises(HloError, match=message):
        run_pipeline(module(), passes, options)


def test_a_misspelt_name_gets_a_hint() -> None:
    with pytest.raises(HloError) as caught:
        run_pipeline(module(), "fussion")
    assert caught.value.hint == "did you mean fusion?"


def test_options_reach_passes() -> None:
    text = """ENTRY main {
      x = f32[2] constant({1, 2})
      ROOT n = f32[2] negate(x)
    }"""
    for options, passes, folded in (
        (Options(), "constant_folding", True),
        (Options(fold_result_bytes=7), "constant_folding", False),
        (Options(fold_result_bytes=7), "constant_folding{result_bytes=8}", True),
    ):
        m = parse(text)
        assert run_pipeline(m, passes, options).changed is folded


# Records


def test_runs_are_counted_and_timed() -> None:
    report = run_pipeline(module(), "cse,dce,dce")
    assert [(run.before, run.after, run.changed) for run in report.runs] == [
        (5, 4, True),
        (4, 3, True),
        (3, 3, False),
    ]
    assert all(run.seconds >= 0 for run in report.runs)
    assert report.changed
    assert "cse" in report.table()


@dataclass
class Talkative:
    """Says one thing of the root in each round.

    Requires: nothing. Ensures: nothing. Leaves: nothing.
    """

    rounds: int = field(default=0, init=False)
    remarks: list[Remark] = field(default_factory=list, init=False)

    def run(self, m: Module) -> int:
        self.rounds += 1
        self.remarks.append(Remark("under_test", m.entry.root.name, "is the root", {"round": self.rounds}))
        return 0


def test_remarks_are_taken_after_each_run_from_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = SimpleNamespace(run=None, Talkative=Talkative)
    monkeypatch.setitem(sys.modules, "hloc.passes.under_test", kind)
    monkeypatch.setitem(PASSES, "under_test", Pass("under_test", "under_test:Talkative"))
    rounds = pipeline.FixedPoint((("under_test", ""), ("cse", "")), "")
    monkeypatch.setitem(PIPELINES, "rounds", (rounds, ("under_test", "")))
    report = run_pipeline(module(), "rounds")
    assert [run.remarks[0].data["round"] for run in report.runs if run.name == "under_test"] == [1, 2, 1]
    assert [str(remark) for remark in report.remarks()] == ["%t: is the root"]
    assert report.remarks("cse") == []
    assert report.table().endswith("under_test:\n  %t: is the root")


def test_rewrites_are_counted_where_the_pass_can_tell() -> None:
    text = """ENTRY main {
      x = f32[2] constant({1, 2})
      a = f32[2] negate(x)
      ROOT b = f32[2] exponential(a)
    }"""
    assert run_pipeline(parse(text), "constant_folding").runs[0].rewrites == 2
    assert run_pipeline(parse(text), "layout_removal").runs[0].rewrites is None


def test_dumps_are_numbered_and_only_of_changes(tmp_path: Path) -> None:
    m = module()
    run_pipeline(m, "algebraic,cse,algebraic,dce", Options(dump_to=tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "00.input.hlo",
        "02.cse.hlo",
        "04.dce.hlo",
        "index.json",
    ]
    assert (tmp_path / "04.dce.hlo").read_text() == print_module(m)
    assert parse((tmp_path / "00.input.hlo").read_text())
    index = json.loads((tmp_path / "index.json").read_text())
    assert index["input"] == "00.input.hlo"
    assert [(row["pass"], row["file"]) for row in index["passes"]] == [
        ("algebraic", None),
        ("cse", "02.cse.hlo"),
        ("algebraic", None),
        ("dce", "04.dce.hlo"),
    ]


def test_the_index_has_the_figures_of_each_run(tmp_path: Path) -> None:
    run_pipeline(module(), "cse,dce,dce", Options(dump_to=tmp_path))
    index = json.loads((tmp_path / "index.json").read_text())
    assert index["passes_ms"] >= 0 and index["checks_ms"] >= 0
    rows = [(row["number"], row["before"], row["after"], row["changed"], row["rewrites"]) for row in index["passes"]]
    assert rows == [(1, 5, 4, True, 1), (2, 4, 3, True, 1), (3, 3, 3, False, 0)]
    assert all(row["ms"] >= 0 and row["remarks"] == [] for row in index["passes"])


def test_a_dump_replaces_that_of_an_earlier_compile(tmp_path: Path) -> None:
    (tmp_path / "notes.hlo").write_text("mine")
    run_pipeline(module(), "cse,dce", Options(dump_to=tmp_path))
    run_pipeline(module(), "dce", Options(dump_to=tmp_path))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["00.input.hlo", "01.dce.hlo", "index.json", "notes.hlo"]


def test_dumps_may_leave_large_constants_out(tmp_path: Path) -> None:
    text = f"ENTRY main {{\n  ROOT x = f32[20] constant({{{', '.join(map(str, range(20)))}}})\n}}"
    for constants, mark in ((True, "18, 19}"), (False, "{...}")):
        options = Options(dump_to=tmp_path, dump_constants=constants, print_after=("dce",))
        report = run_pipeline(parse(text), "dce", options)
        assert mark in (tmp_path / "00.input.hlo").read_text()
        assert mark in report.printed[0]


def test_runs_are_named_by_number_too() -> None:
    options = Options(until="2", print_after=("2",))
    report = run_pipeline(module(), "dce,cse,dce", options)
    assert names_run(report) == ["dce", "cse"]
    assert [text.splitlines()[0] for text in report.printed] == ["// after pass 2, cse"]


def test_print_after_all_prints_what_changed() -> None:
    report = run_pipeline(module(), "dce,algebraic,cse", Options(print_after=("all",)))
    assert [text.splitlines()[0] for text in report.printed] == ["// after pass 1, dce", "// after pass 3, cse"]


def test_same_input_same_bytes() -> None:
    texts = set()
    for _ in range(2):
        m = module()
        run_pipeline(m, "cpu")
        texts.add(print_module(m))
    assert len(texts) == 1


def test_an_observer_sees_every_run() -> None:
    seen = []
    run_pipeline(module(), "cse,dce", observer=lambda run, m: seen.append((run.name, len(m.entry))))
    assert seen == [("cse", 4), ("dce", 3)]


# Failures


def swallow(_: Module) -> bool:
    raise KeyError("lost")


def break_types(m: Module) -> bool:
    m.entry.root.operands[0].shape = array(m.entry.root.operands[0].shape.dtype, 5)
    return True


def add_quietly(m: Module) -> bool:
    m.entry.add(
        Instruction("negate", m.entry.parameters[0].shape, [m.entry.parameters[0]]), before=m.entry.root
    )
    return False


def reorder_quietly(m: Module) -> bool:
    _, first, second, *_ = m.entry.instructions
    m.entry.move_before(second, first)
    return False


def claim_for_nothing(_: Module) -> bool:
    return True


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (swallow, "failed with KeyError: 'lost'"),
        (break_types, "left a module that does not verify"),
        (add_quietly, "says that it left alone the module"),
        (reorder_quietly, "says that it left alone the module"),
        (claim_for_nothing, "says that it changed the module"),
    ],
)
def test_a_failure_hands_over_its_reproducer(add_pass, tmp_path: Path, action, message: str) -> None:
    add_pass(action)
    m = module()
    with pytest.raises(InternalError, match=message) as caught:
        run_pipeline(m, "cse,under_test,dce", Options(dump_to=tmp_path))
    error = caught.value
    assert error.pass_name == "under_test"
    assert f"hloc opt {error.reproducer} --passes='under_test'" in str(error)
    before = module()
    run_pipeline(before, "cse")
    assert error.reproducer.read_text() == print_module(before)
    with pytest.raises(InternalError, match=message):
        run_pipeline(parse(error.reproducer.read_text()), "under_test", Options(dump_to=tmp_path))


def test_the_reproducer_has_control_edges_and_called_computations(add_pass, tmp_path: Path) -> None:
    text = """HloModule m, is_scheduled=true, replica_count=2

add {
  lhs = f32[] parameter(0)
  rhs = f32[] parameter(1)
  ROOT sum = f32[] add(lhs, rhs)
}

ENTRY main {
  x = f32[4]{0} parameter(0)
  zero = f32[] constant(0)
  a = f32[4]{0} all-reduce(x), replica_groups={}, to_apply=add, sharding={replicated}
  b = f32[] reduce(x, zero), dimensions={0}, to_apply=add, control-predecessors={a}
  ROOT t = (f32[4]{0}, f32[]) tuple(a, b)
}
"""
    add_pass(swallow)
    m = parse(text)
    expected = print_module(m)
    with pytest.raises(InternalError) as caught:
        run_pipeline(m, "under_test", Options(dump_to=tmp_path))
    assert caught.value.reproducer.read_text() == expected


def test_without_a_dump_directory_the_reproducer_goes_to_a_new_one(add_pass) -> None:
    add_pass(swallow)
    with pytest.raises(InternalError) as caught:
        run_pipeline(module(), "under_test")
    path = caught.value.reproducer
    assert path.exists()
    path.unlink()
    path.parent.rmdir()


def test_what_the_input_asks_for_in_vain_is_no_internal_error(add_pass) -> None:
    def refuse(m: Module) -> bool:
        raise HloError("cannot be had", m.entry.root.span)

    add_pass(refuse)
    with pytest.raises(HloError, match="cannot be had"):
        run_pipeline(module(), "under_test")


def test_the_command_lists_passes() -> None:
    result = CliRunner().invoke(main, ["opt", "--list-passes"])
    assert result.exit_code == 0
    assert "Pipeline cpu:" in result.output
