"""cholesky and triangular-solve, over the last two dimensions, in f64 (c128) and rounded once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hloc.ir.instruction import Instruction
from hloc.reference.context import Context
from hloc.reference.values import narrow, widest


def cholesky(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """The lower (or upper) factor, zero elsewhere; only that triangle is read.

    All NaN if the matrix is not positive definite (X27).
    """
    wide = widest(operands[0], instruction.operands[0].shape.dtype)
    lower = instruction.get("lower")
    factor = cholesky_lower(wide if lower else _adjoint(wide))
    return narrow(factor if lower else _adjoint(factor), instruction.shape.dtype)


def cholesky_lower(array: np.ndarray) -> np.ndarray:
    """Lower factors of matrices of which only the lower triangles are read; NaN where there is none."""
    size = array.shape[-1]
    factor = np.zeros_like(array)
    for j in range(size):
        row = factor[..., j, :j]
        pivot = array[..., j, j].real - (row * row.conj()).real.sum(axis=-1)
        root = np.sqrt(np.where(pivot > 0, pivot, np.nan))
        factor[..., j, j] = root
        below = array[..., j + 1 :, j] - (factor[..., j + 1 :, :j] @ row.conj()[..., None])[..., 0]
        factor[..., j + 1 :, j] = below / root[..., None]
    bad = np.isnan(factor).any(axis=(-2, -1))
    factor[bad] = np.nan
    return factor


def _adjoint(array: np.ndarray) -> np.ndarray:
    return np.swapaxes(array, -1, -2).conj()


def triangular_solve(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """x of op(a) x = b, or of x op(a) = b; only the named triangle of a is read."""
    a, b = (widest(x, source.shape.dtype) for x, source in zip(operands, instruction.operands))
    lower, transpose = instruction.get("lower"), instruction.get("transpose_a")
    solution = solve_triangular(
        a,
        b,
        lower=lower,
        left=instruction.get("left_side"),
        unit=instruction.get("unit_diagonal"),
        transpose=transpose in ("TRANSPOSE", "ADJOINT"),
        conjugate=transpose == "ADJOINT",
    )
    return narrow(solution, instruction.shape.dtype)


def solve_triangular(
    a: np.ndarray, b: np.ndarray, *, lower: bool, left: bool, unit: bool, transpose: bool, conjugate: bool
) -> np.ndarray:
    """Substitution over stacks of matrices; a zero on the diagonal divides as IEEE has it."""
    a = a.conj() if conjugate else a
    if transpose:
        a, lower = np.swapaxes(a, -1, -2), not lower
    if not left:
        # x a = b is a' x' = b'.
        a, lower, b = np.swapaxes(a, -1, -2), not lower, np.swapaxes(b, -1, -2)
    size = a.shape[-1]
    x = np.array(np.broadcast_to(b, np.broadcast_shapes(a.shape[:-2], b.shape[:-2]) + b.shape[-2:]))
    for step in range(size):
        i = step if lower else size - 1 - step
        done = slice(0, i) if lower else slice(i + 1, size)
        value = x[..., i, :] - (a[..., i : i + 1, done] @ x[..., done, :])[..., 0, :]
        x[..., i, :] = value if unit else value / a[..., i, i, None]
    return x if left else np.swapaxes(x, -1, -2)


TABLE: dict[str, Callable] = {
    "cholesky": cholesky,
    "triangular-solve": triangular_solve,
}
