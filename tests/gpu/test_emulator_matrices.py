"""`ldmatrix` and `mma.sync` on the emulator, with fragments as the PTX ISA manual lays them out.

The manual's sentences about each shape are written out here one by one; the emulator has one rule for all of them.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
from emulated_kernels import Thread, i64, run

from hloc.errors import HloError

Place = Callable[[int, int, int], tuple[int, int]]
"""(group, thread in the group, number of the element) -> (row, column)."""

A: dict[str, Place] = {
    "16n8k8 16": lambda g, t, i: (g if i < 2 else g + 8, 2 * t + (i & 1)),
    "16n8k16 16": lambda g, t, i: (g if i < 2 or 4 <= i < 6 else g + 8, 2 * t + (i & 1) + (8 if i >= 4 else 0)),
    "16n8k4 32": lambda g, t, i: (g if i == 0 else g + 8, t),
    "16n8k8 32": lambda g, t, i: (g if i in (0, 2) else g + 8, t if i < 2 else t + 4),
    "8n8k4 64": lambda g, t, i: (g, t),
    "16n8k4 64": lambda g, t, i: (g if i == 0 else g + 8, t),
    "16n8k8 64": lambda g, t, i: (g if i in (0, 2) else g + 8, t if i < 2 else t + 4),
    "16n8k16 64": lambda g, t, i: (g if i % 2 == 0 else g + 8, i * 2 + t if i % 2 == 0 else i * 2 - 2 + t),
    "8n8k16 8": lambda g, t, i: (g, 4 * t + i),
    "16n8k16 8": lambda g, t, i: (g if i < 4 else g + 8, 4 * t + (i & 3)),
    "16n8k32 8": lambda g, t, i: (g if i < 4 or 8 <= i < 12 else g + 8, 4 * t + (i & 3) + (0 if i < 8 else 16)),
    "8n8k32 4": lambda g, t, i: (g, 8 * t + i),
    "16n8k32 4": lambda g, t, i: (g if i < 8 else g + 8, 8 * t + (i & 7)),
    "16n8k64 4": lambda g, t, i: (g if i < 8 or 16 <= i < 24 else g + 8, 8 * t + (i & 7) + (0 if i < 16 else 32)),
}
B: dict[str, Place] = {
    "16n8k8 16": lambda g, t, i: (2 * t + i, g),
    "16n8k16 16": lambda g, t, i: (2 * t + (i & 1) + (0 if i < 2 else 8), g),
    "16n8k4 32": lambda g, t, i: (t, g),
    "16n8k8 32": lambda g, t, i: (t if i == 0 else t + 4, g),
    "8n8k4 64": lambda g, t, i: (t, g),
    "16n8k4 64": lambda g, t, i: (t, g),
    "16n8k8 64": lambda g, t, i: (t if i == 0 else t + 4, g),
    "16n8k16 64": lambda g, t, i: (t + 4 * i, g),
    "8n8k16 8": lambda g, t, i: (4 * t + i, g),
    "16n8k16 8": lambda g, t, i: (4 * t + i, g),
    "16n8k32 8": lambda g, t, i: (4 * t + (i & 3) + (0 if i < 4 else 16), g),
    "8n8k32 4": lambda g, t, i: (8 * t + i, g),
    "16n8k32 4": lambda g, t, i: (8 * t + i, g),
    "16n8k64 4": lambda g, t, i: (8 * t + (i & 7) + (0 if i < 8 else 32), g),
}
TF32 = "tf32"
FORMATS = {
    "f16": (16, np.float16), "bf16": (16, ml_dtypes.bfloat16), TF32: (32, np.float32), "f64": (64, np.float64),
    "s8": (8, np.int8), "u8": (8, np.uint8), "s4": (4, np.int8), "u4": (4, np.uint8),
    "e4m3": (8, ml_dtypes.float8_e4m3fn), "e5m2": (8, ml_dtypes.float8_e5m2),
}  # fmt: skip

SUMS = {
    "f16": ("i32", np.float16), "f32": ("float", np.float32), "f64": ("double", np.float64), "s32": ("i32", np.int32),
}  # fmt: skip

CASES = [
    ("m16n8k8", "f32.f16.f16.f32"), ("m16n8k16", "f32.f16.f16.f32"), ("m16n8k16", "f16.f16.f16.f16"),
    ("m16n8k8", "f32.bf16.bf16.f32"), ("m16n8k16", "f32.bf16.bf16.f32"),
    ("m16n8k4", "f32.tf32.tf32.f32"), ("m16n8k8", "f32.tf32.tf32.f32"),
    ("m8n8k4", "f64.f64.f64.f64"), ("m16n8k4", "f64.f64.f64.f64"), ("m16n8k8", "f64.f64.f64.f64"),
    ("m16n8k16", "f64.f64.f64.f64"),
    ("m8n8k16", "s32.s8.s8.s32"), ("m16n8k16", "s32.u8.s8.s32"), ("m16n8k32", "s32.s8.u8.s32"),
    ("m8n8k32", "s32.s4.s4.s32"), ("m16n8k32", "s32.u4.s4.s32"), ("m16n8k64", "s32.s4.u4.s32"),
    ("m16n8k32", "f32.e4m3.e5m2.f32"), ("m16n8k16", "f32.e5m2.e4m3.f32"),
]  # fmt: skip


def random_matrix(rng: np.random.Generator, format: str, shape: tuple[int, int]) -> np.ndarray:
    bits, dtype = FORMATS[format]
    if format[0] in "su":
        low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if format[0] == "s" else (0, 1 << bits)
        return rng.integers(low, high, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def fragments(matrix: np.ndarray, format: str, place: Place) -> np.ndarray:
    """The registers of 32 lanes that hold a matrix: u32, or f64."""
    bits = FORMATS[format][0]
    count = matrix.size // 32
    found = [[matrix[place(lane >> 2, lane & 3, i)] for i in range(count)] for lane in range(32)]
    elements = np.array(found, matrix.dtype)
    if bits == 4:
        low = elements.view(np.uint8) & 15
        return (low[:, ::2] | low[:, 1::2] << 4).copy().view(np.uint32)
    return elements if bits == 64 else elements.view(np.uint32)


def sums_of(lanes: np.ndarray, rows: int, dtype: type) -> np.ndarray:
    """The matrix that c or d of 32 lanes are: c0, c1 in the first eight rows, c2, c3 in the others."""
    values = lanes.view(dtype).reshape(32, -1)
    matrix = np.zeros((rows, 8), dtype)
    for lane in range(32):
        for i in range(values.shape[1]):
            matrix[(lane >> 2) + (8 if i >= 2 else 0), 2 * (lane & 3) + (i & 1)] = values[lane, i]
    return matrix


@pytest.mark.parametrize("shape, types", CASES, ids=lambda text: text)
def test_products_of_matrices(shape: str, types: str) -> None:
    warps = 2
    d_type, a_type, b_type, c_type = types.split(".")
    rows, depth = (int(n) for n in shape[1:].split("n8k"))
    rng = np.random.default_rng(7)
    key = f"{shape[1:]} {FORMATS[a_type][0]}"
    sum_type, sum_dtype = SUMS[c_type]
    a, b = random_matrix(rng, a_type, (rows, depth)), random_matrix(rng, b_type, (depth, 8))
    packed_a, packed_b = fragments(a, a_type, A[key]), fragments(b, b_type, B[key])
    c = (rng.standard_normal((32 * warps, rows // 4)) * 4).astype(sum_dtype)
    register = "double" if a_type == "f64" else "i32"
    counts = packed_a.shape[1], packed_b.shape[1], c.nbytes // len(c) // (8 if a_type == "f64" else 4)
    kinds = register, register, sum_type

    def write(t: Thread) -> None:
        lane = t.b.and_(t.index(), i64(31))
        places = [
            [t.b.gep(kind, t.args[n], t.b.add(t.b.mul(of, i64(count)), i64(i))) for i in range(count)]
            for n, (kind, count, of) in enumerate(zip(kinds, counts, (lane, lane, t.index()), strict=True))
        ]
        loaded = [[t.b.load(kind, place) for place in some] for kind, some in zip(kinds, places, strict=True)]
        for place, value in zip(places[2], t.gpu.mma(shape, types, *loaded), strict=True):
            t.b.store(value, place)

    d = c.copy()
    run(write, packed_a, packed_b, d, block=32 * warps)
    if a_type == TF32:
        a, b = ((x.view(np.uint32) & 0xFFFFE000).view(np.float32) for x in (a, b))
    wide = np.int64 if c_type == "s32" else np.float64
    tolerance = {"f16": 1e-2, "f32": 1e-5, "f64": 1e-14, "s32": 0}[c_type]
    for warp in range(warps):
        lanes = slice(32 * warp, 32 * warp + 32)
        expected = sums_of(c[lanes], rows, sum_dtype).astype(wide) + a.astype(wide) @ b.astype(wide)
        found = sums_of(d[lanes], rows, sum_dtype).astype(wide)
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * 8)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_loads_of_matrices(count: int, transposed: bool) -> None:
    """Rows are 48 bytes apart, and the matrices in reverse order."""
    stride = 24

    def write(t: Thread) -> None:
        b, thread = t.b, t.index()
        with b.for_loop(i64(0), i64(8)) as i:
            from_row = b.load("i16", t.at("i16", 0, b.add(b.mul(thread, i64(8)), i)))
            b.store(from_row, t.room("i16", b.add(b.mul(thread, i64(stride)), i)))
        t.gpu.barrier()
        matrix = b.sub(i64(3), b.lshr(thread, i64(3)))
        row = b.add(b.mul(matrix, i64(8)), b.and_(thread, i64(7)))
        loaded = t.gpu.load_matrices(t.room("i16", b.mul(row, i64(stride))), count, transposed)
        for number, value in enumerate(loaded):
            b.store(value, t.at("i32", 1, b.add(thread, i64(32 * number))))

    x = np.arange(32 * 8, dtype=np.int16)
    out = np.zeros((count, 32), np.int32)
    run(write, x, out, shared=32 * stride * 2)
    for number in range(count):
        matrix = x.reshape(4, 8, 8)[3 - number]
        expected = (matrix.T if transposed else matrix).reshape(32, 2)
        np.testing.assert_array_equal(out[number].view(np.int16).reshape(32, 2), expected)


def test_products_that_no_machine_has_are_refused() -> None:
    for shape, types in (("m16n8k9", "f32.f16.f16.f32"), ("m16n8k16", "f32.f16.s8.f32"), ("m8n8k4", "f32.f16.f16.f32")):
        with pytest.raises(HloError, match="no mma"):
            run(lambda t, shape=shape, types=types: t.gpu.mma(shape, types, [], [], []))
