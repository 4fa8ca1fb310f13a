"""fft on devices: all kinds and lengths, against NumPy's transforms in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from device_cases import EMULATED, NONE, assembles, program, value

import hloc

BOUND = {"f32": 1e-6, "f64": 4e-15}

KINDS = {
    "FFT": lambda x, sizes, axes: np.fft.fftn(x, axes=axes),
    "IFFT": lambda x, sizes, axes: np.fft.ifftn(x, axes=axes),
    "RFFT": lambda x, sizes, axes: np.fft.rfftn(x, axes=axes),
    "IRFFT": lambda x, sizes, axes: np.fft.irfftn(x, s=sizes, axes=axes),
}


def transform(kind: str, dims: tuple[int, ...], rank: int, real: str, layout: str = "") -> None:
    """`dims` are those of the longer side."""
    complex_type = {"f32": "c64", "f64": "c128"}[real]
    half = (*dims[:-1], dims[-1] // 2 + 1)
    full, short = (",".join(map(str, each)) for each in (dims, half))
    whole = f"{complex_type}[{full}]"
    operand, result = {
        "FFT": (whole, whole),
        "IFFT": (whole, whole),
        "RFFT": (f"{real}[{full}]", f"{complex_type}[{short}]"),
        "IRFFT": (f"{complex_type}[{short}]", f"{real}[{full}]"),
    }[kind]
    lengths = ",".join(map(str, dims[len(dims) - rank :]))
    op = f"{result}{layout} fft(p0), fft_type={kind}, fft_length={{{lengths}}}"
    x = value(operand + layout)
    (got,) = hloc.compile(program([operand + layout], [op]), EMULATED, NONE).execute(x)
    wide = x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)
    wanted = KINDS[kind](wide, dims[len(dims) - rank :], tuple(range(len(dims) - rank, len(dims))))
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= BOUND[real] * np.abs(wanted).max(), (kind, dims)


@pytest.mark.parametrize("length", [1, 3, 8, 35, 39, 120, 256])
def test_lengths(length: int) -> None:
    """Passes of every radix."""
    transform("FFT", (3, length), 1, "f32")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [15, 18])
def test_kinds(kind: str, length: int) -> None:
    transform(kind, (5, length), 1, "f32")


def test_large_prime_factors() -> None:
    """Bluestein's method."""
    transform("IRFFT", (2, 34), 1, "f64")


@pytest.mark.parametrize(
    ("kind", "dims", "rank"), [("IFFT", (5, 6, 9), 3), ("RFFT", (11, 4, 6), 2), ("IRFFT", (4, 30), 2)]
)
def test_several_dimensions(kind: str, dims: tuple[int, ...], rank: int) -> None:
    transform(kind, dims, rank, "f64")


@pytest.mark.parametrize("dims", [(2, 8192), (6000, 3)])
def test_lines_that_no_block_holds(dims: tuple[int, int]) -> None:
    """Two launches, with lines that lie along memory or across it."""
    transform("FFT", dims, 1 if dims[1] > 3 else 2, "f32")


def test_long_lines_with_a_large_prime_factor() -> None:
    transform("RFFT", (1, 2 * 2053), 1, "f64")


def test_another_layout() -> None:
    transform("FFT", (6, 10, 12), 2, "f32", "{0,2,1}")


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_120"])
def test_kernels_are_assembled(arch: str) -> None:
    operations = [
        "c64[4,4096] fft(p0), fft_type=FFT, fft_length={4096}",
        "c128[4,78] fft(p1), fft_type=IFFT, fft_length={78}",
    ]
    assembles(program(["c64[4,4096]", "c128[4,78]"], operations), arch)
