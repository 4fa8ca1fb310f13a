"""What the timings of a task say: the best peer, hloc's ratio to it and to XLA, and whether the goal is met."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tools.bench.driver import Outcome
from tools.bench.goals import GOALS, Goal
from tools.bench.limits import Limits
from tools.bench.measure import Spread, geometric_mean, spread, spread_of_ratios

OURS = "hloc"


@dataclass(frozen=True)
class Row:
    """A task in figures. Ratios are hloc's time by a peer's; None is what could not be measured."""

    outcome: Outcome
    best: str | None
    """The peer that is hardest to reach: hloc's ratio to it is the largest; without hloc, the quickest."""
    to_best: Spread | None
    to_best_least: float | None
    """Of the fastest calls of the whole run."""
    to_best_cpu: float | None
    """Of processor time, to the peer that is hardest to reach in it: what the load of the machine does to the clock is
    not in it; threads that spin are. With one processor for each peer it is the figure to read on a busy machine."""
    to_xla: Spread | None
    to_xla_least: float | None
    to_xla_cpu: float | None
    floor: float | None
    goal: Goal | None

    @property
    def verdict(self) -> str | None:
        """Of the ratio that counts, that of the rounds.

        On a quiet machine the fastest calls agree. On a busy one a peer whose threads wait for each other loses most of
        its rounds: read `verdict_of_least`.
        """
        return self.goal.verdict(self.to_best.median) if self.goal and self.to_best else None

    @property
    def verdict_of_least(self) -> str | None:
        """The same of the fastest calls."""
        return self.goal.verdict(self.to_best_least) if self.goal and self.to_best_least else None

    @property
    def ours(self) -> float | None:
        """Seconds a call: the median over the rounds."""
        return self.seconds(OURS)

    @property
    def over_floor(self) -> float | None:
        """hloc's fastest call by the least that the machine needs."""
        timing = self.outcome.timings.get(OURS)
        return timing.least / self.floor if timing and self.floor else None

    def seconds(self, peer: str) -> float | None:
        timing = self.outcome.timings.get(peer)
        return spread(timing.seconds).median if timing else None


_LEAST_FLOOR = 20e-9
"""Seconds. A floor below it says nothing: calling costs more."""


def row_of(outcome: Outcome, limits: Limits | None) -> Row:
    """Wrong results are not raced against, and if hloc's are wrong, it has no ratio."""
    timings = outcome.timings
    others = [peer for peer in timings if peer != OURS and peer not in outcome.wrong]
    races = OURS in timings and OURS not in outcome.wrong
    to = {peer: spread_of_ratios(timings[OURS].seconds, timings[peer].seconds) for peer in others} if races else {}
    cpu = {peer: spread_of_ratios(timings[OURS].cpu, timings[peer].cpu).median for peer in to}
    best = max(to, key=lambda peer: to[peer].median) if to else None
    if best is None and others:
        best = min(others, key=lambda peer: spread(timings[peer].seconds).median)
    xla = timings["xla"] if "xla" in to else None
    floor = None
    if limits is not None and outcome.name in GOALS:
        floor = limits.floor(outcome.read_bytes, outcome.write_bytes, outcome.flops, outcome.kind)
    return Row(
        outcome,
        best,
        to.get(best),
        timings[OURS].least / min(timings[peer].least for peer in others) if to else None,
        max(cpu.values(), default=None),
        to.get("xla"),
        timings[OURS].least / xla.least if xla else None,
        cpu.get("xla"),
        floor if floor is not None and floor > _LEAST_FLOOR else None,
        GOALS.get(outcome.name),
    )


@dataclass(frozen=True)
class Summary:
    """Over the rows that have a ratio."""

    count: int
    of_best: float
    of_best_least: float
    of_best_cpu: float
    of_xla: float
    of_xla_least: float
    of_xla_cpu: float
    at_most_xla: float
    """Share of the rows whose ratio to XLA is at most 1."""
    verdicts: dict[str, int]
    verdicts_of_least: dict[str, int]

    @staticmethod
    def of(rows: Iterable[Row]) -> Summary:
        rows = list(rows)
        to_xla = [row.to_xla.median for row in rows if row.to_xla]
        return Summary(
            sum(row.to_best is not None for row in rows),
            geometric_mean(row.to_best.median for row in rows if row.to_best),
            geometric_mean(row.to_best_least for row in rows if row.to_best_least),
            geometric_mean(row.to_best_cpu for row in rows if row.to_best_cpu),
            geometric_mean(to_xla),
            geometric_mean(row.to_xla_least for row in rows if row.to_xla_least),
            geometric_mean(row.to_xla_cpu for row in rows if row.to_xla_cpu),
            sum(ratio <= 1 for ratio in to_xla) / len(to_xla) if to_xla else float("nan"),
            _counts([row.verdict for row in rows]),
            _counts([row.verdict_of_least for row in rows]),
        )


def _counts(verdicts: list[str | None]) -> dict[str, int]:
    return {verdict: verdicts.count(verdict) for verdict in ("stretch", "bar", "missed")}
