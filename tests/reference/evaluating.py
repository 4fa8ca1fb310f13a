"""Helpers of these tests: programs around one instruction, run by the evaluator."""

from __future__ import annotations

import numpy as np

from hloc.ir.dtypes import dtype_of_numpy
from hloc.reference.evaluate import evaluate
from hloc.text.parser import parse

ADD = "add { a = f32[] parameter(0)\n b = f32[] parameter(1)\n ROOT c = f32[] add(a, b) }"
INF, NAN = float("inf"), float("nan")


def shape_of(array: np.ndarray) -> str:
    return f"{dtype_of_numpy(array.dtype).name}[{','.join(map(str, array.shape))}]"


def program(line: str, *arguments: np.ndarray, computations: str = "") -> str:
    """A module whose root is `line`, over parameters p0, p1, ... of the arguments' shapes."""
    parameters = "\n".join(f"p{i} = {shape_of(array)} parameter({i})" for i, array in enumerate(arguments))
    return f"HloModule m\n{computations}\nENTRY e {{\n{parameters}\nROOT r = {line}\n}}"


def leaves(line: str, *arguments: np.ndarray, computations: str = "") -> list[np.ndarray]:
    """The result leaves of one instruction."""
    given = [np.asarray(argument) for argument in arguments]
    return evaluate(parse(program(line, *given, computations=computations)), given)


def one(line: str, *arguments: np.ndarray, computations: str = "") -> np.ndarray:
    """The only result of one instruction."""
    (result,) = leaves(line, *arguments, computations=computations)
    return result


def same(got: np.ndarray, expected: object) -> None:
    """Equal in type, shape and every bit, but for the bits of NaNs; `expected` takes the type of what was
    got.
    """
    wanted = np.asarray(expected).astype(got.dtype)
    assert got.shape == wanted.shape
    wide = np.float64 if got.dtype.kind == "V" else got.dtype
    np.testing.assert_array_equal(got.astype(wide), wanted.astype(wide))
    if got.dtype.kind in "fV":
        numbers = ~np.isnan(got.astype(np.float64))
        signs = [np.signbit(array.astype(np.float64))[numbers] for array in (got, wanted)]
        np.testing.assert_array_equal(*signs)


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def s32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def u32(*values: int) -> np.ndarray:
    return np.array(values, np.uint32)
