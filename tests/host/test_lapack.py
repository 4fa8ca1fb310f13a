"""LAPACK's routines as JAX calls them, in every precision: native code against the evaluator."""

from __future__ import annotations

import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest

import hloc
from hloc.codegen.lapack import ROUTINES
from hloc.errors import HloError
from hloc.options import Options

pytest.importorskip("scipy")

TYPES = {"s": ("f32", "f32"), "d": ("f64", "f64"), "c": ("c64", "f32"), "z": ("c128", "f64")}
NUMPY = {"f32": np.float32, "f64": np.float64, "c64": np.complex64, "c128": np.complex128, "s32": np.int32}


class Case(NamedTuple):
    """A call. Operands are kinds of matrices; T is the type of the routine, R its real, C its complex one."""

    routine: str
    operands: tuple[str, ...]
    results: tuple[str, ...]
    config: dict[str, str]


def character(letter: str) -> str:
    return f"{ord(letter)} : ui8"


CASES = [
    *(
        Case("potrf", ("definite[2,4,4]",), ("T[2,4,4]", "s32[2]"), {"uplo": uplo})
        for uplo in "LU"
    ),
    Case("potrf", ("general[2,3,3]",), ("T[2,3,3]", "s32[2]"), {"uplo": "L"}),
    Case("getrf", ("general[2,5,3]",), ("T[2,5,3]", "s32[2,3]", "s32[2]"), {}),
    Case("getrf", ("general[3,5]",), ("T[3,5]", "s32[3]", "s32[]"), {}),
    Case("getrf", ("zero[3,3]",), ("T[3,3]", "s32[3]", "s32[]"), {}),
    Case("geqrf", ("general[2,2,5,3]",), ("T[2,2,5,3]", "T[2,2,3]"), {}),
    Case("geqp3", ("general[2,4,3]", "free[2,3]"), ("T[2,4,3]", "s32[2,3]", "T[2,3]"), {}),
    Case("orgqr", ("general[2,5,3]", "general[2,2]"), ("T[2,5,3]",), {}),
    *(
        Case(
            "ormqr",
            (f"general[2,{4 if left == 'true' else 3},2]", "general[2,2]", "general[2,4,3]"),
            ("T[2,4,3]",),
            {"left": left, "transpose": turn},
        )
        for left, turn in (("true", "false"), ("false", "true"))
    ),
    Case(
        "gehrd",
        ("general[2,4,4]",),
        ("T[2,4,4]", "T[2,3]", "s32[2]"),
        {"low": "1 : i32", "high": "4 : i32"},
    ),
    Case(
        "sytrd",
        ("definite[2,4,4]",),
        ("T[2,4,4]", "R[2,4]", "R[2,3]", "T[2,3]", "s32[2]"),
        {"uplo": "L"},
    ),
    *(
        Case(
            "syevd",
            ("definite[2,4,4]",),
            ("T[2,4,4]", "R[2,4]", "s32[2]"),
            {"mode": "V", "uplo": uplo},
        )
        for uplo in "LU"
    ),
    *(
        Case(routine, (f"general[{matrix}]",), tuple(results.split()), {"mode": mode})
        for routine, matrix, results, mode in (
            ("gesdd", "2,4,3", "T[2,4,3] R[2,3] T[2,4,4] T[2,3,3] s32[2]", "A"),
            ("gesdd", "2,3,5", "T[2,3,5] R[2,3] T[2,3,3] T[2,3,5] s32[2]", "S"),
            ("gesdd", "4,3", "T[4,3] R[3] T[4,3] T[3,3] s32[]", "N"),
            ("gesvd", "2,4,3", "T[2,4,3] R[2,3] T[2,4,3] T[2,3,3] s32[2]", "S"),
        )
    ),
    Case(
        "trsm",
        ("definite[2,3,3]", "general[2,3,4]"),
        ("T[2,3,4]",),
        dict(zip(("side", "uplo", "trans_x", "diag"), "LLTN")),
    ),
    Case(
        "trsm",
        ("definite[2,3,3]", "general[2,4,3]"),
        ("T[2,4,3]",),
        dict(zip(("side", "uplo", "trans_x", "diag"), "RUCU")),
    ),
    Case(
        "gtsv",
        ("general[2,4]", "general[2,4]", "general[2,4]", "general[2,4,3]"),
        ("T[2,4]", "T[2,4]", "T[2,4]", "T[2,4,3]", "s32[2]"),
        {},
    ),
]

OWN = {
    "geev": {
        True: ("T[2,4]", "T[2,4]", "C[2,4,4]", "C[2,4,4]", "s32[2]"),
        False: ("T[2,4]", "T[2,4,4]", "T[2,4,4]", "s32[2]"),
    },
    "gees": {
        True: ("T[2,4,4]", "T[2,4,4]", "T[2,4]", "T[2,4]", "s32[2]", "s32[2]"),
        False: ("T[2,4,4]", "T[2,4,4]", "T[2,4]", "s32[2]", "s32[2]"),
    },
}
LEAVES_NOTHING = ("gesdd", "gesvd")
"""Routines of which result 0 is the matrix that they have destroyed."""

COMPLEX_NAMES = {"orgqr": "ungqr", "ormqr": "unmqr", "syevd": "heevd", "sytrd": "hetrd"}


def cases_of(letter: str) -> list[Case]:
    real = letter in "sd"
    own = [
        Case("geev", (matrix,), OWN["geev"][real], {"compute_left": "V", "compute_right": right})
        for matrix, right in (("general[2,4,4]", "V"), ("general[2,4,4]", "N"), ("infinite[2,4,4]", "V"))
    ]
    own.append(Case("gees", ("general[2,4,4]",), OWN["gees"][real], {"mode": "V", "sort": "N"}))
    names = {} if real else COMPLEX_NAMES
    return [case._replace(routine=names.get(case.routine, case.routine)) for case in CASES] + own


def laid_out(shape: str, by_columns: bool) -> str:
    """The shape with a layout: matrices by columns, as JAX has them, or by rows."""
    rank = 0 if shape.endswith("[]") else shape.count(",") + 1
    order = list(range(rank))[::-1]
    if by_columns and rank >= 2:
        order[:2] = order[1::-1]
    return f"{shape}{{{','.join(map(str, order))}}}" if rank else shape


def line(name: str, case: Case, letter: str, operands: list[str], by_columns: bool) -> str:
    full, size = TYPES[letter]
    complex_ = {"f32": "c64", "f64": "c128"}.get(full, full)
    names = {"T": full, "R": size, "C": complex_}
    results = [names.get(result[0], "s32") + result[result.index("[") :] for result in case.results]
    results = [laid_out(result, by_columns) for result in results]
    result = f"({', '.join(results)})" if len(results) > 1 else results[0]
    config = {k: character(v) if len(v) == 1 else v for k, v in case.config.items()}
    text = ", ".join(f"{key} = {value}" for key, value in config.items())
    shapes = []
    for operand in case.operands:
        kind, dims = operand.split("[")
        shapes.append(laid_out(f"{'s32' if kind == 'free' else full}[{dims}", by_columns))
    return (
        f"  {name} = {result} custom-call({', '.join(operands)}), "
        f'custom_call_target="lapack_{letter}{case.routine}_ffi", '
        f"operand_layout_constraints={{{', '.join(shapes)}}}, api_version=API_VERSION_TYPED_FFI, "
        f"backend_config={{{text}}}"
    )


def matrix(kind: str, dims: list[int], dtype: type, rng: np.random.Generator) -> np.ndarray:
    if kind == "free":
        return np.zeros(dims, np.int32)
    array = rng.standard_normal(dims)
    if np.dtype(dtype).kind == "c":
        array = array + 1j * rng.standard_normal(dims)
    if kind == "definite":
        array = array @ array.conj().swapaxes(-1, -2) + len(array) * np.eye(dims[-1])
    elif kind == "zero":
        array = array * 0
    elif kind == "infinite":
        array[0, 0, 0] = np.inf
    return array.astype(dtype)


def program(letter: str, cases: list[Case], by_columns: bool) -> tuple[str, list[np.ndarray]]:
    """All calls in one module, and its arguments."""
    rng = np.random.default_rng(3)
    lines, arguments = [], []
    full = TYPES[letter][0]
    for number, case in enumerate(cases):
        names = []
        for operand in case.operands:
            kind, dims = operand.rstrip("]").split("[")
            array = matrix(kind, [int(size) for size in dims.split(",")], NUMPY[full], rng)
            shape = f"{'s32' if kind == 'free' else full}[{dims}]"
            lines.append(f"  p{len(arguments)} = {shape} parameter({len(arguments)})")
            names.append(f"p{len(arguments)}")
            arguments.append(array)
        lines.append(line(f"c{number}", case, letter, names, by_columns))
    calls = [f"c{number}" for number in range(len(cases))]
    shapes = [text.split(" = ")[1].split(" custom-call")[0] for text in lines if " custom-call(" in text]
    lines.append(f"  ROOT r = ({', '.join(shapes)}) tuple({', '.join(calls)})")
    return "HloModule m\nENTRY e {\n" + "\n".join(lines) + "\n}", arguments


def test_every_routine_has_a_case() -> None:
    assert {case.routine for letter in "sz" for case in cases_of(letter)} == set(ROUTINES)


@pytest.mark.parametrize("by_columns", [True, False], ids=["columns", "rows"])
@pytest.mark.parametrize("letter", "sdcz")
def test_native_results_are_the_evaluators(letter: str, by_columns: bool) -> None:
    cases = cases_of(letter)
    text, arguments = program(letter, cases, by_columns)
    expected = hloc.evaluate(text, *arguments)
    got = hloc.compile(text)(*arguments)
    tolerance = 2e-4 if letter in "sc" else 1e-10
    for case, results, wanted in zip(cases, got, expected, strict=True):
        pairs = zip(results, wanted, strict=True) if isinstance(results, tuple) else [(results, wanted)]
        for number, (result, right) in enumerate(pairs):
            if number == 0 and case.routine in LEAVES_NOTHING:
                continue
            assert result.dtype == right.dtype and result.shape == right.shape
            np.testing.assert_allclose(
                result, right, rtol=tolerance, atol=tolerance, err_msg=f"{case}: result {number}"
            )


def one(target: str, shape: str, operand: str, config: str = "", **more: object):
    settings = f", api_version=API_VERSION_TYPED_FFI, backend_config={{{config}}}" if config else ""
    if "string" in more:
        settings = f', backend_config="{more["string"]}"'
    return hloc.compile(
        f"HloModule m\nENTRY e {{\n  p = {operand} parameter(0)\n"
        f'  ROOT r = {shape} custom-call(p), custom_call_target="{target}"{settings}\n}}'
    )


def test_xla_targets_factor_and_solve() -> None:
    a = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
    text = """HloModule m
ENTRY e {
  p = f32[2,5,3] parameter(0)
  qr = (f32[2,5,3], f32[2,3]) custom-call(p), custom_call_target="Qr"
  packed = f32[2,5,3] get-tuple-element(qr), index=0
  tau = f32[2,3] get-tuple-element(qr), index=1
  q = f32[2,5,3] custom-call(packed, tau), custom_call_target="ProductOfElementaryHouseholderReflectors"
  ROOT r = (f32[2,5,3], f32[2,5,3]) tuple(packed, q)
}"""
    packed, q = hloc.compile(text)(a)
    np.testing.assert_allclose(q @ np.triu(packed[:, :3]), a, atol=1e-5)
    s = np.array([[2.0, 9], [1, 3]])
    for config, off_diagonal in (("1,1,100,1e-6", 1), ("0,1,100,1e-6", 9)):
        vectors, values = one("Eigh", "(f64[2,2], f64[2])", "f64[2,2]", string=config)(s)
        whole = np.array([[2, off_diagonal], [off_diagonal, 3]])
        np.testing.assert_allclose(vectors * values @ vectors.T, whole, atol=1e-12)
    vectors, values = one("Eigh", "(f64[2,2], f64[2])", "f64[2,2]")(s * np.nan)
    assert np.isnan(vectors).all() and np.isnan(values).all()


def test_equal_calls_with_other_attributes_stay_apart() -> None:
    a = np.array([[4.0, 1], [2, 5]])
    calls = "\n".join(
        f'  c{i} = (f64[2,2], s32[]) custom-call(p), custom_call_target="lapack_dpotrf_ffi", '
        f"api_version=API_VERSION_TYPED_FFI, backend_config={{uplo = {ord(uplo)} : ui8}}"
        for i, uplo in enumerate("LU")
    )
    shape = "(f64[2,2], s32[])"
    text = f"HloModule m\nENTRY e {{\n  p = f64[2,2] parameter(0)\n{calls}\n"
    text += f"  ROOT r = ({shape}, {shape}) tuple(c0, c1)\n}}"
    (lower, _), (upper, _) = hloc.compile(text, options=Options(pipeline="none"))(a)
    assert lower[1, 0] == 1 and upper[0, 1] == 0.5


def test_no_matrices_and_empty_ones() -> None:
    config = "uplo = 76 : ui8"
    for dims, batch in (("0,3,3", "0"), ("2,0,0", "2")):
        factor, info = one("lapack_dpotrf_ffi", f"(f64[{dims}], s32[{batch}])", f"f64[{dims}]", config)(
            np.zeros([int(d) for d in dims.split(",")])
        )
        assert factor.size == 0 and info.tolist() == [0] * int(batch)


@pytest.mark.parametrize(
    "target, shape, operand, config, words",
    [
        ("lapack_dpotrf_ffi", "(f64[2,3], s32[])", "f64[2,3]", "uplo = 76 : ui8", "takes square matrices"),
        ("lapack_dpotrf_ffi", "(f64[2,2], s32[1])", "f64[2,2]", "uplo = 76 : ui8", "gives (f64[2,2], s32[])"),
        ("lapack_dpotrf_ffi", "(f64[2,2], s32[])", "f64[2,2]", "uplo = 88 : ui8", "one of L, U as uplo"),
        ("lapack_dpotrf_ffi", "(f64[2,2], s32[])", "f64[2,2]", "lo = 1 : i32", "needs the attribute uplo"),
        ("lapack_dpotrf_ffi", "(f64[2,2], s32[])", "f32[2,2]", "uplo = 76 : ui8", "does not take f32[2,2]"),
        ("lapack_dgetrf_ffi", "(f64[2], s32[2], s32[])", "f64[2]", " ", "does not take operands of f64[2]"),
        ("lapack_dorgqr_ffi", "f64[2,2]", "f64[2,2]", " ", "takes 2 operands, not 1"),
        ("lapack_cpotrd_ffi", "f64[2,2]", "f64[2,2]", " ", "unknown custom-call target"),
        ("lapack_corgqr_ffi", "f64[2,2]", "f64[2,2]", " ", "unknown custom-call target"),
        ("Qr", "(f16[2,2], f16[2])", "f16[2,2]", "", "Qr of f16 is not supported"),
    ],
)
def test_calls_that_do_not_fit_are_refused_in_their_place(
    target: str, shape: str, operand: str, config: str, words: str
) -> None:
    with pytest.raises(HloError) as caught:
        one(target, shape, operand, config)
    assert words in caught.value.message
    assert caught.value.span is not None


def test_without_scipy_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from hloc.host.lapack import function_address

    function_address.cache_clear()
    for name in [name for name in sys.modules if name.startswith("scipy")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "scipy", None)  # as if there were none
    with pytest.raises(HloError, match=r"pip install 'hloc\[linalg\]'"):
        one("lapack_dpotrf_ffi", "(f64[2,2], s32[])", "f64[2,2]", "uplo = 76 : ui8")


def test_routines_come_without_the_package_around_them() -> None:
    code = """
import sys
from hloc.host.lapack import function_address
print(function_address("dpotrf") != function_address("dtrsm"), "scipy.linalg" in sys.modules)
from scipy.linalg import cholesky, cython_lapack
print(cholesky([[4.0]])[0, 0], cython_lapack is sys.modules["scipy.linalg.cython_lapack"])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "False", "2.0", "True"]
