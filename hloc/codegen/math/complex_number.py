"""A complex number as a pair of Nums."""

from __future__ import annotations

from hloc.records import record

from .expression import Num

INFINITY = float("inf")


@record
class Complex:
    """real + imag i. `is_single` says that both are floats, though widened: their squares are ordinary doubles."""

    real: Num
    imag: Num
    is_single: bool = False

    def __add__(self, other: Complex) -> Complex:
        return Complex(self.real + other.real, self.imag + other.imag)

    def __sub__(self, other: Complex) -> Complex:
        return Complex(self.real - other.real, self.imag - other.imag)

    def __mul__(self, other: Complex) -> Complex:
        return Complex(
            self.real * other.real - self.imag * other.imag,
            self.real * other.imag + self.imag * other.real,
        )

    def __neg__(self) -> Complex:
        return Complex(-self.real, -self.imag)

    def times(self, factor) -> Complex:
        """Times a real number."""
        return Complex(self.real * factor, self.imag * factor)

    def plus(self, number) -> Complex:
        """Plus a real number."""
        return Complex(self.real + number, self.imag)

    def times_i(self) -> Complex:
        return Complex(-self.imag, self.real)

    def conjugate(self) -> Complex:
        return Complex(self.real, -self.imag)

    def largest(self) -> Num:
        """The greater of the two magnitudes (the real one if NaN is among them)."""
        return self.real.abs().max_with(self.imag.abs())

    def is_zero(self) -> Num:
        return self.real.equals(0.0) & self.imag.equals(0.0)

    def is_infinite(self) -> Num:
        return self.real.abs().equals(INFINITY) | self.imag.abs().equals(INFINITY)


def choose(condition: Num, yes: Complex, no: Complex) -> Complex:
    """yes where the condition holds, else no."""
    return Complex(condition.select(yes.real, no.real), condition.select(yes.imag, no.imag))
