"""cholesky and triangular-solve on devices: small ones in a block, large ones by panels, every flag."""

from __future__ import annotations

import numpy as np
import pytest
from device_cases import assembles, check_device, program, value

LIMITS = {"f64": 1e-11, "c128": 1e-11, "bf16": 4e-2}


def positive(shape: str) -> np.ndarray:
    half = value(shape)
    wide = half.astype(np.complex128 if half.dtype.kind == "c" else np.float64)
    return (wide @ np.conj(np.swapaxes(wide, -1, -2)) + 3 * np.eye(wide.shape[-1])).astype(half.dtype)


@pytest.mark.parametrize("dtype", ["f32", "f64", "c64", "bf16"])
@pytest.mark.parametrize("dims", ["1,1", "2,3,17,17", "2,0,0"])
def test_cholesky(dtype: str, dims: str) -> None:
    shape = f"{dtype}[{dims}]"
    ops = [f"{shape} cholesky(p0), lower={lower}" for lower in ("true", "false")]
    check_device([shape], ops, "", [positive(shape)], tolerance=LIMITS.get(dtype, 1e-4))


@pytest.mark.parametrize(("dtype", "size", "lower"), [("f32", 130, "true"), ("c128", 70, "false")])
def test_cholesky_by_panels(dtype: str, size: int, lower: str) -> None:
    shape = f"{dtype}[2,{size},{size}]"
    matrices = positive(shape)
    matrices[1, size // 2, size // 2] = -1
    (got,) = check_device([shape], [f"{shape} cholesky(p0), lower={lower}"], "", [matrices], LIMITS.get(dtype, 1e-4))
    assert np.isnan(got[1]).all() and not np.isnan(got[0]).any()


def test_cholesky_of_what_is_not_positive_definite() -> None:
    matrices = np.stack([np.eye(3), -np.eye(3)]).astype(np.float32)
    (got,) = check_device(["f32[2,3,3]"], ["f32[2,3,3] cholesky(p0), lower=true"], "", [matrices])
    assert np.isnan(got[1]).all()


def solve(dtype: str, size: int, vectors: int, flags: list[tuple[str, str, str, str]]) -> None:
    """Flags are left_side, lower, unit_diagonal, transpose_a; all of the first kind alike."""
    left = flags[0][0]
    dims = f"2,{size},{vectors}" if left == "true" else f"2,{vectors},{size}"
    shape, matrix_shape = f"{dtype}[{dims}]", f"{dtype}[2,{size},{size}]"
    ops = [
        f"{shape} triangular-solve(p0, p1), left_side={left}, lower={lower}, unit_diagonal={unit}, transpose_a={op}"
        for _, lower, unit, op in flags
    ]
    matrix = value(matrix_shape)
    wide = matrix.astype(np.complex128 if matrix.dtype.kind == "c" else np.float64)
    matrix = (wide / size + np.eye(size)).astype(matrix.dtype)
    check_device([matrix_shape, shape], ops, "", [matrix, value(shape)], LIMITS.get(dtype, 1e-5))


@pytest.mark.parametrize("dtype", ["f32", "c64", "bf16"])
@pytest.mark.parametrize("left", ["true", "false"])
@pytest.mark.parametrize("op", ["NO_TRANSPOSE", "TRANSPOSE", "ADJOINT"])
def test_triangular_solve(dtype: str, left: str, op: str) -> None:
    flags = [(left, lower, unit, op) for lower in ("true", "false") for unit in ("true", "false")]
    solve(dtype, 9, 1 if op == "ADJOINT" else 6, flags)


@pytest.mark.parametrize(
    ("dtype", "size", "vectors", "flags"),
    [
        ("f32", 110, 70, ("true", "true", "false", "NO_TRANSPOSE")),
        ("c128", 50, 1, ("false", "true", "false", "ADJOINT")),
        ("f64", 75, 5, ("true", "false", "true", "TRANSPOSE")),
    ],
)
def test_triangular_solve_by_blocks(dtype: str, size: int, vectors: int, flags: tuple[str, str, str, str]) -> None:
    solve(dtype, size, vectors, [flags])


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_120"])
def test_kernels_are_assembled(arch: str) -> None:
    solve = "triangular-solve(p0, p1), left_side=true, lower=true, unit_diagonal=false, transpose_a=ADJOINT"
    shape = "c128[2,200,200]"
    assembles(program([shape, shape], [f"{shape} cholesky(p0), lower=true", f"{shape} {solve}"]), arch)
