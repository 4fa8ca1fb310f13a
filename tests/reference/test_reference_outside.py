"""Random numbers (rows X25, X26, X32) and custom calls."""

from __future__ import annotations

import numpy as np
import pytest
from evaluating import f32, leaves, one, same

from hloc.errors import HloError
from hloc.reference.evaluate import evaluate
from hloc.text.parser import parse


def bits(state: list[int], shape: str, algorithm: str) -> tuple[list[int], np.ndarray]:
    key = np.array(state, np.uint64)
    line = f"(u64[{len(state)}], {shape}) rng-bit-generator(p0), algorithm={algorithm}"
    new, drawn = leaves(line, key)
    return new.tolist(), drawn


THREEFRY = [
    43444564,
    2150618427,
    3979645651,
    3745730563,
    1672743891,
    4240503393,
    2109414752,
    618976052,
    2534981805,
]


@pytest.mark.parametrize("shape, counters", [("u32[4]", 2), ("u32[5]", 3), ("u32[]", 1), ("u8[9]", 5)])
def test_threefry_pairs_lie_side_by_side(shape: str, counters: int) -> None:
    state, drawn = bits([1, 2], shape, "rng_three_fry")
    assert state == [1, 2 + counters]
    expected = THREEFRY[: drawn.size]
    assert drawn.reshape(-1).tolist() == [word % 256 if shape[1] == "8" else word for word in expected]


def test_threefry_splits_the_first_even_dimension_or_the_largest() -> None:
    _, drawn = bits([1, 2], "u32[2,3]", "rng_three_fry")
    assert drawn.tolist() == [[43444564, 3979645651, 1672743891], [2150618427, 3745730563, 4240503393]]
    state, drawn = bits([1, 2], "u32[3,5]", "rng_three_fry")
    assert state == [1, 11]
    assert drawn[0].tolist() == THREEFRY[:5]


def test_threefry_of_64_bits() -> None:
    state, drawn = bits([1, 2], "u64[2]", "rng_three_fry")
    assert state == [1, 4]
    assert drawn.tolist() == [9236835810183407956, 16087790271692313299]


@pytest.mark.parametrize(
    "state, new, expected",
    [
        ([1, 2, 3], [1, 3, 3], [4031113034, 1366700262, 495645701, 3051723414]),
        ([1, 2], [1, 3], [2100602697, 2847456232, 2074354647, 800269529]),
    ],
)
def test_philox(state: list[int], new: list[int], expected: list[int]) -> None:
    for algorithm in ("rng_philox", "rng_default"):
        got, drawn = bits(state, "u32[4]", algorithm)
        assert got == new
        assert drawn.tolist() == expected


def test_philox_carries_into_the_high_half_of_the_counter() -> None:
    state, drawn = bits([9, 2**64 - 2, 7], "u32[10]", "rng_philox")
    assert state == [9, 1, 8]
    assert drawn.tolist()[-2:] == [837519397, 1125223994]
    assert bits([1, 2, 3], "u64[4]", "rng_philox")[1].tolist() == [
        5869932932755744586,
        13107052260063114245,
        8234580641674714347,
        2641225993340350124,
    ]


def test_rng_has_its_distribution_and_repeats_for_the_same_seed() -> None:
    uniform = one("f32[10000] rng(p0, p1), distribution=rng_uniform", np.float32(-1), np.float32(3))
    assert uniform.min() >= -1 and uniform.max() < 3
    assert uniform.mean() == pytest.approx(1, abs=0.05)
    normal = one("f32[10000] rng(p0, p1), distribution=rng_normal", np.float32(2), np.float32(0.5))
    assert (normal.mean(), normal.std()) == pytest.approx((2, 0.5), abs=0.03)
    whole = one("s32[1000] rng(p0, p1), distribution=rng_uniform", np.int32(-3), np.int32(2))
    assert sorted(set(whole.tolist())) == [-3, -2, -1, 0, 1]
    same(one("f32[10000] rng(p0, p1), distribution=rng_uniform", np.float32(-1), np.float32(3)), uniform)


def test_rng_state_advances_by_delta() -> None:
    module = """HloModule m
ENTRY e {
  a = u64[2] rng-get-and-update-state(), delta=256
  b = u64[2] rng-get-and-update-state(), delta=1
  ROOT r = (u64[2], u64[2]) tuple(a, b)
}"""
    first, second = evaluate(parse(module), [])
    assert second[1] - first[1] == 256


def call(target: str, shape: str, *arguments: np.ndarray, config: str = "") -> list[np.ndarray]:
    operands = ", ".join(f"p{i}" for i in range(len(arguments)))
    settings = f", api_version=API_VERSION_TYPED_FFI, backend_config={{{config}}}" if config else ""
    return leaves(f'{shape} custom-call({operands}), custom_call_target="{target}"{settings}', *arguments)


def test_unknown_targets_and_callbacks_are_refused_by_name() -> None:
    with pytest.raises(HloError, match="unknown custom-call target 'frobnicate'") as caught:
        call("frobnicate", "f32[1]", f32(1))
    assert "TopK" in caught.value.hint and "potrf" in caught.value.hint
    with pytest.raises(HloError, match="xla_ffi_python_cpu_callback calls back"):
        call("xla_ffi_python_cpu_callback", "f32[1]", f32(1))


@pytest.mark.parametrize("target", ["Sharding", "annotate_device_placement", "xla.sdy.FuncResultSharding"])
def test_annotations_pass_their_operand_on(target: str) -> None:
    same(call(target, "f32[2]", f32(1, 2))[0], [1, 2])


def test_an_annotation_that_changes_shapes_is_refused() -> None:
    with pytest.raises(HloError, match="splits a value over devices"):
        call("SPMDFullToShardShape", "f32[1]", f32(1, 2))


def test_top_k_call() -> None:
    values, where = call("TopK", "(f32[1,2], s32[1,2])", f32(1, 3, 2).reshape(1, 3))
    same(values, [[3, 2]])
    same(where, [[1, 2]])


def test_householder_factors_of_qr_give_the_matrix_back() -> None:
    a = np.random.default_rng(0).standard_normal((2, 5, 3))
    packed, tau = call("Qr", "(f64[2,5,3], f64[2,3])", a)
    (q,) = call("ProductOfElementaryHouseholderReflectors", "f64[2,5,3]", packed, tau)
    np.testing.assert_allclose(q @ np.triu(packed[:, :3]), a, atol=1e-12)
    np.testing.assert_allclose(q.swapaxes(1, 2) @ q, np.broadcast_to(np.eye(3), (2, 3, 3)), atol=1e-12)


def test_qr_of_complex_matrices() -> None:
    rng = np.random.default_rng(1)
    a = rng.standard_normal((4, 4)) + 1j * rng.standard_normal((4, 4))
    packed, tau = call("Qr", "(c128[4,4], c128[4])", a)
    (q,) = call("ProductOfElementaryHouseholderReflectors", "c128[4,4]", packed, tau)
    np.testing.assert_allclose(q @ np.triu(packed), a, atol=1e-12)


def test_eigh_call() -> None:
    s = np.array([[2.0, 1], [1, 3]])
    vectors, values = call("Eigh", "(f64[2,2], f64[2])", s)
    np.testing.assert_allclose(vectors * values @ vectors.T, s)


RNG = np.random.default_rng(2)
SQUARE = RNG.standard_normal((2, 4, 4))
DEFINITE = SQUARE @ SQUARE.swapaxes(1, 2) + 4 * np.eye(4)


def test_lapack_factorizations() -> None:
    pytest.importorskip("scipy")
    factor, info = call("lapack_dpotrf_ffi", "(f64[2,4,4], s32[2])", DEFINITE, config="uplo = 76 : ui8")
    np.testing.assert_allclose(np.tril(factor), np.linalg.cholesky(DEFINITE))
    assert info.tolist() == [0, 0]
    lu, pivots, _ = call("lapack_dgetrf_ffi", "(f64[2,4,4], s32[2,4], s32[2])", SQUARE, config=" ")
    for matrix, packed, swaps in zip(SQUARE, lu, pivots):
        product = (np.tril(packed, -1) + np.eye(4)) @ np.triu(packed)
        for i in range(3, -1, -1):
            product[[i, swaps[i] - 1]] = product[[swaps[i] - 1, i]]
        np.testing.assert_allclose(product, matrix)
    packed, tau = call("lapack_dgeqrf_ffi", "(f64[2,4,4], f64[2,4])", SQUARE, config=" ")
    (q,) = call("lapack_dorgqr_ffi", "f64[2,4,4]", packed, tau, config=" ")
    np.testing.assert_allclose(q @ np.triu(packed), SQUARE, atol=1e-12)


def test_lapack_eigenvalues_and_singular_values() -> None:
    pytest.importorskip("scipy")
    config = "mode = 86 : ui8, uplo = 76 : ui8"
    vectors, values, _ = call("lapack_dsyevd_ffi", "(f64[2,4,4], f64[2,4], s32[2])", DEFINITE, config=config)
    np.testing.assert_allclose((vectors * values[:, None]) @ vectors.swapaxes(1, 2), DEFINITE)
    config = "compute_left = 78 : ui8, compute_right = 86 : ui8"
    shape = "(f64[2,4], f64[2,4], c128[2,4,4], c128[2,4,4], s32[2])"
    real, imag, _, right, _ = call("lapack_dgeev_ffi", shape, SQUARE, config=config)
    np.testing.assert_allclose(SQUARE @ right, right * (real + 1j * imag)[:, None], atol=1e-12)
    shape = "(f64[2,4,4], f64[2,4], f64[2,4,4], f64[2,4,4], s32[2])"
    _, s, u, vt, _ = call("lapack_dgesdd_ffi", shape, SQUARE, config="mode = 65 : ui8")
    np.testing.assert_allclose((u * s[:, None]) @ vt, SQUARE)
    shape = "(f64[2,4,4], f64[2,4,4], f64[2,4], f64[2,4], s32[2], s32[2])"
    form, z, *_ = call("lapack_dgees_ffi", shape, SQUARE, config="mode = 86 : ui8, sort = 78 : ui8")
    np.testing.assert_allclose(z @ form @ z.swapaxes(1, 2), SQUARE, atol=1e-12)


def test_lapack_reductions_and_solves() -> None:
    pytest.importorskip("scipy")
    form, tau, info = call(
        "lapack_dgehrd_ffi", "(f64[2,4,4], f64[2,3], s32[2])", SQUARE, config="high = 4 : i32, low = 1 : i32"
    )
    assert info.tolist() == [0, 0]
    np.testing.assert_allclose(np.trace(form, axis1=1, axis2=2), np.trace(SQUARE, axis1=1, axis2=2))
    shape = "(f64[2,4,4], f64[2,4], f64[2,3], f64[2,3], s32[2])"
    _, d, e, _, _ = call("lapack_dsytrd_ffi", shape, DEFINITE, config="uplo = 76 : ui8")
    tridiagonal = np.array([np.diag(x) + np.diag(y, 1) + np.diag(y, -1) for x, y in zip(d, e)])
    np.testing.assert_allclose(np.linalg.eigvalsh(tridiagonal), np.linalg.eigvalsh(DEFINITE))
    b = RNG.standard_normal((2, 4, 3))
    config = "diag = 78 : ui8, side = 76 : ui8, trans_x = 84 : ui8, uplo = 76 : ui8"
    (x,) = call("lapack_dtrsm_ffi", "f64[2,4,3]", DEFINITE, b, config=config)
    np.testing.assert_allclose(np.tril(DEFINITE).swapaxes(1, 2) @ x, b)
    low, middle, high = (RNG.standard_normal((2, 4)) for _ in range(3))
    shape = "(f64[2,4], f64[2,4], f64[2,4], f64[2,4,3], s32[2])"
    *_, x, _ = call("lapack_dgtsv_ffi", shape, low, middle, high, b, config=" ")
    matrix = np.array(
        [np.diag(m) + np.diag(a[1:], -1) + np.diag(c[:-1], 1) for a, m, c in zip(low, middle, high)]
    )
    np.testing.assert_allclose(matrix @ x, b, atol=1e-10)
