"""Register values and the plain LLVM values that they consist of: loops carry the latter."""

from __future__ import annotations

from collections.abc import Sequence

from hloc.codegen.arrays import Register
from hloc.codegen.llvm import Value


def flattened(values: Sequence[Register]) -> list[Value]:
    """Complex pairs as two values each."""
    flat: list[Value] = []
    for value in values:
        flat.extend(value if isinstance(value, tuple) else (value,))
    return flat


def grouped(values: Sequence[Value], like: Sequence[Register]) -> list[Register]:
    """The inverse of `flattened`, for values of the kinds of `like`."""
    given = iter(values)
    return [(next(given), next(given)) if isinstance(value, tuple) else next(given) for value in like]
