"""Arrays that go in and come out of a program on the command line: made, read, compared, shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np

from hloc.codegen.program import Program
from hloc.errors import ArgumentError
from hloc.ir.dtypes import DType
from hloc.ir.shapes import ArrayShape
from hloc.records import record

if TYPE_CHECKING:
    from hloc.ir.module import Module


def parameter_leaves(program: Module | Program) -> list[tuple[str, ArrayShape]]:
    """(name, shape) of every array that a call takes, depth first over the entry's parameters."""
    if isinstance(program, Program):
        return [(_leaf_name(leaf.name, leaf.index), leaf.shape) for leaf in program.parameters]
    leaves = []
    for number, shape in enumerate(program.entry_shapes[0]):
        name = program.entry.parameters[number].name
        leaves += [(_leaf_name(name, index), leaf) for index, leaf in shape.leaves() if leaf.is_array]
    return leaves


def _leaf_name(name: str, index: Sequence[int]) -> str:
    return name + "".join(f".{i}" for i in index)


def random_inputs(program: Module | Program, seed: int = 0) -> list[np.ndarray]:
    """Arguments for every parameter leaf, the same for the same seed.

    Floats and complex parts are standard normal, signed integers uniform in -10..10, unsigned ones in 0..10 (as
    far as the type goes), pred a coin.
    """
    generator = np.random.default_rng(seed)
    return [in_layout(_random(shape, generator), shape) for _, shape in parameter_leaves(program)]


def _random(shape: ArrayShape, generator: np.random.Generator) -> np.ndarray:
    dtype, dims = shape.dtype, shape.dims
    if dtype.kind == "predicate":
        return generator.integers(0, 2, dims).astype(bool)
    if dtype.is_integer:
        low, high = _integer_range(dtype)
        return generator.integers(max(low, -10), min(high, 10), dims, endpoint=True).astype(dtype.numpy)
    values = generator.standard_normal(dims)
    if dtype.is_complex:
        values = values + 1j * generator.standard_normal(dims)
    return np.asarray(values).astype(dtype.numpy)


def _integer_range(dtype: DType) -> tuple[int, int]:
    if dtype.is_signed:
        return -(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1
    return 0, (1 << dtype.bits) - 1


def in_layout(array: np.ndarray, shape: ArrayShape) -> np.ndarray:
    """The same values laid out in memory as the shape's layout says."""
    order = shape.minor_to_major[::-1]
    if order == tuple(range(len(order))):
        return np.ascontiguousarray(array).reshape(array.shape)
    back = np.argsort(order)
    return np.ascontiguousarray(array.transpose(order)).transpose(back)


def load_inputs(path: str, program: Module | Program) -> list[np.ndarray]:
    """Arguments from an .npz file: by parameter name, else `in0`, `in1`, ..., else in the file's order.

    Types that NumPy lacks may be stored as raw bits in an unsigned integer of their size.
    """
    leaves = parameter_leaves(program)
    with np.load(path, allow_pickle=False) as archive:
        stored = {name: archive[name] for name in archive.files}
    if all(name in stored for name, _ in leaves):
        arrays = [stored[name] for name, _ in leaves]
    elif all(f"in{i}" in stored for i in range(len(leaves))):
        arrays = [stored[f"in{i}"] for i in range(len(leaves))]
    elif len(stored) == len(leaves):
        arrays = list(stored.values())
    else:
        wanted = ", ".join(name for name, _ in leaves)
        raise ArgumentError(f"{Path(path).name} holds {len(stored)} arrays, expected {len(leaves)}: {wanted}")
    pairs = zip(arrays, (shape for _, shape in leaves), strict=True)
    return [in_layout(_from_stored(array, shape.dtype), shape) for array, shape in pairs]


def _from_stored(array: np.ndarray, dtype: DType) -> np.ndarray:
    raw = array.dtype.kind == "V" or (array.dtype.kind == "u" and not dtype.is_unsigned)
    if array.dtype == dtype.numpy or not raw or array.dtype.itemsize != dtype.itemsize:
        return array
    if dtype.is_integer:
        return array.view(np.int8).astype(dtype.numpy)
    return np.ascontiguousarray(array).view(dtype.numpy)


def to_stored(array: np.ndarray) -> np.ndarray:
    """What an .npz file can hold: the array itself, or the raw bits of a type that NumPy lacks."""
    if array.dtype.kind in "biufc" and array.dtype.isbuiltin == 1:
        return array
    return array.view(f"u{array.dtype.itemsize}")


@record
class Difference:
    """How far a result is from what was expected. `index` is where the largest error stands."""

    equal: bool
    absolute: float
    relative: float
    index: tuple[int, ...]
    got: object
    expected: object


def compare(got: np.ndarray, expected: np.ndarray) -> Difference:
    """Integers and pred exactly; floats within a tolerance of their type, NaN and infinity where expected.

    The tolerance, relative to each element and to the largest one, is 64 units in the last place of a type of 16
    bits or fewer and 1e-5 (f32), 1e-12 (f64) else: sums in another order differ by as much.
    """
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return Difference(False, np.inf, np.inf, (), f"{got.dtype}{got.shape}", f"{expected.dtype}{expected.shape}")
    if got.size == 0:
        return Difference(True, 0.0, 0.0, (), None, None)
    wide_got, wide_expected = _wide(got), _wide(expected)
    with np.errstate(all="ignore"):
        same = (wide_got == wide_expected) | (np.isnan(wide_got) & np.isnan(wide_expected))
        error = np.where(same, 0.0, np.abs(wide_got - wide_expected))
        error = np.where(np.isnan(error), np.inf, error)
        relative = error / np.maximum(np.abs(wide_expected), np.finfo(np.float64).tiny)
        finite = np.abs(wide_expected[np.isfinite(wide_expected)])
        scale = float(finite.max()) if finite.size else 0.0
        allowed = _tolerance(got.dtype) * (np.abs(wide_expected) + scale)
        worst = int(np.argmax(np.where(same, -1.0, error - np.where(np.isfinite(allowed), allowed, 0.0))))
    index = tuple(int(i) for i in np.unravel_index(worst, got.shape))
    inside = bool(np.all(same | (error <= allowed)))
    return Difference(inside, float(error.max()), float(relative.flat[worst]), index, got[index], expected[index])


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.longdouble)


def _tolerance(dtype: np.dtype) -> float:
    if dtype.kind in "biu" or dtype.name.startswith(("int", "uint")):
        return 0.0
    if dtype in (np.float64, np.complex128):
        return 1e-12
    if dtype in (np.float32, np.complex64):
        return 1e-5
    return 64 * float(ml_dtypes.finfo(dtype).eps)


def show(array: np.ndarray) -> str:
    """The array as text, the middle of large ones left out."""
    with np.printoptions(threshold=64, edgeitems=3, linewidth=100):
        return str(array)
