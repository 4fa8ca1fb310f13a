"""Timing in alternating rounds, so that what slows the machine down slows every contestant alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


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
        return statistics.median(a / b for a, b in zip(self.seconds[name], self.seconds[base], strict=True))

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
