"""fft: discrete Fourier transforms of the last dimensions, one dimension after the other."""

from __future__ import annotations

from math import prod

from hloc.codegen.arrays import ArrayRef, Element
from hloc.codegen.fourier_parts import Fft, Split, inverse
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.emitters import gpu_kernel
from hloc.codegen.gpu.fourier import Lines, transform
from hloc.codegen.gpu.spread import over_elements
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value, const
from hloc.codegen.loops import delinearize
from hloc.codegen.routines import i64
from hloc.ir.instruction import Instruction

_THREADS = 256


class _Plan(Fft):
    """An fft by stages, a dimension each, of all lines along it."""

    def order(self, dimension: int) -> list[int]:
        """The other dimensions, as they lie in memory."""
        return [d for d in self.complex_shape.minor_to_major[::-1] if d != dimension]

    def lines(self, dimension: int, length: int) -> Lines:
        dims = self.complex_shape.dims
        minor = next((d for d in self.complex_shape.minor_to_major if dims[d] > 1), dimension)
        return Lines(self.dtype, prod(dims[d] for d in self.order(dimension)), length, minor != dimension)

    @property
    def scratch_bytes(self) -> int:
        if 0 in self.complex_shape.dims or 0 in self.lengths:
            return 0
        stages = [self.lines(*stage).scratch_bytes for stage in self.dimensions]
        return self.between_bytes + max(stages, default=0)


@gpu_kernel("fft", element_operands="all", scratch=lambda instruction: _Plan(instruction).scratch_bytes)
def fft(g: GpuStep, instruction: Instruction) -> None:
    plan = _Plan(instruction)
    if instruction.shape.count == 0:
        return
    if plan.fault:
        raise g.error(plan.fault)
    if not plan.dimensions:
        _copied(g, instruction)
    for number in range(len(plan.dimensions)):
        _Stage(plan, number).write(g)


def _copied(g: GpuStep, instruction: Instruction) -> None:
    """A transform of no dimensions."""
    with g.launch(-(-instruction.shape.count // _THREADS), _THREADS) as k:

        def one(indices: list[Index]) -> None:
            k.outputs[0].store(indices[0], k.input(0)(indices[0]))

        over_elements(k, k.global_index(), instruction.shape, 1, one)


class _Stage:
    """One dimension's transform: from the operand, or where the stage before has put its results."""

    def __init__(self, plan: _Plan, number: int):
        self.plan = plan
        self.dimension, self.length = plan.dimensions[number]
        self.first, self.last = number == 0, number == len(plan.dimensions) - 1
        self.real_in = self.first and plan.kind == "RFFT"
        self.halved_in = self.last and plan.kind == "IRFFT"
        self.order = plan.order(self.dimension)

    def write(self, g: GpuStep) -> None:
        lines = self.plan.lines(self.dimension, self.length)
        transform(g, lines, self._load, self._store, self.plan.between_bytes)

    def _between(self, k: GpuContext) -> ArrayRef:
        """Where a stage that is not the last one puts its results."""
        if self.plan.kind == "IRFFT":
            return ArrayRef(k.b, self.plan.complex_shape, k.scratch)
        return k.outputs[0]

    def _index(self, k: GpuContext, line: Value, position: Value) -> Index:
        dims = self.plan.complex_shape.dims
        index = dict(zip(self.order, delinearize(k.b, line, [dims[d] for d in self.order]), strict=True))
        index[self.dimension] = position
        return tuple(index[d] for d in range(len(dims)))

    def _load(self, k: GpuContext, line: Value, position: Value) -> Split:
        b = k.b
        source: Element = k.input(0) if self.first else self._between(k).load
        if self.real_in:
            value = source(self._index(k, line, position))
            parts = value, const(value.type, 0)
        elif self.halved_in:
            given = b.icmp_signed("<=", position, i64(self.length // 2))
            mirrored = b.select(given, position, b.sub(i64(self.length), position))
            real, imaginary = source(self._index(k, line, mirrored))
            parts = real, b.select(given, imaginary, b.fneg(imaginary))
        else:
            parts = source(self._index(k, line, position))
        return inverse(parts) if self.plan.is_inverse else parts

    def _store(self, k: GpuContext, line: Value, position: Value, value: Split) -> None:
        b, index = k.b, self._index(k, line, position)
        if self.plan.is_inverse:
            factor = const(value[0].type, 1 / self.length)
            value = tuple(b.fmul(part, factor) for part in inverse(value))
        if self.halved_in:
            k.outputs[0].store(index, value[0])
        elif self.real_in:
            with b.if_then(b.icmp_signed("<=", position, i64(self.length // 2))):
                self._put(k, index, value)
        else:
            self._put(k, index, value)

    def _put(self, k: GpuContext, index: Index, value: Split) -> None:
        (k.outputs[0] if self.last else self._between(k)).store(index, value)
