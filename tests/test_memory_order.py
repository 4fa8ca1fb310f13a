"""The orders that scheduling tries: each legal, and the module's answer and side effects kept."""

from __future__ import annotations

import random

import numpy as np
import pytest

import hloc
from hloc.analysis.effects import Effects
from hloc.analysis.flow import ENTRY, ComputationFlow
from hloc.analysis.memory import memory_of, peak_in_order
from hloc.passes.memory_order import orders


def random_graph(seed: int) -> str:
    """Arrays of several sizes made of each other; every second one is reversed, so that memory cannot be shared."""
    numbers = random.Random(seed)
    lines, made = ["p = f32[64] parameter(0)"], [("p", 64)]
    for number in range(40):
        name, size = numbers.choice(made[-8:])
        new = numbers.choice([16, 64, 256, 1024])
        dims = f"f32[{new}]"
        lines.append(f"wide{number} = f32[{new},{size}] broadcast({name}), dimensions={{1}}")
        lines.append(f"cut{number} = f32[{new},1] slice(wide{number}), slice={{[0:{new}], [0:1]}}")
        lines.append(f"v{number} = {dims} reshape(cut{number})")
        made.append((f"v{number}", new))
    shapes = ", ".join(f"f32[{size}]" for _, size in made[-6:])
    names = ", ".join(name for name, _ in made[-6:])
    return "HloModule m\nENTRY e {\n" + "\n".join(lines) + f"\nROOT t = ({shapes}) tuple({names})\n}}"


@pytest.mark.parametrize("seed", range(8))
def test_every_order_is_legal_and_the_best_one_is_taken(seed: int) -> None:
    module = hloc.parse(random_graph(seed))
    flow = ComputationFlow(module.entry, ENTRY, {})
    peaks = [memory_of(module)[module.entry].peak]
    for order in orders(flow, Effects()):
        place = {instruction: number for number, instruction in enumerate(order)}
        assert len(place) == len(module.entry)
        assert all(place[operand] < place[i] for i in order for operand in i.operands)
        peaks.append(peak_in_order(flow, order, {}))
    scheduled = hloc.optimize(module, "schedule")
    assert memory_of(scheduled)[scheduled.entry].peak == min(peaks)
    x = np.arange(64, dtype=np.float32)
    for one, other in zip(hloc.evaluate(module, x), hloc.evaluate(scheduled, x), strict=True):
        np.testing.assert_array_equal(one, other)
