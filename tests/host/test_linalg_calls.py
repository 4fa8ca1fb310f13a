"""Linear algebra as JAX's programs for GPUs and TPUs call it: run here, held against NumPy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import hloc
from hloc.host import custom_calls
from hloc.options import Options

pytest.importorskip("scipy")

TYPES = {"f32": np.float32, "f64": np.float64, "c64": np.complex64, "c128": np.complex128}
REAL = {"f32": "f32", "f64": "f64", "c64": "f32", "c128": "f64"}
COMPLEX = {"f32": "c64", "f64": "c128"}
EVERY = pytest.mark.parametrize("dtype", list(TYPES))


def random(dtype: str, *dims: int) -> np.ndarray:
    draw = np.random.default_rng(3).standard_normal
    value = draw(dims) + 1j * draw(dims) if dtype.startswith("c") else draw(dims)
    return value.astype(TYPES[dtype])


def call(target: str, results: str, config: str, *operands: tuple[str, np.ndarray]) -> list[np.ndarray]:
    """The results of a call: by native code and by the evaluator, which agree but on the matrix that it destroyed."""
    parameters = [f"  p{i} = {shape} parameter({i})" for i, (shape, _) in enumerate(operands)]
    names = ", ".join(f"p{i}" for i in range(len(operands)))
    attributes = f'custom_call_target="{target}", api_version=API_VERSION_TYPED_FFI, backend_config={config}'
    root = f"  ROOT r = {results} custom-call({names}), {attributes}"
    text = "\n".join(["HloModule m", "ENTRY e {", *parameters, root, "}"])
    values = [np.ascontiguousarray(value) for _, value in operands]
    found = hloc.compile(text, options=Options(cache=False)).execute(*values)
    expected = hloc.evaluate(text, *values)
    pairs = list(zip(found, expected if isinstance(expected, tuple) else [expected], strict=True))
    for one, other in pairs["gesvd" in target :]:
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-4)
    return [np.array(value) for value in found]


def near(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


@EVERY
@pytest.mark.parametrize("lower", [True, False])
def test_cholesky(dtype: str, lower: bool) -> None:
    a = random(dtype, 2, 4, 4)
    a = a @ a.swapaxes(1, 2).conj() + 4 * np.eye(4, dtype=TYPES[dtype])
    shape, config = f"{dtype}[2,4,4]{{1,2,0}}", f"{{lower = {str(lower).lower()}}}"
    factor, info = call("cusolver_potrf_ffi", f"({shape}, s32[2]{{0}})", config, (f"{dtype}[2,4,4]", a))
    factor = np.tril(factor) if lower else np.triu(factor)
    turned = factor.swapaxes(1, 2).conj()
    near(factor @ turned if lower else turned @ factor, a)
    assert not info.any()


@EVERY
def test_lu_and_its_permutation(dtype: str) -> None:
    a = random(dtype, 3, 5, 4)
    results = f"({dtype}[3,5,4]{{1,2,0}}, s32[3,4]{{1,0}}, s32[3]{{0}})"
    lu, pivots, _ = call("hipsolver_getrf_ffi", results, "{}", (f"{dtype}[3,5,4]", a))
    (order,) = call("cu_lu_pivots_to_permutation", "s32[3,5]", "{}", ("s32[3,4]", pivots - 1))
    lower, upper = np.tril(lu, -1)[..., :4] + np.eye(5, 4), np.triu(lu)[:, :4]
    near(lower @ upper, np.take_along_axis(a, order[..., None], 1))


def test_lu_of_tpus() -> None:
    a = random("f32", 5, 5)
    results = "(f32[5,5]{1,0}, s32[5]{0}, s32[5]{0})"
    lu, pivots, order = call("LuDecomposition", results, "{}", ("f32[5,5]", a))
    near((np.tril(lu, -1) + np.eye(5)) @ np.triu(lu), a[order])
    assert (pivots >= np.arange(5)).all() and (pivots < 5).all()


@EVERY
def test_qr(dtype: str) -> None:
    a = random(dtype, 6, 4)
    packed, factors = call(
        "cusolver_geqrf_ffi", f"({dtype}[6,4]{{0,1}}, {dtype}[4]{{0}})", "{}", (f"{dtype}[6,4]", a)
    )
    given = (f"{dtype}[6,4]", packed), (f"{dtype}[4]", factors)
    (q,) = call("cusolver_orgqr_ffi", f"{dtype}[6,4]{{0,1}}", "{}", *given)
    near(q @ np.triu(packed)[:4], a)
    config, b = "{left = true, transpose = true}", random(dtype, 6, 3)
    (turned,) = call("cusolver_ormqr_ffi", f"{dtype}[6,3]{{0,1}}", config, *given, (f"{dtype}[6,3]", b))
    near(turned[:4], q.conj().T @ b)


@EVERY
def test_eigenvalues_of_symmetric_matrices(dtype: str) -> None:
    a = random(dtype, 4, 4)
    a = a + a.conj().T
    results = f"({dtype}[4,4]{{0,1}}, {REAL[dtype]}[4]{{0}}, s32[])"
    config = "{algorithm = 0 : ui8, lower = true}"
    vectors, values, _ = call("cusolver_syevd_ffi", results, config, (f"{dtype}[4,4]", a))
    near(a @ vectors, vectors * values)
    results = f"({dtype}[4,4], {REAL[dtype]}[4], {REAL[dtype]}[3], {dtype}[3], s32[])"
    _, diagonal, beside, *_ = call("cusolver_sytrd_ffi", results, "{lower = true}", (f"{dtype}[4,4]", a))
    near(np.linalg.eigvalsh(np.diag(diagonal) + np.diag(beside, -1)), values)


@EVERY
@pytest.mark.parametrize("full", [True, False])
def test_singular_values(dtype: str, full: bool) -> None:
    """By Jacobi's method V comes out, otherwise V^H; in the other order if the matrix is taken transposed."""
    a, k, real = random(dtype, 2, 3, 5), 3, REAL[dtype]
    left, right = (3, 5) if full else (k, k)
    given, flags = (f"{dtype}[2,3,5]", a), f"full_matrices = {str(full).lower()}"
    head = f"({dtype}[2,3,5]{{1,2,0}}, {real}[2,3]"

    def product(u: np.ndarray, s: np.ndarray, vh: np.ndarray) -> None:
        near(u[..., :k] * s[:, None] @ vh[:, :k], a)

    results = f"{head}, {dtype}[2,3,{left}]{{1,2,0}}, {dtype}[2,5,{right}]{{1,2,0}}, s32[2])"
    _, s, u, v, _ = call("cusolver_gesvdj_ffi", results, f"{{compute_uv = true, {flags}}}", given)
    product(u, s, v.swapaxes(1, 2).conj())
    for turned in (False, True):
        pair = [f"{dtype}[2,3,{left}]", f"{dtype}[2,{right},5]"]
        results = f"{head}, {', '.join(reversed(pair) if turned else pair)}, s32[2])"
        config = f"{{compute_uv = true, {flags}, transposed = {str(turned).lower()}}}"
        _, s, u, vh, _ = call("cusolver_gesvd_ffi", results, config, given)
        product(*((vh, s, u) if turned else (u, s, vh)))
    results = f"{head}, {dtype}[], {dtype}[], s32[2])"
    config = f"{{compute_uv = false, {flags}, transposed = false}}"
    near(call("cusolver_gesvd_ffi", results, config, given)[1], np.linalg.svd(a, compute_uv=False))


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_eigenvalues_of_real_matrices(dtype: str) -> None:
    """Of a conjugate pair of vectors, cuSOLVER gives the real and the imaginary part."""
    a, wide = np.array([[0, -2, 0], [1, 0, 0], [3, 1, 2]], TYPES[dtype]), COMPLEX[dtype]
    given, flags = (f"{dtype}[3,3]", a), "{left = false, right = true}"
    results = f"({dtype}[3,3], {wide}[3], {dtype}[3,3], {dtype}[3,3]{{0,1}}, s32[])"
    _, values, _, packed, _ = call("cusolver_geev_ffi", results, flags, given)
    (first, second) = np.flatnonzero(values.imag)
    vectors = packed.astype(complex)
    vectors[:, first] = packed[:, first] + 1j * packed[:, second]
    vectors[:, second] = vectors[:, first].conj()
    near(a @ vectors, vectors * values)
    results = f"({dtype}[3], {dtype}[3], {wide}[3,3], {wide}[3,3], s32[])"
    re, im, _, vectors, _ = call("cuhybrid_eig_real", results, flags.replace("}", ', magma = "auto"}'), given)
    near(a @ vectors, vectors * (re + 1j * im))


@pytest.mark.parametrize("dtype", ["c64", "c128"])
def test_eigenvalues_of_complex_matrices(dtype: str) -> None:
    a = random(dtype, 2, 3, 3)
    given, square, flags = (f"{dtype}[2,3,3]", a), f"{dtype}[2,3,3]", "{left = false, right = true}"
    values, _, vectors, _ = call("hiphybrid_eig_comp", f"({dtype}[2,3], {square}, {square}, s32[2])", flags, given)
    near(a @ vectors, vectors * values[:, None])
    results = f"({square}, {dtype}[2,3], {square}, {square}, s32[2])"
    _, values, _, vectors, _ = call("cusolver_geev_ffi", results, flags, given)
    near(a @ vectors, vectors * values[:, None])


@EVERY
def test_tridiagonal_systems(dtype: str) -> None:
    below, diagonal, above, b = (random(dtype, 2, *dims) for dims in ((5,), (5,), (5,), (5, 3)))
    diagonal = diagonal + 5
    line = f"{dtype}[2,5]"
    operands = ((line, below), (line, diagonal), (line, above), (f"{dtype}[2,5,3]", b))
    (x,) = call("cusparse_gtsv2_ffi", f"{dtype}[2,5,3]{{1,2,0}}", "{}", *operands)
    for i in range(2):
        matrix = np.diag(diagonal[i]) + np.diag(below[i, 1:], -1) + np.diag(above[i, :-1], 1)
        near(matrix @ x[i], b[i])


@pytest.mark.parametrize("batch", [(), (3,)])
def test_products_of_scaled_blocks(batch: tuple[int, ...]) -> None:
    draw = np.random.default_rng(5)
    lead = "".join(f"{size}," for size in batch)
    sides, wide = [], []
    for rows in (4, 6):
        values = draw.standard_normal((*batch, rows, 64)).astype(ml_dtypes.float8_e4m3fn)
        scales = np.exp2(draw.integers(-3, 3, (*batch, rows, 2))).astype(ml_dtypes.float8_e8m0fnu)
        sides.append((f"f8e4m3fn[{lead}{rows},64]", values, f"f8e8m0fnu[{lead}{rows},2]", scales))
        wide.append(values.astype(np.float32) * np.repeat(scales.astype(np.float32), 32, -1))
    (x, y), config = sides, '{"scaled_dot_backend_config": {"dequantize_type": "F32"}}'
    (found,) = call("__op$block_scaled_dot", f"f32[{lead}4,6]", config, x[:2], y[:2], x[2:], y[2:])
    near(found, wide[0] @ wide[1].swapaxes(-1, -2))


@pytest.mark.parametrize(
    ("result", "scales", "message"),
    [
        ("f32[4,5]", "[4,2]", "f8e4m3fn.6,64. does not give f32.4,5."),
        ("f32[4,6]", "[4,3]", "takes other operands: scaled-dot"),
    ],
)
def test_products_of_scaled_blocks_of_other_shapes(result: str, scales: str, message: str) -> None:
    text = f"""HloModule m
ENTRY e {{
  x = f8e4m3fn[4,64] parameter(0)
  y = f8e4m3fn[6,64] parameter(1)
  a = f8e8m0fnu{scales} parameter(2)
  b = f8e8m0fnu[6,2] parameter(3)
  ROOT r = {result} custom-call(x, y, a, b), custom_call_target="__op$block_scaled_dot"
}}"""
    with pytest.raises(hloc.HloError, match=message) as caught:
        hloc.compile(text)
    assert caught.value.span is not None


@pytest.mark.parametrize("dtype", ["f32", "f64", "c64", "s32"])
@pytest.mark.parametrize("width", ["", ",3"])
def test_products_of_sparse_rows(dtype: str, width: str) -> None:
    """Rows without elements, first and last ones too; elements behind the last row's end don't count."""
    matrix = np.zeros((6, 5), {**TYPES, "s32": np.int32}[dtype])
    begins, columns = np.int32([0, 0, 2, 2, 5, 6, 6]), np.int32([1, 4, 0, 1, 3, 2, 0, 0])
    elements = (np.arange(8) - 3).astype(matrix.dtype)
    for row in range(6):
        for place in range(begins[row], begins[row + 1]):
            matrix[row, columns[place]] = elements[place]
    side = (random("f64", *(5, 3)[: 1 + bool(width)]) * 9).astype(matrix.dtype)
    operands = (f"{dtype}[8]", elements), ("s32[7]", begins), ("s32[8]", columns), (f"{dtype}[5{width}]", side)
    (found,) = call("cpu_csr_sparse_dense_ffi", f"{dtype}[6{width}]", "{}", *operands)
    near(found, matrix @ side)


def test_other_calls_and_other_operands_are_refused() -> None:
    target = "cusolver_getrf_ffi_of_another"
    text = f"""HloModule m
ENTRY e {{
  p = f32[2,2] parameter(0)
  ROOT r = f32[2,2] custom-call(p), custom_call_target="{target}"
}}"""
    with pytest.raises(hloc.HloError, match="unknown custom-call target"):
        hloc.compile(text)
    with pytest.raises(hloc.HloError, match="cusolver_gesvd_ffi does not take"):
        hloc.compile(text.replace(target, "cusolver_gesvd_ffi"))
    with pytest.raises(hloc.HloError, match="LAPACK has none"):
        hloc.compile(text.replace(target, "cusolver_potrf_ffi").replace("f32", "bf16"))


def test_registered_targets_are_left_alone() -> None:
    text = """HloModule m
ENTRY e {
  p = f32[2] parameter(0)
  ROOT r = f32[2] custom-call(p), custom_call_target="cu_lu_pivots_to_permutation"
}"""
    hloc.register_custom_call("cu_lu_pivots_to_permutation", lambda p: p * 2)
    try:
        assert hloc.compile(text)(np.float32([1, 2])).tolist() == [2, 4]
    finally:
        del custom_calls._TABLE["cu_lu_pivots_to_permutation"]
