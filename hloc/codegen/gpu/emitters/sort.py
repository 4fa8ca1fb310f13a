"""sort: operands permuted together along a dimension by a comparator. Always stable."""

from __future__ import annotations

from math import prod

from hloc.codegen.emitters.sort import MOVED, as_moved, compared
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.emitters import gpu_kernel
from hloc.codegen.gpu.merge_plan import Lines, Tiling, Values
from hloc.codegen.gpu.merge_sort import merge_sort
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value
from hloc.codegen.loops import delinearize
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


def _scratch(instruction: Instruction) -> int:
    return _tiling(instruction).scratch_bytes if instruction.operands[0].shape.count else 0


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

    is_apart = shape.minor_to_major[0] != dimension
    merge_sort(g, Lines(tiling.dtypes, tiling.lines, tiling.size, load, store, before, is_apart))
