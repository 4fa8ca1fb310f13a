"""Programs run by the emulator of devices, judged by the evaluator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import hloc
from hloc import api
from hloc.codegen.compile import emit_stage
from hloc.ir.dtypes import dtype_named
from hloc.ir.shapes import ArrayShape
from hloc.options import Options


def random(shape: str, seed: int = 0) -> np.ndarray:
    """Values for `f32[2,3]` and the like: small, so that sums and products stay in range."""
    name, dims = shape.rstrip("]").split("[")
    dtype, sizes = dtype_named(name), tuple(int(size) for size in dims.split(",") if size)
    rng = np.random.default_rng(seed)
    if name == "pred":
        return rng.integers(0, 2, sizes).astype(bool)
    if dtype.is_integer:
        return rng.integers(0 if dtype.is_unsigned else -3, 4, sizes).astype(dtype.numpy)
    values = rng.uniform(-1, 1, sizes)
    if dtype.is_complex:
        values = values + 1j * rng.uniform(-1, 1, sizes)
    return values.astype(dtype.numpy)


def agree(
    text: str,
    *arguments: np.ndarray,
    expected: Sequence[np.ndarray] = (),
    pipeline: str | None = None,
    target: str = "cuda-emulated",
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> None:
    """Fails unless the emulator gives what the evaluator does, or what is `expected`: exactly for integers.

    With the `pipeline` "none", fusions stay as they are in the text.
    """
    executable = hloc.compile(text, target, Options(cache=False, pipeline=pipeline))
    leaves = [leaf.shape for leaf in executable.program.parameters]
    found = executable.execute(*map(laid_out, arguments, leaves))
    expected = expected or api.evaluate_leaves(text, list(arguments))
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        ours = np.asarray(ours)
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        if theirs.dtype.kind in "biu":
            np.testing.assert_array_equal(ours, theirs)
            continue
        wide = np.complex128 if theirs.dtype.kind == "c" else np.float64
        np.testing.assert_allclose(ours.astype(wide), theirs.astype(wide), rtol=rtol, atol=atol)


def laid_out(array: np.ndarray, shape: ArrayShape) -> np.ndarray:
    """The array as it lies in memory under a shape."""
    if not shape.dims:
        return array
    order = shape.minor_to_major[::-1]
    return np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))


def ptx(text: str, target: str = "sm_90a", **options: bool) -> str:
    """A program's kernels as PTX."""
    return emit_stage(hloc.parse(text), "ptx", target, Options(**options))
