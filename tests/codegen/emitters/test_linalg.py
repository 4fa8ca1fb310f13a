"""cholesky and triangular-solve: every flag, batches, real and complex."""

from __future__ import annotations

import numpy as np
import pytest
from emitter_cases import NONE, check, program, same, value

import hloc
from hloc.records import replace


def positive(shape: str) -> np.ndarray:
    half = value(shape)
    wide = half.astype(np.complex128 if half.dtype.kind == "c" else np.float64)
    return (wide @ np.conj(np.swapaxes(wide, -1, -2)) + 3 * np.eye(wide.shape[-1])).astype(half.dtype)


@pytest.mark.parametrize("dtype", ["f32", "f64", "c64", "bf16"])
@pytest.mark.parametrize("dims", ["1,1", "2,3,7,7", "33,33", "2,0,0"])
def test_cholesky(dtype: str, dims: str) -> None:
    shape = f"{dtype}[{dims}]"
    ops = [f"{shape} cholesky(p0), lower={lower}" for lower in ("true", "false")]
    check([shape], ops, "", [positive(shape)], tolerance={"f64": 1e-11, "bf16": 4e-2}.get(dtype, 1e-4))


def test_cholesky_of_what_is_not_positive_definite() -> None:
    text = program(["f32[2,3,3]"], ["f32[2,3,3] cholesky(p0), lower=true"])
    (got,) = hloc.compile(text, options=NONE).execute(np.stack([np.eye(3), -np.eye(3)]).astype(np.float32))
    assert np.array_equal(got[0], np.eye(3)) and np.isnan(got[1]).all()


@pytest.mark.parametrize("dtype", ["f32", "c64", "bf16"])
@pytest.mark.parametrize("left", ["true", "false"])
@pytest.mark.parametrize("vectors", [1, 6])
def test_triangular_solve(dtype: str, left: str, vectors: int) -> None:
    dims = f"2,9,{vectors}" if left == "true" else f"2,{vectors},9"
    shape = f"{dtype}[{dims}]"
    ops = [
        f"{shape} triangular-solve(p0, p1), left_side={left}, lower={lower}, "
        f"unit_diagonal={unit}, transpose_a={op}"
        for lower in ("true", "false")
        for unit in ("true", "false")
        for op in ("NO_TRANSPOSE", "TRANSPOSE", "ADJOINT")
    ]
    matrix = value(f"{dtype}[2,9,9]")
    wide = matrix.astype(np.complex128 if dtype == "c64" else np.float64) * 0.1 + np.eye(9)
    check(
        [f"{dtype}[2,9,9]", shape],
        ops,
        "",
        [wide.astype(matrix.dtype), value(shape)],
        tolerance=4e-2 if dtype == "bf16" else 1e-5,
    )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("dtype", "n", "vectors"), [("f32", 131, 230), ("f64", 96, 100), ("bf16", 100, 97)])
@pytest.mark.parametrize("left", ["true", "false"])
def test_large_systems_are_solved_by_blocks(dtype: str, n: int, vectors: int, left: str, threads: int) -> None:
    shape = f"{dtype}[2,{n},{vectors}]" if left == "true" else f"{dtype}[2,{vectors},{n}]"
    matrix = value(f"{dtype}[2,{n},{n}]")
    wide = matrix.astype(np.float64) / n + np.eye(n)
    ops = [
        f"{shape} triangular-solve(p0, p1), left_side={left}, lower={lower}, unit_diagonal={unit}, transpose_a={op}"
        for lower, unit, op in (("true", "false", "NO_TRANSPOSE"), ("false", "true", "TRANSPOSE"))
    ]
    text = program([f"{dtype}[2,{n},{n}]", shape], ops)
    arguments = [wide.astype(matrix.dtype), value(shape)]
    options = replace(NONE, num_threads=threads)
    got = hloc.compile(text, options=options).execute(*arguments)
    for result, wanted in zip(got, hloc.evaluate(text, *arguments), strict=True):
        same(result, wanted, tolerance={"f64": 1e-12, "bf16": 4e-2}.get(dtype, 1e-5))


def test_threads_solve_alike() -> None:
    text = program(
        ["f32[300,300]", "f32[300,1000]"],
        [
            "f32[300,1000] triangular-solve(p0, p1), left_side=true, lower=true, unit_diagonal=false, "
            "transpose_a=NO_TRANSPOSE"
        ],
    )
    arguments = [value("f32[300,300]") / 300 + np.eye(300, dtype=np.float32), value("f32[300,1000]")]
    one, three = (
        hloc.compile(text, options=replace(NONE, num_threads=threads)).execute(*arguments)[0] for threads in (1, 3)
    )
    assert one.tobytes() == three.tobytes()
