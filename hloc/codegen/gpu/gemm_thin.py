"""Products of a few rows with a matrix, bound by memory: the matrix is read once, from where it lies.

Lanes of a warp share the steps of sums where the matrix lies together along them, and otherwise where there are fewer
columns than lanes. Warps of a group share the steps too. Parts of sums meet in the lanes, then in shared memory, in one
order.
"""

from __future__ import annotations

from hloc.codegen import scalar
from hloc.codegen.arrays import Register, flattened, grouped
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.gemm_parts import Finish, Operand, add, add_parts, block_place, grid_size, i32
from hloc.codegen.gpu.gemm_plan import GemmPlan
from hloc.codegen.gpu.gemm_shapes import THIN_WARPS
from hloc.codegen.gpu.intrinsics import WARP
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.llvm import Value
from hloc.codegen.products import multiply_accumulate
from hloc.codegen.routines import i64

_UNROLLED = 4
"""Turns of the main loop that are under way together, to hide the latency of memory."""


def write_thin(g: GpuStep, plan: GemmPlan) -> None:
    """The product in one launch, or two if its sums are split."""
    columns, dot = plan.columns, plan.dot
    assert columns is not None
    sums = dot.m * columns.block_columns * columns.warps
    shared = sums * dot.dtype.itemsize if columns.warps > 1 else 0
    with g.launch(grid_size(plan, dot.m, columns.block_columns), THIN_WARPS * WARP, shared) as k:
        _Thin(k, plan).write()
    add_parts(g, plan)


class _Thin:
    """The kernel of a block."""

    def __init__(self, k: GpuContext, plan: GemmPlan):
        assert plan.columns is not None
        self.k, self.b, self.plan, self.shape = k, k.b, plan, plan.columns
        b, dot, shape = k.b, plan.dot, plan.columns
        self.dtype = dot.dtype
        self.place = block_place(k, plan, dot.m, shape.block_columns)
        self.lhs, self.rhs = (Operand(k, side, self.place.batch, self.dtype) for side in (dot.lhs, dot.rhs))
        lane, warp = b.zext(k.gpu.lane(), "i64"), b.zext(k.gpu.warp(), "i64")
        group, self.part = b.udiv(warp, i64(shape.warps)), b.urem(warp, i64(shape.warps))
        owners = WARP // shape.lanes
        if shape.along_steps:
            owner, self.lane = b.udiv(lane, i64(shape.lanes)), b.urem(lane, i64(shape.lanes))
        else:
            owner, self.lane = b.urem(lane, i64(owners)), b.udiv(lane, i64(owners))
        self.nearest = 1 if shape.along_steps else owners
        self.local = b.mul(b.add(b.mul(group, i64(owners)), owner), i64(shape.columns))
        self.columns = [self._column(number) for number in range(shape.columns)]

    def _column(self, number: int) -> Value:
        """A column of the thread's, or any if it does not exist."""
        b, n = self.b, self.plan.dot.n
        column = b.add(self.place.column, b.add(self.local, i64(number)))
        if n % self.shape.block_columns == 0:
            return column
        last = n - self.shape.columns + number if n % self.shape.columns == 0 else n - 1
        return b.select(b.icmp_unsigned("<", column, i64(last)), column, i64(last))

    def write(self) -> None:
        plan, shape = self.plan, self.shape
        zeros = [scalar.constant(self.dtype, 0)] * (plan.dot.m * shape.columns)
        sums = self._sums(zeros)
        sums = [self._over_lanes(value) for value in sums]
        if shape.warps > 1:
            self._meet(sums)
        else:
            self._store_own(sums)

    def _sums(self, zeros: list[Register]) -> list[Register]:
        """The thread's parts of its sums: whole turns, several at a time, then what is left."""
        b, shape, place = self.b, self.shape, self.place
        share = b.mul(b.add(b.mul(self.part, i64(shape.lanes)), self.lane), i64(shape.width))
        count = b.sub(place.end, place.first)
        whole = b.udiv(count, i64(shape.steps))
        first = b.add(place.first, share)

        def turn(number: Value, carried: list[Value]) -> list[Value]:
            step = b.add(first, b.mul(number, i64(shape.steps)))
            return flattened(self._turn(step, grouped(carried, zeros)))

        sums = b.for_loop_carrying(i64(0), whole, flattened(zeros), turn, unroll=_UNROLLED)
        if self.plan.dot.k % shape.steps == 0:
            return grouped(sums, zeros)
        rest = b.add(first, b.mul(whole, i64(shape.steps)))
        return grouped(self._rest(rest, sums, zeros), zeros)

    def _turn(self, step: Value, sums: list[Register]) -> list[Register]:
        b, shape = self.b, self.shape
        steps = [b.add(step, i64(number)) for number in range(shape.width)]
        if shape.along_steps:
            by_column = [[self.rhs.element(column, at) for at in steps] for column in self.columns]
            ys = [list(row) for row in zip(*by_column, strict=True)]
        else:
            ys = [[self.rhs.element(column, at) for column in self.columns] for at in steps]
        xs = [[self.lhs.element(i64(row), at) for at in steps] for row in range(self.plan.dot.m)]
        for number in range(shape.width):
            pairs = [(x[number], y) for x in xs for y in ys[number]]
            sums = [
                multiply_accumulate(b, self.dtype, x, y, total) for (x, y), total in zip(pairs, sums, strict=True)
            ]
        return sums

    def _rest(self, first: Value, sums: list[Value], zeros: list[Register]) -> list[Value]:
        """The thread's steps of the last turn that exist."""
        b = self.b

        def one(step: Value, carried: list[Value]) -> list[Value]:
            before = grouped(carried, zeros)
            ys = [self.rhs.element(column, step) for column in self.columns]
            xs = [self.lhs.element(i64(row), step) for row in range(self.plan.dot.m)]
            pairs = [(x, y) for x in xs for y in ys]
            return flattened(
                [multiply_accumulate(b, self.dtype, x, y, total) for (x, y), total in zip(pairs, before, strict=True)]
            )

        last = b.add(first, i64(self.shape.width))
        last = b.select(b.icmp_unsigned("<", last, self.place.end), last, self.place.end)
        last = b.select(b.icmp_unsigned("<", first, last), last, first)
        return b.for_loop_carrying(first, last, sums, one, unroll=False)

    def _over_lanes(self, value: Register) -> Register:
        """The sum of the values of all lanes that share columns, in each of them."""
        distance = self.nearest * self.shape.lanes // 2
        while distance >= self.nearest:
            other = grouped([self.k.gpu.shuffle("xor", part, i32(distance)) for part in flattened([value])], [value])
            value = add(self.k, self.dtype, value, other[0])
            distance //= 2
        return value

    def _store_own(self, sums: list[Register]) -> None:
        """The sums of a warp that has all steps of its columns: the lanes that have one store them, rows in turn."""
        k, b, shape, m = self.k, self.b, self.shape, self.plan.dot.m
        finish = Finish(k, self.plan, self.place)
        for row in range(m):
            with b.if_then(b.icmp_unsigned("==", self.lane, i64(row % shape.lanes))):
                self._store(finish, i64(row), self.local, sums[row * shape.columns : (row + 1) * shape.columns])

    def _store(self, finish: Finish, row: Value, local: Value, sums: list[Register]) -> None:
        """Neighbouring columns of a row, those that exist."""
        b, n = self.b, self.plan.dot.n
        column = b.add(self.place.column, local)
        if n % len(sums) == 0:
            with b.if_then(b.icmp_unsigned("<", column, i64(n))):
                finish.put(row, column, sums)
            return
        for number, value in enumerate(sums):
            one = b.add(column, i64(number))
            with b.if_then(b.icmp_unsigned("<", one, i64(n))):
                finish.put(row, one, [value])

    def _meet(self, sums: list[Register]) -> None:
        """The warps of a group add their parts; all threads of the block share what is to be stored."""
        k, b, shape, m = self.k, self.b, self.shape, self.plan.dot.m
        wide, base = shape.block_columns, k.gpu.shared()
        with b.if_then(b.icmp_unsigned("==", self.lane, i64(0))):
            for number, value in enumerate(sums):
                row, column = divmod(number, shape.columns)
                line = b.add(b.mul(self.part, i64(m)), i64(row))
                place = b.add(b.mul(line, i64(wide)), b.add(self.local, i64(column)))
                scalar.store_element(b, self.dtype, value, base, place)
        k.gpu.barrier()
        finish = Finish(k, self.plan, self.place)
        with b.for_loop(k.thread_index(), i64(m * wide), k.block[0], unroll=False) as number:
            total: Register = scalar.constant(self.dtype, 0)
            for part in range(shape.warps):
                place = b.add(number, i64(part * m * wide))
                total = add(k, self.dtype, total, scalar.load_element(b, self.dtype, base, place))
            self._store(finish, b.udiv(number, i64(wide)), b.urem(number, i64(wide)), [total])


