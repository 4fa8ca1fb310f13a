"""Timing in alternating rounds, so that what slows the machine down slows every contestant alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float


def spread(values: Iterable[float]) -> Spread:
    """Of at least one value."""
    values = sorted(values)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return Spread(statistics.median(values), low, high)


def spread_of_ratios(ones: Sequence[float], others: Sequence[float]) -> Spread:
    """Of the quotients, round by round."""
    return spread(one / other for one, other in zip(ones, others, strict=True))


def geometric_mean(values: Iterable[float]) -> float:
    """NaN if there are none."""
    logarithms = [math.log(value) for value in values]
    return math.exp(statistics.fmean(logarithms)) if logarithms else math.nan


@dataclass(frozen=True)
class Times:
    """Seconds of each round, by contestant."""

    seconds: Mapping[str, list[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def least(self, name: str) -> float:
        return min(self.seconds[name])

    def ratio(self, name: str, base: str) -> float:
        """Median over the rounds of `name`'s time by `base`'s in the same round."""
        return spread_of_ratios(self.seconds[name], self.seconds[base]).median

    def table(self, base: str) -> str:
        rows = [f"{'':24} {'median ms':>12} {'least ms':>12} {'ratio to ' + base:>20}"]
        for name in self.seconds:
            median, least, ratio = self.median(name) * 1e3, self.least(name) * 1e3, self.ratio(name, base)
            rows.append(f"{name:24} {median:12.3f} {least:12.3f} {ratio:20.3f}")
        return "\n".join(rows)


def alternate(contestants: Mapping[str, Callable[[], object]], rounds: int = 15, warm: int = 2) -> Times:
    """Run every contestant once a round, in turn, after `warm` rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(warm + rounds):
        for name, call in contestants.items():
            start = time.perf_counter()
            call()
            elapsed = time.perf_counter() - start
            if number >= warm:
                seconds[name].append(elapsed)
    return Times(seconds)
