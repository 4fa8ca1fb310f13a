"""fft: discrete Fourier transforms of the last dimensions, in f64, rounded once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hloc.ir.instruction import Instruction
from hloc.reference.context import Context
from hloc.reference.values import narrow, widest

_TRANSFORMS = {"FFT": np.fft.fftn, "IFFT": np.fft.ifftn, "RFFT": np.fft.rfftn, "IRFFT": np.fft.irfftn}


def fft(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """Inverse transforms divide by the number of points; real ones have n / 2 + 1 of them."""
    lengths = instruction.get("fft_length")
    axes = tuple(range(operands[0].ndim - len(lengths), operands[0].ndim))
    if 0 in operands[0].shape or 0 in instruction.shape.dims:
        batch = operands[0].shape[: axes[0] if axes else None]
        return np.zeros((*batch, *instruction.shape.dims[len(batch) :]), instruction.shape.dtype.numpy)
    wide = widest(operands[0], instruction.operands[0].shape.dtype)
    return narrow(
        _TRANSFORMS[instruction.get("fft_type")](wide, s=lengths, axes=axes), instruction.shape.dtype
    )


TABLE: dict[str, Callable] = {"fft": fft}
