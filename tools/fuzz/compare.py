"""Whether two results of a program agree, given how far rounding alone can carry them apart.

Results are compared bit for bit first. Where they differ, the evaluator runs again a few times with tiny
random errors put into every operation that executors may round differently. What that moves may differ as
much; what it does not move may not differ at all, so that values beyond a comparison or a cancellation raise
no false alarms while everything exact stays exactly compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from hloc.ir.dtypes import F4E2M1FN, F6E2M3FN, F6E3M2FN, F8E8M0FNU
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.reference import machine
from hloc.reference.evaluate import evaluate_replicated
from tools.fuzz.elementwise import FUNCTIONS, NOT_IN_XLA

# Rounded differently after the operation; with rounding between the steps of the operation.
_AFTER = frozenset((*FUNCTIONS, *NOT_IN_XLA, "power", "atan2")) - {"sqrt"}
_WITHIN = frozenset(
    (
        *("dot", "ragged-dot", "scaled-dot", "convolution", "fft", "cholesky", "triangular-solve"),
        *("reduce", "reduce-window", "scatter", "select-and-scatter", "scan"),
        *("batch-norm-training", "batch-norm-inference", "batch-norm-grad"),
    )
)
# LLVM drops those of equal operands, or of a way there and back, and with them their way with denormals.
_CHOICES = frozenset(("maximum", "minimum", "clamp", "stochastic-convert"))
_COMPLEX = frozenset(("multiply", "divide", "abs", "sign", "sqrt"))
WITHOUT_NAN = tuple(t.numpy for t in (F4E2M1FN, F6E2M3FN, F6E3M2FN))
# XLA's CPU backend contracts products and sums, and keeps more bits of narrow floats.
_IN_XLA = frozenset(("add", "subtract", "multiply", "divide", "remainder", "sqrt"))
# What rules write differently where an operand is a constant: x / c as x * (1 / c), x * c * d as x * (c * d).
_BY_CONSTANTS = frozenset(("multiply", "divide"))
# How results come about: as the program says; after rules, which also drop operations that only flush denormals;
# in XLA.
PLAIN, SIMPLIFIED, XLA = "plain", "simplified", "xla"
_UNITS = 4
# How often to err: a few times, and where that does not explain a difference, so often that no element is
# left in place by chance alone.
_RUNS = (4, 40)
_SLACK = 8
_TERMS = 64


@dataclass
class Spread:
    """How far rounding errors moved each element of a result, and where they changed it beyond measure."""

    moved: np.ndarray
    unstable: np.ndarray


def is_float(array: np.ndarray) -> bool:
    return array.dtype.kind in "fc" or "float" in array.dtype.name


def _is_huge(array: np.ndarray) -> bool:
    """Whether a few elements could add up to more than the type holds."""
    if not is_float(array):
        return False
    finite = np.abs(_wide(array[np.isfinite(array)]))
    return bool((finite > float(ml_dtypes.finfo(array.dtype).max) / 64).any())


def _wide(array: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return array.astype(
            np.complex128 if array.dtype.kind == "c" else np.float64 if is_float(array) else array.dtype
        )


def unit(dtype: np.dtype) -> float:
    """The relative spacing of a float or complex type."""
    return float(ml_dtypes.finfo(dtype).eps)


def equal(got: np.ndarray, expected: np.ndarray, signs: bool) -> np.ndarray:
    """Elementwise: the same number or both NaN; with `signs`, zeros have the same sign too."""
    if not is_float(got):
        return np.asarray(got == expected)
    if got.dtype.kind == "c":
        return equal(got.real, expected.real, signs) & equal(got.imag, expected.imag, signs)
    a, b = _wide(got), _wide(expected)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return same & ((np.signbit(a) == np.signbit(b)) | (a != 0)) if signs else same


def _vanishing(got: np.ndarray, expected: np.ndarray, summed: bool) -> np.ndarray:
    """Where both are zero or denormal; or no more than sums of some terms that may count as zero or not."""
    of_powers = expected.dtype == F8E8M0FNU.numpy
    least = float(ml_dtypes.finfo(expected.dtype).smallest_normal)
    least *= _TERMS if summed and expected.dtype.itemsize >= 4 else 1
    got, expected = np.abs(_wide(got)), np.abs(_wide(expected))
    if of_powers:  # the least number is denormal as f32, and zero is NaN
        return (np.isnan(got) | (got == least)) & (np.isnan(expected) | (expected == least))
    return (got < least) & (expected < least)


def evaluated(module: Module, arguments: list[np.ndarray]) -> list[np.ndarray]:
    """The evaluator's results, device after device; all devices get the same arguments."""
    count = module.replica_count * module.num_partitions
    with np.errstate(all="ignore"):
        results = evaluate_replicated(module, [arguments] * count)
    return [np.asarray(result) for of_device in results for result in of_device]


class Judge:
    """Compares results of a program with the evaluator's, `expected`."""

    def __init__(self, module: Module, arguments: list[np.ndarray], expected: list[np.ndarray]):
        self.module, self.arguments, self.expected = module, arguments, expected
        self._spreads: dict[str, list[Spread]] = {}
        self._runs: Counter[str] = Counter()
        # An element of a transform errs by the size of all of them.
        self._transforms = any(i.opcode == "fft" for i in module.instructions())
        # Whether the elementary functions let denormals through is open.
        self._keeps_denormals = any(i.opcode in _AFTER | _CHOICES | _WITHIN for i in module.instructions())
        self._sums = any(i.opcode in _WITHIN for i in module.instructions())
        # A sum that passes the largest number on its way is an infinity or NaN, as the order of its terms has it.
        self._overflows = self._sums and any(map(_is_huge, arguments))
        # Sums that come to zero leave its sign open.
        self._exact = not any(i.opcode in _WITHIN or _complex(i) for i in module.instructions())

    def difference(self, results: list[np.ndarray], way: str = PLAIN) -> str | None:
        """The first difference in words, or None. `way` says how the results have come about."""
        if len(results) != len(self.expected):
            return f"{len(results)} results, expected {len(self.expected)}"
        for number, (got, expected) in enumerate(zip(results, self.expected, strict=True)):
            if got.shape != expected.shape or got.dtype != expected.dtype:
                return f"result {number}: {got.dtype}{got.shape}, expected {expected.dtype}{expected.shape}"
            # The sign of a NaN is nobody's promise, and a type without NaNs makes a zero of that sign of it.
            signs = self._exact and way != XLA and got.dtype not in WITHOUT_NAN
            wrong = ~equal(got, expected, signs)
            if (self._keeps_denormals or way == SIMPLIFIED) and is_float(got):
                wrong &= ~_vanishing(got, expected, self._sums)
            if self._overflows and is_float(got):
                wrong &= np.isfinite(got) | np.isfinite(expected)
            if got.dtype.kind == "c" and not self._exact:
                # Whether a product of several has infinities or NaNs hangs on their order.
                wrong &= np.isfinite(got) | np.isfinite(expected)
            for runs in _RUNS:
                if wrong.any():
                    self._measure(runs, way)
                    wrong &= ~self._allowed(number, got, way)
            if wrong.any():
                index = tuple(int(i) for i in np.argwhere(wrong)[0])
                return (
                    f"result {number} {index}: {got[index]!r}, the evaluator says {expected[index]!r}; "
                    f"{int(wrong.sum())} of {wrong.size} wrong"
                )
        return None

    def _allowed(self, number: int, got: np.ndarray, way: str) -> np.ndarray:
        spread, expected = self._spreads[way][number], self.expected[number]
        if not is_float(expected):
            return spread.unstable | (spread.moved > 0)
        with np.errstate(all="ignore"):
            error = np.abs(_wide(got) - _wide(expected))
            size = np.abs(_wide(expected))
            moved = np.full_like(spread.moved, spread.moved.max()) if self._transforms else spread.moved
            tolerance = _SLACK * moved + 2 * unit(expected.dtype) * size
            tolerance += float(ml_dtypes.finfo(expected.dtype).smallest_normal)
            return spread.unstable | (spread.moved.any() & (error <= tolerance))

    def _measure(self, runs: int, way: str) -> None:
        """Runs up to `runs` times with rounding errors, and widens the spreads by what comes out."""
        spreads = self._spreads.setdefault(
            way, [Spread(np.zeros(e.shape), np.zeros(e.shape, bool)) for e in self.expected]
        )
        for seed in range(self._runs[way], runs):
            with rounding_errors(seed, way), np.errstate(all="ignore"):
                results = evaluated(self.module, self.arguments)
                for spread, result, expected in zip(spreads, results, self.expected, strict=True):
                    _widen(spread, result, expected)
        self._runs[way] = max(runs, self._runs[way])


def _widen(spread: Spread, result: np.ndarray, expected: np.ndarray) -> None:
    if not is_float(expected):
        spread.moved = np.maximum(spread.moved, result != expected)
        return
    a, b = _wide(result), _wide(expected)
    same = equal(result, expected, signs=True)
    distance = np.where(same, 0.0, np.abs(a - b))
    spread.unstable |= ~np.isfinite(distance)
    spread.moved = np.maximum(spread.moved, np.where(np.isfinite(distance), distance, 0.0))


def _complex(instruction: Instruction) -> bool:
    return any(leaf.dtype.is_complex for _, leaf in instruction.shape.leaves())


@contextmanager
def rounding_errors(seed: int, way: str) -> Iterator[None]:
    """Lets the evaluator round wrongly by some units for a while."""
    generator = np.random.default_rng(seed)
    tables = (machine.FUNCTIONS, machine.LIFTED)
    saved = [dict(table) for table in tables]
    for table in tables:
        for opcode in table.keys() & (_AFTER | _WITHIN | _COMPLEX | _IN_XLA):
            table[opcode] = _erring(table[opcode], opcode, generator, way)
    try:
        yield
    finally:
        for table, before in zip(tables, saved, strict=True):
            table.update(before)


def _erring(function: Callable, opcode: str, generator: np.random.Generator, way: str) -> Callable:
    xla = way == XLA

    def run(instruction, operands, context):
        if opcode in _WITHIN:
            return _any_zeros(function(instruction, [_nudged(o, generator) for o in operands], context), generator)
        result = function(instruction, operands, context)
        is_complex = instruction.operands[0].shape.dtype.is_complex
        errs = opcode in _AFTER or (opcode in _COMPLEX and is_complex) or (xla and opcode in _IN_XLA)
        errs |= way == SIMPLIFIED and opcode in _BY_CONSTANTS and any(map(_is_fixed, instruction.operands))
        if xla and is_complex and opcode in _AFTER:
            # Its complex functions lose small parts beside 1.
            shift = generator.choice((-1, 1), 2) * unit(result.dtype)
            result = (result + complex(*shift)).astype(result.dtype)
        return _nudged(result, generator) if errs else result

    return run


def _any_zeros(value: object, generator: np.random.Generator) -> object:
    """A sum's zeros with signs at random: one of a single term may keep the sign of its term, or begin from +0."""
    if not isinstance(value, np.ndarray) or not is_float(value) or value.dtype.kind == "c" or value.dtype.itemsize < 2:
        return value
    signed = np.copysign(0.0, generator.choice((-1, 1), value.shape)).astype(value.dtype)
    return np.where(value == 0, signed, value)


def _is_fixed(instruction: Instruction) -> bool:
    """Whether a value may be known to the compiler; parameters of called computations may."""
    if instruction.opcode == "parameter":
        return not instruction.computation.is_entry
    return all(map(_is_fixed, instruction.operands))


def _nudged(value: object, generator: np.random.Generator) -> object:
    """A float array with errors of a few units; complex parts err by units of the modulus."""
    if not isinstance(value, np.ndarray) or not is_float(value) or not value.size:
        return value
    units = unit(value.dtype) * (_UNITS if value.dtype.itemsize > 2 else 1)
    with np.errstate(all="ignore"):
        # Long sums drift one way, where independent errors would cancel; variances only see the latter.
        errors = units * (generator.uniform(-1, 1, value.shape) + generator.choice((-1, 0, 1))) / 2
        if value.dtype.kind == "c":
            turned = value * (1 + errors + 1j * units * generator.uniform(-1, 1, value.shape))
            return np.where(np.isfinite(value), turned, value).astype(value.dtype)
        # At least as far as the next number of the type, or narrow types would never move.
        return (_wide(value) * (1 + np.copysign(np.maximum(np.abs(errors), units / 2), errors))).astype(
            value.dtype
        )
