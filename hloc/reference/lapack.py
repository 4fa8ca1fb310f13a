"""The LAPACK routines that JAX's CPU programs call, `lapack_<letter><routine>_ffi`, by SciPy.

Each routine here takes matrices and the call's attributes and gives the call's results, in their order; batch
dimensions are walked one matrix at a time. Letters s, d, c, z stand for f32, f64, c64, c128.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from types import ModuleType

import numpy as np

from hloc.errors import HloError
from hloc.ir.instruction import Instruction
from hloc.reference.context import Context
from hloc.reference.values import Value

_TARGET = re.compile(r"lapack_([sdcz])(\w+)_ffi")
_ENTRY = re.compile(r"(\w+)\s*=\s*(-?\d+|true|false)")

Attributes = dict[str, int]
Results = tuple[np.ndarray | int, ...]


def attributes_of(instruction: Instruction) -> Attributes:
    """The integers and flags of a call's `backend_config={name = 76 : ui8, ...}`."""
    config = instruction.annotations.get("backend_config")
    text = getattr(config, "text", config) or ""
    flags = {"true": 1, "false": 0}
    return {name: flags[value] if value in flags else int(value) for name, value in _ENTRY.findall(text)}


def _letter(attributes: Attributes, name: str) -> str:
    """An attribute that holds a character, as LAPACK's routines take it."""
    return chr(attributes[name])


class Routines:
    """SciPy's wrappers of one precision."""

    def __init__(self, prefix: str):
        self.prefix = prefix
        self.lapack, self.blas = _scipy()

    def __getattr__(self, name: str) -> Callable:
        home = self.blas if name == "trsm" else self.lapack
        return getattr(home, self.prefix + name)


def _scipy() -> tuple[ModuleType, ModuleType]:
    try:
        from scipy.linalg import blas, lapack
    except ImportError:
        raise HloError("calls of LAPACK need SciPy: pip install 'hloc[linalg]'") from None
    return lapack, blas


def potrf(run: Routines, at: Attributes, a: np.ndarray) -> Results:
    factor, info = run.potrf(a, lower=_letter(at, "uplo") == "L", clean=0)
    return factor, info


def getrf(run: Routines, at: Attributes, a: np.ndarray) -> Results:
    lu, pivots, info = run.getrf(a)
    return lu, pivots + 1, info


def geqrf(run: Routines, at: Attributes, a: np.ndarray) -> Results:
    packed, tau, _, _ = run.geqrf(a)
    return packed, tau


def geqp3(run: Routines, at: Attributes, a: np.ndarray, pivots: np.ndarray) -> Results:
    if pivots.any():
        raise HloError("geqp3 with columns held in front is not supported")
    packed, pivots, tau, _, _ = run.geqp3(a)
    return packed, pivots, tau


def orgqr(run: Routines, at: Attributes, a: np.ndarray, tau: np.ndarray) -> Results:
    routine = run.orgqr if run.prefix in "sd" else run.ungqr
    return (routine(a, tau)[0],)


def ormqr(run: Routines, at: Attributes, a: np.ndarray, tau: np.ndarray, c: np.ndarray) -> Results:
    real = run.prefix in "sd"
    transpose = ("T" if real else "C") if at["transpose"] else "N"
    routine = run.ormqr if real else run.unmqr
    work = max(1, 64 * max(c.shape))
    return (routine("L" if at["left"] else "R", transpose, a, tau, c, work)[0],)


def syevd(run: Routines, at: Attributes, a: np.ndarray) -> Results:
    routine = run.syevd if run.prefix in "sd" else run.heevd
    values, vectors, info = routine(a, compute_v=_letter(at, "mode") == "V", lower=_letter(at, "uplo") == "L")
    return vectors, values, info


def geev(run: Routines, at: Attributes, a: np.ndarray) -> Results:
    left, right = (_letter(at, name) == "V" for name in ("compute_left", "compute_right"))
    if not np.isfinite(a).all():
        return _no_eigenvalues(run, a)
    results = run.geev(a, compute_vl=left, compute_vr=right)
    if run.prefix in "cz":
        values, left_vectors, right_vectors, info = results
        return values, _kept(left_vectors, left, a), _kept(right_vectors, right, a), info
    real, imag, left_vectors, right_vectors, info = results
    pairs = [
        _unpacked(vectors, imag) if wanted else _kept(vectors, False, a + 0j)
        for vectors, wanted in ((left_vectors, left), (right_vectors, right))
    ]
    return real, imag, *pairs, info


def _no_eigenvalues(run: Routines, a: np.ndarray) -> Results:
    """Of a matrix with infinities or NaN: LAPACK is not asked."""
    values = np.full(len(a), np.nan, a.dtype)
    vectors = np.full_like(a, np.nan, np.result_type(a, np.complex64))
    return (values, *([values] if run.prefix in "sd" else []), vectors, vectors, -4)


def _kept(vectors: np.ndarray, wanted: bool, like: np.ndarray) -> np.ndarray:
    return vectors if wanted else np.zeros_like(like)


def _unpacked(vectors: np.ndarray, imag: np.ndarray) -> np.ndarray:
    """Complex vectors from LAPACK's columns: the real, then the imaginary part of a conjugate pair."""
    result = vectors.astype(np.result_type(vectors, 1j))
    for j in np.flatnonzero(imag > 0):
        result[:, j] = vectors[:, j] + 1j * vectors[:, j + 1]
        result[:, j + 1] = vectors[:, j] - 1j * vectors[:, j + 1]
    return result


def gesdd(run: Routines, at: Attributes, a: np.ndarray) -> Results:
    return _singular_values(run.gesdd, at, a)


def gesvd(run: Routines, at: Attributes, a: np.ndarray) -> Results:
    return _singular_values(run.gesvd, at, a)


def _singular_values(routine: Callable, at: Attributes, a: np.ndarray) -> Results:
    mode = _letter(at, "mode")
    if mode == "N":
        _, values, _, info = routine(a, compute_uv=0)
        return a, values, np.zeros(0), np.zeros(0), info
    left, values, right, info = routine(a, compute_uv=1, full_matrices=mode == "A")
    return a, values, left, right, info


def gees(run: Routines, at: Attributes, a: np.ndarray) -> Results:
    if _letter(at, "sort") != "N":
        raise HloError("gees with sorted eigenvalues is not supported")
    wanted = _letter(at, "mode") == "V"
    form, count, *values, vectors, _, info = run.gees(lambda *_: False, a, compute_v=wanted)
    return form, _kept(vectors, wanted, a), *values, count, info


def gehrd(run: Routines, at: Attributes, a: np.ndarray) -> Results:
    form, tau, info = run.gehrd(a, lo=at["low"] - 1, hi=at["high"] - 1)
    return form, tau, info


def sytrd(run: Routines, at: Attributes, a: np.ndarray) -> Results:
    routine = run.sytrd if run.prefix in "sd" else run.hetrd
    return routine(a, lower=_letter(at, "uplo") == "L")


def trsm(run: Routines, at: Attributes, a: np.ndarray, b: np.ndarray) -> Results:
    transpose = {"N": 0, "T": 1, "C": 2}[_letter(at, "trans_x")]
    sides = {"side": _letter(at, "side") == "R", "lower": _letter(at, "uplo") == "L"}
    return (run.trsm(1.0, a, b, **sides, trans_a=transpose, diag=_letter(at, "diag") == "U"),)


def gtsv(
    run: Routines, at: Attributes, low: np.ndarray, middle: np.ndarray, high: np.ndarray, b: np.ndarray
) -> Results:
    """The off-diagonals have the diagonal's length; the first of `low` and the last of `high` don't count."""
    below, diagonal, above, solution, info = run.gtsv(low[1:], middle, high[:-1], b)
    return np.r_[low[:1], below], diagonal, np.r_[above, high[-1:]], solution, info


# How many dimensions of each operand are the routine's own; those before them are batch dimensions.
ROUTINES: dict[str, tuple[Callable[..., Results], tuple[int, ...]]] = {
    "gees": (gees, (2,)),
    "geev": (geev, (2,)),
    "gehrd": (gehrd, (2,)),
    "geqp3": (geqp3, (2, 1)),
    "geqrf": (geqrf, (2,)),
    "gesdd": (gesdd, (2,)),
    "gesvd": (gesvd, (2,)),
    "getrf": (getrf, (2,)),
    "gtsv": (gtsv, (1, 1, 1, 2)),
    "heevd": (syevd, (2,)),
    "hetrd": (sytrd, (2,)),
    "orgqr": (orgqr, (2, 1)),
    "ormqr": (ormqr, (2, 1, 2)),
    "potrf": (potrf, (2,)),
    "syevd": (syevd, (2,)),
    "sytrd": (sytrd, (2,)),
    "trsm": (trsm, (2, 2)),
    "ungqr": (orgqr, (2, 1)),
    "unmqr": (ormqr, (2, 1, 2)),
}


def known_targets() -> list[str]:
    return [f"lapack_<s|d|c|z>{name}_ffi" for name in ROUTINES]


def find(target: str) -> Callable[[Instruction, list[np.ndarray], Context], Value] | None:
    """The op of a target, or None if it isn't one of these."""
    match = _TARGET.fullmatch(target)
    if match is None or match[2] not in ROUTINES:
        return None
    routine, ranks = ROUTINES[match[2]]

    def run(instruction: Instruction, operands: list[np.ndarray], context: Context) -> Value:
        return call_batched(instruction, operands, routine, ranks, Routines(match[1]))

    return run


def call_batched(
    instruction: Instruction,
    operands: list[np.ndarray],
    routine: Callable[..., Results],
    ranks: tuple[int, ...],
    routines: Routines,
) -> Value:
    """The routine for every matrix of the batch, its results in the shapes that the instruction has."""
    single = not instruction.shape.is_tuple
    shapes = (instruction.shape,) if single else instruction.shape.elements
    attributes = attributes_of(instruction)
    batch = operands[0].shape[: operands[0].ndim - ranks[0]]
    results = [np.zeros(shape.dims, shape.dtype.numpy) for shape in shapes]
    for index in np.ndindex(batch):
        found = routine(routines, attributes, *(operand[index] for operand in operands))
        for result, value in zip(results, found, strict=True):
            if np.size(value) or not result[index].size:
                result[index] = value
    return results[0] if single else tuple(results)
