"""Kernels in which threads once fail to wait: the emulator says so, rather than give a wrong result."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import hloc
from hloc.codegen.gpu.emulated import EmulatedIntrinsics
from hloc.options import Options

PROGRAMS = {
    "products": """
HloModule products
ENTRY e {
  x = f16[64,128] parameter(0)
  y = f16[128,64] parameter(1)
  ROOT d = f32[64,64] dot(x, y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
""",
    "sums of columns": """
HloModule sums
add {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT c = f32[] add(a, b)
}
ENTRY e {
  x = f32[300,300] parameter(0)
  z = f32[] constant(0)
  ROOT s = f32[300] reduce(x, z), dimensions={0}, to_apply=add
}
""",
    "transposition": """
HloModule transposition
ENTRY e {
  x = f32[300,200] parameter(0)
  ROOT t = f32[200,300] transpose(x), dimensions={1,0}
}
""",
}
WAITS = ("barrier", "warp_barrier", "wait_copies")


def outcomes(text: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What comes of the program when all waits are as written, without the first, without the second, and so on."""
    dropped, count = -1, 0

    def once_without(name: str):
        original = getattr(EmulatedIntrinsics, name)

        def wait(self, *arguments):
            nonlocal count
            count += 1
            return None if count - 1 == dropped else original(self, *arguments)

        monkeypatch.setattr(EmulatedIntrinsics, name, wait)

    for name in WAITS:
        once_without(name)
    first: list[np.ndarray] = []
    while dropped < count:
        count = 0
        executable = hloc.compile(text, "cuda-emulated", Options(cache=False))
        rng = np.random.default_rng(3)
        shapes = [leaf.shape for leaf in executable.program.parameters]
        arguments = [rng.standard_normal(shape.dims).astype(shape.dtype.numpy) for shape in shapes]
        try:
            results = executable.execute(*arguments)
            first = first or results
            yield "same" if all(map(np.array_equal, results, first)) else "other"
        except hloc.HloError as error:
            yield error.message
        dropped += 1


@pytest.mark.parametrize("name", PROGRAMS)
def test_missing_waits_are_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait may be one too many for the sizes at hand; a result that is wrong may not go by."""
    whole, *without = outcomes(PROGRAMS[name], monkeypatch)
    assert whole == "same"
    assert "other" not in without
    reports = [text for text in without if text != "same"]
    assert reports, without
    assert all("shared memory" in text for text in reports)
