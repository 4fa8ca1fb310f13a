"""rng-bit-generator bit for bit (rows X25, X26), and the device's own state."""

from __future__ import annotations

import numpy as np
import pytest
from emitter_cases import NONE, check

import hloc


def bits(state: list[int], shape: str, algorithm: str) -> tuple[list[int], list[int]]:
    text = (
        f"HloModule m\n\nENTRY main {{\n  s = u64[{len(state)}] parameter(0)\n"
        f"  ROOT r = (u64[{len(state)}], {shape}) rng-bit-generator(s), algorithm={algorithm}\n}}\n"
    )
    after, values = hloc.compile(text, options=NONE).execute(np.array(state, np.uint64))
    return after.tolist(), values.tolist()


def test_values_known_from_xla() -> None:
    fry = [43444564, 2150618427, 3979645651, 3745730563, 1672743891]
    assert bits([1, 2], "u32[4]", "rng_three_fry") == ([1, 4], fry[:4])
    assert bits([1, 2], "u32[5]", "rng_three_fry") == ([1, 5], fry)
    assert bits([1, 2], "u64[2]", "rng_three_fry") == ([1, 4], [9236835810183407956, 16087790271692313299])
    assert bits([1, 2, 3], "u32[4]", "rng_philox") == (
        [1, 3, 3],
        [4031113034, 1366700262, 495645701, 3051723414],
    )
    assert bits([1, 2], "u32[4]", "rng_default") == ([1, 3], [2100602697, 2847456232, 2074354647, 800269529])


@pytest.mark.parametrize(("algorithm", "words"), [("rng_three_fry", 2), ("rng_philox", 2), ("rng_philox", 3)])
def test_widths_and_shapes(algorithm: str, words: int) -> None:
    """The counter's low half is about to overflow."""
    state = np.array([2**63 + 5, 2**64 - 2, 7][:words], np.uint64)
    shapes = [
        "u8[3,5]",
        "u16[6,7]",
        "u32[]",
        "u32[1]",
        "u32[3,4,2]",
        "s32[7,9]{0,1}",
        "u64[]",
        "u64[3,3]",
        "u32[0,3]",
    ]
    check(
        [f"u64[{words}]"],
        [f"(u64[{words}], {shape}) rng-bit-generator(p0), algorithm={algorithm}" for shape in shapes],
        "",
        [state],
    )


def test_the_state_of_the_device_advances() -> None:
    text = """HloModule m

ENTRY main {
  a = u64[2] rng-get-and-update-state(), delta=7
  b = u64[2] rng-get-and-update-state(), delta=1, control-predecessors={a}
  ROOT r = (u64[2], u64[2]) tuple(a, b)
}
"""
    executable = hloc.compile(text, options=NONE)
    first, second = executable.execute()
    (third, _) = executable.execute()
    assert (int(second[0]) - int(first[0]), int(third[0]) - int(second[0])) == (7, 1)
    assert np.array_equal(hloc.compile(text, options=NONE).execute()[0], first)
