"""Minimax polynomials: where the coefficients in hloc/codegen/math come from.

    python -m tools.minimax exp f64

prints the coefficients of a named approximation, lowest degree first and rounded to the type, and the
largest weighted error before and after rounding. `PROBLEMS` lists all of them. The method is Remez's
exchange in arbitrary precision; the functions stand with their leading terms taken out and, where they are
odd or even, in z = x^2.
"""

from __future__ import annotations

import argparse
import struct
from collections.abc import Callable
from dataclasses import dataclass

import mpmath as mp

mp.mp.prec = 200
SMALL = mp.mpf("1e-9")


def _flat(x):
    return mp.mpf(1)


@dataclass(frozen=True)
class Problem:
    """p(x) near `function` on [low, high]: the largest |p - function| * weight is to be least.

    `degrees` are the ones used for f32 and f64, None where there is no such variant.
    """

    function: Callable
    low: object
    high: object
    degrees: tuple[int | None, int | None]
    weight: Callable = _flat


def _power(exponent: int) -> Callable:
    """A weight: the size that x**exponent gives an error."""
    return lambda x: max(abs(mp.mpf(x)), mp.mpf("1e-4")) ** exponent


def _series(first, second, function: Callable, border: float) -> Callable:
    """A function of z with its value near 0 taken from two terms, where the formula would divide 0 by 0."""
    return lambda z: function(mp.mpf(z)) if abs(z) > border else first + second * z


def _exp(r):
    return (mp.expm1(r) - r) / r**2


def _log(f):
    return (mp.log1p(f) - f) / f**2


def _odd(function: Callable, terms: list) -> Callable:
    """(function(x) - terms[0] x - terms[1] x^3 - ...) / x^(2 len(terms) + 1) in z = x^2."""

    def rest(z):
        x = mp.sqrt(z)
        known = sum(term * x ** (2 * power + 1) for power, term in enumerate(terms))
        return (function(x) - known) / x ** (2 * len(terms) + 1)

    return rest


def _cos(z):
    return (mp.cos(mp.sqrt(z)) - 1 + z / 2 - z * z / 24) / z**3


def _erf(z):
    return mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1


def _twice_atanh(s):
    return 2 * mp.atanh(s)


def _twice_atanh_by_log(s):
    return 2 * mp.atanh(s) / mp.log(2)


def _exp2(r):
    return mp.mpf(2) ** r


def _sin_quarter(t):
    return mp.sin(mp.pi / 2 * t)


def _cos_quarter(z):
    return mp.cos(mp.pi / 2 * mp.sqrt(z))


def _erfc_exponent(x):
    return -mp.log(mp.erfc(x))


def _fourth_of_erf(x):
    return 4 * (1 - mp.root(mp.erfc(x), 4)) / x - 1


def _sine_share(z):
    return mp.mpf(z) * mp.sqrt(z) / mp.sin(mp.sqrt(z)) if z > 0 else SMALL


def _erf_inv(size):
    """erf_inv(x) / x where size is -log2(1 - x^2)."""
    if size < mp.mpf("1e-20"):
        return mp.sqrt(mp.pi) / 2
    x = mp.sqrt(1 - mp.mpf(2) ** -mp.mpf(size))
    return mp.erfinv(x) / x


def _inverse(function: Callable) -> Callable:
    """A weight: relative errors count."""
    return lambda x: 1 / function(x)


def _near_zero(x):
    return abs(x) + mp.mpf("1e-3")


def _erf_inv_by_root(s):
    return _erf_inv((mp.mpf(s) + mp.mpf("3.7")) ** 2)


def _log2_part(f):
    return mp.log1p(f) / f / mp.log(2)


def _share_of_fourth(x):
    """What an error does to erf: little at the end, where it is still to round to 1."""
    share = x * mp.erfc(x) ** mp.mpf(0.75) / mp.erf(x) if x > 0 else mp.sqrt(mp.pi) / 2
    return max(share, mp.mpf("1.6e-5"))


THIRD, SIXTH, HALF_LN2 = mp.mpf(1) / 3, mp.mpf(1) / 6, mp.mpf("0.3466") * mp.mpf("1.003")
ROOT = mp.mpf("0.4143")  # sqrt(2) - 1 and tan(pi / 8), a little more
ATANH_END = mp.mpf("0.17175") ** 2  # (sqrt(2) - 1) / (sqrt(2) + 1), squared
QUARTER = (mp.pi / 4 * mp.mpf("1.0001")) ** 2


def _weight(exponent: int) -> Callable:
    """A weight for polynomials in z: what z**exponent makes of an error, not quite 0 at 0."""
    return lambda z: mp.mpf(z) ** exponent + SMALL


# sin t pi/2 and so on, for t from -1/2 to 1/2, in z = t^2.
HALVES = mp.mpf("0.2502")

# name: (function, its two first terms at 0, where these are good, low, high, degrees, weight)
_ROWS = {
    # exp(r) = 1 + r + r^2 p(r)
    "exp": (_exp, (mp.mpf(1) / 2, SIXTH), 1e-12, -HALF_LN2, HALF_LN2, (5, 10), _power(2)),
    # the same, for exp(r) - 1
    "expm1_single": (_exp, (mp.mpf(1) / 2, SIXTH), 1e-12, -HALF_LN2, HALF_LN2, (4, None), _power(1)),
    # 2^r, and log2((1 + s) / (1 - s)) = s p(s^2): double coefficients, single precision results (`power`)
    "exp2_single": (_exp2, (1, mp.log(2)), 1e-30, -mp.mpf("0.5002"), mp.mpf("0.5002"), (None, 7), _flat),
    "log2_single": (_odd(_twice_atanh_by_log, []), (2 / mp.log(2), 0), 1e-30, 0, mp.mpf("0.02944"), (None, 4), _flat),
    # log(1 + f) = f + f^2 p(f)
    "log": (_log, (-mp.mpf(1) / 2, THIRD), 1e-15, -THIRD, THIRD, (8, None), _power(1)),
    # 2 atanh(s) = 2 s + 2/3 s^3 + s^5 p(s^2)
    "atanh": (_odd(_twice_atanh, [2, 2 * THIRD]), (0.4, 0.28), 1e-12, 0, ATANH_END, (None, 7), _weight(2)),
    # tanh x = x + x^3 p(x^2), and so sinh
    "tanh": (_odd(mp.tanh, [1]), (-THIRD, 0.1), 1e-14, 0, mp.mpf("0.5625") ** 2, (None, 10), _weight(1)),
    "sinh": (_odd(mp.sinh, [1]), (SIXTH, 0), 1e-14, 0, mp.mpf("1.01"), (3, 6), _weight(1)),
    # sin r = r - r^3/6 + r^5 p(r^2), cos r = 1 - r^2/2 + r^4/24 + r^6 p(r^2)
    "sin": (_odd(mp.sin, [1, -SIXTH]), (SIXTH / 20, 0), 1e-10, 0, QUARTER, (None, 5), _weight(2)),
    "cos": (_cos, (-SIXTH / 120, 0), 1e-8, 0, QUARTER, (None, 5), _weight(3)),
    # sin r = r + r^3 p(r^2) up to pi/2, for single precision results
    "sin_half": (_odd(mp.sin, [1]), (-SIXTH, SIXTH / 20), 1e-20, 0, 4 * QUARTER, (None, 4), _sine_share),
    # sin(t pi/2) = t p(t^2), cos(t pi/2) = p(t^2): double coefficients, single precision results
    "sin_quarter": (_odd(_sin_quarter, []), (mp.pi / 2, 0), 1e-30, 0, HALVES, (None, 4), _flat),
    "cos_quarter": (_cos_quarter, (1, 0), 1e-30, 0, HALVES, (None, 5), _flat),
    # asin x = x + x^3 p(x^2)
    "asin": (_odd(mp.asin, [1]), (SIXTH, 0.075), 1e-14, 0, HALVES, (5, 12), _weight(1)),
    # atan x = x + x^3 p(x^2) for single precision results, x - x^3/3 + x^5 p(x^2) in double precision
    "atan_single": (_odd(mp.atan, [1]), (-THIRD, 0.2), 1e-14, 0, ROOT**2, (None, 5), _weight(1)),
    "atan": (_odd(mp.atan, [1, -THIRD]), (mp.mpf(1) / 5, 0), 1e-12, 0, ROOT**2, (None, 10), _weight(2)),
    # erf x = x + x p(x^2) below 1; -log(erfc(x)) above, up to where erf rounds to 1
    "erf": (_erf, (2 / mp.sqrt(mp.pi) - 1, 0), 1e-20, 0, mp.mpf("1.001"), (None, 12), _flat),
    # erf x = 1 - (1 - (x + x p(x)) / 4)^4
    "erf_single": (_fourth_of_erf, (2 / mp.sqrt(mp.pi) - 1, 0.48), 1e-12, 0, 4, (9, None), _share_of_fourth),
    # erf_inv(x) / x in -log2(1 - x^2), and in its root less 3.7; log2(1 + f) = f p(f), to a place behind the point
    "erf_inv_near": (_erf_inv, (mp.sqrt(mp.pi) / 2, 0), 1e-9, 0, mp.mpf("7.22"), (8, None), _inverse(_erf_inv)),
    "erf_inv_far": (
        _erf_inv_by_root,
        (0, 0),
        0,
        mp.mpf("-1.02"),
        mp.mpf("1.097"),
        (8, None),
        _inverse(_erf_inv_by_root),
    ),
    "log2_part": (_log2_part, (1 / mp.log(2), 0), 1e-20, -THIRD, THIRD, (7, None), _near_zero),
    "erfc": (_erfc_exponent, (0, 0), 0, 1, 6, (None, 20), mp.erfc),
}
PROBLEMS = {
    name: Problem(_series(*terms, function, border), *rest)
    for name, (function, terms, border, *rest) in _ROWS.items()
}


def rounded(value, type: str):
    """`value` to nearest even in f32 or f64."""
    if type == "f64":
        return mp.mpf(float(value))
    return mp.mpf(struct.unpack("<f", struct.pack("<f", float(value)))[0])


def _solve(problem: Problem, degree: int, nodes: list) -> list:
    """Coefficients whose weighted error alternates between +E and -E on the nodes."""
    n = degree + 2
    matrix, right = mp.matrix(n, n), mp.matrix(n, 1)
    for row, x in enumerate(nodes):
        for column in range(n - 1):
            matrix[row, column] = x**column
        matrix[row, n - 1] = (-1) ** row / problem.weight(x)
        right[row] = problem.function(x)
    return list(mp.lu_solve(matrix, right))[:-1]


def _points(problem: Problem, count: int) -> list:
    """Chebyshev's points, denser towards the ends."""
    low, high = mp.mpf(problem.low), mp.mpf(problem.high)
    return [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * i / (count - 1)) for i in range(count)]


def _value(coefficients: list, x):
    result = mp.mpf(0)
    for coefficient in reversed(coefficients):
        result = result * x + coefficient
    return result


def extrema(problem: Problem, coefficients: list, samples: int = 601) -> list:
    """(place, error) where the weighted error is extreme, one for each stretch of one sign."""
    found: list = []
    for x in _points(problem, samples):
        error = (_value(coefficients, x) - problem.function(x)) * problem.weight(x)
        if found and (found[-1][1] > 0) == (error > 0):
            if abs(error) > abs(found[-1][1]):
                found[-1] = (x, error)
        else:
            found.append((x, error))
    return found


def minimax(problem: Problem, degree: int, rounds: int = 12) -> list:
    """Coefficients, lowest first, unrounded."""
    n = degree + 2
    nodes = _points(problem, n)
    for _ in range(rounds):
        coefficients = _solve(problem, degree, nodes)
        places = extrema(problem, coefficients)
        while len(places) > n:
            places.pop(0 if abs(places[0][1]) < abs(places[-1][1]) else -1)
        errors = [abs(error) for _, error in places]
        if len(places) < n or max(errors) < min(errors) * 1.001:
            break
        nodes = [x for x, _ in places]
    return coefficients


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("name", choices=list(PROBLEMS))
    parser.add_argument("type", choices=["f32", "f64"])
    arguments = parser.parse_args()
    problem = PROBLEMS[arguments.name]
    degree = problem.degrees[arguments.type == "f64"]
    if degree is None:
        parser.error(f"{arguments.name} has no variant for {arguments.type}")
    exact = minimax(problem, degree)
    final = [rounded(coefficient, arguments.type) for coefficient in exact]
    for title, coefficients in (("exact", exact), ("rounded", final)):
        worst = max(abs(error) for _, error in extrema(problem, coefficients, 2000))
        print(f"# {title}: largest error 2**{float(mp.log(worst, 2)):.1f}")
    for coefficient in final:
        print(f"{float(coefficient)!r},")


if __name__ == "__main__":
    main()
