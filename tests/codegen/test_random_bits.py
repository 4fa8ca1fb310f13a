"""Counters that random bits are made of are kept from LLVM's search for cheaper sums, and count all the same."""

from __future__ import annotations

import numpy as np

import hloc
from hloc.codegen.compile import emit_stage
from hloc.options import Options


def rounds(count: int, target: str = "u32") -> str:
    """A program that adds and exclusive-ors an iota and its rotations, again and again."""
    lines = [f"  x.0 = {target}[40] iota(), iota_dimension=0", f"  y.0 = {target}[40] parameter(0)"]
    for n in range(count):
        lines.append(f"  x.{n + 1} = {target}[40] add(x.{n}, y.{n})")
        lines.append(f"  {'ROOT ' * (n == count - 1)}y.{n + 1} = {target}[40] xor(x.{n + 1}, y.{n})")
    return "HloModule bits\nENTRY e {\n" + "\n".join(lines) + "\n}\n"


def test_results() -> None:
    y = np.arange(40, dtype=np.uint32) * 7
    for count in (2, 20):
        x, expected = np.arange(40, dtype=np.uint32), y
        for _ in range(count):
            x = x + expected
            expected = x ^ expected
        np.testing.assert_array_equal(hloc.compile(rounds(count), options=Options(cache=False))(y), expected)


def test_only_long_chains_have_their_counter_hidden() -> None:
    texts = [emit_stage(hloc.parse(rounds(count)), "llvm", "cpu", Options()) for count in (2, 20)]
    assert ["@hloc.zero" in text for text in texts] == [False, True]
    assert "hloc.zero" not in emit_stage(hloc.parse(rounds(20)), "llvm", "sm_90a", Options())
