"""Dots that are not multiplied by blocks: small ones, those of few rows, and single rows of complex numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hloc.codegen import scalar
from hloc.codegen.few_rows import few_rows_routine
from hloc.codegen.llvm import Value, integer
from hloc.codegen.matvec import ThinProduct, row_dot_routine, row_sum_routine
from hloc.codegen.packing import ANYHOW, pack_routine
from hloc.codegen.routines import i64
from hloc.codegen.small_dots import InlineDots
from hloc.codegen.tiles import InlineProduct


class ThinDot:
    """This part of the emitter of dots (`emitters/dot.py`), which has all that it uses."""

    k: Any
    b: Any
    plan: Any

    def thin_way(self) -> Callable[[Value, Value, Value], None] | None:
        """What writes the product of matrices that begin at (lhs, rhs, out); None if that is for blocks."""
        plan = self.plan
        ways = (
            (plan.is_inline, self._inline),
            (plan.is_inline_dots, self._inline_dots),
            (plan.is_row_dot, self._row_dot),
            (plan.is_row_sum, self._row_sum),
            (plan.has_few_rows, self._few_rows),
            (plan.is_thin_complex, self._complex_rows),
        )
        return next((way for applies, way in ways if applies), None)

    def _inline(self, lhs: Value, rhs: Value, out: Value) -> None:
        plan = self.plan
        (_, row, step), (_, _, b_step), (_, c_row, _) = (s.strides for s in (plan.lhs, plan.rhs, plan.out))
        lanes = max(self.k.target.vector_bytes // plan.dtype.itemsize, 2)
        product = InlineProduct(self.b, plan.dtype, lanes, (row, step, b_step, c_row))
        product.write((plan.m, plan.n, plan.k), lhs, rhs, out)

    def _inline_dots(self, lhs: Value, rhs: Value, out: Value) -> None:
        plan = self.plan
        (_, row, _), (_, column, _), (_, *strides) = (s.strides for s in (plan.lhs, plan.rhs, plan.out))
        lanes = max(self.k.target.vector_bytes // plan.dtype.itemsize, 2)
        product = InlineDots(self.b, plan.dtype, lanes, (row, column, *strides))
        product.write((plan.m, plan.n, plan.k), lhs, rhs, out)

    def _row_dot(self, lhs: Value, rhs: Value, out: Value) -> None:
        plan, b = self.plan, self.b
        lhs_type, rhs_type, out_type = self.types()
        (_, row, step), (_, column, _), (_, c_row, c_column) = (
            s.strides for s in (plan.lhs, plan.rhs, plan.out)
        )
        if step != 1:
            packed = self.scratch(0)
            pack = pack_routine(self.routines, lhs_type, plan.dtype, 1, 1, ANYHOW)
            b.call(pack, [lhs, packed, i64(plan.m), i64(plan.k), i64(row), i64(step), i64(1), integer("i1", 0)])
            lhs, lhs_type, row = packed, plan.dtype, plan.k
        product = ThinProduct(lhs_type, rhs_type, out_type, plan.dtype, plan.m)
        routine = row_dot_routine(self.routines, product)
        sizes = (plan.k, row, column, c_row, c_column)
        b.call(routine, [lhs, rhs, out, self.extent[1], *map(i64, sizes)])

    def _row_sum(self, lhs: Value, rhs: Value, out: Value) -> None:
        plan = self.plan
        (_, row, step), (_, _, b_step), (_, c_row, c_column) = (
            s.strides for s in (plan.lhs, plan.rhs, plan.out)
        )
        product = ThinProduct(*self.types(), plan.dtype, plan.m)
        routine = row_sum_routine(self.routines, product)
        sizes = (plan.k, row, step, b_step, c_row, c_column)
        self.b.call(routine, [lhs, rhs, out, self.extent[1], *map(i64, sizes)])

    def _few_rows(self, lhs: Value, rhs: Value, out: Value) -> None:
        plan = self.plan
        (_, row, step), (_, _, b_step), (_, c_row, _) = (s.strides for s in (plan.lhs, plan.rhs, plan.out))
        lanes = max(self.k.target.vector_bytes // plan.dtype.itemsize, 2)
        routine = few_rows_routine(self.routines, plan.dtype, plan.m, lanes)
        self.b.call(routine, [lhs, rhs, out, self.extent[1], *map(i64, (plan.k, row, step, b_step, c_row))])

    def _complex_rows(self, lhs: Value, rhs: Value, out: Value) -> None:
        b, plan = self.b, self.plan
        one = self._complex_dots if plan.rhs.strides[2] == 1 else self._complex_sums
        type = scalar.memory_type(plan.dtype.real_part)
        for i in range(plan.m):
            row, to = (
                b.gep(type, start, i64(2 * i * side.strides[1])) for start, side in ((lhs, plan.lhs), (out, plan.out))
            )
            one(row, rhs, to)

    def _complex_dots(self, row: Value, rhs: Value, out: Value) -> None:
        """One row of complex sums: two real rows, (re, -im) and (im, re), with columns of as many real numbers."""
        plan, b, real = self.plan, self.b, self.plan.dtype.real_part
        type, line, n = scalar.memory_type(real), self.scratch(0), 2 * plan.k
        with b.for_loop(0, plan.k) as s:
            place = b.mul(s, i64(2 * plan.lhs.strides[2]))
            re, im = (scalar.load(b, real, b.gep(type, row, b.add(place, i64(part)))) for part in (0, 1))
            for offset, value in ((0, re), (1, b.fneg(im)), (n, im), (n + 1, re)):
                scalar.store(b, real, value, b.gep(type, line, b.add(b.mul(s, i64(2)), i64(offset))))
        routine = row_dot_routine(self.routines, ThinProduct(real, real, real, real, 2))
        sizes = (n, n, 2 * plan.rhs.strides[1], 1, 2 * plan.out.strides[2])
        b.call(routine, [line, rhs, out, self.extent[1], *map(i64, sizes)])

    def _complex_sums(self, row: Value, rhs: Value, out: Value) -> None:
        """One row of complex sums: by the real parts of the row and by the imaginary ones, then both together."""
        plan, b, real = self.plan, self.b, self.plan.dtype.real_part
        type, sums, n = scalar.memory_type(real), self.scratch(0), 2 * plan.n
        routine = row_sum_routine(self.routines, ThinProduct(real, real, real, real, 2))
        sizes = (plan.k, 1, 2 * plan.lhs.strides[2], 2 * plan.rhs.strides[2], n, 1)
        b.call(routine, [row, rhs, sums, b.mul(self.extent[1], i64(2)), *map(i64, sizes)])
        with b.for_loop(i64(0), self.extent[1]) as j:
            at = b.mul(j, i64(2))
            x, y, u, v = (scalar.load(b, real, b.gep(type, sums, b.add(at, i64(o)))) for o in (0, 1, n, n + 1))
            to = b.mul(j, i64(2 * plan.out.strides[2]))
            for part, value in ((0, b.fsub(x, v)), (1, b.fadd(y, u))):
                scalar.store(b, real, value, b.gep(type, out, b.add(to, i64(part))))
