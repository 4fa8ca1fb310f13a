"""dot: sums of products over contracting dimensions.

Every product is brought into the form c[m, n] = sum over k of a[m, k] b[k, n], one stride a direction, for
each index of the batch dimensions. An operand (or result) whose dimensions do not lie so goes through a row-
major copy in scratch. Floats below f32 are summed in f32 and rounded once; integers wrap in the result's
type.

In a fusion, operands are read where they lie through slices, transposes and widening conversions, and computed
ones are packed, or copied, as they are computed. An epilogue is applied to each block of a packed product while
it is in the cache, and to the result of any other product when that is complete.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace

from hloc.codegen import scalar
from hloc.codegen.arrays import ArrayRef, Register
from hloc.codegen.dot_plan import PACKED_BYTES, DotPlan
from hloc.codegen.dot_side import Side
from hloc.codegen.dot_units import Units
from hloc.codegen.gemm import GROUP, Extent, Gemm, Parts, gemm_routine
from hloc.codegen.gemm_block import Operand, block_routine, multiply_block
from hloc.codegen.kernel import Element, Index, KernelContext, kernel
from hloc.codegen.llvm import Value, integer
from hloc.codegen.long_dot import LongDot
from hloc.codegen.loops import delinearize
from hloc.codegen.packing import Panels
from hloc.codegen.pair_packing import PairPanels
from hloc.codegen.plain_dot import plain_dot
from hloc.codegen.products import added
from hloc.codegen.routines import Routines, i64
from hloc.codegen.strided import Strided
from hloc.codegen.thin_dot import ThinDot
from hloc.codegen.tiles import Tile
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction

_LARGE = 1 << 16
"""Results for which an epilogue goes by several vectors at a time, which hides the latency of long chains of ops."""


def _written_once(plan: DotPlan) -> list[int]:
    return [number for number in range(len(plan.epilogue.roots)) if number != plan.holding]


def _computed(instruction: Instruction) -> list[int]:
    return [number for number, operand in enumerate(instruction.operands) if Strided.of(operand) is None]


@kernel(
    "dot",
    element_operands=_computed,
    scratch=lambda instruction: DotPlan(instruction).scratch_bytes,
    fused_scratch=lambda instruction, epilogue: DotPlan(instruction, epilogue, is_fused=True).scratch_bytes,
    takes_epilogue=lambda instruction: True,
    strided=True,
    written_once=lambda instruction, epilogue: _written_once(DotPlan(instruction, epilogue, is_fused=True)),
    is_loop=True,
    common_scratch=lambda instruction, is_fused: DotPlan(instruction, is_fused=is_fused).has_long_sums,
)
def dot(k: KernelContext, instruction: Instruction) -> None:
    if instruction.shape.count == 0:
        return
    plan = DotPlan(instruction, k.finisher and k.finisher.epilogue, k.is_fused)
    if plan.is_plain:
        plain_dot(k, instruction, plan.dtype)
    else:
        _Product(k, plan).write()


class _Product(ThinDot, LongDot):
    """Writes a product by way of the routines. `out` is where its result lies before an epilogue is applied.

    What is multiplied at a time is the matrix at the `loops`' batch index, or a part of it: the rows and columns of
    the result from `origin` on, as many as `extent` says.
    """

    def __init__(self, k: KernelContext, plan: DotPlan):
        self.k, self.b, self.plan = k, k.b, plan
        self.routines = Routines(k.b.module, k.target)
        self.used = 0
        self.loops: list[Value] = []
        self.block: Value | None = None
        self.is_packed = integer("i1", 0)
        self.origin: tuple[Value, Value] = (i64(0), i64(0))
        self.extent: tuple[Value, Value] = (i64(plan.m), i64(plan.n))

    def write(self) -> None:
        plan = self.plan
        if plan.has_long_sums:
            self.write_long()
            return
        if self.k.range is not None:
            self._write_range()
            return
        result = ArrayRef(self.b, plan.out.shape, self._result())
        lhs, rhs = self._operand(plan.lhs), self._operand(plan.rhs)
        out = self.scratch(plan.out.copy_bytes) if plan.out.copied else result.pointer
        with ExitStack() as stack:
            self.loops = [stack.enter_context(self.b.for_loop(0, size, unroll=False)) for size in plan.batch]
            self._matrix(self._at(plan.lhs, lhs), self._at(plan.rhs, rhs), self._at(plan.out, out))
        if plan.out.copied:
            source = ArrayRef(self.b, plan.out.dense, out)
            self._along(plan.out, lambda place, index: self._put(index, source.load(place)))
        elif plan.epilogue is not None and not plan.finishes_blocks:
            shape = plan.out.shape
            order = shape.minor_to_major[::-1]
            self.k.loop_nest(shape.dims, lambda index: self._put(index, result.load(index)), order)

    def _write_range(self) -> None:
        """One thread's part of the product: some of its units. Nothing, if it does not fall apart into units."""
        plan, b, k = self.plan, self.b, self.k
        units = Units.of(plan, k.workers, k.target.vector_bytes)
        if not plan.is_divisible or units.count == 1:
            return
        # The number of the columns, of all matrices, whose right operand this thread has packed last; 0 for none.
        is_once = plan.packs_once and units.columns.most <= plan.gemm(k.target.vector_bytes).n_block
        k.cleared = PACKED_BYTES if is_once else 0
        packed = self.scratch(k.cleared)
        result = self._result()
        sides = (plan.lhs, plan.rhs, plan.out)
        lhs, rhs = self._operand(plan.lhs), self._operand(plan.rhs)
        used = self.used
        with k.ranged(units.count) as limits, b.for_loop(*limits, unroll=False) as unit:
            self.used = used
            matrix, column, (top, rows), (left, columns) = units.place(b, unit)
            self.loops = delinearize(b, matrix, plan.batch)
            self.origin, self.extent = (top, left), (rows, columns)
            if is_once:
                number = b.add(b.add(b.mul(matrix, i64(units.columns.count)), column), i64(1))
                self.is_packed = b.icmp_signed("==", b.load("i64", packed), number)
                b.store(number, packed)
            self._matrix(*(self._moved(s, self._at(s, p)) for s, p in zip(sides, (lhs, rhs, result), strict=True)))

    def _moved(self, side: Side, pointer: Value) -> Value:
        """Where a side of the unit at `origin` begins."""
        plan, b = self.plan, self.b
        if plan.packs(side) or (side.number is None and plan.finishes_blocks and not plan.holds):
            return pointer
        at = {plan.lhs: self.origin[:1], plan.rhs: self.origin[1:]}.get(side, self.origin)
        offset = i64(0)
        for first, stride in zip(at, side.strides[1:], strict=False):
            offset = b.add(offset, b.mul(first, i64(stride)))
        offset = b.mul(offset, i64(side.parts))
        return b.gep(scalar.memory_type(side.shape.dtype.real_part), pointer, offset)

    def scratch(self, size: int) -> Value:
        start, self.used = self.used, self.used + size
        return self.b.gep("i8", self.k.scratch, i64(start))

    def _result(self) -> Value:
        """Where the result lies: in an output or in scratch; nowhere if it is finished block by block."""
        plan = self.plan
        if plan.epilogue is None:
            return self.k.outputs[0].pointer
        if plan.finishes_blocks:
            self.block = self.scratch(plan.result_bytes)
        if plan.holder is not None:
            return self.k.outputs[plan.holder].pointer
        return self.block or self.scratch(plan.result_bytes)

    def _put(self, index: Index, value: Register) -> None:
        self.k.store(index, [value])

    def _operand(self, side: Side) -> Value:
        """Where an operand lies: its array, or its copy; anywhere if it is packed as it is computed."""
        if self.plan.packs(side):
            return self.k.scratch
        if not side.copied:
            return side.place.pointer(self.k)
        copy = ArrayRef(self.b, side.dense, self.scratch(side.copy_bytes))
        self._along(side, lambda place, index: copy.store(place, self._read(side)(index)))
        return copy.pointer

    def _read(self, side: Side) -> Element:
        """An operand's elements, of the type that the side has."""
        element, dtype = self.k.input(side.number), self.k.instruction.operands[side.number].shape.dtype
        if side.shape.dtype is dtype:
            return element
        return lambda index: scalar.convert(self.b, element(index), dtype, side.shape.dtype)

    def _along(self, side: Side, body: Callable[[Index, Index], object]) -> None:
        """Runs body(index in the row-major copy, index in the array) for all elements of a side."""

        def element(place: Index) -> None:
            pairs = sorted(zip(side.order, place, strict=True), key=lambda pair: pair[0])
            body(place, tuple(value for _, value in pairs))

        self.k.loop_nest(side.dense.dims, element)

    def _at(self, side: Side, pointer: Value) -> Value:
        """The matrix of a side at the loops' batch index."""
        if self.plan.packs(side) or (side.number is None and self.plan.finishes_blocks and not self.plan.holds):
            return pointer
        offset = i64(0)
        for index, stride in zip(self.loops, side.strides[0], strict=True):
            offset = self.b.add(offset, self.b.mul(index, i64(stride * side.parts)))
        return self.b.gep(scalar.memory_type(side.shape.dtype.real_part), pointer, offset)

    def _matrix(self, lhs: Value, rhs: Value, out: Value) -> None:
        self.k.only_calls = self.plan.only_calls
        (self.thin_way() or self._gemm)(lhs, rhs, out)

    def types(self) -> tuple[DType, DType, DType]:
        return tuple(side.shape.dtype.real_part for side in (self.plan.lhs, self.plan.rhs, self.plan.out))

    def _gemm(self, lhs: Value, rhs: Value, out: Value) -> None:
        """One product of real matrices, or one for each pair of parts of complex ones."""
        plan, b = self.plan, self.b
        if plan.finishes_blocks or plan.packs(plan.lhs) or plan.packs(plan.rhs):
            self._fused_gemm(lhs, rhs, out)
            return
        tile = plan.gemm(self.k.target.vector_bytes).tile
        if plan.in_place(plan.lhs) and (plan.in_place(plan.rhs) or plan.rhs.in_panels) and not plan.keeps:
            self._near_gemm(tile, lhs, rhs, out)
            return
        routine = gemm_routine(self.routines, self.types(), tile, (plan.order(plan.lhs), plan.order(plan.rhs)))
        sizes = self._sizes().values()
        sides = plan.lhs, plan.rhs, plan.out
        written: set[int] = set()
        for x in range(plan.lhs.parts):
            for y in range(plan.rhs.parts):
                part = (x + y) % 2
                triples = zip(sides, (lhs, rhs, out), (x, y, part), strict=True)
                places = [self._part(side, place, number) for side, place, number in triples]
                flags = [integer("i1", x + y == 2), integer("i1", part in written), self.is_packed]
                b.call(routine, [*places, *sizes, self.scratch(0), *flags])
                written.add(part)

    def _near_gemm(self, tile: Tile, lhs: Value, rhs: Value, out: Value) -> None:
        """A product whose operands are read in place, or lie in panels, as one block."""
        plan, b = self.plan, self.b
        (_, row, step), (_, column, b_step), (_, *c_strides) = (s.strides for s in (plan.lhs, plan.rhs, plan.out))
        (m, n), is_level = self.extent, plan.m % tile.rows != 0
        left = Operand(lhs, i64(row), i64(row), i64(step), b.sub(m, i64(tile.rows)))
        line, last = (i64(column), n) if plan.rhs.in_panels else (i64(1), b.sub(n, i64(tile.columns)))
        right = Operand(rhs, line, i64(1), i64(b_step), last)
        to, sizes = (out, *map(i64, c_strides)), (m, n, i64(plan.k))
        multiply_block(b, block_routine(self.routines, tile, is_level), (left, right), to, sizes, integer("i1", 0))

    def _sizes(self) -> dict[str, Value]:
        """The parameters of a packed product that are known from the plan."""
        plan = self.plan
        blocks = plan.gemm(self.k.target.vector_bytes)
        (_, row, step), (_, column, b_step), (_, c_row, c_column) = (
            tuple(part * side.parts if i else part for i, part in enumerate(side.strides))
            for side in (plan.lhs, plan.rhs, plan.out)
        )
        sizes = {"k": plan.k}
        sizes |= {"a_row": row, "a_step": step, "b_column": column, "b_step": b_step}
        sizes |= {"c_row": c_row, "c_column": c_column}
        sizes |= {"m_block": blocks.m_block, "n_block": blocks.n_block, "k_block": blocks.k_block}
        sizes |= {"m_part": blocks.m_part}
        m, n = self.extent
        return {"m": m, "n": n, **{name: i64(number) for name, number in sizes.items()}}

    def _part(self, side: Side, pointer: Value, number: int) -> Value:
        return self.b.gep(scalar.memory_type(side.shape.dtype.real_part), pointer, i64(number))

    # Packed products in a kernel of their own

    def _fused_gemm(self, lhs: Value, rhs: Value, out: Value) -> None:
        """A packed product that packs its computed operands, and finishes its results, in its own way."""
        plan, no = self.plan, integer("i1", 0)
        blocks = plan.gemm(self.k.target.vector_bytes)
        tile, splits = blocks.tile, blocks.k_block < plan.k
        p = SimpleNamespace(
            a=lhs,
            b=rhs,
            c=out,
            block=self.block,
            splits=splits,
            scratch=self.scratch(0),
            negate=no,
            accumulate=no,
            is_packed=self.is_packed,
            **self._sizes(),
        )
        Gemm(
            self.routines,
            self.b,
            p,
            self.types(),
            tile,
            (plan.order(plan.lhs), plan.order(plan.rhs)),
            plan.keeps,
            partial(self._pack, plan.lhs, tile.rows) if plan.packs(plan.lhs) else None,
            partial(self._pack, plan.rhs, tile.columns) if plan.packs(plan.rhs) else None,
            self._finish if plan.finishes_blocks else None,
        ).write()

    def _index(self, side: Side, row: Value, column: Value) -> Index:
        """The index of a side's array at the loops' batch index."""
        index = {d: value for d, value in zip(side.batch, self.loops, strict=True) if d is not None}
        for dims, value in ((side.rows, row), (side.columns, column)):
            index |= zip(dims, delinearize(self.b, value, side.sizes(dims)), strict=True)
        return tuple(index[d] for d in range(len(index)))

    def _pack(self, side: Side, width: int, lines: Extent, steps: Extent, target: Value) -> None:
        """Panels of `width` lines of a computed operand: to[panel][step][line in panel].

        What is missing of the last panel stays as it is: it is multiplied, but not stored.
        """
        b, plan = self.b, self.plan
        read = self.k.input(side.number)
        panels = (Panels if plan.terms == 1 else PairPanels)(b, plan.dtype, target, width, steps[1])
        along_steps = side.shape.minor_to_major[0] in side.columns

        def put(panel: Value, line: Value, step: Value) -> None:
            first = b.add(self.origin[side is plan.rhs], lines[0])
            index = self._index(side, b.add(first, b.add(panel, line)), b.add(steps[0], step))
            panels.put(read(index), side.shape.dtype, panel, line, step)

        def fill(panel: Value, count: Value) -> None:
            if along_steps:
                with b.for_loop(0, count, unroll=False) as line, b.for_loop(0, steps[1], unroll=False) as step:
                    put(panel, line, step)
            else:
                with b.for_loop(0, steps[1], unroll=False) as step, b.for_loop(0, count) as line:
                    put(panel, line, step)

        whole = b.sub(lines[1], b.urem(lines[1], i64(width)))
        with b.for_loop(i64(0), whole, width, unroll=False) as panel:
            fill(panel, i64(width))
        with b.if_then(b.icmp_signed("<", whole, lines[1])):
            fill(whole, b.sub(lines[1], whole))
        panels.complete(lines[1])

    def _finish(self, rows: Extent, columns: Extent, parts: Parts | None) -> None:
        """Applies the epilogue to a block whose sums are complete, with the `parts` of sums over earlier steps."""
        b, plan = self.b, self.plan
        _, c_row, c_column = plan.out.strides
        type = scalar.memory_type(plan.dtype)

        def one(i: Value, j: Value) -> None:
            row, column = b.add(rows[0], i), b.add(columns[0], j)
            total = scalar.load(b, plan.dtype, b.gep(type, self.block, b.add(b.mul(i, i64(GROUP)), j)))
            if parts is not None:
                place = b.add(b.mul(i, parts.row), b.mul(j, parts.column))
                total = added(b, scalar.load(b, plan.dtype, b.gep(type, parts.start, place)), total)
            at = self._index(plan.out, b.add(self.origin[0], row), b.add(self.origin[1], column))
            self._put(at, scalar.convert(b, total, plan.dtype, plan.out.shape.dtype))

        vectors = 4 if plan.out.shape.count >= _LARGE else 0
        if c_row < c_column:
            with b.for_loop(0, columns[1], unroll=False) as j, b.for_loop(0, rows[1], interleave=vectors) as i:
                one(i, j)
        else:
            with b.for_loop(0, rows[1], unroll=False) as i, b.for_loop(0, columns[1], interleave=vectors) as j:
                one(i, j)
