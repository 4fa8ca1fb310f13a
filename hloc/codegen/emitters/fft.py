"""fft: discrete Fourier transforms of the last dimensions, one dimension after the other."""

from __future__ import annotations

from collections.abc import Callable

from hloc.codegen import scalar
from hloc.codegen.arrays import ArrayRef, Element, Register
from hloc.codegen.fourier import Shape, Transform
from hloc.codegen.fourier_parts import Fft, Split, inverse
from hloc.codegen.kernel import Index, KernelContext, kernel
from hloc.codegen.llvm import Value, const
from hloc.codegen.routines import Routines, i64
from hloc.ir.instruction import Instruction

_LINES = 8
"""Lines transformed together, while they are no longer than _LONG."""

_LONG = 4096


class _Stage:
    """One dimension's transform: the array's dimensions, which of them, and the lines taken together."""

    def __init__(self, dims: tuple[int, ...], dimension: int, length: int, order: tuple[int, ...]):
        self.dims, self.dimension, self.length = dims, dimension, length
        others = [d for d in order if d != dimension and dims[d] > 1]
        self.across = others[-1] if others and length <= _LONG else None
        self.size = 1 if self.across is None else dims[self.across]
        self.lines = min(_LINES, self.size)

    def groups(self) -> list[tuple[int, int, int]]:
        """(first line, how many groups, lines in each) across the chosen dimension."""
        whole, rest = divmod(self.size, self.lines)
        return [(0, whole, self.lines), *([(whole * self.lines, 1, rest)] if rest else [])]


class _Plan(Fft):
    """An fft with the lines that are taken together, and where the values between its stages are."""

    def __init__(self, instruction: Instruction):
        super().__init__(instruction)
        order = self.complex_shape.minor_to_major[::-1]
        self.stages = [_Stage(self.complex_shape.dims, d, length, order) for d, length in self.dimensions]

    @property
    def scratch_bytes(self) -> int:
        if 0 in self.complex_shape.dims or 0 in self.lengths:
            return 0
        sizes = [
            Transform.scratch_bytes(Shape(self.dtype, stage.length, lines))
            for stage in self.stages
            for _, _, lines in stage.groups()
        ]
        return self.between_bytes + max(sizes, default=0)


@kernel("fft", element_operands="all", scratch=lambda instruction: _Plan(instruction).scratch_bytes)
def fft(k: KernelContext, instruction: Instruction) -> None:
    plan = _Plan(instruction)
    if k.outputs[0].shape.count == 0:
        return
    if plan.fault:
        raise k.error(plan.fault)
    _Fft(k, plan).write()


class _Fft:
    """Writes the stages."""

    def __init__(self, k: KernelContext, plan: _Plan):
        self.k, self.b, self.plan = k, k.b, plan
        self.routines = Routines(k.b.module, k.target)
        self.type = scalar.memory_type(plan.dtype)
        self.scratch = k.b.gep("i8", k.scratch, i64(plan.between_bytes))

    def write(self) -> None:
        plan, k = self.plan, self.k
        source: Element = k.input(0)
        between = ArrayRef(self.b, plan.complex_shape, k.scratch)
        for number, stage in enumerate(plan.stages):
            last = number == len(plan.stages) - 1
            target = k.outputs[0] if last or plan.kind != "IRFFT" else between
            self._stage(stage, source, target, first=number == 0, last=last)
            source = target.element
        if not plan.stages:
            k.loop_nest(k.outputs[0].shape.dims, lambda index: k.outputs[0].store(index, source(index)))

    def _stage(self, stage: _Stage, source: Element, target: ArrayRef, first: bool, last: bool) -> None:
        for start, count, lines in stage.groups():
            shape = Shape(self.plan.dtype, stage.length, lines)
            transform = Transform(self.b, self.routines, shape, self.scratch)
            dims = list(stage.dims)
            dims[stage.dimension] = 1
            if stage.across is not None:
                dims[stage.across] = count

            def group(index: Index, transform=transform, start=start, lines=lines) -> None:
                def place(line: Value, j: Value) -> Index:
                    at = list(index)
                    at[stage.dimension] = j
                    if stage.across is not None:
                        base = self.b.add(self.b.mul(index[stage.across], i64(lines)), i64(start))
                        at[stage.across] = self.b.add(base, line)
                    return tuple(at)

                self._gather(
                    stage,
                    source,
                    transform,
                    place,
                    first and self.plan.kind == "RFFT",
                    last and self.plan.kind == "IRFFT",
                )
                result = transform.run()
                self._scatter(stage, transform, result, target, place, first, last)

            self.k.loop_nest(dims, group)

    def _parts(self, parts: Split) -> Split:
        return inverse(parts) if self.plan.is_inverse else parts

    def _each(self, count: int, lines: int, body: Callable[[Value, Value], None]) -> None:
        """Runs body(j, line) for all elements of some lines."""
        with self.b.for_loop(0, count) as j, self.b.for_loop(0, lines) as line:
            body(j, line)

    def _put(self, parts: Split, lines: int, j: Value, line: Value, value: Register) -> None:
        offset = self.b.add(self.b.mul(j, i64(lines)), line)
        for part, target in zip(value, parts, strict=True):
            self.b.store(part, self.b.gep(self.type, target, offset))

    def _gather(
        self, stage: _Stage, source: Element, transform: Transform, place, real: bool, half: bool
    ) -> None:
        """Lines into the transform's first buffer, of real values or of halves of symmetric lines."""
        b, lines = self.b, transform.shape.lines
        parts = self._parts(transform.buffers[0])
        zero = const(self.type, 0)

        def element(j: Value, line: Value) -> None:
            value = source(place(line, j))
            self._put(parts, lines, j, line, (value, zero) if real else value)

        def mirrored(j: Value, line: Value) -> None:
            value = source(place(line, b.sub(i64(stage.length // 2 - (stage.length % 2 == 0)), j)))
            at = b.add(j, i64(stage.length // 2 + 1))
            self._put(parts, lines, at, line, (value[0], b.fneg(value[1])))

        self._each(stage.length // 2 + 1 if half else stage.length, lines, element)
        if half:
            self._each(stage.length - stage.length // 2 - 1, lines, mirrored)

    def _scatter(
        self,
        stage: _Stage,
        transform: Transform,
        result: Split,
        target: ArrayRef,
        place,
        first: bool,
        last: bool,
    ) -> None:
        """Lines out of a buffer: all of them, the first half, or the real parts."""
        b, lines, plan = self.b, transform.shape.lines, self.plan
        parts = self._parts(result)
        factor = const(self.type, 1 / stage.length)
        real = last and plan.kind == "IRFFT"

        def element(j: Value, line: Value) -> None:
            offset = b.add(b.mul(j, i64(lines)), line)
            value = [b.load(self.type, b.gep(self.type, part, offset)) for part in parts]
            if self.plan.is_inverse:
                value = [b.fmul(part, factor) for part in value]
            target.store(place(line, j), value[0] if real else tuple(value))

        half = first and plan.kind == "RFFT"
        self._each(stage.length // 2 + 1 if half else stage.length, lines, element)
