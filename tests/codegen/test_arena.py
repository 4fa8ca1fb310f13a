"""Packing: pieces that live together do not overlap, and little is lost."""

from __future__ import annotations

import random

import pytest

from hloc.codegen.arena import Need, least_bytes, pack


def overlaps(one: tuple[Need, int], other: tuple[Need, int]) -> bool:
    (a, at), (b, there) = one, other
    return a.start <= b.end and b.start <= a.end and at < there + b.size and there < at + a.size


@pytest.mark.parametrize("seed", range(20))
def test_random_lives(seed: int) -> None:
    numbers = random.Random(seed)
    starts = sorted(numbers.randrange(30) for _ in range(60))
    needs = [Need(s, s + numbers.choice([0, 1, 1, 2, 3, 20]), 64 * numbers.randrange(20)) for s in starts]
    offsets, size = pack(needs)
    placed = [(need, offset) for need, offset in zip(needs, offsets, strict=True) if need.size]
    assert not any(overlaps(one, other) for i, one in enumerate(placed) for other in placed[:i])
    assert max(offset + need.size for need, offset in placed) <= size
    assert least_bytes(needs) <= size <= 1.2 * least_bytes(needs)


def test_by_size_mends_what_first_come_loses() -> None:
    """A small piece that lives long lies in the middle if it comes between the large ones."""
    needs = [Need(0, 1, 640), Need(1, 9, 64), Need(2, 9, 704)]
    assert pack(needs) == ([0, 704, 0], 768)


def test_nothing_takes_nothing() -> None:
    assert pack([]) == ([], 0)
    assert pack([Need(0, 0, 0), Need(1, 5, 0)]) == ([0, 0], 0)
