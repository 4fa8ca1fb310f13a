"""Random element types, dimensions and arrays: small, with the corners of each type now and then."""

from __future__ import annotations

from math import prod

import ml_dtypes
import numpy as np

from hloc.ir import dtypes
from hloc.ir.dtypes import DType

WIDE_FLOATS = (dtypes.F16, dtypes.BF16, dtypes.F32, dtypes.F64)
NARROW_FLOATS = tuple(dtype for dtype in dtypes.ALL if dtype.is_float and dtype.bits <= 8)
FLOATS = WIDE_FLOATS + NARROW_FLOATS
COMPLEXES = (dtypes.C64, dtypes.C128)
SIGNED = (dtypes.S8, dtypes.S16, dtypes.S32, dtypes.S64, dtypes.S4, dtypes.S2, dtypes.S1)
UNSIGNED = (dtypes.U8, dtypes.U16, dtypes.U32, dtypes.U64, dtypes.U4, dtypes.U2, dtypes.U1)
INTEGERS = SIGNED + UNSIGNED
PRED = (dtypes.PRED,)
NUMBERS = INTEGERS + FLOATS + COMPLEXES
ANY = NUMBERS + PRED
INDICES = (dtypes.S32, dtypes.S32, dtypes.S64, dtypes.U32, dtypes.S8, dtypes.U8, dtypes.S16, dtypes.U64)

_COMMON = {
    "f32": 12, "s32": 8, "pred": 4, "f64": 4, "bf16": 4, "f16": 3, "u32": 4, "s64": 3, "u8": 3, "s8": 3,
    "c64": 3,
    "u64": 2, "s16": 2, "u16": 2, "c128": 2, "s4": 1.5, "u4": 1.5,
}  # fmt: skip
_SIZES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 33, 70)
_SIZE_WEIGHTS = (1, 7, 9, 9, 8, 6, 3, 3, 3, 2, 2, 1, 1, 0.5)
_RANK_WEIGHTS = (3, 7, 9, 6, 3, 1)
_MOST_ELEMENTS = 700


class Draw:
    """Random choices of one module; the same seed gives the same choices."""

    def __init__(self, seed: int):
        self.numpy = np.random.default_rng(seed)

    def chance(self, probability: float) -> bool:
        return bool(self.numpy.random() < probability)

    def integer(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return int(self.numpy.integers(low, high, endpoint=True))

    def choice(self, options, weights=None):
        options = list(options)
        if weights is None:
            return options[int(self.numpy.integers(len(options)))]
        shares = np.cumsum(np.asarray(list(weights), float))
        return options[int(np.searchsorted(shares, self.numpy.random() * shares[-1], side="right"))]

    def sample(self, options, count: int) -> list:
        """Some of the options, in random order."""
        options = list(options)
        return [options[i] for i in self.numpy.permutation(len(options))[:count]]

    def shuffled(self, options) -> list:
        return self.sample(options, len(list(options)))

    def dtype(self, allowed=ANY) -> DType:
        return self.choice(allowed, [_COMMON.get(dtype.name, 0.4) for dtype in allowed])

    def dims(self, least: int = 0, most: int = 5, empty: bool = True) -> tuple[int, ...]:
        """Dimensions of a rank between least and most."""
        weights = [w if least <= rank <= most else 0 for rank, w in enumerate(_RANK_WEIGHTS)]
        rank = self.choice(range(6), weights)
        sizes = [self.size(empty) for _ in range(rank)]
        while prod(sizes) > _MOST_ELEMENTS:
            sizes[int(np.argmax(sizes))] = self.choice((1, 2, 3))
        return tuple(sizes)

    def size(self, empty: bool = True) -> int:
        size = self.choice(_SIZES, _SIZE_WEIGHTS)
        return size if size or empty else 1

    def array(self, dtype: DType, dims: tuple[int, ...], profile: str = "") -> np.ndarray:
        """Values of the type; `profile` is one of PROFILES, drawn if it is not given."""
        profile = profile or self.choice(PROFILES, (6, 6, 2, 2))
        if dtype is dtypes.PRED:
            return self.numpy.integers(0, 2, dims).astype(bool)
        if dtype.is_integer:
            return self._integers(dtype, dims, profile)
        if dtype.is_complex:
            parts = [
                self._floats(dtype.real_part, dims, "tame" if profile == "special" else profile) for _ in "ri"
            ]
            return np.asarray(parts[0] + 1j * parts[1]).astype(dtype.numpy)
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(self._floats(dtype, dims, profile)).astype(dtype.numpy)

    def _integers(self, dtype: DType, dims: tuple[int, ...], profile: str) -> np.ndarray:
        low, high = limits(dtype)
        if profile in ("whole", "tame"):
            values = self.numpy.integers(max(low, -9), min(high, 9), dims, endpoint=True)
            return np.asarray(values).astype(dtype.numpy)
        kind = np.int64 if dtype.is_signed else np.uint64
        values = np.asarray(self.numpy.integers(low, high, dims, kind, endpoint=True))
        if profile == "special":
            corners = np.array([low, low + 1, high, high - 1, 0, min(1, high)], kind)
            values = np.where(self.numpy.random(dims) < 0.5, self.numpy.choice(corners, dims), values)
        return values.astype(dtype.numpy)

    def _floats(self, dtype: DType, dims: tuple[int, ...], profile: str) -> np.ndarray:
        """Only "special" has NaNs and infinities in it."""
        if profile == "whole":
            return _held(dtype, np.asarray(self.numpy.integers(-6, 6, dims, endpoint=True), float))
        values = np.asarray(self.numpy.standard_normal(dims))
        if profile == "wide":
            values = values * 10.0 ** self.numpy.integers(-4, 4, dims)
        if profile == "special":
            corners = self.numpy.choice(corners_of(dtype), dims)
            return np.where(self.numpy.random(dims) < 0.4, corners, values)
        return _held(dtype, values)


def _held(dtype: DType, values: np.ndarray) -> np.ndarray:
    """What the type holds of them: some would be NaN beyond their greatest, or for being negative."""
    info = ml_dtypes.finfo(dtype.numpy)
    least, greatest = float(info.min), float(info.max)
    return np.clip(np.abs(values) if least > 0 else values, least, greatest)


PROFILES = ("whole", "tame", "wide", "special")


def limits(dtype: DType) -> tuple[int, int]:
    """The least and the greatest value of an integer type."""
    if dtype.is_signed:
        return -(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1
    return 0, (1 << dtype.bits) - 1


def corners_of(dtype: DType) -> np.ndarray:
    """NaN, infinities, zeros, the least and greatest magnitudes, denormals, and where roundings turn."""
    info = ml_dtypes.finfo(dtype.numpy)
    tiny, low = float(info.smallest_normal), float(info.smallest_subnormal)
    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5]
    return np.array([*special, float(info.max), -float(info.max), tiny, -tiny, low, 3e9, -3e9, 255.9, -1.5])
