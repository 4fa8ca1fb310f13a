"""Elementary functions of f8e8m0fnu, whose least value is denormal as f32: all bit patterns, on CPU and emulator."""

from __future__ import annotations

import numpy as np
import pytest

import hloc
from hloc import api
from hloc.ir.dtypes import F8E8M0FNU
from hloc.options import Options

FUNCTIONS = (
    "acosh", "asin", "asinh", "atan", "atanh", "cbrt", "cosh", "cosine", "erf", "exponential",
    "exponential-minus-one", "log", "log-plus-one", "logistic", "negate", "rsqrt", "sign", "sine", "sinh",
    "sqrt", "tan", "tanh",
)  # fmt: skip
ROWS = "\n".join(f"  r{i} = f8e8m0fnu[256] {name}(x)" for i, name in enumerate(FUNCTIONS))
SHAPES = ", ".join("f8e8m0fnu[256]" for _ in FUNCTIONS)
TEXT = f"""HloModule powers
ENTRY e {{
  x = f8e8m0fnu[256] parameter(0)
{ROWS}
  ROOT t = ({SHAPES}) tuple({", ".join(f"r{i}" for i, _ in enumerate(FUNCTIONS))})
}}"""


@pytest.mark.parametrize("target", ["cpu", "cuda-emulated"])
def test_all_values(target: str) -> None:
    x = np.arange(256, dtype=np.uint8).view(F8E8M0FNU.numpy)
    found = hloc.compile(TEXT, target, Options(cache=False)).execute(x)
    wrong = [
        f"{name}({float(x[i])}) = {float(ours[i])}, expected {float(theirs[i])}"
        for name, ours, theirs in zip(FUNCTIONS, found, api.evaluate_leaves(TEXT, [x]), strict=True)
        for i in np.flatnonzero(ours.view(np.uint8) != theirs.view(np.uint8))
    ]
    assert wrong == []
