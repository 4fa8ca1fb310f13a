"""Literals as text: rows K and L05 to L07 of the language."""

from __future__ import annotations

import numpy as np
import pytest
from parsing import body, root

from hloc.errors import HloError
from hloc.ir.dtypes import BY_NAME
from hloc.ir.literals import Literal, bits_of


def literal(shape: str, text: str) -> Literal:
    return root(f"  ROOT c = {shape} constant({text})").get("literal")


def bits(shape: str, text: str) -> list[int]:
    value = literal(shape, text).array
    return bits_of(value).reshape(-1).view(f"u{value.dtype.itemsize}").tolist()


@pytest.mark.parametrize("shape, text, value", [
    ("f32[]", "1.", 1.0), ("f64[]", "1.5e-3", 0.0015), ("f32[]", "1e+2", 100.0), ("f32[]", "-.5", -0.5),
    ("s32[]", "-7", -7), ("pred[]", "true", True), ("pred[]", "0", False), ("pred[]", "7", True),
    ("f32[]", "-inf", -np.inf), ("c64[]", "(1, -inf)", complex(1, -np.inf)),
    ("u64[]", "18446744073709551615", 2**64 - 1), ("s64[]", "-9223372036854775808", -(2**63)),
    ("s4[]", "-8", -8), ("u2[3]", "{0, 1, 3}", [0, 1, 3]), ("bf16[]", "3.14", 3.140625),
    ("f32[2,3]", "{ { 1, 2, 3 }, { 4, 5, 6 } }", [[1, 2, 3], [4, 5, 6]]),
    ("f32[2,3]{0,1}", "{{1,2,3},{4,5,6}}", [[1, 2, 3], [4, 5, 6]]),
    ("f32[3]", "{/*c*/1,2, // x\n 3}", [1, 2, 3]), ("f32[3]", "{1 2, 3,}", [1, 2, 3]),
    ("f32[0]", "{}", []), ("f32[2,0]", "{ {}, {} }", [[], []]), ("f32[0,2]", "{  }", np.zeros((0, 2)).tolist()),
    ("c64[2]", "{(1, 2), (3, -4)}", [1 + 2j, 3 - 4j]),
])  # fmt: skip
def test_values(shape: str, text: str, value: object) -> None:
    assert literal(shape, text).array.tolist() == value


@pytest.mark.parametrize("shape, text, pattern", [
    ("f32[]", "-0", 0x80000000), ("f32[]", "-0.0", 0x80000000), ("f32[]", "0", 0),
    ("f32[]", "nan", 0x7FC00000), ("f32[]", "-nan", 0xFFC00000), ("f32[]", "nan(0x400001)", 0x7FC00001),
    ("f32[]", "-nan(0x1)", 0xFF800001), ("f64[]", "nan(0x1)", 0x7FF0000000000001), ("bf16[]", "nan(0x41)", 0x7FC1),
    ("f16[]", "-nan(0x3)", 0xFC03), ("f8e5m2[]", "nan(0x1)", 0x7D), ("f8e4m3[]", "nan(0x3)", 0x7B),
    ("f8e4m3fn[]", "-nan", 0xFF), ("f8e4m3fn[]", "448", 0x7E),
])  # fmt: skip
def test_bits(shape: str, text: str, pattern: int) -> None:
    assert bits(shape, text) == [pattern]


LONG = ["nan", "-nan", "nan(0x400001)", "-nan(0x1)", "inf", "-inf", "-0", "0", "1.5", "1e-45", "0.1", "16777217"]


@pytest.mark.parametrize("dtype", ["f32", "f64", "f16", "bf16"])
def test_long_arrays_read_like_their_elements(dtype: str) -> None:
    texts = [text.replace("400001", "1") for text in LONG]
    singly = [bits(f"{dtype}[]", text)[0] for text in texts if (dtype, text) != ("f16", "16777217")]
    texts = [text for text in texts if (dtype, text) != ("f16", "16777217")]
    assert bits(f"{dtype}[{20 * len(texts)}]", "{" + ", ".join(texts * 20) + "}") == singly * 20


@pytest.mark.parametrize("dtype", ["s8", "u8", "s64", "u64", "pred", "s4", "c64"])
def test_long_arrays_of_other_types(dtype: str) -> None:
    values = [str(n % 2) if dtype == "pred" else f"({n}, -{n})" if dtype == "c64" else str(n % 8) for n in range(120)]
    rows = ", ".join("{ " + ", ".join(values[40 * i : 40 * i + 40]) + " }" for i in range(3))
    got = literal(f"{dtype}[3,40]", f"{{ {rows} }}").array
    want = [complex(n, -n) if dtype == "c64" else n % 2 if dtype == "pred" else n % 8 for n in range(120)]
    assert got.dtype == BY_NAME[dtype].numpy
    assert got.reshape(-1).tolist() == want


def test_a_long_array_with_a_missing_comma_or_a_comment() -> None:
    numbers = [str(n) for n in range(100)]
    for text in (", ".join(numbers).replace("41, ", "41 "), ", ".join(numbers).replace("41, ", "41, /*,*/ ")):
        assert literal("s32[100]", "{" + text + "}").array.tolist() == list(range(100))


def test_tuples() -> None:
    parts = literal("(f32[2], (s32[], pred[]))", "({1,2}, (3, true))")
    assert [part.array.tolist() for part in (parts.value[0], *parts.value[1].value)] == [[1, 2], 3, True]
    assert literal("()", "()").value == ()


def test_elided_arrays_count_up_through_the_module() -> None:
    module = body(
        "  a = f32[3] constant({...})\n  b = s32[2] constant({...})\n  c = s8[6] constant({...})\n"
        "  d = pred[5] constant({...})\n  ROOT t = (f32[3], s32[2], s8[6], pred[5]) tuple(a, b, c, d)"
    )
    a, b, c, d = (operand.get("literal").array for operand in module.entry.root.operands)
    assert bits_of(a).tolist() == [0, 1, 2]
    assert b.tolist() == [3, 4]
    assert c.tolist() == [5, 0, 1, 0, 0, 0]  # a word, then bytes where XLA puts them
    assert d.tolist() == [False, False, False, False, False]
    again = body("  ROOT a = f32[3] constant({...})").entry.root
    assert bits_of(again.get("literal").array).tolist() == [0, 1, 2]


def test_a_literal_has_sizes_and_no_packing() -> None:
    assert root("  ROOT c = s4[<=2]{0:E(4)} constant({1, 2})").shape == root("  ROOT c = s4[2] constant({1, 2})").shape


@pytest.mark.parametrize("shape, text, message", [
    ("f32[]", ".5", "unexpected '.' in a literal"),
    ("f32[]", "0x10", "unexpected '0'"),
    ("f32[]", "1e40", "1e40 is out of range for f32"),
    ("f16[]", "65520", "out of range for f16"),
    ("f8e4m3fn[]", "465", "out of range for f8e4m3fn"),
    ("s4[]", "-9", "-9 is out of range for s4, which goes from -8 to 7"),
    ("u8[]", "-1", "out of range for u8"),
    ("s32[]", "1.5", "expected a value of s32, got 1.5"),
    ("s32[]", "true", "expected a value of s32, got true"),
    ("f32[]", "true", "expected a value of f32, got true"),
    ("u64[]", "18446744073709551616", "out of range for u64"),
    ("s32[]", "9" * 5000, "an integer of 5000 digits is out of range"),
    ("f32[]", "nan(0x0)", "a NaN payload lies between"),
    ("f32[]", "nan(0x800000)", "the NaN payload 0x800000 is out of range for f32"),
    ("f8e4m3fn[]", "nan(0x1)", "NaNs of f8e4m3fn have no payload"),
    ("c64[]", "1", "expected '(', a complex number"),
    ("c64[]", "(1, 1e40)", "1e40 is out of range for f32"),
    ("f32[2,3]", "{{1,2,3},{4,5}}", "expected 3 elements at level 2, got 2"),
    ("f32[2,3]", "{1,2,3,4,5,6}", "expected elements in 2 levels of braces"),
    ("f32[2,3]", "{{{1,2,3},{4,5,6}}}", "expected 2 levels of braces, got more"),
    ("f32[3]", "{1,2,3,4}", "expected 3 elements in the innermost braces, got more"),
    ("f32[3]", "{1,2}", "expected 3 elements at level 1, got 2"),
    ("f32[]", "{1}", "expected 0 levels of braces, got more"),
    ("f32[2,3]", "{{...},{...}}", "expected '...' alone in the outermost braces"),
    ("f32[100000,100000]", "{...}", "too large to fill in"),
    ("(f32[2], s32[])", "{...}", "expected '(', a tuple literal"),
    ("f32[?]", "{1}", "a constant has no unbounded dimensions"),
    ("token[]", "1", "a constant cannot have the shape"),
    ("f32[100]", "{" + ", ".join(["1"] * 99 + ["1e40"]) + "}", "1e40 is out of range for f32"),
    ("f32[100]", "{" + ", ".join(["1"] * 99) + "}", "expected 100 elements at level 1, got 99"),
    ("f32[100]", "{" + ", ".join(["1"] * 50 + [".5"] * 50) + "}", "unexpected '.' in a literal"),
    ("s8[100]", "{" + ", ".join(["1"] * 99 + ["128"]) + "}", "128 is out of range for s8"),
])  # fmt: skip
def test_wrong_literals(shape: str, text: str, message: str) -> None:
    with pytest.raises(HloError) as raised:
        literal(shape, text)
    assert message in raised.value.message
    assert raised.value.span.source.position(raised.value.span.start)[0] == 3
