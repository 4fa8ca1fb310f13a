"""Numbers as an unevaluated sum of two floats, for the steps where one rounding too many would show.

Error bounds are those of Joldes, Muller and Popescu, "Tight and rigorous error bounds for basic building
blocks of double-word arithmetic" (2017); the low parts here are not renormalized between steps.
"""

from __future__ import annotations

from hloc.records import record

from .expression import Num


@record
class Pair:
    """high + low, where low is at most about a rounding error of high."""

    high: Num
    low: Num

    @staticmethod
    def of(x: Num) -> Pair:
        """A single float. The low part is -0, which LLVM drops from sums (adding +0 would change a -0)."""
        return Pair(x, x.of(-0.0))

    def value(self) -> Num:
        """The nearest single float."""
        return self.high + self.low

    def normalized(self) -> Pair:
        """The same number with `high` its nearest float."""
        return fast_two_sum(self.high, self.low)

    def __neg__(self) -> Pair:
        return Pair(-self.high, -self.low)


def fast_two_sum(a: Num, b: Num) -> Pair:
    """a + b exactly, for |a| >= |b| or a = 0."""
    total = a + b
    return Pair(total, b - (total - a))


def two_sum(a: Num, b: Num) -> Pair:
    """a + b exactly."""
    total = a + b
    back = total - a
    return Pair(total, (a - (total - back)) + (b - back))


def two_product(a: Num, b: Num) -> Pair:
    """a * b exactly (subnormal parts apart)."""
    product = a * b
    return Pair(product, a.fma(b, -product))


def constant(like: Num, high: float, low: float) -> Pair:
    """A constant in two parts."""
    return Pair(like.of(high), like.of(low))


def multiply(a: Pair, b: Pair) -> Pair:
    """a * b."""
    high = a.high * b.high
    low = a.high.fma(b.high, -high)
    return Pair(high, a.low.fma(b.high, a.high.fma(b.low, low)))


def scale(a: Pair, b: Num) -> Pair:
    """a * b for a single b."""
    high = a.high * b
    return Pair(high, a.low.fma(b, a.high.fma(b, -high)))


def square(a: Pair) -> Pair:
    """a * a."""
    high = a.high * a.high
    return Pair(high, (a.low + a.low).fma(a.high, a.high.fma(a.high, -high)))


def add(a: Pair, b: Pair) -> Pair:
    """a + b for |a| >= |b| or a = 0."""
    total = fast_two_sum(a.high, b.high)
    return Pair(total.high, total.low + (a.low + b.low))


def add_single(a: Num, b: Pair) -> Pair:
    """a + b for |a| >= |b| or a = 0."""
    total = fast_two_sum(a, b.high)
    return Pair(total.high, total.low + b.low)


def divide(a: Pair, b: Pair) -> Pair:
    """a / b, by one division and a correction."""
    reciprocal = 1.0 / b.high
    quotient = a.high * reciprocal
    rest = (-quotient).fma(b.low, (-quotient).fma(b.high, a.high) + a.low)
    return Pair(quotient, rest * reciprocal)
