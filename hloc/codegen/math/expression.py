"""Arithmetic on LLVM values with Python's operators, so that formulas read as formulas."""

from __future__ import annotations

from collections.abc import Sequence

from hloc.codegen.llvm import (
    Builder,
    Value,
    const,
    float_from_bits,
    is_float,
    lane_count,
    poison,
    vector_type,
    with_scalar,
)

# A double whose low bits count in ones: adding it rounds a small number to an integer, in the low bits.
ROUNDER = {"float": 1.5 * 2.0**23, "double": 1.5 * 2.0**52}
MANTISSA_BITS = {"float": 23, "double": 52}
EXPONENT_BIAS = {"float": 127, "double": 1023}
INTEGER = {"float": "i32", "double": "i64"}


class Num:
    """A float, integer or boolean value, scalar or vector, with operators that emit instructions.

    Python numbers on the other side become constants of the same type. `/` is float division, `>>` the
    logical shift. Comparisons of floats are false when an operand is NaN, of integers signed.
    """

    __slots__ = ("b", "v")

    def __init__(self, builder: Builder, value: Value):
        self.b = builder
        self.v = value

    @property
    def type(self) -> str:
        """The LLVM type."""
        return self.v.type

    def of(self, number: Num | float) -> Num:
        """A Python number as a constant of this type; a Num unchanged."""
        if number.__class__ is Num:
            return number
        return Num(self.b, const(self.v.type, number))

    def bits_of(self, bits: int) -> Num:
        """The float of this type with the given encoding."""
        return Num(self.b, float_from_bits(self.v.type, bits))

    def _wrap(self, value: Value) -> Num:
        return Num(self.b, value)

    def __add__(self, other):
        other = self.of(other)
        op = self.b.fadd if is_float(self.v.type) else self.b.add
        return self._wrap(op(self.v, other.v))

    __radd__ = __add__

    def __sub__(self, other):
        other = self.of(other)
        op = self.b.fsub if is_float(self.v.type) else self.b.sub
        return self._wrap(op(self.v, other.v))

    def __rsub__(self, other):
        return self.of(other) - self

    def __mul__(self, other):
        other = self.of(other)
        op = self.b.fmul if is_float(self.v.type) else self.b.mul
        return self._wrap(op(self.v, other.v))

    __rmul__ = __mul__

    def __truediv__(self, other):
        return self._wrap(self.b.fdiv(self.v, self.of(other).v))

    def __rtruediv__(self, other):
        return self.of(other) / self

    def __neg__(self):
        return self._wrap(self.b.fneg(self.v) if is_float(self.v.type) else self.b.neg(self.v))

    def __and__(self, other):
        return self._wrap(self.b.and_(self.v, self.of(other).v))

    def __or__(self, other):
        return self._wrap(self.b.or_(self.v, self.of(other).v))

    def __xor__(self, other):
        return self._wrap(self.b.xor(self.v, self.of(other).v))

    def __invert__(self):
        return self._wrap(self.b.not_(self.v))

    def __lshift__(self, other):
        return self._wrap(self.b.shl(self.v, self.of(other).v))

    def __rshift__(self, other):
        return self._wrap(self.b.lshr(self.v, self.of(other).v))

    def ashr(self, other):
        """Shifts right with the sign."""
        return self._wrap(self.b.ashr(self.v, self.of(other).v))

    def _compare(self, op: str, other):
        compare = self.b.fcmp_ordered if is_float(self.v.type) else self.b.icmp_signed
        return self._wrap(compare(op, self.v, self.of(other).v))

    def __lt__(self, other):
        return self._compare("<", other)

    def __le__(self, other):
        return self._compare("<=", other)

    def __gt__(self, other):
        return self._compare(">", other)

    def __ge__(self, other):
        return self._compare(">=", other)

    def equals(self, other):
        """Equality as a value; false for NaN."""
        return self._compare("==", other)

    def is_nan(self):
        """Whether the float is NaN."""
        return self._wrap(self.b.fcmp_unordered("uno", self.v, self.v))

    def select(self, yes, no):
        """Of a condition: `yes` where it holds, else `no`. At least one of them is a Num."""
        yes = yes if isinstance(yes, Num) else no.of(yes)
        return self._wrap(self.b.select(self.v, yes.v, yes.of(no).v))

    def min_with(self, bound):
        """The lesser; this value if it is NaN (one instruction where the target has a min)."""
        bound = self.of(bound)
        return (self > bound).select(bound, self)

    def max_with(self, bound):
        """The greater; this value if it is NaN."""
        bound = self.of(bound)
        return (self < bound).select(bound, self)

    def intrinsic(self, name: str, *others):
        """An intrinsic of this type, such as `llvm.sqrt`."""
        return self._wrap(self.b.intrinsic(name, self.v.type, [self.v, *[self.of(o).v for o in others]]))

    def abs(self):
        """The magnitude of a float."""
        return self.intrinsic("llvm.fabs")

    def sqrt(self):
        """The square root, correctly rounded."""
        return self.intrinsic("llvm.sqrt")

    def rint(self):
        """The nearest integer, halves to even."""
        return self.intrinsic("llvm.rint")

    def copysign(self, sign):
        """This magnitude with the sign of another float."""
        return self.intrinsic("llvm.copysign", sign)

    def with_sign_of(self, sign):
        """This float, whose sign bit is clear, with the sign of another: an operation less than `copysign`."""
        lowest = -1 << (63 if "double" in self.v.type else 31)
        return (self.bits() | (sign.bits() & lowest)).as_float(self.v.type)

    def fma(self, factor, term):
        """self * factor + term, rounded once."""
        return self._wrap(self.b.fma(self.v, self.of(factor).v, self.of(term).v))

    def bits(self):
        """The encoding of a float as an integer."""
        kind = INTEGER["double" if self.v.type.endswith(("double", "double>")) else "float"]
        return self._wrap(self.b.bitcast(self.v, with_scalar(self.v.type, kind)))

    def as_float(self, type: str):
        """An integer's bits as a float of `type`."""
        return self._wrap(self.b.bitcast(self.v, type))

    def to_float(self, type: str):
        """The float of `type` nearest to a signed integer."""
        return self._wrap(self.b.sitofp(self.v, type))

    def lookup(self, table: Value, index: Num):
        """The entry of a constant table of this type's scalars at an i64 index, lane by lane."""
        kind, lanes = scalar(self), lane_count(self.v.type)
        if not lanes:
            address = self.b.gep(kind, table, index.v)
            return self._wrap(self.b.load(kind, address, align=8, invariant=True))
        pointers = f"<{lanes} x ptr>"
        address = self.b.gep(kind, table, [index.v], result_type=pointers)
        mask = const(vector_type("i1", lanes), 1)
        args = [address, const("i32", 8), mask, poison(self.v.type)]
        overloads = [self.v.type, pointers]
        return self._wrap(self.b.intrinsic("llvm.masked.gather", self.v.type, args, overloads=overloads))

    def widen(self):
        """float as double, exactly."""
        return self._wrap(self.b.fpext(self.v, with_scalar(self.v.type, "double")))

    def narrow(self):
        """double rounded to float."""
        return self._wrap(self.b.fptrunc(self.v, with_scalar(self.v.type, "float")))


def scalar(x: Num) -> str:
    """`float` or `double`, of a scalar or a vector."""
    return "double" if "double" in x.v.type else "float"


def horner(x: Num, coefficients: Sequence[float]) -> Num:
    """The polynomial with the given coefficients, lowest first."""
    result = x.of(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result.fma(x, coefficient)
    return result


def by_halves(x: Num, coefficients: Sequence[float]) -> Num:
    """The same by its even and its odd powers: a product more, and half as many that wait for one another."""
    square = x * x
    return horner(square, coefficients[1::2]).fma(x, horner(square, coefficients[::2]))


def by_pairs(x: Num, coefficients: Sequence[float]) -> Num:
    """The same by pairs, and pairs of these (Estrin): what waits for one another is a logarithm of their number."""
    terms: list[Num | float] = list(coefficients)
    while len(terms) > 1:
        pairs = [x.of(high).fma(x, low) for low, high in zip(terms[::2], terms[1::2])]
        terms = pairs + terms[len(terms) - len(terms) % 2 :]
        x = x * x
    return terms[0]


def round_to_integer(x: Num, factor: float = 1.0) -> tuple[Num, Num]:
    """x * factor to the nearest integer, as a float and in an integer's low bits, for less than 2**21 (2**50)."""
    rounder = ROUNDER[scalar(x)]
    shifted = x + rounder if factor == 1.0 else x.fma(factor, rounder)
    return shifted - rounder, shifted.bits()


def power_of_two(k: Num, type: str) -> Num:
    """2**k from an integer whose low bits are k, for k from -126 to 127 (-1022 to 1023)."""
    kind = "double" if "double" in type else "float"
    bits = (k << MANTISSA_BITS[kind]) + (EXPONENT_BIAS[kind] << MANTISSA_BITS[kind])
    return bits.as_float(type)
