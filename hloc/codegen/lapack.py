"""The LAPACK routines that custom calls stand for, each as a recipe: a table.

The arguments are in the order of LAPACK's manual. Names and attributes of the calls, and the order of their
results, are those of JAX's CPU programs (`lapack_<letter><routine>_ffi`); `Qr`, `Eigh` and
`ProductOfElementaryHouseholderReflectors` are XLA's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from hloc.codegen.lapack_calls import (
    PRECISIONS,
    Argument,
    Call,
    Copy,
    Dims,
    In,
    Out,
    Recipe,
    Result,
    Room,
    RoomSize,
)
from hloc.errors import HloError
from hloc.host.custom_calls import config_text
from hloc.ir.dtypes import C64, C128, F32, S32
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape

_TARGET = re.compile(r"lapack_([sdcz])(\w+)_ffi")


def _stride(rows: int) -> int:
    """LAPACK's leading dimension."""
    return max(1, rows)


def _work(call: Call) -> list[Argument]:
    """Room of the routine's own type, and its size."""
    return [Room("work", call.dtype), RoomSize("work")]


# Factorizations


def potrf(call: Call) -> Recipe:
    (n, m) = call.dims(0)
    call.require(n == m, "takes square matrices")
    uplo = call.character("uplo", "LU")
    results = [Result(call.dtype, (n, n), 0), Result(S32, ())]
    return call.recipe("potrf", [uplo, n, Out(0), _stride(n), Out(1)], results)


def getrf(call: Call) -> Recipe:
    m, n = call.dims(0)
    results = [Result(call.dtype, (m, n), 0), Result(S32, (min(m, n),)), Result(S32, ())]
    return call.recipe("getrf", [m, n, Out(0), _stride(m), Out(1), Out(2)], results)


def geqrf(call: Call) -> Recipe:
    m, n = call.dims(0)
    arguments = [m, n, Out(0), _stride(m), Out(1), *_work(call), Room("info", S32, 1)]
    return call.recipe("geqrf", arguments, [Result(call.dtype, (m, n), 0), Result(call.dtype, (min(m, n),))])


def geqp3(call: Call) -> Recipe:
    m, n = call.dims(0)
    real_room = [] if call.is_real else [Room("rwork", call.real, max(1, 2 * n))]
    arguments = [m, n, Out(0), _stride(m), Out(1), Out(2), *_work(call), *real_room, Room("info", S32, 1)]
    results = [Result(call.dtype, (m, n), 0), Result(S32, (n,), 1), Result(call.dtype, (min(m, n),))]
    return call.recipe("geqp3", arguments, results)


def orgqr(call: Call) -> Recipe:
    m, n = call.dims(0)
    (k,) = call.dims(1)
    call.require(m >= n >= k, f"takes no {k} reflectors for {n} columns of {m} elements")
    name = "orgqr" if call.is_real else "ungqr"
    arguments = [m, n, k, Out(0), _stride(m), In(1), *_work(call), Room("info", S32, 1)]
    return call.recipe(name, arguments, [Result(call.dtype, (m, n), 0)])


def ormqr(call: Call) -> Recipe:
    m, n = call.dims(2)
    (k,) = call.dims(1)
    left, transpose = call.integer("left"), call.integer("transpose")
    rows = m if left else n
    call.require(k <= rows and call.dims(0)[0] == rows and call.dims(0)[1] >= k, "takes no such sizes")
    name, turned = ("ormqr", "T") if call.is_real else ("unmqr", "C")
    head = ["L" if left else "R", turned if transpose else "N", m, n, k, In(0), _stride(rows), In(1)]
    arguments = [*head, Out(0), _stride(m), *_work(call), Room("info", S32, 1)]
    return call.recipe(name, arguments, [Result(call.dtype, (m, n), 2)])


def gehrd(call: Call) -> Recipe:
    n, m = call.dims(0)
    call.require(n == m, "takes square matrices")
    low, high = call.integer("low"), call.integer("high")
    call.require(n == 0 or 1 <= low <= high <= n, f"takes no rows {low} to {high} of {n}")
    arguments = [n, low, high, Out(0), _stride(n), Out(1), *_work(call), Out(2)]
    results = [Result(call.dtype, (n, n), 0), Result(call.dtype, (max(0, n - 1),)), Result(S32, ())]
    return call.recipe("gehrd", arguments, results)


def sytrd(call: Call) -> Recipe:
    n, m = call.dims(0)
    call.require(n == m, "takes square matrices")
    name = "sytrd" if call.is_real else "hetrd"
    outs = [Out(0), _stride(n), Out(1), Out(2), Out(3), *_work(call), Out(4)]
    rest = max(0, n - 1)
    results = [Result(call.dtype, (n, n), 0), Result(call.real, (n,)), Result(call.real, (rest,))]
    results += [Result(call.dtype, (rest,)), Result(S32, ())]
    return call.recipe(name, [call.character("uplo", "LU"), n, *outs], results)


# Eigenvalues and singular values


def syevd(call: Call) -> Recipe:
    n, _ = call.dims(0)
    results = [Result(call.dtype, (n, n), 0), Result(call.real, (n,)), Result(S32, ())]
    return _syevd(call, call.character("mode", "NV"), call.character("uplo", "LU"), Out(2), results)


def _syevd(call: Call, mode: str, uplo: str, info: Out | Room, results: list[Result], **rest) -> Recipe:
    n, m = call.dims(0)
    call.require(n == m, "takes square matrices")
    real_room = [] if call.is_real else [Room("rwork", call.real), RoomSize("rwork")]
    rooms = [*_work(call), *real_room, Room("iwork", S32), RoomSize("iwork")]
    name = "syevd" if call.is_real else "heevd"
    return call.recipe(name, [mode, uplo, n, Out(0), _stride(n), Out(1), *rooms, info], results, **rest)


def geev(call: Call) -> Recipe:
    """LAPACK's own result of the matrix is none of the call's. Real matrices have complex vectors."""
    n, m = call.dims(0)
    call.require(n == m, "takes square matrices")
    sides = [call.character("compute_left", "NV"), call.character("compute_right", "NV")]
    complex_ = C64 if call.real is F32 else C128
    vectors = [Result(complex_, (n, n)), Result(complex_, (n, n)), Result(S32, ())]
    if not call.is_real:
        outs = [Out(0), Out(1), _stride(n), Out(2), _stride(n)]
        rooms = [*_work(call), Room("rwork", call.real, max(1, 2 * n))]
        arguments = [*sides, n, Copy(0), _stride(n), *outs, *rooms, Out(3)]
        results = [Result(call.dtype, (n,)), *vectors]
        return call.recipe("geev", arguments, results, finite_only=True)
    rooms = [Room(side, call.dtype, max(1, n * n)) for side in ("left", "right")]
    outs = [Out(0), Out(1), rooms[0], _stride(n), rooms[1], _stride(n)]
    pairs = [(room.name, 2 + i) for i, room in enumerate(rooms) if sides[i] == "V"]
    results = [Result(call.dtype, (n,)), Result(call.dtype, (n,)), *vectors]
    arguments = [*sides, n, Copy(0), _stride(n), *outs, *_work(call), Out(4)]
    return call.recipe("geev", arguments, results, finite_only=True, pairs=tuple(pairs))


def gees(call: Call) -> Recipe:
    n, m = call.dims(0)
    call.require(n == m, "takes square matrices")
    call.character("sort", "N")
    values = 2 if call.is_real else 1
    head = [call.character("mode", "NV"), "N", None, n, Out(0), _stride(n), Out(2 + values)]
    real_room = [] if call.is_real else [Room("rwork", call.real, max(1, n))]
    rooms = [*_work(call), *real_room, Room("bwork", S32, max(1, n))]
    outs = [*[Out(2 + i) for i in range(values)], Out(1), _stride(n)]
    results = [Result(call.dtype, (n, n), 0), Result(call.dtype, (n, n))]
    results += [Result(call.dtype, (n,))] * values + [Result(S32, ()), Result(S32, ())]
    return call.recipe("gees", [*head, *outs, *rooms, Out(3 + values)], results)


def gesdd(call: Call) -> Recipe:
    mode, sizes, outs, results = _singular_values(call)
    least, most = min(call.dims(0)), max(call.dims(0))
    if mode == "N":
        count = 7 * least
    else:
        count = least * max(5 * least + 7, 2 * most + 2 * least + 1)
    real_room = [] if call.is_real else [Room("rwork", call.real, max(1, count))]
    rooms = [*_work(call), *real_room, Room("iwork", S32, max(1, 8 * least))]
    return call.recipe("gesdd", [mode, *sizes, *outs, *rooms, Out(4)], results)


def gesvd(call: Call) -> Recipe:
    mode, sizes, outs, results = _singular_values(call)
    real_room = [] if call.is_real else [Room("rwork", call.real, max(1, 5 * min(call.dims(0))))]
    return call.recipe("gesvd", [mode, mode, *sizes, *outs, *_work(call), *real_room, Out(4)], results)


def _singular_values(call: Call) -> tuple[str, list[Argument], list[Argument], list[Result]]:
    """Vectors have the sizes of whole bases, or of the values, also where they are not wanted."""
    m, n = call.dims(0)
    least, batch = min(m, n), len(call.batch)
    mode = call.character("mode", "NSA")
    leaves = [leaf.dims[batch:] for _, leaf in call.instruction.shape.leaves()]
    whole = mode == "A" or (mode == "N" and leaves[2:4] == [(m, m), (n, n)])
    left, right = ((m, m), (n, n)) if whole else ((m, least), (least, n))
    results = [Result(call.dtype, (m, n), 0), Result(call.real, (least,))]
    results += [Result(call.dtype, left), Result(call.dtype, right), Result(S32, ())]
    outs = [Out(1), Out(2), _stride(left[0]), Out(3), _stride(right[0])]
    return mode, [m, n, Out(0), _stride(m)], outs, results


# Solving


def trsm(call: Call) -> Recipe:
    m, n = call.dims(1)
    side = call.character("side", "LR")
    size = m if side == "L" else n
    call.require(call.dims(0) == (size, size), f"takes no {call.operands[0]!r} for {call.operands[1]!r}")
    letters = [call.character("uplo", "LU"), call.character("trans_x", "NTC"), call.character("diag", "NU")]
    one = np.ones((), call.dtype.numpy).tobytes()
    arguments = [side, *letters, m, n, one, In(0), _stride(size), Out(0), _stride(m)]
    return call.recipe("trsm", arguments, [Result(call.dtype, (m, n), 1)])


def gtsv(call: Call) -> Recipe:
    """All diagonals have one length: the first of the lower and the last of the upper one don't count."""
    n, columns = call.dims(3)
    call.require(all(call.dims(i) == (n,) for i in range(3)), "takes diagonals as long as the columns")
    first = min(1, max(0, n - 1))
    arguments = [n, columns, Out(0, first), Out(1), Out(2), Out(3), _stride(n), Out(4)]
    results = [*(Result(call.dtype, (n,), i) for i in range(3)), Result(call.dtype, (n, columns), 3)]
    return call.recipe("gtsv", arguments, [*results, Result(S32, ())])


# XLA's own


def eigh(call: Call) -> Recipe:
    """The first number of the configuration says whether the lower triangle is read."""
    lower = config_text(call.instruction).split(",")[0] != "0"
    n, _ = call.dims(0)
    results = [Result(call.dtype, (n, n), 0), Result(call.real, (n,))]
    return _syevd(call, "V", "L" if lower else "U", Room("info", S32, 1), results, nan_unless="info")


RecipeMaker = Callable[[Call], Recipe]

ROUTINES: dict[str, tuple[RecipeMaker, str, Dims]] = {
    "gees": (gees, "sdcz", (2,)),
    "geev": (geev, "sdcz", (2,)),
    "gehrd": (gehrd, "sdcz", (2,)),
    "geqp3": (geqp3, "sdcz", (2, 1)),
    "geqrf": (geqrf, "sdcz", (2,)),
    "gesdd": (gesdd, "sdcz", (2,)),
    "gesvd": (gesvd, "sdcz", (2,)),
    "getrf": (getrf, "sdcz", (2,)),
    "gtsv": (gtsv, "sdcz", (1, 1, 1, 2)),
    "heevd": (syevd, "cz", (2,)),
    "hetrd": (sytrd, "cz", (2,)),
    "orgqr": (orgqr, "sd", (2, 1)),
    "ormqr": (ormqr, "sd", (2, 1, 2)),
    "potrf": (potrf, "sdcz", (2,)),
    "syevd": (syevd, "sd", (2,)),
    "sytrd": (sytrd, "sd", (2,)),
    "trsm": (trsm, "sdcz", (2, 2)),
    "ungqr": (orgqr, "cz", (2, 1)),
    "unmqr": (ormqr, "cz", (2, 1, 2)),
}
"""Routine: its recipe, the letters of the precisions that it has, and the ranks of its operands' matrices."""

XLA_TARGETS: dict[str, tuple[RecipeMaker, Dims]] = {
    "Eigh": (eigh, (2,)),
    "ProductOfElementaryHouseholderReflectors": (orgqr, (2, 1)),
    "Qr": (geqrf, (2,)),
}


def recipe_of(instruction: Instruction) -> Recipe | None:
    """The recipe of a custom call; None if its target is none of these.

    HloError if its operands, attributes or results do not fit, or SciPy is missing.
    """
    target = instruction.get("custom_call_target")
    match = _TARGET.fullmatch(target)
    if match is not None and match[2] in ROUTINES and match[1] in ROUTINES[match[2]][1]:
        make, _, ranks = ROUTINES[match[2]]
        letter = match[1]
    elif target in XLA_TARGETS:
        make, ranks = XLA_TARGETS[target]
        dtype = next((leaf.dtype for o in instruction.operands for _, leaf in o.shape.leaves()), None)
        letter = next((name for name, (own, _) in PRECISIONS.items() if own is dtype), "")
        if not letter:
            raise HloError(f"{target} of {dtype} is not supported: LAPACK has none", instruction.span)
    else:
        return None
    if not all(isinstance(operand.shape, ArrayShape) for operand in instruction.operands):
        raise HloError(f"{target} takes arrays only", instruction.span)
    return _located(make, Call(instruction, letter, ranks))


def _located(make: RecipeMaker, call: Call) -> Recipe:
    try:
        return make(call)
    except HloError as error:
        error.span = error.span or call.instruction.span
        raise
