"""fft: discrete Fourier transforms of the last dimensions, one dimension after the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from math import prod

from hloc.codegen import scalar
from hloc.codegen.arrays import ArrayRef, Element, Register
from hloc.codegen.fourier import Shape, Transform, stands_alone
from hloc.codegen.fourier_lines import mirror_routine, put_routine, take_routine
from hloc.codegen.fourier_parts import Fft, Split, inverse
from hloc.codegen.kernel import Index, KernelContext, kernel
from hloc.codegen.llvm import Value, const, integer
from hloc.codegen.long_fourier import LongLine, LongTransform
from hloc.codegen.loops import delinearize
from hloc.codegen.routines import Routines, i64
from hloc.ir.instruction import Instruction

_CONSTANT = 2048
"""Up to this length a transform needs no preparation at run time."""

_WIDEST = 64
"""Bytes of the widest vectors that there are."""

_FEW = 8
"""Long lines that all threads transform together, one after the other."""


class _Stage:
    """One dimension's transform: which lines are taken together, `lines` of them across another dimension.

    Lines that are contiguous, or alone, are transformed one by one if their length allows it.
    """

    def __init__(self, dims: tuple[int, ...], dimension: int, length: int, order: tuple[int, ...], lanes: int):
        self.dims, self.dimension, self.length = dims, dimension, length
        others = [d for d in order if d != dimension and dims[d] > 1]
        across = others[-1] if others else None
        near = across is None or dims[across] < lanes or order[-1] == dimension
        self.lines = 1 if near and stands_alone(length, lanes) else lanes
        self.across = None if self.lines == 1 else across

    @property
    def blocks(self) -> list[int]:
        """How many sets of lines there are along each dimension."""
        blocks = [1 if d == self.dimension else size for d, size in enumerate(self.dims)]
        if self.across is not None:
            blocks[self.across] = -(-self.dims[self.across] // self.lines)
        return blocks

    @property
    def rest(self) -> int:
        """Lines of the last set along the dimension that they are taken across, 0 if it is as large as the others."""
        return 0 if self.lines == 1 else (self.dims[self.across] if self.across is not None else 1) % self.lines


class _Plan(Fft):
    """An fft with the lines that are taken together, and where the values between its stages are."""

    def __init__(self, instruction: Instruction, vector_bytes: int):
        super().__init__(instruction)
        order = self.complex_shape.minor_to_major[::-1]
        self.lanes = max(vector_bytes // self.dtype.itemsize, 2)
        dims = self.complex_shape.dims
        self.stages = [_Stage(dims, d, length, order, self.lanes) for d, length in self.dimensions]

    @cached_property
    def long(self) -> LongLine | None:
        """How a few long lines are transformed, if they are, by all threads together."""
        if len(self.stages) != 1 or self.kind not in ("FFT", "IFFT"):
            return None
        stage = self.stages[0]
        is_few = self.complex_shape.count <= _FEW * stage.length
        return LongLine.of(self.dtype, stage.length, self.lanes) if is_few else None

    @property
    def turns(self) -> int:
        """In how many turns threads share the transform; 0 if they do not."""
        if self.long is not None:
            return 2 * self.complex_shape.count // self.long.length
        if len(self.stages) == 1:
            return 1
        ready = all(length <= _CONSTANT for length in self.lengths) and not self.between_bytes
        return len(self.stages) if ready else 0

    def shape(self, stage: _Stage) -> Shape:
        return Shape(self.dtype, stage.length, stage.lines, self.lanes)

    @cached_property
    def scratch_bytes(self) -> int:
        if 0 in self.complex_shape.dims or 0 in self.lengths:
            return 0
        if self.long is not None:
            return self.long.scratch_bytes
        sizes = [Transform.scratch_bytes(self.shape(stage)) for stage in self.stages]
        return self.between_bytes + max(sizes, default=0)


def _scratch(instruction: Instruction) -> int:
    return max(_Plan(instruction, size).scratch_bytes for size in (16, 32, _WIDEST))


def _is_long(instruction: Instruction) -> bool:
    return _Plan(instruction, _WIDEST).long is not None


@kernel(
    "fft",
    element_operands=lambda instruction: () if _is_long(instruction) else (0,),
    scratch=_scratch,
    is_loop=True,
    common_scratch=lambda instruction, is_fused: _is_long(instruction),
    turns=lambda instruction: max(_Plan(instruction, _WIDEST).turns, 1),
)
def fft(k: KernelContext, instruction: Instruction) -> None:
    plan = _Plan(instruction, k.target.vector_bytes)
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
        self.between = ArrayRef(self.b, plan.complex_shape, k.scratch)

    def write(self) -> None:
        plan, k = self.plan, self.k
        numbers = range(len(plan.stages))
        if not numbers:
            k.loop_nest(k.outputs[0].shape.dims, lambda index: k.outputs[0].store(index, k.input(0)(index)))
        elif plan.long is not None:
            line = LongTransform(self.b, self.routines, plan.long, k.workers, self.scratch)
            k.in_turns(plan.turns, line.chunks, lambda turn, chunk: self._long_turn(line, turn, chunk))
        elif plan.turns:
            transforms = [self._transform(stage) for stage in plan.stages]
            count = max(prod(stage.blocks) for stage in plan.stages)
            k.in_turns(plan.turns, count, lambda turn, number: self._turn(transforms, turn, number))
        else:
            for stage in numbers:
                transform = self._transform(plan.stages[stage])
                with self.b.for_loop(0, prod(plan.stages[stage].blocks), unroll=False) as number:
                    self._block(stage, transform, number)

    def _transform(self, stage: _Stage) -> Transform:
        return Transform(self.b, self.routines, self.plan.shape(stage), self.scratch)

    def _turn(self, transforms: list[Transform], turn: Value | None, number: Value) -> None:
        b = self.b
        for stage, transform in enumerate(transforms):
            if len(transforms) == 1:
                self._block(stage, transform, number)
                return
            exists = b.icmp_signed("<", number, i64(prod(self.plan.stages[stage].blocks)))
            with b.if_then(b.and_(exists, b.icmp_signed("==", turn, i64(stage)))):
                self._block(stage, transform, number)

    def _long_turn(self, line: LongTransform, turn: Value, chunk: Value) -> None:
        """One of the two turns of each long line."""
        b, stage, target = self.b, self.plan.stages[0], self.k.outputs[0]
        index = tuple(delinearize(b, b.lshr(turn, i64(1)), stage.blocks))
        source = self.k.input_array(0)

        def write(number: int, array: ArrayRef) -> None:
            step = array.shape.strides[stage.dimension]
            line.write(number, chunk, array.address(index), step, self.plan.is_inverse)

        is_second = b.icmp_signed("==", b.and_(turn, i64(1)), i64(1))
        b.if_else(is_second, lambda: write(1, target), lambda: write(0, source))

    def _block(self, number: int, transform: Transform, block: Value) -> None:
        """Transforms one set of lines of a stage."""
        stage, b = self.plan.stages[number], self.b
        index = delinearize(b, block, stage.blocks)
        if not stage.rest:
            self._lines(number, transform, index, stage.lines)
            return
        last = integer("i1", 1)
        if stage.across is not None:
            last = b.icmp_signed("==", index[stage.across], i64(stage.blocks[stage.across] - 1))
        ways = [lambda lines=lines: self._lines(number, transform, index, lines) for lines in (stage.rest, stage.lines)]
        if stage.across is None or stage.blocks[stage.across] == 1:
            ways[0]()
        else:
            b.if_else(last, *ways)

    def _lines(self, number: int, transform: Transform, index: list[Value], lines: int) -> None:
        plan, b = self.plan, self.b
        stage, first, last = plan.stages[number], number == 0, number == len(plan.stages) - 1
        inner = plan.kind == "IRFFT"
        array = self.between if inner else self.k.outputs[0]
        if first:
            array = self.k.input_array(0) if self.k.is_in_memory(0) else None
        source: Element = self.k.input(0) if array is None else array.element
        target = self.k.outputs[0] if last or not inner else self.between

        def place(line: Value, j: Value) -> Index:
            at = list(index)
            at[stage.dimension] = j
            if stage.across is not None:
                at[stage.across] = b.add(b.mul(index[stage.across], i64(stage.lines)), line)
            return tuple(at)

        if lines < stage.lines:
            for part in transform.buffers[0]:
                b.memset(part, integer("i8", 0), i64(plan.shape(stage).work_bytes))
        moved = _Lines(self, stage, lines, place)
        moved.gather(source, array, transform.buffers[0], first and plan.kind == "RFFT", last and inner)
        moved.scatter(transform.run(), target, first and plan.kind == "RFFT", last and inner)


class _Lines:
    """Moves some lines of a stage between arrays and a transform's buffers; `place(line, j)` is an element's index."""

    def __init__(self, fft: _Fft, stage: _Stage, lines: int, place: Callable[[Value, Value], Index]):
        self.b, self.type, self.dtype = fft.b, fft.type, fft.plan.dtype
        self.routines, self.is_inverse, self.lanes = fft.routines, fft.plan.is_inverse, fft.plan.lanes
        self.stage, self.lines, self.place = stage, lines, place

    def _parts(self, parts: Split) -> Split:
        return inverse(parts) if self.is_inverse else parts

    def _each(self, count: int, body: Callable[[Value, Value], None]) -> None:
        """Runs body(j, line) for all elements of the lines."""
        with self.b.for_loop(0, count) as j, self.b.for_loop(0, self.lines) as line:
            body(j, line)

    def _at(self, part: Value, j: Value, line: Value) -> Value:
        return self.b.gep(self.type, part, self.b.add(self.b.mul(j, i64(self.stage.lines)), line))

    def _whereabouts(self, array: ArrayRef, count: int) -> tuple[Value, list[Value]]:
        """The address of the lines in an array, and what the routines are told of how they lie."""
        stage, strides = self.stage, array.shape.strides
        across = 0 if stage.across is None else strides[stage.across]
        numbers = (count, self.lines, strides[stage.dimension], across)
        return array.address(self.place(i64(0), i64(0))), list(map(i64, numbers))

    def gather(self, source: Element, array: ArrayRef | None, buffer: Split, real: bool, half: bool) -> None:
        """Lines into a buffer, of real values or of halves of symmetric lines; from an array, if there is one."""
        b, length, width, parts = self.b, self.stage.length, self.stage.lines, self._parts(buffer)
        count = length // 2 + 1 if half else length
        if array is not None and not real:
            address, numbers = self._whereabouts(array, count)
            b.call(take_routine(self.routines, self.dtype, self.lanes, width), [address, *parts, *numbers])
        elif array is not None and width == 1 and array.shape.strides[self.stage.dimension] == 1:
            size = i64(length * self.dtype.itemsize)
            b.memcpy(parts[0], array.address(self.place(i64(0), i64(0))), size)
            b.memset(parts[1], integer("i8", 0), size)
        else:
            self._each(count, lambda j, line: self._put(source(self.place(line, j)), parts, real, j, line))
        if half:
            b.call(mirror_routine(self.routines, self.dtype, width), [*parts, i64(length)])

    def _put(self, value: Register, parts: Split, real: bool, j: Value, line: Value) -> None:
        for part, target in zip((value, const(self.type, 0)) if real else value, parts, strict=True):
            self.b.store(part, self._at(target, j, line))

    def scatter(self, result: Split, target: ArrayRef, half: bool, real: bool) -> None:
        """Lines out of a buffer: all of them, the first half, or the real parts."""
        b, length, parts = self.b, self.stage.length, self._parts(result)
        factor = const(self.type, 1 / length if self.is_inverse else 1)
        if not real:
            address, numbers = self._whereabouts(target, length // 2 + 1 if half else length)
            put = put_routine(self.routines, self.dtype, self.lanes, self.stage.lines)
            b.call(put, [address, *parts, *numbers, factor])
            return

        def element(j: Value, line: Value) -> None:
            value = b.load(self.type, self._at(parts[0], j, line))
            target.store(self.place(line, j), b.fmul(value, factor))

        self._each(length, element)
