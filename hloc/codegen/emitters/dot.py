"""dot: sums of products over contracting dimensions.

Every product is brought into the form c[m, n] = sum over k of a[m, k] b[k, n], one stride a direction, for
each index of the batch dimensions. An operand (or result) whose dimensions do not lie so goes through a row-
major copy in scratch. Floats below f32 are summed in f32 and rounded once; integers wrap in the result's
type.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from math import prod

from hloc.codegen import scalar
from hloc.codegen.arrays import ArrayRef, Register
from hloc.codegen.gemm import GemmPlan, gemm_routine
from hloc.codegen.kernel import Index, KernelContext, kernel
from hloc.codegen.llvm import Value, integer
from hloc.codegen.matvec import MOST_ROWS, ThinProduct, row_dot_routine, row_sum_routine
from hloc.codegen.products import multiply_accumulate, summing_type
from hloc.codegen.routines import Routines, i64
from hloc.codegen.tiles import InlineProduct, pack_routine
from hloc.ir.dtypes import PRED, DType
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape
from hloc.records import record

_SMALL = 2048
"""Up to this many multiplications a product is written in place."""

_FEW_COLUMNS = 24
"""Columns that a product written in place may have, to go by vectors."""


def _stride(sizes: Sequence[int], strides: Sequence[int]) -> int | None:
    """The stride of dimensions counted through together, the last one fastest; None if there is none."""
    wide = [(size, stride) for size, stride in zip(sizes, strides, strict=True) if size != 1]
    for (_, major), (size, minor) in zip(wide, wide[1:]):
        if major != minor * size:
            return None
    return wide[-1][1] if wide else 1


@record
class _Side:
    """Operand `number`, or the result (None): where its batch dimensions, rows and columns lie.

    One whose rows or columns have no one stride is copied, row-major in the order batch, rows, columns.
    """

    number: int | None
    shape: ArrayShape
    batch: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def sizes(self, dims: Sequence[int]) -> list[int]:
        return [self.shape.dims[d] for d in dims]

    @property
    def order(self) -> tuple[int, ...]:
        return (*self.batch, *self.rows, *self.columns)

    @property
    def parts(self) -> int:
        """Real numbers an element."""
        return 2 if self.shape.dtype.is_complex else 1

    @cached_property
    def dense(self) -> ArrayShape:
        """The shape of the copy."""
        return ArrayShape(self.shape.dtype, tuple(self.sizes(self.order)))

    @cached_property
    def copied(self) -> bool:
        strides = self.shape.strides
        return any(_stride(self.sizes(d), [strides[i] for i in d]) is None for d in (self.rows, self.columns))

    @cached_property
    def strides(self) -> tuple[tuple[int, ...], int, int]:
        """Strides of the batch dimensions, of rows and of columns, in the array or its copy."""
        strides = self.shape.strides
        if self.copied:
            strides = [stride for _, stride in sorted(zip(self.order, self.dense.strides, strict=True))]
        rows, columns = (_stride(self.sizes(d), [strides[i] for i in d]) for d in (self.rows, self.columns))
        return tuple(strides[d] for d in self.batch), rows or 0, columns or 0

    @property
    def copy_bytes(self) -> int:
        return -(-self.shape.byte_size // 64) * 64 if self.copied else 0


class DotPlan:
    """What is known of a dot from its shapes: sizes, the three sides, and how to compute it."""

    def __init__(self, instruction: Instruction):
        lhs, rhs = (operand.shape for operand in instruction.operands)
        out = instruction.shape
        lhs_batch, rhs_batch = instruction.get("lhs_batch_dims"), instruction.get("rhs_batch_dims")
        pairs = sorted(
            zip(
                instruction.get("lhs_contracting_dims"), instruction.get("rhs_contracting_dims"), strict=True
            ),
            key=lambda pair: -lhs.strides[pair[0]],
        )
        lhs_steps, rhs_steps = tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)
        lhs_free = tuple(d for d in range(lhs.rank) if d not in (*lhs_batch, *lhs_steps))
        rhs_free = tuple(d for d in range(rhs.rank) if d not in (*rhs_batch, *rhs_steps))
        first, second = len(lhs_batch), len(lhs_batch) + len(lhs_free)
        # Rows and columns are counted in the order in which the result has them in memory.
        rows = sorted(range(first, second), key=lambda d: -out.strides[d])
        columns = sorted(range(second, out.rank), key=lambda d: -out.strides[d])
        lhs_rows = tuple(lhs_free[d - first] for d in rows)
        rhs_columns = tuple(rhs_free[d - second] for d in columns)
        self.lhs = _Side(0, lhs, tuple(lhs_batch), lhs_rows, lhs_steps)
        self.rhs = _Side(1, rhs, tuple(rhs_batch), rhs_columns, rhs_steps)
        self.out = _Side(None, out, tuple(range(first)), tuple(rows), tuple(columns))
        self.batch = tuple(out.dims[:first])
        self.m, self.n = prod(self.lhs.sizes(lhs_rows)), prod(self.rhs.sizes(rhs_columns))
        self.k = prod(self.lhs.sizes(lhs_steps))
        self.dtype = summing_type(lhs.dtype, rhs.dtype, out.dtype)
        _, row, column = self.out.strides
        if self.n <= MOST_ROWS < self.m or (column != 1 and row == 1 and self.m > MOST_ROWS):
            self._transpose()

    def _transpose(self) -> None:
        """The product of the transposed operands, with rows and columns of the result changed over."""
        self.lhs, self.rhs, self.m, self.n = self.rhs, self.lhs, self.n, self.m
        self.out = _Side(None, self.out.shape, self.out.batch, self.out.columns, self.out.rows)

    @property
    def is_plain(self) -> bool:
        """Whether plain loops do: small products, and types that the routines do not know."""
        return self.dtype is PRED or (self.m * self.n * self.k <= _SMALL and not self.is_inline)

    def gemm(self, vector_bytes: int) -> GemmPlan:
        real = self.dtype.real_part
        return GemmPlan.of(self.m, self.n, self.k, real, vector_bytes, self.out.shape.dtype.real_part is real)

    @property
    def is_inline(self) -> bool:
        """Small, and lying so that vectors of few columns can be read from it."""
        if self.m * self.n * self.k > _SMALL or self.n > _FEW_COLUMNS or self.dtype.is_complex:
            return False
        sides = (self.lhs, self.rhs, self.out)
        if any(side.shape.dtype is not self.dtype or side.copied for side in sides) or self.dtype is PRED:
            return False
        return self.rhs.strides[1] == self.out.strides[2] == 1

    @property
    def is_row_sum(self) -> bool:
        """Few rows, and the other operand's columns side by side."""
        return self._is_thin and self.rhs.strides[1] == 1 and not self.is_row_dot

    @property
    def is_row_dot(self) -> bool:
        """Few rows, and the other operand contiguous along the contracted dimension."""
        return self._is_thin and (self.rhs.strides[2] == 1 or self.k == 1)

    @property
    def _is_thin(self) -> bool:
        return self.m <= MOST_ROWS and not self.dtype.is_complex

    @property
    def copies(self) -> int:
        return self.lhs.copy_bytes + self.rhs.copy_bytes + self.out.copy_bytes

    @property
    def scratch_bytes(self) -> int:
        if self.is_plain or self.is_inline:
            return 0
        if self.is_row_dot:
            return self.copies + self.m * self.k * self.dtype.itemsize
        blocks = 0 if self.is_row_sum else max(self.gemm(width).scratch_bytes for width in (16, 32, 64))
        return self.copies + blocks


@kernel("dot", scratch=lambda instruction: DotPlan(instruction).scratch_bytes)
def dot(k: KernelContext, instruction: Instruction) -> None:
    if instruction.shape.count == 0:
        return
    plan = DotPlan(instruction)
    if plan.is_plain:
        _plain(k, instruction, plan.dtype)
    else:
        _Product(k, plan).write()


def _plain(k: KernelContext, instruction: Instruction, dtype: DType) -> None:
    """Loops over the result; each element's sum in order of the contracting dimensions."""
    lhs, rhs, out = k.input_array(0), k.input_array(1), k.outputs[0]
    lhs_batch, rhs_batch = instruction.get("lhs_batch_dims"), instruction.get("rhs_batch_dims")
    lhs_steps, rhs_steps = instruction.get("lhs_contracting_dims"), instruction.get("rhs_contracting_dims")
    batch = len(lhs_batch)
    lhs_free = [d for d in range(lhs.shape.rank) if d not in (*lhs_batch, *lhs_steps)]
    rhs_free = [d for d in range(rhs.shape.rank) if d not in (*rhs_batch, *rhs_steps)]
    sizes = [lhs.shape.dims[d] for d in lhs_steps]

    def place(dims: Sequence[Sequence[int]], values: Sequence[Sequence[Value]]) -> Index:
        where = {d: v for ds, vs in zip(dims, values, strict=True) for d, v in zip(ds, vs, strict=True)}
        return tuple(where[d] for d in range(len(where)))

    def element(index: Index) -> None:
        lhs_index, rhs_index = index[batch : batch + len(lhs_free)], index[batch + len(lhs_free) :]

        def step(steps: Index, sums: list[Register]) -> list[Register]:
            x = lhs.load(place((lhs_batch, lhs_free, lhs_steps), (index[:batch], lhs_index, steps)))
            y = rhs.load(place((rhs_batch, rhs_free, rhs_steps), (index[:batch], rhs_index, steps)))
            x, y = (
                scalar.convert(k.b, x, lhs.shape.dtype, dtype),
                scalar.convert(k.b, y, rhs.shape.dtype, dtype),
            )
            return [multiply_accumulate(k.b, dtype, x, y, sums[0])]

        (total,) = k.reduce_loop(sizes, [scalar.constant(dtype, 0)], step)
        out.store(index, scalar.convert(k.b, total, dtype, out.shape.dtype))

    k.loop_nest(out.shape.dims, element, out.shape.minor_to_major[::-1])


class _Product:
    """Writes a product by way of the routines."""

    def __init__(self, k: KernelContext, plan: DotPlan):
        self.k, self.b, self.plan = k, k.b, plan
        self.routines = Routines(k.b.module, k.target)
        self.used = 0

    def write(self) -> None:
        plan = self.plan
        lhs, rhs, out = (self._memory(side) for side in (plan.lhs, plan.rhs, plan.out))
        lhs_batch, rhs_batch, out_batch = (side.strides[0] for side in (plan.lhs, plan.rhs, plan.out))
        with ExitStack() as stack:
            loops = [stack.enter_context(self.b.for_loop(0, size, unroll=False)) for size in plan.batch]
            self._matrix(
                self._at(plan.lhs, lhs, loops, lhs_batch),
                self._at(plan.rhs, rhs, loops, rhs_batch),
                self._at(plan.out, out, loops, out_batch),
            )
        if plan.out.copied:
            self._copy(plan.out, ArrayRef(self.b, plan.out.dense, out), self.k.outputs[0])

    def _scratch(self, size: int) -> Value:
        start, self.used = self.used, self.used + size
        return self.b.gep("i8", self.k.scratch, i64(start))

    def _memory(self, side: _Side) -> Value:
        """Where a side lies: its array, or its copy."""
        if not side.copied:
            return (
                self.k.outputs[0].pointer if side.number is None else self.k.input_array(side.number).pointer
            )
        pointer = self._scratch(side.copy_bytes)
        if side.number is not None:
            self._copy(side, self.k.input_array(side.number), ArrayRef(self.b, side.dense, pointer))
        return pointer

    def _copy(self, side: _Side, source: ArrayRef, target: ArrayRef) -> None:
        """Between an array and its row-major copy, whichever way."""

        def element(index: Index) -> None:
            logical = tuple(
                value for _, value in sorted(zip(side.order, index, strict=True), key=lambda pair: pair[0])
            )
            into_copy = target.shape is side.dense
            target.store(index if into_copy else logical, source.load(logical if into_copy else index))

        self.k.loop_nest(side.dense.dims, element)

    def _at(self, side: _Side, pointer: Value, loops: Sequence[Value], strides: Sequence[int]) -> Value:
        offset = i64(0)
        for index, stride in zip(loops, strides, strict=True):
            offset = self.b.add(offset, self.b.mul(index, i64(stride * side.parts)))
        return self.b.gep(scalar.memory_type(side.shape.dtype.real_part), pointer, offset)

    def _matrix(self, lhs: Value, rhs: Value, out: Value) -> None:
        if self.plan.is_inline:
            self._inline(lhs, rhs, out)
        elif self.plan.is_row_dot:
            self._row_dot(lhs, rhs, out)
        elif self.plan.is_row_sum:
            self._row_sum(lhs, rhs, out)
        else:
            self._gemm(lhs, rhs, out)

    def _types(self) -> tuple[DType, DType, DType]:
        return tuple(side.shape.dtype.real_part for side in (self.plan.lhs, self.plan.rhs, self.plan.out))

    def _inline(self, lhs: Value, rhs: Value, out: Value) -> None:
        plan = self.plan
        (_, row, step), (_, _, b_step), (_, c_row, _) = (s.strides for s in (plan.lhs, plan.rhs, plan.out))
        lanes = max(self.k.target.vector_bytes // plan.dtype.itemsize, 2)
        product = InlineProduct(self.b, plan.dtype, lanes, (row, step, b_step, c_row))
        product.write((plan.m, plan.n, plan.k), lhs, rhs, out)

    def _row_dot(self, lhs: Value, rhs: Value, out: Value) -> None:
        plan, b = self.plan, self.b
        lhs_type, rhs_type, out_type = self._types()
        (_, row, step), (_, column, _), (_, c_row, c_column) = (
            s.strides for s in (plan.lhs, plan.rhs, plan.out)
        )
        if step != 1:
            packed = self._scratch(0)
            pack = pack_routine(self.routines, lhs_type, plan.dtype, 1)
            b.call(pack, [lhs, packed, i64(plan.m), i64(plan.k), i64(row), i64(step), integer("i1", 0)])
            lhs, lhs_type, row = packed, plan.dtype, plan.k
        product = ThinProduct(lhs_type, rhs_type, out_type, plan.dtype, plan.m)
        routine = row_dot_routine(self.routines, product)
        sizes = (plan.n, plan.k, row, column, c_row, c_column)
        b.call(routine, [lhs, rhs, out, *map(i64, sizes)])

    def _row_sum(self, lhs: Value, rhs: Value, out: Value) -> None:
        plan = self.plan
        (_, row, step), (_, _, b_step), (_, c_row, c_column) = (
            s.strides for s in (plan.lhs, plan.rhs, plan.out)
        )
        product = ThinProduct(*self._types(), plan.dtype, plan.m)
        routine = row_sum_routine(self.routines, product)
        sizes = (plan.n, plan.k, row, step, b_step, c_row, c_column)
        self.b.call(routine, [lhs, rhs, out, *map(i64, sizes)])

    def _gemm(self, lhs: Value, rhs: Value, out: Value) -> None:
        """One product of real matrices, or one for each pair of parts of complex ones."""
        plan, b = self.plan, self.b
        blocks = plan.gemm(self.k.target.vector_bytes)
        routine = gemm_routine(self.routines, *self._types(), blocks.tile)
        (_, row, step), (_, column, b_step), (_, c_row, c_column) = (
            s.strides for s in (plan.lhs, plan.rhs, plan.out)
        )
        lhs_parts, rhs_parts, out_parts = plan.lhs.parts, plan.rhs.parts, plan.out.parts
        sizes = (
            plan.m,
            plan.n,
            plan.k,
            row * lhs_parts,
            step * lhs_parts,
            column * rhs_parts,
            b_step * rhs_parts,
            c_row * out_parts,
            c_column * out_parts,
            blocks.m_block,
            blocks.n_block,
            blocks.k_block,
        )
        written: set[int] = set()
        for x in range(lhs_parts):
            for y in range(rhs_parts):
                part = (x + y) % 2
                places = [
                    self._part(side, place, number)
                    for side, place, number in ((plan.lhs, lhs, x), (plan.rhs, rhs, y), (plan.out, out, part))
                ]
                flags = [integer("i1", x + y == 2), integer("i1", part in written)]
                b.call(routine, [*places, *map(i64, sizes), self._scratch(0), *flags])
                written.add(part)

    def _part(self, side: _Side, pointer: Value, number: int) -> Value:
        return self.b.gep(scalar.memory_type(side.shape.dtype.real_part), pointer, i64(number))
