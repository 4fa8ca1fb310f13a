"""fft: all kinds and lengths against NumPy's transforms in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from emitter_cases import NONE, program, value

import hloc
from hloc.options import Options

BOUND = {"f32": 1e-6, "f64": 4e-15}

KINDS = {
    "FFT": lambda x, sizes, axes: np.fft.fftn(x, axes=axes),
    "IFFT": lambda x, sizes, axes: np.fft.ifftn(x, axes=axes),
    "RFFT": lambda x, sizes, axes: np.fft.rfftn(x, axes=axes),
    "IRFFT": lambda x, sizes, axes: np.fft.irfftn(x, s=sizes, axes=axes),
}


def transform(kind: str, dims: tuple[int, ...], rank: int, real: str, layout: str = "", options=NONE) -> np.ndarray:
    """Checks a transform; `dims` are those of the longer side."""
    complex_type = {"f32": "c64", "f64": "c128"}[real]
    half = (*dims[:-1], dims[-1] // 2 + 1)
    full, short = (",".join(map(str, each)) for each in (dims, half))
    operand, result = {
        "FFT": (f"{complex_type}[{full}]", f"{complex_type}[{full}]"),
        "IFFT": (f"{complex_type}[{full}]", f"{complex_type}[{full}]"),
        "RFFT": (f"{real}[{full}]", f"{complex_type}[{short}]"),
        "IRFFT": (f"{complex_type}[{short}]", f"{real}[{full}]"),
    }[kind]
    lengths = ",".join(map(str, dims[len(dims) - rank :]))
    op = f"{result}{layout} fft(p0), fft_type={kind}, fft_length={{{lengths}}}"
    x = value(operand + layout)
    (got,) = hloc.compile(program([operand + layout], [op]), options=options).execute(x)
    wide = x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)
    axes = tuple(range(len(dims) - rank, len(dims)))
    wanted = KINDS[kind](wide, dims[len(dims) - rank :], axes)
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= BOUND[real] * np.abs(wanted).max(), (kind, dims)
    return got


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 2, 3, 4, 6, 8, 9, 13, 32, 35, 59, 64, 77, 97, 120])
def test_lengths(kind: str, length: int) -> None:
    """Passes of every radix, written out or by a table, and Bluestein's method (97)."""
    transform(kind, (3, length), 1, "f32")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [64, 72, 200, 544, 512, 67 * 8, 1024, 3000])
@pytest.mark.parametrize("real", ["f32", "f64"])
def test_single_lines(kind: str, length: int, real: str) -> None:
    """By vectors along the line, which the groups of its first pass may not fill."""
    transform(kind, (length,), 1, real)


@pytest.mark.parametrize("length", [1 << 14, 3 * 5 << 12])
@pytest.mark.parametrize("real", ["f32", "f64"])
@pytest.mark.parametrize("kind", KINDS)
def test_threads_share_long_lines(kind: str, real: str, length: int) -> None:
    results = [transform(kind, (2, length), 1, real, options=Options(num_threads=n)) for n in (1, 3, 19)]
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])


def test_long_lines_that_are_not_contiguous() -> None:
    transform("FFT", (3, 1 << 14), 1, "f32", "{0,1}", Options(num_threads=3))


@pytest.mark.parametrize("dims", [(70, 512), (512, 37), (33, 24, 50)])
@pytest.mark.parametrize("kind", KINDS)
def test_threads_share_the_lines(kind: str, dims: tuple[int, ...]) -> None:
    results = [transform(kind, dims, len(dims), "f32", options=Options(num_threads=n)) for n in (1, 3)]
    assert np.array_equal(*results)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dims", "rank"), [((5, 17, 9), 3), ((11, 4, 6), 2), ((4, 30), 2), ((19, 12), 1)])
def test_several_dimensions(kind: str, dims: tuple[int, ...], rank: int) -> None:
    transform(kind, dims, rank, "f64")


@pytest.mark.parametrize("length", [4098, 4099, 8192])
def test_long_lines(length: int) -> None:
    """Beyond what roots of unity are kept as constants for."""
    transform("FFT", (2, length), 1, "f32")


def test_another_layout() -> None:
    transform("FFT", (6, 10, 12), 2, "f32", "{0,2,1}")
    transform("IFFT", (6, 10), 2, "f64", "{0,1}")
