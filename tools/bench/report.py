"""A run as a table in Markdown.

    python -m tools.bench.report RUN.json [--plot OUT.svg]
    python -m tools.bench.report RUN.json --families

makes it again from what `python -m tools.bench --json RUN.json` has kept; `--families`: a line for each family alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.bench import goals, tasks
from tools.bench.driver import Outcome
from tools.bench.limits import Limits
from tools.bench.measure import Spread, geometric_mean, spread, spread_of_ratios
from tools.bench.ratios import OURS, Row, Summary, row_of

_CALLERS = {
    "xla": "XLA gets arrays that lie on its device",
    "torch": "torch its own tensors",
    "iree": "IREE buffers of its device",
    "hloc": "hloc NumPy arrays, and it makes new ones for its results",
}


@dataclass
class Run:
    """All of a run: the machine, what is missing, outcomes, and fixed costs if they were asked for."""

    machine: dict[str, str]
    peers: list[str]
    missing: dict[str, list[str]]
    limits: Limits | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    cold: dict[str, dict[str, float]] = field(default_factory=dict)

    def rows(self) -> list[Row]:
        return [row_of(outcome, self.limits) for outcome in self.outcomes]

    def as_json(self) -> dict:
        plain = {name: getattr(self, name) for name in ("machine", "peers", "missing", "left_out", "peaks", "cold")}
        limits = self.limits.as_json() if self.limits else None
        return plain | {"limits": limits, "outcomes": [outcome.as_json() for outcome in self.outcomes]}

    @staticmethod
    def from_json(data: dict) -> Run:
        outcomes = [Outcome.from_json(outcome) for outcome in data.pop("outcomes")]
        limits = data.pop("limits")
        return Run(**data, outcomes=outcomes, limits=Limits.from_json(limits) if limits else None)


def time_of(seconds: float | None) -> str:
    """Microseconds, or milliseconds from ten of them on."""
    if seconds is None:
        return "-"
    micros = seconds * 1e6
    if micros >= 1e4:
        return f"{micros / 1e3:,.1f} ms"
    return f"{micros:,.0f}" if micros >= 100 else f"{micros:.1f}" if micros >= 1 else f"{micros:.2f}"


def _ratio(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def _spread(value: Spread | None) -> str:
    return "-" if value is None else f"{_ratio(value.median)} ({_ratio(value.low)}–{_ratio(value.high)})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def markdown(run: Run) -> str:
    rows = run.rows()
    workloads = [row for row in rows if row.outcome.name in goals.GOALS]
    programs = [row for row in rows if row.outcome.name.startswith(tasks.PREFIX)]
    lines = [*_head(run), ""]
    if workloads:
        lines += [*_workload_table(workloads), "", *_times(run, workloads), "", *_verdicts(Summary.of(workloads)), ""]
    if programs:
        lines += [*_program_table(programs), "", *_program_summary(programs), ""]
    lines += [*_cold(run), *_notes(run, rows)]
    return "\n".join(lines).rstrip() + "\n"


def _head(run: Run) -> list[str]:
    lines = [f"{run.machine['processor']}, {run.machine['threads']} processors, {run.machine['versions']}."]
    if run.outcomes:
        loads = [outcome.load for outcome in run.outcomes]
        lines.append(f"Load average {min(loads):.1f} to {max(loads):.1f} while it ran, its own share included.")
    callers = ", ".join(text for peer, text in _CALLERS.items() if peer in run.peers)
    lines.append(f"Time is µs a call unless it says ms. {callers[:1].upper() + callers[1:]}.")
    lines.append("A goal is met if the median ratio of the rounds meets it.")
    lines += [f"**{line}**" for line in gaps(run)]
    return lines


def gaps(run: Run) -> list[str]:
    """What a run cannot say for want of a peer."""
    lines = [f"No {peer}: {', '.join(packages)} is missing." for peer, packages in run.missing.items()]
    if "xla" not in run.peers:
        lines.append("Without XLA nobody checks the results of workloads.")
    return lines


def _workload_table(rows: Sequence[Row]) -> list[str]:
    """The widest gaps first."""
    head = ["workload", "floor", "hloc", "best peer", "hloc / best (quartiles)", "fastest", "processor"]
    head += ["hloc / XLA", "processor", "hloc / floor", "bar", "stretch", "goal"]
    ordered = sorted(rows, key=lambda row: -(row.to_best.median if row.to_best else float("inf")))
    return table(head, [_workload_cells(row) for row in ordered])


def _workload_cells(row: Row) -> list[str]:
    name = row.outcome.name
    ours = time_of(row.ours) if OURS not in row.outcome.wrong else "wrong"
    best = f"{time_of(row.seconds(row.best))} ({row.best})" if row.best else "-"
    return [
        name,
        time_of(row.floor),
        ours,
        best,
        _spread(row.to_best),
        _ratio(row.to_best_least),
        _ratio(row.to_best_cpu),
        _ratio(row.to_xla.median if row.to_xla else None),
        _ratio(row.to_xla_cpu),
        _ratio(row.over_floor),
        f"{row.goal.bar:g}",
        f"{row.goal.stretch:g}",
        row.verdict or "no figure",
    ]


def families(run: Run) -> str:
    """A line for each family of workloads: geometric means of the ratios of the rounds."""
    rows = [row for row in run.rows() if row.to_best and row.outcome.name in goals.GOALS]
    names = dict.fromkeys(row.outcome.family for row in rows)
    groups = {name: [row for row in rows if row.outcome.family == name] for name in names}
    body = []
    for name, group in [*groups.items(), ("all", rows)]:
        summary = Summary.of(group)
        ratios = [_ratio(summary.of_xla), *(_mean_to(group, peer) for peer in run.peers if peer not in (OURS, "xla"))]
        body.append([name, str(len(group)), *ratios, _ratio(summary.of_best)])
    others = [peer for peer in run.peers if peer not in (OURS, "xla")]
    return "\n".join(table(["workloads", "", "XLA", *others, "the best of them"], body)) + "\n"


def _mean_to(rows: Sequence[Row], peer: str) -> str:
    """The geometric mean of hloc's ratios to a peer, of the workloads that it has."""
    raced = [row.outcome.timings for row in rows if peer in row.outcome.timings and peer not in row.outcome.wrong]
    if not raced:
        return "-"
    return _ratio(geometric_mean(spread_of_ratios(t[OURS].seconds, t[peer].seconds).median for t in raced))


def _times(run: Run, rows: Sequence[Row]) -> list[str]:
    """Every peer's median and, behind it, its fastest call."""

    def cell(row: Row, peer: str) -> str:
        timing = row.outcome.timings.get(peer)
        if timing is None:
            return "-"
        mark = " wrong" if peer in row.outcome.wrong else ""
        return f"{time_of(spread(timing.seconds).median)} / {time_of(timing.least)}{mark}"

    body = [[row.outcome.name, *(cell(row, peer) for peer in run.peers)] for row in rows]
    return ["Median over the rounds / fastest call:", "", *table(["workload", *run.peers], body)]


def _verdicts(summary: Summary) -> list[str]:
    met, least = summary.verdicts, summary.verdicts_of_least
    count = sum(met.values())
    best, xla = goals.MEAN_OF_BEST, goals.MEAN_OF_XLA
    return [
        f"Of {count} workloads {met['stretch']} are at their stretch (goal: a third), {met['bar']} more at their bar, "
        f"{met['missed']} missed; by the fastest calls {least['stretch']}, {least['bar']} and {least['missed']}.",
        "",
        *table(
            ["geometric mean of hloc /", "rounds", "fastest calls", "processor time", "bar", "stretch", "goal"],
            [
                ["best peer", _ratio(summary.of_best), _ratio(summary.of_best_least), _ratio(summary.of_best_cpu)]
                + [f"{best.bar:g}", f"{best.stretch:g}", best.verdict(summary.of_best)],
                ["XLA", _ratio(summary.of_xla), _ratio(summary.of_xla_least), _ratio(summary.of_xla_cpu)]
                + [f"{xla.bar:g}", f"{xla.stretch:g}", xla.verdict(summary.of_xla)],
            ],
        ),
    ]


def _compile_ratio(row: Row, fact: str = "compile_cpu_seconds") -> float | None:
    ours, theirs = (row.outcome.facts.get(peer, {}).get(fact) for peer in (OURS, "xla"))
    return ours / theirs if ours and theirs else None


def _cached_ratio(row: Row) -> float | None:
    facts = row.outcome.facts.get(OURS, {})
    return facts["cached_seconds"] / facts["compile_seconds"] if "cached_seconds" in facts else None


def _program_table(rows: Sequence[Row]) -> list[str]:
    head = ["program", "hloc", "XLA", "hloc / XLA (quartiles)", "fastest", "processor", "compile, processor", "cached"]
    ordered = sorted(rows, key=lambda row: -(row.to_xla.median if row.to_xla else float("inf")))

    def cells(row: Row) -> list[str]:
        ours = "wrong" if OURS in row.outcome.wrong else time_of(row.ours)
        names = [row.outcome.name.removeprefix(tasks.PREFIX), ours, time_of(row.seconds("xla")), _spread(row.to_xla)]
        ratios = (row.to_xla_least, row.to_xla_cpu, _compile_ratio(row), _cached_ratio(row))
        return [*names, *map(_ratio, ratios)]

    return table(head, map(cells, ordered))


def _program_summary(rows: Sequence[Row]) -> list[str]:
    summary = Summary.of(rows)

    def median(ratio: Callable[[Row], float | None]) -> float | None:
        known = [value for value in map(ratio, rows) if value is not None]
        return spread(known).median if known else None

    large = [row for row in rows if row.outcome.name.removeprefix(tasks.PREFIX) in goals.LARGE_PROGRAMS]
    compiles = [f"{row.outcome.name.removeprefix(tasks.PREFIX)} {_ratio(_compile_ratio(row))}" for row in large]
    body = [
        ["programs with hloc / XLA at most 1", f"{summary.at_most_xla:.0%}", f"{goals.CORPUS_SHARE:.0%}"],
        ["geometric mean of hloc / XLA", _ratio(summary.of_xla), f"{goals.CORPUS_MEAN:g}"],
        ["the same, fastest calls", _ratio(summary.of_xla_least), f"{goals.CORPUS_MEAN:g}"],
        ["compile, processor time by XLA's, median", _ratio(median(_compile_ratio)), f"{goals.COMPILE_MEDIAN:g}"],
        ["the same: " + ", ".join(compiles), "", f"{goals.COMPILE_OF_LARGE:g}"],
        ["from the cache by compiling, median", _ratio(median(_cached_ratio)), f"{goals.CACHED:g}"],
    ]
    return [f"{summary.count} programs run by both.", "", *table(["", "measured", "goal"], body)]


def _cold(run: Run) -> list[str]:
    if not run.cold:
        return []
    goal = {"hloc run --no-cache": f"{goals.COLD_SECONDS:g} s, {goals.COLD_MEGABYTES:g} MB"}
    body = [
        [name, f"{cost['seconds']:.3f}", f"{cost['cpu_seconds']:.3f}", f"{cost['megabytes']:.0f}", goal.get(name, "")]
        for name, cost in run.cold.items()
    ]
    title = "A whole process, to the first result of a softmax:"
    return [title, "", *table(["process", "seconds", "of a processor", "MB at the peak", "goal"], body), ""]


def _notes(run: Run, rows: Sequence[Row]) -> list[str]:
    """What was wrong or failed, each in a line, but not what a peer was never meant to run."""
    lines = []
    for row in rows:
        outcome = row.outcome
        lines += [f"* {outcome.name}: {peer} is wrong: {what}" for peer, what in outcome.wrong.items()]
        absent = {peer: why for peer, why in outcome.absent.items() if why != tasks.NO_PROGRAM}
        lines += [f"* {outcome.name}: no {peer}: {why}" for peer, why in absent.items()]
    if run.left_out:
        lines.append(f"* {len(run.left_out)} programs of the corpus left out: " + _counted(run.left_out.values()))
    if run.peaks:
        peaks = ", ".join(f"{peer} {peak:,.0f}" for peer, peak in run.peaks.items())
        lines.append(f"* Memory of the workers at their peaks, inputs included, MB: {peaks}")
    return lines


def _counted(reasons: Iterable[str]) -> str:
    reasons = list(reasons)
    return ", ".join(f"{reason} ({reasons.count(reason)})" for reason in dict.fromkeys(reasons))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("run", type=Path)
    options.add_argument("--plot", type=Path, metavar="PNG/SVG")
    options.add_argument("--families", action="store_true", help="a line for each family alone")
    given = options.parse_args()
    run = Run.from_json(json.loads(given.run.read_text()))
    print(families(run) if given.families else markdown(run), end="")
    if given.plot:
        from tools.bench.plot import draw

        draw(run.rows(), given.plot)


if __name__ == "__main__":
    main()
