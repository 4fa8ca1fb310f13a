"""Types, values and constants of LLVM IR as text.

A type is its LLVM spelling (`i32`, `float`, `<8 x float>`, `ptr`); a value is a type and the text that
names it as an operand. Nothing here knows of functions or blocks.
"""

from __future__ import annotations

import math
import struct
from functools import cache

FLOAT_BITS = {"half": 16, "bfloat": 16, "float": 32, "double": 64}


class Value:
    """An operand: its LLVM type and the text that names it. Never changed once made."""

    __slots__ = ("text", "type")

    def __init__(self, type: str, text: str):
        self.type = type
        self.text = text

    def __repr__(self) -> str:
        return f"{self.type} {self.text}"

    def settled(self) -> Value:
        """The value as computed at the builder's place: what a phi takes, whose text is written later."""
        return self


class Constant(Value):
    """A number known now: what the builder folds. `number` is the value (of every lane, for a vector).

    Integers are kept in the signed range of their width (so i8 255 is -1), i1 as False or True.
    """

    __slots__ = ("number",)

    def __init__(self, type: str, text: str, number):
        self.type = type
        self.text = text
        self.number = number


@cache
def scalar_type(type: str) -> str:
    """The element type of a vector type, or the type itself."""
    return type[type.index(" x ") + 3 : -1] if type[0] == "<" else type


@cache
def lane_count(type: str) -> int:
    """The number of lanes of a vector type; 0 for a scalar type."""
    return int(type[1 : type.index(" x ")]) if type[0] == "<" else 0


@cache
def with_scalar(type: str, scalar: str) -> str:
    """`scalar` in the shape of `type`: a vector of as many lanes, or the scalar type itself."""
    lanes = lane_count(type)
    return f"<{lanes} x {scalar}>" if lanes else scalar


def vector_type(scalar: str, lanes: int) -> str:
    """A vector of `lanes` elements; the scalar type itself for 0 lanes."""
    return f"<{lanes} x {scalar}>" if lanes else scalar


@cache
def bit_width(type: str) -> int:
    """Bits of one element of an integer or float type. Pointers count as 64."""
    scalar = scalar_type(type)
    if scalar[0] == "i":
        return int(scalar[1:])
    return 64 if scalar == "ptr" else FLOAT_BITS[scalar]


@cache
def is_float(type: str) -> bool:
    """Whether the elements of a type are floating point."""
    return scalar_type(type) in FLOAT_BITS


@cache
def mangled(type: str) -> str:
    """A type's part of an overloaded intrinsic's name: `f32`, `v8f32`, `i64`, `p0`."""
    lanes, scalar = lane_count(type), scalar_type(type)
    names = {"half": "f16", "bfloat": "bf16", "float": "f32", "double": "f64", "ptr": "p0"}
    return (f"v{lanes}" if lanes else "") + names.get(scalar, scalar)


def _splat(type: str, scalar: str, text: str) -> str:
    return text if type[0] != "<" else f"splat ({scalar} {text})"


def wrap_integer(number: int, bits: int) -> int:
    """The signed integer of `bits` bits that is congruent to `number`."""
    number &= (1 << bits) - 1
    return number - (1 << bits) if number >> (bits - 1) else number


@cache
def integer(type: str, number: int) -> Constant:
    """The integer constant `number`, wrapped to the width of `type`, in every lane."""
    scalar = scalar_type(type)
    if scalar == "i1":
        return Constant(type, _splat(type, scalar, "true" if number & 1 else "false"), bool(number & 1))
    number = wrap_integer(number, int(scalar[1:]))
    return Constant(type, _splat(type, scalar, str(number)), number)


def _double_bits_of_float_bits(bits: int) -> int:
    """The f64 bits with the value of f32 bits; of a NaN, the payload is kept in the leading bits."""
    exponent, fraction = (bits >> 23) & 0xFF, bits & 0x7FFFFF
    if exponent == 0xFF and fraction:
        return (bits >> 31) << 63 | 0x7FF << 52 | fraction << 29
    return struct.unpack("<Q", struct.pack("<d", struct.unpack("<f", struct.pack("<I", bits))[0]))[0]


@cache
def float_from_bits(type: str, bits: int) -> Constant:
    """The float constant whose IEEE encoding is `bits`, in every lane; NaN payloads are kept."""
    scalar = scalar_type(type)
    if scalar == "double":
        text, number = f"0x{bits:016X}", struct.unpack("<d", struct.pack("<Q", bits))[0]
    elif scalar == "float":
        wide = _double_bits_of_float_bits(bits)
        text, number = f"0x{wide:016X}", struct.unpack("<d", struct.pack("<Q", wide))[0]
    elif scalar == "half":
        text, number = f"0xH{bits:04X}", struct.unpack("<e", struct.pack("<H", bits))[0]
    else:
        text, number = f"0xR{bits:04X}", struct.unpack("<f", struct.pack("<I", bits << 16))[0]
    return Constant(type, _splat(type, scalar, text), number)


def _bfloat_bits(number: float) -> int:
    """bf16 bits of a number that bf16 can hold."""
    bits = struct.unpack("<I", struct.pack("<f", number))[0]
    if bits & 0xFFFF:
        raise ValueError(f"{number!r} is not a bfloat")
    return bits >> 16


def const(type: str, number) -> Constant:
    """The constant `number` of an integer, float or pointer type, in every lane of a vector type.

    A float is rounded to nearest even; OverflowError if it is finite and out of the type's range. The
    only pointer constant is 0, the null pointer. Bit patterns go through `float_from_bits`.
    """
    scalar = scalar_type(type)
    if scalar[0] == "i":
        return integer(type, int(number))
    if scalar == "ptr":
        if number != 0:
            raise ValueError(f"no constant {number!r} of type {type}")
        return Constant(type, "null" if type == "ptr" else "zeroinitializer", 0)
    number = float(number)
    return _float_constant(type, scalar, number, math.copysign(1.0, number))


@cache
def _float_constant(type: str, scalar: str, number: float, sign: float) -> Constant:
    """`sign` keeps the two zeros apart, which are equal keys."""
    if scalar == "bfloat":
        return float_from_bits(type, _bfloat_bits(number))
    packed = struct.pack({"half": "<e", "float": "<f", "double": "<d"}[scalar], number)
    return float_from_bits(type, int.from_bytes(packed, "little"))


def poison(type: str) -> Value:
    """A value that no result may depend on, such as the vector that lanes are inserted into."""
    return Value(type, "poison")


def zero(type: str) -> Value:
    """All bits zero, of any type: arrays and structures too."""
    if type[0] in "[{" or type == "void":
        return Value(type, "zeroinitializer")
    return const(type, 0)
