"""Random bits on a device, bit for bit those of the evaluator, and the state that devices keep."""

from __future__ import annotations

import numpy as np
import pytest
from device_cases import EMULATED, NONE, assembles, check_device

import hloc

SHAPES = [
    "u8[3,5]", "u16[6,7]", "u32[]", "u32[1]", "u32[3,4,2]", "s32[7,9]{0,1}", "u64[]", "u64[3,3]", "u32[0,3]",
    "s4[11]", "u32[700]",
]


@pytest.mark.parametrize(("algorithm", "words"), [("rng_three_fry", 2), ("rng_philox", 2), ("rng_philox", 3)])
def test_widths_and_shapes(algorithm: str, words: int) -> None:
    """The counter's low half is about to overflow."""
    state = np.array([2**63 + 5, 2**64 - 2, 7][:words], np.uint64)
    ops = [f"(u64[{words}], {shape}) rng-bit-generator(p0), algorithm={algorithm}" for shape in SHAPES]
    check_device([f"u64[{words}]"], ops, "", [state])


def test_the_state_of_the_device_advances() -> None:
    text = "HloModule m\n\nENTRY e {\n  ROOT r = u64[2] rng-get-and-update-state(), delta=9\n}\n"
    compiled = hloc.compile(text, EMULATED, NONE)
    first, second = (compiled.execute()[0] for _ in range(2))
    assert second[0] - first[0] == 9 and second[1] == first[1]


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_120"])
@pytest.mark.parametrize("algorithm", ["rng_three_fry", "rng_philox"])
def test_kernels_assemble_without_spills(algorithm: str, arch: str) -> None:
    body = f"  p = u64[2] parameter(0)\n  ROOT r = (u64[2], u32[77]) rng-bit-generator(p), algorithm={algorithm}\n"
    assembles(f"HloModule m\n\nENTRY e {{\n{body}}}\n", arch)
