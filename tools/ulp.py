"""The largest error of each elementary function, ours beside XLA's, in units of the last place (ULP).

    python -m tools.ulp [--functions sine,tanh] [--dtypes f32,f64] [--samples N] [--no-xla]

Both run the function on the same arguments: a sweep over all magnitudes, the stretches where the functions
bend, and the corners. The exact result is mpmath's, with 160 bits; for types of 32 bits and fewer, where a
sweep is dense, NumPy's and SciPy's in f64, which is exact to 2**-28 ULP there. Subnormal arguments and
results do not count: both sides flush them. `corners` counts the arguments where one side is NaN or infinite
and the other is not the same. Complex errors are |got - exact| in ULP of |exact|. XLA has no opcode of its
own for the functions marked *; JAX expands these.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import ml_dtypes
import mpmath
import numpy as np
import scipy.special

import hloc

# HLO's name, jax.lax's, mpmath's, NumPy's or SciPy's.
NAMES = {
    "acos": ("acos", "acos", np.arccos),
    "acosh": ("acosh", "acosh", np.arccosh),
    "asin": ("asin", "asin", np.arcsin),
    "asinh": ("asinh", "asinh", np.arcsinh),
    "atan": ("atan", "atan", np.arctan),
    "atan2": ("atan2", "atan2", np.arctan2),
    "atanh": ("atanh", "atanh", np.arctanh),
    "cbrt": ("cbrt", "cbrt", np.cbrt),
    "cosh": ("cosh", "cosh", np.cosh),
    "cosine": ("cos", "cos", np.cos),
    "erf": ("erf", "erf", scipy.special.erf),
    "exponential": ("exp", "exp", np.exp),
    "exponential-minus-one": ("expm1", "expm1", np.expm1),
    "log": ("log", "log", np.log),
    "log-plus-one": ("log1p", "log1p", np.log1p),
    "logistic": ("logistic", "", scipy.special.expit),
    "power": ("pow", "power", np.power),
    "rsqrt": ("rsqrt", "", None),
    "sine": ("sin", "sin", np.sin),
    "sinh": ("sinh", "sinh", np.sinh),
    "sqrt": ("sqrt", "sqrt", np.sqrt),
    "tan": ("tan", "tan", np.tan),
    "tanh": ("tanh", "tanh", np.tanh),
}
BINARY = ("atan2", "power")
EXPANDED_BY_JAX = ("acos", "acosh", "asin", "asinh", "atan", "atanh", "cosh", "sinh")
REAL_ONLY = ("atan2", "cbrt", "erf", "power")
DTYPES = {
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "c64": np.dtype(np.complex64),
    "c128": np.dtype(np.complex128),
}


@dataclass(frozen=True)
class Format:
    """Of a float type: bits of significand, least normal exponent, greatest number."""

    bits: int
    least: int
    largest: float

    @staticmethod
    def of(dtype: np.dtype) -> Format:
        info = ml_dtypes.finfo(np.empty(0, dtype).real.dtype)
        return Format(info.nmant + 1, int(info.minexp), float(info.max))


def exact_mpmath(name: str) -> Callable:
    """The function in mpmath's precision, real or complex."""
    if name == "logistic":
        return lambda x: 1 / (1 + mpmath.exp(-x))
    if name == "rsqrt":
        return lambda x: 1 / mpmath.sqrt(x)
    if name == "cbrt":
        return lambda x: mpmath.cbrt(x) if isinstance(x, mpmath.mpc) else mpmath.sign(x) * mpmath.cbrt(abs(x))
    if name == "log-plus-one":
        return lambda x: mpmath.log1p(x) if not isinstance(x, mpmath.mpc) else mpmath.log(1 + x)
    if name == "exponential-minus-one":
        return lambda x: mpmath.exp(x) - 1 if isinstance(x, mpmath.mpc) else mpmath.expm1(x)
    return getattr(mpmath, NAMES[name][1])


def exact_numpy(name: str) -> Callable:
    """The function in f64."""
    return NAMES[name][2] or (lambda x: 1 / np.sqrt(x))


# Arguments


def corners(dtype: np.dtype) -> np.ndarray:
    """Zeros, ones, infinities, NaN and the ends of the range."""
    info = ml_dtypes.finfo(dtype)
    numbers = [0, 0.5, 1, 2, 3, 10, 80, 1e4, float(info.tiny), float(info.max), np.inf, np.nan]
    with np.errstate(over="ignore"):
        return np.array([*numbers, *[-number for number in numbers]]).astype(dtype)


def sweep(dtype: np.dtype, count: int, seed: int) -> np.ndarray:
    """All magnitudes and both signs; two thirds of it between 1e-3 and 100. Every f16 and bf16 number."""
    if dtype.itemsize == 2 and seed == 0:
        return np.arange(1 << 16, dtype=np.uint16).view(dtype)
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 1 << 63, count // 3, dtype=np.uint64) * 2 + rng.integers(
        0, 2, count // 3, dtype=np.uint64
    )
    anything = (bits >> np.uint64(64 - 8 * dtype.itemsize)).astype(f"u{dtype.itemsize}").view(dtype)
    common = [rng.normal(0, scale, count // 9) for scale in (0.1, 0.5, 1, 3, 10, 50)]
    return np.concatenate([corners(dtype), anything, *common]).astype(dtype)


def operands(name: str, dtype: np.dtype, count: int) -> list[np.ndarray]:
    """Arguments of a function, subnormal numbers left out."""
    if dtype.kind == "c":
        return [_complex_values(dtype, count)]
    arrays = [sweep(dtype, count, seed) for seed in range(2 if name in BINARY else 1)]
    if name in BINARY:
        size = min(map(len, arrays))
        arrays = [np.random.default_rng(5).permutation(array)[:size] for array in arrays]
    with np.errstate(all="ignore"):
        if name == "power":  # most of the other pairs overflow
            arrays[0] = np.exp(arrays[0].astype(np.float64) % 8 - 4).astype(dtype)
        wide = [np.abs(array.astype(np.float64)) for array in arrays]
    least = 2.0 ** Format.of(dtype).least
    usual = np.logical_and.reduce([~((size > 0) & (size < least)) for size in wide])
    return [array[usual] for array in arrays]


def _complex_values(dtype: np.dtype, count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    values = np.empty(count, dtype)
    values.real, values.imag = rng.normal(0, 1, (2, count)) * 10.0 ** rng.uniform(-4, 1.5, (2, count))
    return values


# Both sides


def ours(name: str, dtype_name: str, arrays: list[np.ndarray]) -> np.ndarray:
    """By a module of this one op."""
    shape = f"{dtype_name}[{arrays[0].size}]"
    parameters = "".join(f"  p{n} = {shape} parameter({n})\n" for n in range(len(arrays)))
    names = ", ".join(f"p{n}" for n in range(len(arrays)))
    text = f"HloModule m\nENTRY e {{\n{parameters}  ROOT r = {shape} {name}({names})\n}}\n"
    return np.asarray(hloc.compile(text)(*arrays))


def xla(name: str, arrays: list[np.ndarray]) -> np.ndarray:
    """By JAX on the CPU."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    return np.asarray(jax.jit(getattr(jax.lax, NAMES[name][0]))(*arrays))


# Errors


def exact_results(name: str, dtype: np.dtype, arrays: list[np.ndarray]) -> np.ndarray:
    """An object array of mpmath numbers, or f64 for types of at most 32 bits."""
    if dtype.kind != "c" and dtype.itemsize <= 4:
        with np.errstate(all="ignore"):
            return exact_numpy(name)(*[array.astype(np.float64) for array in arrays])
    function = exact_mpmath(name)
    make = (lambda z: mpmath.mpc(complex(z))) if dtype.kind == "c" else (lambda x: mpmath.mpf(float(x)))
    results = np.empty(arrays[0].size, object)
    with mpmath.workprec(160):
        for index, row in enumerate(zip(*arrays, strict=True)):
            results[index] = _real_or_nan(function, [make(x) for x in row], dtype)
    return results


def _real_or_nan(function: Callable, row: list, dtype: np.dtype):
    """mpmath's value; NaN where it has none, or leaves the real numbers."""
    try:
        value = function(*row)
    except (ValueError, ZeroDivisionError):
        return mpmath.nan
    leaves = dtype.kind != "c" and isinstance(value, mpmath.mpc)
    return mpmath.nan if leaves else value


def errors(got: np.ndarray, want: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """ULP of each result; 0 where the exact one is not an ordinary number of the type."""
    kind = Format.of(dtype)
    if want.dtype != object:
        with np.errstate(all="ignore"):
            size, wide = np.abs(want), got.astype(np.float64)
            ordinary = (size >= 2.0**kind.least) & (size < kind.largest) & np.isfinite(wide)
            unit = np.exp2(np.floor(np.log2(np.where(ordinary, size, 1))) - kind.bits + 1)
            return np.where(ordinary, np.abs(wide - want) / unit, 0)
    result = np.zeros(got.size)
    make = mpmath.mpc if dtype.kind == "c" else mpmath.mpf
    for index, (value, exact) in enumerate(zip(got, want, strict=True)):
        size = abs(exact)
        if 2.0**kind.least <= size < kind.largest and np.isfinite(value):
            unit = mpmath.ldexp(1, mpmath.frexp(size)[1] - kind.bits)
            result[index] = float(abs(make(value.item()) - exact) / unit)
    return result


def differing_corners(a: np.ndarray, b: np.ndarray) -> int:
    """Places where one is NaN or infinite and the other is something else."""
    with np.errstate(all="ignore"):
        a, b = a.astype(np.complex128), b.astype(np.complex128)
    special = ~(np.isfinite(a) & np.isfinite(b))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return int((special & ~same).sum())


def row(name: str, dtype_name: str, count: int, with_xla: bool) -> list[str]:
    """One line of the table."""
    dtype = DTYPES[dtype_name]
    arrays = operands(name, dtype, count)
    want = exact_results(name, dtype, arrays)
    results = [ours(name, dtype_name, arrays)] + ([xla(name, arrays)] if with_xla else [])
    cells = [name + ("*" if name in EXPANDED_BY_JAX else ""), dtype_name, str(arrays[0].size)]
    for got in results:
        error = errors(got, want, dtype)
        worst = int(np.argmax(error))
        cells += [
            f"{error[worst]:.3f}",
            f"{error.mean():.3f}",
            ", ".join(f"{array[worst]:.9g}" for array in arrays),
        ]
    return cells + ([str(differing_corners(*results))] if with_xla else [])


def table(names: Iterable[str], dtypes: Iterable[str], samples: int, with_xla: bool) -> Iterable[list[str]]:
    """The rows, the heading first."""
    columns = ["ours", "mean", "at"] + (["XLA", "mean", "at", "corners"] if with_xla else [])
    yield ["function", "type", "arguments", *columns]
    for name in names:
        for dtype_name in dtypes:
            if dtype_name.startswith("c") and name in REAL_ONLY:
                continue
            slow = dtype_name in ("f64", "c64", "c128")
            yield row(name, dtype_name, samples // (100 if slow else 1), with_xla)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--functions", default=",".join(NAMES), help="HLO opcodes, separated by commas")
    parser.add_argument("--dtypes", default=",".join(DTYPES), help="element types, separated by commas")
    parser.add_argument(
        "--samples", type=int, default=1_000_000, help="arguments; a hundredth where mpmath works"
    )
    parser.add_argument("--no-xla", action="store_true", help="only ours (jaxlib is not needed)")
    arguments = parser.parse_args()
    names, dtypes = arguments.functions.split(","), arguments.dtypes.split(",")
    unknown = [name for name in names if name not in NAMES] + [name for name in dtypes if name not in DTYPES]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    for cells in table(names, dtypes, arguments.samples, not arguments.no_xla):
        widths = (22, 5, 9, 7, 7, 34, 12, 7, 34, 7)
        print(" ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip(), flush=True)


if __name__ == "__main__":
    main()
