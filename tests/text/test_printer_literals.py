"""Number formats and braces of literals."""

from __future__ import annotations

import numpy as np
import pytest

from hloc.ir.dtypes import ALL, BF16, C64, F16, F32, F64, PRED, S4, U64, DType
from hloc.ir.literals import Literal, bits_of
from hloc.text.parser import parse
from hloc.text.print_floats import float_texts
from hloc.text.printer import print_literal


def literal(values: object, dtype: DType) -> str:
    return print_literal(Literal.of(np.array(values), dtype))


def from_bits(bits: list[int], dtype: DType) -> str:
    array = np.array(bits, f"u{dtype.itemsize}").view(dtype.numpy)
    return print_literal(Literal.of(array, dtype))


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (3.1415927410125732, F32, "3.14159274"),
        (0.1, F32, "0.1"),
        (123456792, F32, "123456792"),
        (1e6, F32, "1e+06"),
        (999999, F32, "999999"),
        (1234567, F32, "1234567"),
        (0.0001, F32, "0.0001"),
        (0.00001, F32, "1e-05"),
        (1e-45, F32, "1.4013e-45"),
        (3.4028234663852886e38, F32, "3.40282347e+38"),
        (-0.0, F32, "-0"),
        (3.141592653589793, F64, "3.1415926535897931"),
        (1e16, F64, "1e+16"),
        (1.2345678901234568e17, F64, "1.2345678901234568e+17"),
        (5e-324, F64, "4.94065645841247e-324"),
        (0.1, BF16, "0.1001"),
        (123456, BF16, "1.234e+05"),
        (0.1, F16, "0.099976"),
        (True, PRED, "true"),
        (-8, S4, "-8"),
        (2**64 - 1, U64, "18446744073709551615"),
        (1 - 2j, C64, "(1, -2)"),
    ],
)
def test_scalars(value: object, dtype: DType, text: str) -> None:
    assert literal(value, dtype) == text


def test_digits_of_narrow_floats() -> None:
    texts = {t.name: literal(0.1, t) for t in ALL if t.is_float and t.bits <= 8 and t.name != "f4e2m1fn"}
    assert texts == {
        "f8e5m2": "0.094",
        "f8e4m3": "0.102",
        "f8e4m3fn": "0.102",
        "f8e4m3b11fnuz": "0.102",
        "f8e3m4": "0.0938",
        "f8e5m2fnuz": "0.094",
        "f8e4m3fnuz": "0.102",
        "f8e8m0fnu": "0.12",
        "f6e2m3fn": "0.125",
        "f6e3m2fn": "0.12",
    }


@pytest.mark.parametrize(
    ("bits", "dtype", "text"),
    [
        (
            [0x7FC00000, 0xFFC00000, 0x7FC00001, 0xFF800001, 0x7F800000, 0xFF800000],
            F32,
            "{nan, -nan, nan(0x400001), -nan(0x1), inf, -inf}",
        ),
        ([0x7FF8000000000000, 0x7FF8000000000001], F64, "{nan, nan(0x8000000000001)}"),
        ([0x7E00, 0x7E01, 0xFC01], F16, "{nan, nan(0x201), -nan(0x1)}"),
        ([0x7FC0, 0xFFC0, 0x7FC1], BF16, "{nan, -nan, nan(0x41)}"),
    ],
)
def test_nans_show_sign_and_payload(bits: list[int], dtype: DType, text: str) -> None:
    assert from_bits(bits, dtype) == text


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((0,), "{}"),
        ((1,), "{0}"),
        ((3,), "{0, 1, 2}"),
        ((1, 1), "{ {0} }"),
        ((2, 1), "{ {0}, {1} }"),
        ((2, 2), "{ { 0, 1 }, { 2, 3 } }"),
        ((0, 2), "{  }"),
        ((2, 0), "{ {}, {} }"),
        ((2, 0, 3), "{ {  }, {  } }"),
        ((2, 1, 2), "{ { { 0, 1 } }, { { 2, 3 } } }"),
        ((1, 2, 1, 2), "{ { /*i0=0*/ { /*i1=0*/ { 0, 1 } }, { /*i1=1*/ { 2, 3 } } } }"),
        ((2, 0, 2, 0), "{ { /*i0=0*/ }, { /*i0=1*/ } }"),
    ],
)
def test_braces(shape: tuple[int, ...], text: str) -> None:
    assert literal(np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape), F32) == text


def test_predicates_are_digits_inside_braces() -> None:
    assert literal([True, False], PRED) == "{1, 0}"


def test_tuples() -> None:
    parts = [Literal.of(np.float32([1, 2])), Literal.tuple_of([]), Literal.of(np.int32(3))]
    assert print_literal(Literal.tuple_of(parts)) == "( {1, 2}, (  ), 3 )"


def c_text(value: float, few: int, many: int, dtype: type) -> str:
    """Few digits if C's strtof or strtod gives the value back, else many."""
    short = f"{value:.{few}g}"
    return short if dtype(float(short)) == value or value != value else f"{value:.{many}g}"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("dtype", "few", "many"), [(np.float32, 6, 9), (np.float64, 15, 17)])
def test_whole_arrays_as_one_by_one(dtype: type, few: int, many: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    unsigned = np.uint32 if dtype is np.float32 else np.uint64
    widest = 37 if dtype is np.float32 else 307
    arrays = [
        random.integers(0, np.iinfo(unsigned).max, 5000, unsigned, endpoint=True).view(dtype),
        random.standard_normal(5000).astype(dtype),
        np.round(random.standard_normal(5000) * 10.0 ** random.integers(-6, 7, 5000), 3).astype(dtype),
        (random.standard_normal(5000) * 10.0 ** random.integers(-widest, widest, 5000)).astype(dtype),
        np.arange(-2000, 3000).astype(dtype),
        np.ldexp(1.0, random.integers(-120, 120, 2000)).astype(dtype),
        random.integers(1, 2000, 2000).astype(unsigned).view(dtype),
        np.array([0.0, -0.0, np.inf, -np.inf, np.nan] * 40, dtype),
    ]
    for array in arrays:
        with np.errstate(invalid="ignore", over="ignore"):
            expected = [c_text(value, few, many, dtype) for value in array.tolist()]
        assert float_texts(array) == expected


def test_ties_and_powers_of_two() -> None:
    values = [2.0**-k for k in range(1, 40)] + [1 + 2.0**-k for k in range(1, 24)] + [0.5, 2.5, 8388608.5]
    array = np.array(values * 2, np.float32)
    assert float_texts(array) == [c_text(value, 6, 9, np.float32) for value in array.tolist()]


@pytest.mark.parametrize("dtype", [t for t in ALL if t.is_float and t.bits <= 16], ids=str)
def test_every_narrow_float_reads_back(dtype: DType) -> None:
    bits = np.arange(1 << min(dtype.bits, 16)).astype(f"u{dtype.itemsize}")
    array = bits.view(dtype.numpy)
    text = print_literal(Literal.of(array, dtype))
    module = parse(f"ENTRY e {{\n  ROOT c = {dtype.name}[{array.size}] constant({text})\n}}\n")
    read = bits_of(module.entry.root.attributes["literal"].array)
    differ = np.flatnonzero(read != bits_of(array))
    assert not differ.size


@pytest.mark.parametrize("dtype", [F32, F64, C64], ids=str)
def test_random_bits_read_back(dtype: DType) -> None:
    random = np.random.default_rng(1)
    array = np.frombuffer(random.bytes(2000 * dtype.itemsize), dtype.numpy)
    parts = array.view(dtype.real_part.numpy)
    array = array[~np.isnan(parts).reshape(len(array), -1).any(axis=1)]
    text = print_literal(Literal.of(array, dtype))
    module = parse(f"ENTRY e {{\n  ROOT c = {dtype.name}[{array.size}] constant({text})\n}}\n")
    assert module.entry.root.attributes["literal"].array.tobytes() == array.tobytes()
