"""Elements of literals: the text of one number, to its value or to a message that says what is wrong."""

from __future__ import annotations

import re

import numpy as np

from hloc.ir.dtypes import PRED, U64, DType


def int_element(found: re.Match[str], dtype: DType) -> object:
    """The value of an element of pred or an integer type; a message if it has none."""
    digits = found["int"]
    if dtype is PRED and found["word"] in ("true", "false"):
        return found["word"] == "true"
    if digits is None:
        return f"expected a value of {dtype.name}, got {found[0]}"
    if len(digits) > 25:
        return f"an integer of {len(digits)} digits is out of range for {dtype.name}"
    value = int(digits)
    if dtype is PRED:
        return value != 0
    if dtype is U64 and -(2**63) <= value < 0:
        return value + 2**64  # XLA reads the 64 bits of either kind of integer
    low, high = int_range(dtype)
    if not low <= value <= high:
        return f"{value} is out of range for {dtype.name}, which goes from {low} to {high}"
    return value


def int_range(dtype: DType) -> tuple[int, int]:
    return (-(2 ** (dtype.bits - 1)), 2 ** (dtype.bits - 1) - 1) if dtype.is_signed else (0, 2**dtype.bits - 1)


def float_element(found: re.Match[str], dtype: DType) -> object:
    """The value of an element of a float type, as a NumPy scalar; a message if it has none."""
    if found["nan"]:
        return nan_value(found["nan"][0] == "-", found["payload"], dtype)
    if found["word"] in ("true", "false"):
        return f"expected a value of {dtype.name}, got {found[0]}"
    exact = np.float64(found[0])
    with np.errstate(all="ignore"):
        value = exact.astype(dtype.numpy)
    if found["word"] is None and not np.isfinite(value.astype(np.float64)):
        return f"{found[0][:40]} is out of range for {dtype.name}"
    return value


def nan_value(negative: bool, payload: str | None, dtype: DType) -> object:
    if payload is None:
        return np.float64("-nan" if negative else "nan").astype(dtype.numpy)
    bits = int(payload, 16) if len(payload) <= 16 else -1
    if not 0 < bits < 2**52:
        return f"a NaN payload lies between 0x1 and {2**52 - 1:#x}"
    if not _has_payload(dtype):
        return f"NaNs of {dtype.name} have no payload"
    if bits == 2**51:
        bits = 2 ** (dtype.mantissa_bits - 1)
    if bits >= 2**dtype.mantissa_bits:
        return f"the NaN payload {bits:#x} is out of range for {dtype.name}"
    whole = (negative << (dtype.bits - 1)) | ((2**dtype.exponent_bits - 1) << dtype.mantissa_bits) | bits
    return np.array(whole, f"u{dtype.bits // 8}").view(dtype.numpy)[()]


def _has_payload(dtype: DType) -> bool:
    """Whether all of the exponent being ones means infinity and NaN, as in IEEE formats."""
    return dtype.bits >= 16 or dtype.name in ("f8e5m2", "f8e4m3", "f8e3m4")
