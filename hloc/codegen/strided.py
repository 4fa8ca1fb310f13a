"""Operands that are read where they lie: arrays seen through ops that only choose, repeat or rename elements.

Slices (dynamic ones too), transposes, broadcasts, many reshapes, and conversions that lose nothing turn an
array in memory into another one that lies there as well, with a start, strides and element type of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from hloc.codegen import scalar
from hloc.codegen.bodies import lies_in_memory, source
from hloc.codegen.kernel import KernelContext
from hloc.codegen.llvm import Value
from hloc.codegen.loops import clamped, reshape_runs, row_major_strides
from hloc.codegen.routines import i64
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.records import record

Starts = tuple[tuple[Instruction, int, int], ...]
"""(a start index of a dynamic-slice, its greatest value, the stride of its dimension), one for each."""


@record
class Strided:
    """The elements of `array`, an instruction in memory, that an operand consists of, of type `dtype` there.

    They begin `offset` elements behind the array's first one, and those of `starts` times their strides.
    """

    array: Instruction
    dtype: DType
    strides: tuple[int, ...]
    offset: int
    starts: Starts

    @staticmethod
    def of(operand: Instruction, is_fused: bool = True) -> Strided | None:
        """How an operand lies in memory, if it does: outside of fused computations all do."""
        if not is_fused:
            return Strided(operand, operand.shape.dtype, operand.shape.strides, 0, ())
        chain: list[Instruction] = []
        node, _ = source(operand, ())
        while not lies_in_memory(node):
            if not _is_seen_through(node):
                return None
            chain.append(node)
            node, _ = source(node.operands[0], ())
        if not node.shape.is_array:
            return None
        found = Strided(node, node.shape.dtype, node.shape.strides, 0, ())
        for instruction in reversed(chain):
            found = found and found.seen_through(instruction)
        return found

    def seen_through(self, instruction: Instruction) -> Strided | None:
        """The result of an op on it, if that lies in memory too."""
        strides, offset, starts = list(self.strides), self.offset, self.starts
        before, after = instruction.operands[0].shape.dims, instruction.shape.dims
        if instruction.opcode == "slice":
            parts = instruction.get("slice")
            offset += sum(part.start * stride for part, stride in zip(parts, strides, strict=True))
            strides = [part.stride * stride for part, stride in zip(parts, strides, strict=True)]
        elif instruction.opcode == "dynamic-slice":
            rows = zip(instruction.operands[1:], before, after, strides, strict=True)
            starts += tuple((start, all_ - size, stride) for start, all_, size, stride in rows if all_ != size)
        elif instruction.opcode == "transpose":
            strides = [strides[d] for d in instruction.get("dimensions")]
        elif instruction.opcode == "broadcast":
            given = dict(zip(instruction.get("dimensions"), strides, strict=True))
            strides = [given.get(d, 0) for d in range(len(after))]
        elif instruction.opcode == "reshape":
            strides = _reshaped(before, strides, after)
        return None if strides is None else Strided(self.array, self.dtype, tuple(strides), offset, starts)

    def pointer(self, k: KernelContext) -> Value:
        """The address of the first element, computed at the builder's place."""
        b, array = k.b, k.body.array(self.array)
        place = i64(self.offset)
        for start, greatest, stride in self.starts:
            value = k.body.evaluate(k, start, (), ())
            value = clamped(b, value, start.shape.dtype, greatest)
            place = b.add(place, b.mul(value, i64(stride)))
        return b.gep(scalar.memory_type(array.shape.dtype), array.pointer, place)


def _is_seen_through(instruction: Instruction) -> bool:
    if instruction.opcode == "convert":
        return widens(instruction.operands[0].shape.dtype, instruction.shape.dtype)
    if instruction.opcode == "dynamic-slice":
        return all(start.shape.rank == 0 for start in instruction.operands[1:])
    return instruction.opcode in ("slice", "transpose", "broadcast", "reshape", "copy")


_SIGNIFICANT = {"f32": 24, "f64": 53}
"""Bits of whole numbers that floats hold without loss."""


def widens(before: DType, after: DType) -> bool:
    """Whether a conversion of real numbers loses nothing, so that doing it later comes to the same."""
    if before.is_integer and after.is_integer:
        return before.bits < after.bits and (before.is_unsigned or after.is_signed)
    if before.is_complex or after.is_complex or before.name == "pred" or after.name not in _SIGNIFICANT:
        return False
    if before.is_float:
        return before.bits < after.bits
    return before.bits <= _SIGNIFICANT[after.name]


def _reshaped(before: Sequence[int], strides: Sequence[int], after: Sequence[int]) -> list[int] | None:
    """The strides of a reshape; None where dimensions that do not follow each other in memory become one."""
    if 0 in before:
        return None
    result = [0] * len(after)
    for run, new in reshape_runs(before, after):
        wide = [d for d in run if before[d] != 1]
        for major, minor in zip(wide, wide[1:]):
            if strides[major] != strides[minor] * before[minor]:
                return None
        step = strides[wide[-1]] if wide else 0
        for dimension, count in zip(new, row_major_strides([after[d] for d in new]), strict=True):
            result[dimension] = count * step
    return result
