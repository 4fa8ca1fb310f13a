"""Integer and float instructions, comparisons, conversions and vector lanes.

Integers fold when both operands are known, and where one makes the result plain (x + 0, x * 1, x & 0 ...),
so that index arithmetic stays short. Floats are never folded: LLVM does that, by its own exact rules.
"""

from __future__ import annotations

from .core import Core
from .values import (
    Constant,
    Value,
    bit_width,
    const,
    integer,
    is_float,
    lane_count,
    mangled,
    poison,
    scalar_type,
    vector_type,
    with_scalar,
)

_SIGNED = {"<": "slt", "<=": "sle", ">": "sgt", ">=": "sge", "==": "eq", "!=": "ne"}
_UNSIGNED = {"<": "ult", "<=": "ule", ">": "ugt", ">=": "uge", "==": "eq", "!=": "ne"}
_ORDERED = {"<": "olt", "<=": "ole", ">": "ogt", ">=": "oge", "==": "oeq", "!=": "one", "ord": "ord"}
_UNORDERED = {"<": "ult", "<=": "ule", ">": "ugt", ">=": "uge", "==": "ueq", "!=": "une", "uno": "uno"}
_COMPARE = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


def _unsigned(value: Constant) -> int:
    return int(value.number) & ((1 << bit_width(value.type)) - 1)


class Arithmetic(Core):
    """Instructions whose result depends on their operands alone."""

    # Integers

    def add(self, a: Value, b: Value, flags: str = "") -> Value:
        """a + b, wrapping; `flags` are LLVM's, each with a blank in front (`" nsw"`)."""
        if a.__class__ is Constant:
            a, b = b, a
        if b.__class__ is Constant:
            if b.number == 0:
                return a
            if a.__class__ is Constant:
                return integer(a.type, a.number + b.number)
        return self._numbered(a.type, f"add{flags} {a.type} {a.text}, {b.text}")

    def sub(self, a: Value, b: Value, flags: str = "") -> Value:
        """a - b, wrapping."""
        if b.__class__ is Constant:
            if b.number == 0:
                return a
            if a.__class__ is Constant:
                return integer(a.type, a.number - b.number)
        if a.text == b.text:
            return integer(a.type, 0)
        return self._numbered(a.type, f"sub{flags} {a.type} {a.text}, {b.text}")

    def mul(self, a: Value, b: Value, flags: str = "") -> Value:
        """a * b, wrapping."""
        if a.__class__ is Constant:
            a, b = b, a
        if b.__class__ is Constant:
            if b.number == 1:
                return a
            if b.number == 0:
                return b
            if a.__class__ is Constant:
                return integer(a.type, a.number * b.number)
        return self._numbered(a.type, f"mul{flags} {a.type} {a.text}, {b.text}")

    def sdiv(self, a: Value, b: Value) -> Value:
        """Signed quotient toward zero; undefined for b = 0 and for the least value by -1."""
        if b.__class__ is Constant:
            if b.number == 1:
                return a
            if a.__class__ is Constant and b.number not in (0, -1):
                return integer(
                    a.type, abs(a.number) // abs(b.number) * (1 if (a.number < 0) == (b.number < 0) else -1)
                )
        return self._numbered(a.type, f"sdiv {a.type} {a.text}, {b.text}")

    def udiv(self, a: Value, b: Value) -> Value:
        """Unsigned quotient; undefined for b = 0."""
        if b.__class__ is Constant:
            if b.number == 1:
                return a
            if a.__class__ is Constant and b.number:
                return integer(a.type, _unsigned(a) // _unsigned(b))
        return self._numbered(a.type, f"udiv {a.type} {a.text}, {b.text}")

    def srem(self, a: Value, b: Value) -> Value:
        """Remainder with the sign of a; undefined for b = 0 and for the least value by -1."""
        if b.__class__ is Constant:
            if b.number == 1:
                return integer(a.type, 0)
            if a.__class__ is Constant and b.number not in (0, -1):
                return integer(a.type, abs(a.number) % abs(b.number) * (-1 if a.number < 0 else 1))
        return self._numbered(a.type, f"srem {a.type} {a.text}, {b.text}")

    def urem(self, a: Value, b: Value) -> Value:
        """Unsigned remainder; undefined for b = 0."""
        if b.__class__ is Constant:
            if b.number == 1:
                return integer(a.type, 0)
            if a.__class__ is Constant and b.number:
                return integer(a.type, _unsigned(a) % _unsigned(b))
        return self._numbered(a.type, f"urem {a.type} {a.text}, {b.text}")

    def shl(self, a: Value, b: Value, flags: str = "") -> Value:
        """a << b; undefined for b >= the width."""
        if b.__class__ is Constant:
            if b.number == 0:
                return a
            if a.__class__ is Constant and 0 < b.number < bit_width(a.type):
                return integer(a.type, a.number << b.number)
        return self._numbered(a.type, f"shl{flags} {a.type} {a.text}, {b.text}")

    def lshr(self, a: Value, b: Value) -> Value:
        """a >> b with zeros shifted in; undefined for b >= the width."""
        if b.__class__ is Constant:
            if b.number == 0:
                return a
            if a.__class__ is Constant and 0 < b.number < bit_width(a.type):
                return integer(a.type, _unsigned(a) >> b.number)
        return self._numbered(a.type, f"lshr {a.type} {a.text}, {b.text}")

    def ashr(self, a: Value, b: Value) -> Value:
        """a >> b with the sign shifted in; undefined for b >= the width."""
        if b.__class__ is Constant:
            if b.number == 0:
                return a
            if a.__class__ is Constant and 0 < b.number < bit_width(a.type):
                return integer(a.type, a.number >> b.number)
        return self._numbered(a.type, f"ashr {a.type} {a.text}, {b.text}")

    def and_(self, a: Value, b: Value) -> Value:
        """Bitwise and."""
        if a.__class__ is Constant:
            a, b = b, a
        if b.__class__ is Constant:
            if a.__class__ is Constant:
                return integer(a.type, a.number & b.number)
            if b.number == 0:
                return b
            if b.number == -1 or b.number is True:
                return a
        if a.text == b.text:
            return a
        return self._numbered(a.type, f"and {a.type} {a.text}, {b.text}")

    def or_(self, a: Value, b: Value) -> Value:
        """Bitwise or."""
        if a.__class__ is Constant:
            a, b = b, a
        if b.__class__ is Constant:
            if a.__class__ is Constant:
                return integer(a.type, a.number | b.number)
            if b.number == 0:
                return a
            if b.number == -1 or b.number is True:
                return b
        if a.text == b.text:
            return a
        return self._numbered(a.type, f"or {a.type} {a.text}, {b.text}")

    def xor(self, a: Value, b: Value) -> Value:
        """Bitwise exclusive or."""
        if a.__class__ is Constant:
            a, b = b, a
        if b.__class__ is Constant:
            if a.__class__ is Constant:
                return integer(a.type, a.number ^ b.number)
            if b.number == 0:
                return a
        if a.text == b.text:
            return integer(a.type, 0)
        return self._numbered(a.type, f"xor {a.type} {a.text}, {b.text}")

    def not_(self, a: Value) -> Value:
        """Bitwise complement."""
        return self.xor(a, integer(a.type, -1))

    def neg(self, a: Value) -> Value:
        """0 - a, wrapping."""
        return self.sub(integer(a.type, 0), a)

    # Floats

    def fadd(self, a: Value, b: Value) -> Value:
        """a + b."""
        return self._numbered(a.type, f"fadd {self._fast}{a.type} {a.text}, {b.text}")

    def fsub(self, a: Value, b: Value) -> Value:
        """a - b."""
        return self._numbered(a.type, f"fsub {self._fast}{a.type} {a.text}, {b.text}")

    def fmul(self, a: Value, b: Value) -> Value:
        """a * b."""
        return self._numbered(a.type, f"fmul {self._fast}{a.type} {a.text}, {b.text}")

    def fdiv(self, a: Value, b: Value) -> Value:
        """a / b."""
        return self._numbered(a.type, f"fdiv {self._fast}{a.type} {a.text}, {b.text}")

    def fneg(self, a: Value) -> Value:
        """The sign flipped, of NaN too."""
        return self._numbered(a.type, f"fneg {a.type} {a.text}")

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, rounded once."""
        type = a.type
        return self._numbered(
            type,
            f"call {self._fast}{type} @llvm.fma.{mangled(type)}"
            f"({type} {a.text}, {type} {b.text}, {type} {c.text})",
        )

    def greater_number(self, a: Value, b: Value) -> Value:
        """The greater one of two floats, either if one is NaN. Loops of it vectorize to one operation a step."""
        type = a.type
        is_greater = self._numbered(with_scalar(type, "i1"), f"fcmp nnan nsz ogt {type} {a.text}, {b.text}")
        choice = f"select nnan nsz {is_greater.type} {is_greater.text}, {type} {a.text}, {type} {b.text}"
        return self._numbered(type, choice)

    # Comparisons and choice

    def _icmp(self, names: dict[str, str], number, op: str, a: Value, b: Value) -> Value:
        if a.__class__ is Constant and b.__class__ is Constant and scalar_type(a.type) != "ptr":
            return integer(with_scalar(a.type, "i1"), _COMPARE[op](number(a), number(b)))
        return self._numbered(with_scalar(a.type, "i1"), f"icmp {names[op]} {a.type} {a.text}, {b.text}")

    def icmp_signed(self, op: str, a: Value, b: Value) -> Value:
        """`a op b` of signed integers, op one of < <= > >= == !=."""
        return self._icmp(_SIGNED, lambda value: value.number, op, a, b)

    def icmp_unsigned(self, op: str, a: Value, b: Value) -> Value:
        """`a op b` of unsigned integers, op one of < <= > >= == !=."""
        return self._icmp(_UNSIGNED, _unsigned, op, a, b)

    def fcmp_ordered(self, op: str, a: Value, b: Value) -> Value:
        """`a op b` of floats, false if either is NaN; op also `ord` (neither is NaN)."""
        return self._numbered(with_scalar(a.type, "i1"), f"fcmp {_ORDERED[op]} {a.type} {a.text}, {b.text}")

    def fcmp_unordered(self, op: str, a: Value, b: Value) -> Value:
        """`a op b` of floats, true if either is NaN; op also `uno` (either is NaN)."""
        return self._numbered(with_scalar(a.type, "i1"), f"fcmp {_UNORDERED[op]} {a.type} {a.text}, {b.text}")

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        """a where the condition holds, else b."""
        if condition.__class__ is Constant:
            return a if condition.number else b
        if a.text == b.text:
            return a
        return self._numbered(
            a.type, f"select {condition.type} {condition.text}, {a.type} {a.text}, {b.type} {b.text}"
        )

    # Conversions

    def _cast(self, opcode: str, value: Value, type: str) -> Value:
        if value.type == type:
            return value
        return self._numbered(type, f"{opcode} {value.type} {value.text} to {type}")

    def bitcast(self, value: Value, type: str) -> Value:
        """The same bits as another type of as many bits."""
        return self._cast("bitcast", value, type)

    def trunc(self, value: Value, type: str) -> Value:
        """The low bits of an integer."""
        if value.__class__ is Constant:
            return integer(type, int(value.number))
        return self._cast("trunc", value, type)

    def zext(self, value: Value, type: str) -> Value:
        """An integer widened with zeros."""
        if value.__class__ is Constant:
            return integer(type, _unsigned(value))
        return self._cast("zext", value, type)

    def sext(self, value: Value, type: str) -> Value:
        """An integer widened with its sign (true becomes -1)."""
        if value.__class__ is Constant:
            return integer(type, -1 if value.number is True else int(value.number))
        return self._cast("sext", value, type)

    def fptrunc(self, value: Value, type: str) -> Value:
        """A float rounded to a narrower type."""
        return self._cast("fptrunc", value, type)

    def fpext(self, value: Value, type: str) -> Value:
        """A float in a wider type."""
        return self._cast("fpext", value, type)

    def fptosi(self, value: Value, type: str) -> Value:
        """A float cut to a signed integer; undefined out of range."""
        return self._cast("fptosi", value, type)

    def fptoui(self, value: Value, type: str) -> Value:
        """A float cut to an unsigned integer; undefined out of range."""
        return self._cast("fptoui", value, type)

    def sitofp(self, value: Value, type: str) -> Value:
        """The float nearest to a signed integer."""
        return self._cast("sitofp", value, type)

    def uitofp(self, value: Value, type: str) -> Value:
        """The float nearest to an unsigned integer."""
        return self._cast("uitofp", value, type)

    def ptrtoint(self, value: Value, type: str) -> Value:
        """An address as an integer."""
        return self._cast("ptrtoint", value, type)

    def inttoptr(self, value: Value, type: str = "ptr") -> Value:
        """An integer as an address."""
        return self._cast("inttoptr", value, type)

    # Lanes

    def extractelement(self, vector: Value, index: Value | int) -> Value:
        """One lane of a vector."""
        if vector.__class__ is Constant and not is_float(vector.type):
            return const(scalar_type(vector.type), vector.number)
        index = _index(index)
        return self._numbered(
            scalar_type(vector.type), f"extractelement {vector.type} {vector.text}, {index.type} {index.text}"
        )

    def insertelement(self, vector: Value, element: Value, index: Value | int) -> Value:
        """The vector with one lane replaced."""
        index = _index(index)
        return self._numbered(
            vector.type,
            f"insertelement {vector.type} {vector.text}, {element.type} {element.text}, "
            f"{index.type} {index.text}",
        )

    def shufflevector(self, a: Value, b: Value | None, mask: list[int]) -> Value:
        """Lanes picked from a followed by b (None: none needed); -1 leaves a lane undefined."""
        b = b or poison(a.type)
        lanes = ", ".join(["i32 poison" if lane < 0 else f"i32 {lane}" for lane in mask])
        return self._numbered(
            vector_type(scalar_type(a.type), len(mask)),
            f"shufflevector {a.type} {a.text}, {b.type} {b.text}, <{len(mask)} x i32> <{lanes}>",
        )

    def splat(self, value: Value, lanes: int) -> Value:
        """A vector with `value` in every lane; the value itself for 0 lanes."""
        if not lanes or lane_count(value.type):
            return value
        type = vector_type(value.type, lanes)
        if value.__class__ is Constant:
            text = f"splat ({value.type} {value.text})"
            return Constant(type, text, value.number)
        return self.shufflevector(self.insertelement(poison(type), value, 0), None, [0] * lanes)

    def extractvalue(self, aggregate: Value, index: int, type: str) -> Value:
        """A field, of the given type, of a structure or array."""
        return self._numbered(type, f"extractvalue {aggregate.type} {aggregate.text}, {index}")

    def insertvalue(self, aggregate: Value, value: Value, index: int) -> Value:
        """The structure or array with one field replaced."""
        return self._numbered(
            aggregate.type,
            f"insertvalue {aggregate.type} {aggregate.text}, {value.type} {value.text}, {index}",
        )


def _index(index: Value | int) -> Value:
    return integer("i32", index) if isinstance(index, int) else index
