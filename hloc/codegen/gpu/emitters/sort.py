"""sort: operands permuted together along a dimension by a comparator. Always stable."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from hloc.analysis.comparators import SortKey, sort_key
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.emitters import gpu_kernel
from hloc.codegen.gpu.merge_plan import Lines, Tiling, Values
from hloc.codegen.gpu.merge_sort import merge_sort
from hloc.codegen.gpu.radix_sort import RADIX_LEAST, Keyed, radix_scratch_bytes, radix_sort
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value
from hloc.codegen.loops import delinearize
from hloc.codegen.sort_keys import MOVED, as_moved, compared, key_order, key_value
from hloc.ir.instruction import Instruction


def _line_dims(instruction: Instruction) -> list[int]:
    """The dimensions that lines are counted through, the fastest in memory last."""
    (dimension,) = instruction.get("dimensions")
    return [d for d in instruction.operands[0].shape.minor_to_major[::-1] if d != dimension]


def _tiling(instruction: Instruction) -> Tiling:
    shape = instruction.operands[0].shape
    lines = prod(shape.dims[d] for d in _line_dims(instruction))
    dtypes = [MOVED.get(o.shape.dtype, o.shape.dtype) for o in instruction.operands]
    return Tiling(dtypes, lines, shape.dims[instruction.get("dimensions")[0]])


def _key(instruction: Instruction) -> SortKey | None:
    """The key that lines are sorted by, byte by byte; None where merging does better, or is the only way."""
    key = sort_key(instruction.attributes["to_apply"])
    size = instruction.operands[0].shape.dims[instruction.get("dimensions")[0]]
    return key if RADIX_LEAST <= size < 1 << 32 else None


def _key_bits(key: SortKey) -> int:
    return max(8, key.value.shape.dtype.bits)


def _scratch(instruction: Instruction) -> int:
    if instruction.operands[0].shape.count == 0:
        return 0
    tiling, key = _tiling(instruction), _key(instruction)
    if key is None:
        return tiling.scratch_bytes
    bits = _key_bits(key)
    return radix_scratch_bytes(tiling.lines, tiling.size, bits, bits > 32)


@gpu_kernel("sort", element_operands="all", scratch=_scratch)
def sort(g: GpuStep, instruction: Instruction) -> None:
    shape = instruction.operands[0].shape
    if shape.count == 0:
        return
    comparator = instruction.attributes["to_apply"]
    (dimension,) = instruction.get("dimensions")
    tiling, dims = _tiling(instruction), _line_dims(instruction)
    dtypes = [operand.shape.dtype for operand in instruction.operands]

    def at(k: GpuContext, line: Value, i: Value) -> Index:
        index: list[Value] = [i] * shape.rank
        for d, part in zip(dims, delinearize(k.b, line, [shape.dims[d] for d in dims]), strict=True):
            index[d] = part
        return tuple(index)

    def load(k: GpuContext, line: Value, i: Value) -> Values:
        index = at(k, line, i)
        return [as_moved(k.b, k.input(number)(index), dtype) for number, dtype in enumerate(dtypes)]

    def store(k: GpuContext, line: Value, i: Value, values: Values) -> None:
        index = at(k, line, i)
        for output, dtype, value in zip(k.outputs, dtypes, values, strict=True):
            output.store(index, compared(k.b, value, dtype))

    def before(k: GpuContext, first: Values, second: Values) -> Value:
        pairs = [
            compared(k.b, value, dtype)
            for dtype, pair in zip(dtypes, zip(first, second, strict=True), strict=True)
            for value in pair
        ]
        (result,) = k.apply(comparator, pairs)
        return result

    key = _key(instruction)
    if key is not None:
        _sort_by_key(g, instruction, key, at)
        return
    is_apart = shape.minor_to_major[0] != dimension
    merge_sort(g, Lines(tiling.dtypes, tiling.lines, tiling.size, load, store, before, is_apart))


def _sort_by_key(
    g: GpuStep, instruction: Instruction, key: SortKey, at: Callable[[GpuContext, Value, Value], Index]
) -> None:
    """Sorts the keys, then fetches what belongs to each."""
    tiling, bits = _tiling(instruction), _key_bits(key)
    operands = range(len(instruction.operands))

    def key_at(k: GpuContext, line: Value, i: Value) -> Value:
        b, index = k.b, at(k, line, i)
        elements = [k.input(number)(index) for number in operands]
        order = key_order(b, key, key_value(k, instruction.attributes["to_apply"], key, elements))
        return order if bits >= 32 else b.zext(order, "i32")

    def store(k: GpuContext, line: Value, i: Value, order: Value, number: Value) -> None:
        source, target = at(k, line, number), at(k, line, i)
        for operand, output in zip(operands, k.outputs, strict=True):
            output.store(target, k.input(operand)(source))

    radix_sort(g, Keyed(tiling.lines, tiling.size, bits, bits > 32, key_at, store))
