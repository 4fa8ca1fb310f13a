"""How much arithmetic an op does: float operations, transcendental functions, integer operations.

A fused multiply-add counts as two operations, a complex addition as two and a complex multiplication as six.
Moving data, converting and selecting are no arithmetic. What a window finds outside of its array, in padding or
between dilated elements, is not computed with and does not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd, log2, prod

from hloc.analysis.traffic import count_of, needed_parts
from hloc.ir.attributes import WindowDim
from hloc.ir.computation import Computation
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape
from hloc.records import NamedTuple

TRANSCENDENTAL = frozenset((
    *("exponential", "exponential-minus-one", "log", "log-plus-one", "logistic", "power", "sqrt", "rsqrt", "cbrt"),
    *("sine", "cosine", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
    "erf",
))

_ONE = (
    *("add", "subtract", "multiply", "divide", "remainder", "negate", "abs", "sign", "maximum", "minimum", "compare"),
    *("floor", "ceil", "round-nearest-afz", "round-nearest-even", "is-finite", "and", "or", "xor", "not", "mulhi"),
    *("shift-left", "shift-right-arithmetic", "shift-right-logical", "popcnt", "count-leading-zeros"),
)

ARITHMETIC = {**dict.fromkeys(_ONE, 1), "clamp": 2}
"""Operations for one element of the result."""

_COMPLEX = {"multiply": 6, "divide": 11, "abs": 4}


class Work(NamedTuple):
    """Numbers of operations; floats, since of a fused op only a part may be needed."""

    flops: float = 0.0
    transcendentals: float = 0.0
    integer_ops: float = 0.0

    def times(self, factor: float) -> Work:
        return Work(*(factor * number for number in self))

    def plus(self, other: Work) -> Work:
        return Work(*(one + more for one, more in zip(self, other, strict=True)))


_NONE = Work()


def work_of(instruction: Instruction, needs: Mapping[Instruction, float] | None = None) -> Work:
    """The arithmetic of one execution of an op or a fusion; not of what it runs as control flow.

    `needs` are the `needed_parts` of the fusion's computation, where they are known.
    """
    opcode, shape = instruction.opcode, instruction.shape
    if opcode == "fusion":
        body = instruction.called[0]
        return work_inside(body, needed_parts(body) if needs is None else needs)
    if opcode in TRANSCENDENTAL:
        parts = 2 if _dtype(instruction).is_complex else 1
        return Work(transcendentals=parts * shape.count)
    if opcode in ARITHMETIC:
        return _elementwise(instruction)
    rule = _RULES.get(opcode)
    return _NONE if rule is None else rule(instruction)


def work_inside(body: Computation, needs: Mapping[Instruction, float]) -> Work:
    """The arithmetic of a fused computation: each value as far as it is needed, once."""
    flops = transcendentals = integer_ops = 0.0
    for instruction in body.instructions:
        part = needs.get(instruction, 0.0)
        work = work_of(instruction) if part else _NONE
        if work is not _NONE:
            flops += part * work.flops
            transcendentals += part * work.transcendentals
            integer_ops += part * work.integer_ops
    return Work(flops, transcendentals, integer_ops)


def _each(computation: Computation) -> Work:
    """The arithmetic of applying a computation of scalars once."""
    total = Work()
    for instruction in computation:
        total = total.plus(work_of(instruction))
    return total


def _dtype(instruction: Instruction) -> DType:
    """The type that an op computes in; that of a comparison is its operands'."""
    shape = instruction.operands[0].shape if instruction.opcode in ("compare", "is-finite") else instruction.shape
    return shape.dtype


def _counted(dtype: DType, operations: float) -> Work:
    is_float = dtype.is_float or dtype.is_complex
    return Work(flops=operations) if is_float else Work(integer_ops=operations)


def _elementwise(instruction: Instruction) -> Work:
    dtype = _dtype(instruction)
    each = _COMPLEX.get(instruction.opcode, 2) if dtype.is_complex else ARITHMETIC[instruction.opcode]
    return _counted(dtype, each * instruction.shape.count)


def _products(dtype: DType, count: float) -> Work:
    """Multiplications that are added up."""
    return _counted(dtype, (8 if dtype.is_complex else 2) * count)


def _dot(instruction: Instruction) -> Work:
    lhs = instruction.operands[0].shape
    contracted = prod(lhs.dims[d] for d in instruction.get("lhs_contracting_dims"))
    return _products(lhs.dtype, contracted * instruction.shape.count)


def _convolution(instruction: Instruction) -> Work:
    image, kernel = (operand.shape for operand in instruction.operands[:2])
    labels, window = instruction.attributes["dim_labels"], instruction.get("window")
    taps = 1
    for place, dim in enumerate(window.dims if window is not None else ()):
        base = image.dims[labels.input_spatial[place]]
        taps *= positions(dim, base, instruction.shape.dims[labels.output_spatial[place]])
    batch = image.dims[labels.input_batch] // instruction.get("batch_group_count")
    features = kernel.dims[labels.kernel_output_feature]
    return _products(image.dtype, taps * batch * features * kernel.dims[labels.kernel_input_feature])


def positions(dim: WindowDim, base: int, output: int) -> int:
    """In how many (output, window) positions of one dimension an element of the base lies under the window."""
    extent = (base - 1) * dim.base_dilation + 1 if base else 0
    if dim.stride == dim.base_dilation == dim.window_dilation == 1:
        end = dim.pad_low + extent
        return _pairs_below(end, output, dim.size) - _pairs_below(dim.pad_low, output, dim.size)
    return sum(_hits(dim, tap * dim.window_dilation - dim.pad_low, extent, output) for tap in range(dim.size))


def _pairs_below(end: int, outputs: int, taps: int) -> int:
    """The pairs of an output and a tap, numbers from 0 on, whose sum is below `end`: cumulative windows are long."""
    corners = ((end, 1), (end - outputs, -1), (end - taps, -1), (end - outputs - taps, 1))
    return sum(sign * size * (size + 1) // 2 for size, sign in corners if size > 0)


def _hits(dim: WindowDim, offset: int, extent: int, output: int) -> int:
    """For how many outputs o the place o * stride + offset is an element: in the extent, and not between two."""
    first = max(0, -(offset // dim.stride)) if offset < 0 else 0
    last = min(output - 1, (extent - 1 - offset) // dim.stride)
    period = dim.base_dilation // gcd(dim.base_dilation, dim.stride)
    for start in range(first, min(last + 1, first + period)):
        if (start * dim.stride + offset) % dim.base_dilation == 0:
            return (last - start) // period + 1
    return 0


def _reduce(instruction: Instruction) -> Work:
    arrays = len(instruction.operands) // 2
    results = count_of(instruction.shape) // arrays
    return _each(instruction.called[0]).times(max(0, instruction.operands[0].shape.count - results))


def _window(instruction: Instruction) -> Work:
    base = instruction.operands[0].shape
    output = next(leaf for _, leaf in instruction.shape.leaves())
    dims = instruction.get("window").dims
    taps = prod(positions(d, size, out) for d, size, out in zip(dims, base.dims, output.dims, strict=True))
    return _each(instruction.called[0]).times(max(0, taps - output.count))


def _select_and_scatter(instruction: Instruction) -> Work:
    base, source = (operand.shape for operand in instruction.operands[:2])
    dims = instruction.get("window").dims
    taps = prod(positions(d, size, out) for d, size, out in zip(dims, base.dims, source.dims, strict=True))
    select, scatter = instruction.called
    return _each(select).times(max(0, taps - source.count)).plus(_each(scatter).times(source.count))


def _scatter(instruction: Instruction) -> Work:
    arrays = len(instruction.operands) // 2
    return _each(instruction.called[0]).times(instruction.operands[arrays + 1].shape.count)


def _map(instruction: Instruction) -> Work:
    return _each(instruction.called[0]).times(instruction.shape.count)


def _sort(instruction: Instruction) -> Work:
    """As many comparisons as merging needs: count times the logarithm of the length."""
    keys = instruction.operands[0].shape
    length = keys.dims[instruction.get("dimensions")[0]]
    return _each(instruction.called[0]).times(keys.count * log2(length) if length > 1 else 0)


def _all_reduce(instruction: Instruction) -> Work:
    return _each(instruction.called[0]).times(count_of(instruction.shape))


def _fft(instruction: Instruction) -> Work:
    """5 n log2(n) for a complex transform of n elements, half of that for a real one."""
    lengths = instruction.get("fft_length")
    signal = instruction.operands[0].shape
    wide = max(signal, instruction.shape, key=lambda shape: shape.count)
    size = prod(lengths)
    is_real = instruction.get("fft_type") in ("RFFT", "IRFFT")
    return Work(flops=5 * wide.count * log2(size) * (0.5 if is_real else 1) if size > 1 else 0)


def _matrices(shape: ArrayShape) -> int:
    return prod(shape.dims[:-2])


def _cholesky(instruction: Instruction) -> Work:
    shape = instruction.shape
    return _products(shape.dtype, _matrices(shape) * shape.dims[-1] ** 3 / 6)


def _triangular_solve(instruction: Instruction) -> Work:
    matrix, right = (operand.shape for operand in instruction.operands)
    return _products(right.dtype, right.count * matrix.dims[-1] / 2)


_FACTORS = {"potrf": 1 / 6, "getrf": 1 / 3, "geqrf": 2 / 3, "orgqr": 2 / 3, "ungqr": 2 / 3, "syevd": 4.5, "heevd": 4.5}
_FACTORS |= {"gesdd": 11.0, "gees": 12.5, "geev": 12.5, "gehrd": 5 / 3, "sytrd": 2 / 3, "trsm": 0.5}
"""Of LAPACK's routines the multiplications with an addition, for a square matrix in units of its side cubed."""


def _custom_call(instruction: Instruction) -> Work:
    """What LAPACK's routines do, by the leading term of the textbooks; nothing is known of others."""
    target = instruction.get("custom_call_target") or ""
    name = target.removeprefix("lapack_").removesuffix("_ffi")[1:]
    arrays = [operand.shape for operand in instruction.operands if operand.shape.is_array and operand.shape.rank >= 2]
    if not target.startswith("lapack_") or name not in _FACTORS or not arrays:
        return Work()
    rows, columns = arrays[0].dims[-2:]
    if name == "trsm":
        return _products(arrays[0].dtype, arrays[-1].count * columns / 2)
    return _products(arrays[0].dtype, _FACTORS[name] * _matrices(arrays[0]) * rows * columns * min(rows, columns))


def is_opaque(instruction: Instruction) -> bool:
    """Whether nothing is known of what an op computes."""
    return instruction.opcode == "custom-call" and _custom_call(instruction) == Work()


_RULES = {
    "dot": _dot,
    "convolution": _convolution,
    "reduce": _reduce,
    "reduce-window": _window,
    "select-and-scatter": _select_and_scatter,
    "scatter": _scatter,
    "map": _map,
    "sort": _sort,
    "all-reduce": _all_reduce,
    "all-reduce-start": _all_reduce,
    "reduce-scatter": _all_reduce,
    "fft": _fft,
    "cholesky": _cholesky,
    "triangular-solve": _triangular_solve,
    "custom-call": _custom_call,
    "call": lambda instruction: _each(instruction.called[0]),
}
