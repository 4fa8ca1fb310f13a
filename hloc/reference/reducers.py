"""Computations given to ops: which of them are one known operation, and how arrays are folded by them.

`fold` defines what reducing means: start from the initial value and take the elements in row-major order,
`accumulator = computation(accumulator, element)`. Known operations get the same result faster, with one
liberty that XLA takes too: a sum of floats is rounded once, at its end.
"""

from __future__ import annotations

import numpy as np

from hloc.ir.computation import Computation
from hloc.ir.dtypes import DType
from hloc.ir.opcodes import COMMUTATIVE
from hloc.reference.context import Context
from hloc.reference.elementwise import maximum, minimum
from hloc.reference.values import narrow, widen, widest

# Beyond this many elements neighbours are joined in rounds, which is the same for every associative
# computation (and XLA asks that of a reducer); up to it, order is kept strictly.
_STRICT = 1 << 14

KNOWN = ("add", "multiply", "maximum", "minimum", "and", "or", "xor")


def known_operation(computation: Computation) -> str | None:
    """The opcode, if the computation is that one known operation of its two scalar parameters."""
    root = computation.root
    if root.opcode not in KNOWN or len(computation.parameters) != 2 or not root.op.has(COMMUTATIVE):
        return None
    return root.opcode if {id(o) for o in root.operands} == {id(p) for p in computation.parameters} else None


def is_assignment(computation: Computation) -> bool:
    """Whether the result is the second of two parameters."""
    return len(computation.parameters) == 2 and computation.root is computation.parameters[1]


def reduce_axes(
    operation: str, array: np.ndarray, axes: tuple[int, ...], initial: np.ndarray, dtype: DType
) -> np.ndarray:
    """An array folded along axes by a known operation."""
    if operation == "add":
        total = np.add.reduce(widest(array, dtype), axis=axes, dtype=widest(initial, dtype).dtype)
        return narrow(combine("add", total, widest(initial, dtype)), dtype)
    wide = widen(array, dtype)
    if operation in ("maximum", "minimum"):
        folded = _extreme(operation, wide, axes, widen(initial, dtype))
    else:
        folded = combine(
            operation, _UFUNCS[operation].reduce(wide, axis=axes, dtype=wide.dtype), widen(initial, dtype)
        )
    return narrow(folded, dtype)


def _extreme(operation: str, array: np.ndarray, axes: tuple[int, ...], initial: np.ndarray) -> np.ndarray:
    count = int(np.prod([array.shape[axis] for axis in axes]))
    if count == 0:
        return np.broadcast_to(initial, [size for axis, size in enumerate(array.shape) if axis not in axes])
    result = _UFUNCS[operation].reduce(array, axis=axes)
    if array.dtype.kind == "f" and (result == 0).any():
        # Which of two zeros comes out of NumPy is its own choice; here 0 is above -0.
        wanted = (array == 0) & (np.signbit(array) == (operation == "minimum"))
        sign = 1.0 if operation == "maximum" else -1.0
        signed = np.where(wanted.any(axis=axes), sign, -sign) * result.dtype.type(0)
        result = np.where(result == 0, signed.astype(result.dtype), result)
    return combine(operation, result, initial)


_UFUNCS = {
    "add": np.add,
    "multiply": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}


def combine(operation: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A known operation of two arrays of one wide type."""
    if operation == "maximum":
        return maximum(a, b)
    return minimum(a, b) if operation == "minimum" else _UFUNCS[operation](a, b)


def identity(operation: str, kind: np.dtype) -> np.ndarray:
    """The element that a known operation leaves out of account."""
    if operation in ("add", "or", "xor"):
        return np.zeros((), kind)
    if operation == "multiply":
        return np.ones((), kind)
    if operation == "and":
        return ~np.zeros((), kind)
    if kind.kind == "f":
        return np.array(-np.inf if operation == "maximum" else np.inf, kind)
    if kind.kind == "b":
        return np.array(operation == "minimum")
    limits = np.iinfo(kind)
    return np.array(limits.min if operation == "maximum" else limits.max, kind)


def fold(
    computation: Computation, initial: list[np.ndarray], elements: list[np.ndarray], context: Context
) -> list[np.ndarray]:
    """Fold the first axis of every array of `elements` by a computation of (accumulators..., elements...).

    `initial` holds an accumulator an array, scalar or of the elements' shape. Returns the accumulators.
    """
    count = elements[0].shape[0]
    if count > _STRICT:
        elements = _join_neighbours(computation, elements, context)
        count = 1
    accumulators = [np.broadcast_to(i, e.shape[1:]) for i, e in zip(initial, elements, strict=True)]
    for step in range(count):
        accumulators = as_list(context.lift(computation, [*accumulators, *(e[step] for e in elements)]))
    return accumulators


def _join_neighbours(
    computation: Computation, elements: list[np.ndarray], context: Context
) -> list[np.ndarray]:
    while (count := elements[0].shape[0]) > 1:
        even = count - count % 2
        firsts, seconds = [e[0:even:2] for e in elements], [e[1:even:2] for e in elements]
        joined = as_list(context.lift(computation, [*firsts, *seconds]))
        elements = [np.concatenate([j, e[even:]]) for j, e in zip(joined, elements, strict=True)]
    return elements


def as_list(value: np.ndarray | tuple) -> list[np.ndarray]:
    """The elements of a tuple, or the one array."""
    return list(value) if isinstance(value, tuple) else [value]
