"""What Fourier transforms are made of wherever they run: radices, roots of unity, and the transforms of few values."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, isqrt, pi, prod, sin

import numpy as np

from hloc.codegen.llvm import Builder, Value, const
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction

_ODD = (3, 5, 7, 11, 13)
"""Odd radices."""

Split = tuple[Value, Value]
"""Real and imaginary parts, or addresses of them."""


def padded(size: int) -> int:
    """A size in bytes, rounded up to whole cache lines."""
    return -(-size // 64) * 64


def factors(length: int, even: Sequence[int] = (4, 2)) -> list[int] | None:
    """The radices of the passes for a length; None if it has a prime factor that none of them is.

    `even` are the powers of two that may be radices, the greatest first.
    """
    found = []
    for radix in (*even, *_ODD):
        while length % radix == 0:
            found.append(radix)
            length //= radix
    return found if length == 1 else None


def convolution_length(length: int) -> int:
    """The least length of the passes that holds a convolution of `length` points with a chirp."""
    wanted = 2 * length - 1
    while factors(wanted) is None:
        wanted += 1
    return wanted


def multiply(b: Builder, x: Split, y: Split) -> Split:
    """The product of two complex numbers."""
    real = b.fsub(b.fmul(x[0], y[0]), b.fmul(x[1], y[1]))
    return real, b.fadd(b.fmul(x[0], y[1]), b.fmul(x[1], y[0]))


def inverse(parts: Sequence[Value]) -> Split:
    """The parts exchanged: on both sides of a transform this makes it the inverse, times the length."""
    return parts[1], parts[0]


def butterfly(b: Builder, x: list[Split]) -> list[Split]:
    """The transform of a power of two or an odd number of values."""
    if len(x) > 4 and len(x) % 2 == 0:
        return _two_steps(b, x)

    def add(p: Split, q: Split) -> Split:
        return b.fadd(p[0], q[0]), b.fadd(p[1], q[1])

    def sub(p: Split, q: Split) -> Split:
        return b.fsub(p[0], q[0]), b.fsub(p[1], q[1])

    if len(x) == 2:
        return [add(*x), sub(*x)]
    if len(x) == 4:
        even, odd, low, high = add(x[0], x[2]), add(x[1], x[3]), sub(x[0], x[2]), sub(x[1], x[3])
        turned = high[1], b.fneg(high[0])
        return [add(even, odd), add(low, turned), sub(even, odd), sub(low, turned)]
    half = len(x) // 2
    sums = [add(x[j], x[-j]) for j in range(1, half + 1)]
    differences = [sub(x[j], x[-j]) for j in range(1, half + 1)]
    total = x[0]
    for value in sums:
        total = add(total, value)
    result = [total] + [x[0]] * (len(x) - 1)
    for k in range(1, half + 1):
        even, odd = x[0], None
        for j, (value, difference) in enumerate(zip(sums, differences, strict=True), 1):
            angle = 2 * pi * (j * k % len(x)) / len(x)
            c, s = const(value[0].type, cos(angle)), const(value[0].type, sin(angle))
            even = add(even, (b.fmul(value[0], c), b.fmul(value[1], c)))
            term = b.fmul(difference[1], s), b.fneg(b.fmul(difference[0], s))
            odd = term if odd is None else add(odd, term)
        result[k], result[-k] = add(even, odd), sub(even, odd)
    return result


def _two_steps(b: Builder, x: list[Split]) -> list[Split]:
    """The transform of a multiple of 4 values by those of every fourth ones, and then across these."""
    count = len(x) // 4
    rows = [butterfly(b, x[first::count]) for first in range(count)]
    result = list(x)
    for k in range(4):
        turned = [_turned(b, row[k], first * k, len(x)) for first, row in enumerate(rows)]
        result[k::4] = butterfly(b, turned)
    return result


def _turned(b: Builder, x: Split, number: int, length: int) -> Split:
    """x times exp(-2 pi i number / length)."""
    if number == 0:
        return x
    if 4 * number == length:
        return x[1], b.fneg(x[0])
    angle = -2 * pi * number / length
    return multiply(b, x, (const(x[0].type, cos(angle)), const(x[0].type, sin(angle))))


def _roots(numerators: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of -2 pi numerator / length."""
    angles = -2 * np.pi * (numerators % length) / length
    return np.cos(angles), np.sin(angles)


def root_tables(length: int) -> tuple[bytes, int]:
    """Doubles, and a shift: cos and sin of the multiples of 2**shift, then of the numbers below it."""
    shift = max(isqrt(length - 1).bit_length(), 1)
    coarse = _roots(np.arange(((length - 1) >> shift) + 1) << shift, length)
    fine = _roots(np.arange(1 << shift), length)
    table = np.concatenate([np.stack(part, axis=1).reshape(-1) for part in (coarse, fine)])
    return table.astype("<f8").tobytes(), shift


def groups_of(radices: Sequence[int]) -> list[int]:
    """Groups of each pass."""
    return [prod(radices[i + 1 :]) for i in range(len(radices))]


def pass_roots(dtype: DType, radices: Sequence[int]) -> bytes:
    """The roots of all passes: for k = 1 .. radix - 1 of each, a real part for each group, then the imaginary parts."""
    parts = []
    for radix, groups in zip(radices, groups_of(radices), strict=True):
        for k in range(1, radix):
            parts += _roots(np.arange(groups) * k, groups * radix)
    data = np.concatenate(parts).astype(dtype.numpy.newbyteorder("<")).tobytes() if parts else b""
    return data or bytes(8)


class Fft:
    """An fft: the `dimensions` to transform, in order and with their lengths; `dtype` of the real parts.

    `complex_shape` is that of all arrays but the real ones, which a transform begins or ends with: it has half of the
    last dimension. `fault` says why it is not supported, if it is not.
    """

    def __init__(self, instruction: Instruction):
        self.kind = instruction.attributes["fft_type"]
        self.lengths = tuple(instruction.attributes["fft_length"])
        operand, result = instruction.operands[0].shape, instruction.shape
        self.dtype = max((shape.dtype.real_part for shape in (operand, result)), key=lambda dtype: dtype.bits)
        self.complex_shape = operand if self.kind == "IRFFT" else result
        rank = len(self.complex_shape.dims)
        dimensions = list(range(rank - len(self.lengths), rank))
        if self.kind != "IRFFT":
            dimensions.reverse()
        self.dimensions = [(d, self.lengths[d - rank]) for d in dimensions]
        self.fault = ""
        if self.dtype.bits < 32:
            self.fault = f"fft of {operand.dtype} is not supported: only of f32, f64, c64 and c128"
        elif self.complex_shape.count == 0:
            self.fault = "fft of an empty array to one with elements is not supported"

    @property
    def is_inverse(self) -> bool:
        return self.kind in ("IFFT", "IRFFT")

    @property
    def between_bytes(self) -> int:
        """A complex array between the stages of an inverse real transform."""
        return padded(self.complex_shape.byte_size) if self.kind == "IRFFT" and len(self.lengths) > 1 else 0
