"""What is known of a dot from its shapes and from where its operands lie: its sides, sizes, and how to compute it."""

from __future__ import annotations

from functools import cached_property
from math import gcd, prod

from hloc.analysis.panels import panel_width
from hloc.codegen import few_rows, long_dot
from hloc.codegen.dot_side import Side, padded, taken_apart
from hloc.codegen.epilogue import Epilogue
from hloc.codegen.gemm import ALONE, GROUP, IN_PLACE, PANELS, GemmPlan
from hloc.codegen.matvec import MOST_ROWS
from hloc.codegen.packing import ANYHOW, order_of
from hloc.codegen.pair_products import terms_a_lane
from hloc.codegen.products import summing_type
from hloc.codegen.strided import Strided
from hloc.ir.dtypes import PRED
from hloc.ir.instruction import Instruction
from hloc.records import replace

_SMALL = 2048
"""Up to this many multiplications a product is written in place."""

_LONG = 1 << 15
"""Multiplications that take so long that the code around them does not matter."""

_NEAR_LEFT, _NEAR_RIGHT, _NEAR_STEPS, _NEAR_LINES = 160_000, 40_000, 512, 1024
"""Bytes of a left and of a right operand that is read in place, how long its sums may be then, and how many lines it
may have: it is one block. Columns of the right one lie far apart, where lines of the innermost cache displace each
other.
"""

_WIDE, _ALIKE = 192, 1 << 13
"""Columns of a product whose left operand is read where it lies though it is large; a multiple of so many bytes may not
lie between its rows: too many of them would have the same places in the second cache.
"""

_WIDEST = 64
"""Bytes of the widest vectors of all targets."""

_WHOLE_TILES = 6, 48
"""Rows and columns of the largest tiles of all targets."""

PACKED_BYTES = 64
"""What a thread remembers of what it has packed last."""

_FEW_DOTS, _SHORT = 8192, 128
"""Multiplications of a product written in place by vectors along its sums, and of one column of it."""


class DotPlan:
    """A dot as products c[m, n] = sum over k of a[m, k] b[k, n], one for each index of the batch dimensions.

    `is_fused` says that it is one of a fused computation, where operands may be computed; `holder` is the output in
    whose memory the result can lie before the `epilogue` is applied to it, if there is such an output. Rather than at
    most `few_rows` columns, the product has as few rows. If `splits`, free dimensions that have no stride together
    are taken apart: the outer ones are gone through as batch dimensions are.
    """

    def __init__(
        self,
        instruction: Instruction,
        epilogue: Epilogue | None = None,
        is_fused: bool = False,
        few_rows: int = MOST_ROWS,
        splits: bool = True,
    ):
        self.epilogue = epilogue
        self.holder = None if epilogue is None else epilogue.holder()
        lhs, rhs = instruction.operands
        out = instruction.shape
        lhs_batch, rhs_batch = instruction.get("lhs_batch_dims"), instruction.get("rhs_batch_dims")
        lhs_steps, rhs_steps = instruction.get("lhs_contracting_dims"), instruction.get("rhs_contracting_dims")
        place = Strided.of(lhs, is_fused)
        strides = lhs.shape.strides if place is None else place.strides
        pairs = sorted(zip(lhs_steps, rhs_steps, strict=True), key=lambda pair: -strides[pair[0]])
        lhs_free = [d for d in range(lhs.shape.rank) if d not in (*lhs_batch, *lhs_steps)]
        rhs_free = [d for d in range(rhs.shape.rank) if d not in (*rhs_batch, *rhs_steps)]
        first, second = len(lhs_batch), len(lhs_batch) + len(lhs_free)
        # Rows and columns are counted in the order in which the result has them in memory.
        rows = sorted(range(first, second), key=lambda d: -out.strides[d])
        columns = sorted(range(second, out.rank), key=lambda d: -out.strides[d])
        lhs_rows = [lhs_free[d - first] for d in rows]
        rhs_columns = [rhs_free[d - second] for d in columns]
        strides = out.strides
        apart = taken_apart(lhs, rhs, lhs_rows, rows, strides, is_fused) if splits else 0
        also = taken_apart(rhs, lhs, rhs_columns, columns, strides, is_fused) if splits else 0
        batches = [*range(first), *rows[:apart], *columns[:also]]
        lhs_batch = [*lhs_batch, *lhs_rows[:apart], *[None] * also]
        rhs_batch = [*rhs_batch, *[None] * apart, *rhs_columns[:also]]
        self.lhs = Side(0, lhs, lhs_batch, lhs_rows[apart:], [pair[0] for pair in pairs], is_fused)
        self.rhs = Side(1, rhs, rhs_batch, rhs_columns[also:], [pair[1] for pair in pairs], is_fused)
        self.out = Side(None, instruction, batches, rows[apart:], columns[also:], is_fused)
        self.batch = tuple(out.dims[d] for d in batches)
        self.m, self.n = prod(self.lhs.sizes(self.lhs.rows)), prod(self.rhs.sizes(self.rhs.rows))
        self.k = prod(self.lhs.sizes(self.lhs.columns))
        self.dtype = summing_type(lhs.shape.dtype, rhs.shape.dtype, out.dtype)
        _, row, column = self.out.strides
        if self.n <= few_rows < self.m or (column != 1 and row == 1 and self.m > few_rows):
            self._transpose()
        if self.m > MOST_ROWS and self.k > 1 and self.m * self.n * self.k > _SMALL:
            self.rhs.in_panels = self.rhs.shape.dtype is self.dtype and self.rhs.lies_in_panels

    def _transpose(self) -> None:
        """The product of the transposed operands, with rows and columns of the result changed over."""
        self.lhs, self.rhs, self.m, self.n = self.rhs, self.lhs, self.n, self.m
        self.out = self.out.turned()

    @property
    def is_plain(self) -> bool:
        """Whether plain loops do: small products, and types that the routines do not know."""
        return self.dtype is PRED or self._mixes_complex or (
            self.m * self.n * self.k <= _SMALL and not self.is_inline and not self.is_inline_dots
        )

    @property
    def _mixes_complex(self) -> bool:
        """Whether complex numbers meet other types, of one part or of parts of another size."""
        sides = (self.lhs, self.rhs, self.out)
        return self.dtype.is_complex and any(side.shape.dtype is not self.dtype for side in sides)

    @property
    def is_packed(self) -> bool:
        """Whether blocks of the operands are packed, and the result is made block by block."""
        return not (
            self.is_plain
            or self.is_inline
            or self.is_inline_dots
            or self.is_row_sum
            or self.is_row_dot
            or self.has_few_rows
            or self.has_long_sums
            or self.is_thin_complex
        )

    @property
    def finishes_blocks(self) -> bool:
        """Whether the epilogue is applied to each block of the result as soon as it is there."""
        return self.epilogue is not None and self.is_packed and not self.out.copied and not self.dtype.is_complex

    @property
    def holds(self) -> bool:
        """Whether parts of sums that the epilogue is applied to can be kept where a root lies."""
        return self.holder is not None and self.out.shape.dtype is self.dtype

    @property
    def holding(self) -> int | None:
        """The output in which sums do lie before the epilogue is applied to them; all others are written just once."""
        if self.is_plain or self.out.copied or self.has_long_sums:
            return None
        if self.finishes_blocks:
            return self.holder if self.holds and self.gemm(16).k_block < self.k else None
        return self.holder

    @property
    def is_divisible(self) -> bool:
        """Whether parts of the result can be made apart from each other, each reading the operands where they lie."""
        ready = all(not side.copied or self.packs(side) for side in (self.lhs, self.rhs)) and not self.out.copied
        return ready and not self.is_plain and (self.epilogue is None or self.finishes_blocks)

    @property
    def only_calls(self) -> bool:
        """Whether its code does nothing but call routines, each for a while."""
        if self.is_plain or self.is_inline or self.is_inline_dots or self.epilogue is not None:
            return False
        copied = any(side.copied for side in (self.lhs, self.rhs, self.out))
        return not copied and self.m * self.n * self.k >= _LONG

    def packs(self, side: Side) -> bool:
        """Whether a computed operand's elements are put into packed blocks as they are computed."""
        return side.computed and self.is_packed and not self.dtype.is_complex

    def in_place(self, side: Side) -> bool:
        """Whether a packed product reads an operand where it lies."""
        return self._is_near(side) or (self.lhs.number == side.number and self.reads_rows)

    def _is_near(self, side: Side) -> bool:
        """Whether an operand is small enough to be read where it lies as one block."""
        (rows, columns), operand = _WHOLE_TILES, self.lhs.number == side.number
        if self.k > _NEAR_STEPS or self.dtype.is_complex or side.copied or side.shape.dtype is not self.dtype:
            return False
        lines, most = (self.m, _NEAR_LEFT) if operand else (self.n, _NEAR_RIGHT)
        if lines > _NEAR_LINES or lines * self.k * self.dtype.itemsize > most:
            return False
        if operand:
            return self.m >= rows
        last = self.n % GROUP if self.finishes_blocks else self.n
        return side.strides[1] == 1 and self.n >= columns and (last == 0 or last >= columns)

    @cached_property
    def reads_rows(self) -> bool:
        """Whether blocks of the left operand's rows are read where they lie: then a part of the result may have few
        columns and all rows, and nothing is packed twice. Rows are whole tiles, unless results are stored just once:
        then the last tile may begin in the one before it.
        """
        side = self.lhs
        if self._is_near(side) or not self.is_packed or self.dtype.is_complex or self.rhs.in_panels:
            return False
        if side.shape.dtype is not self.dtype or side.copied or side.strides[2] != 1:
            return False
        if self.n < _WIDE or gcd(side.strides[1] * self.dtype.itemsize, _ALIKE) == _ALIKE:
            return False
        once = self.m >= _WHOLE_TILES[0] and self.k <= ALONE and self.epilogue is None and not self.keeps
        return once or all(self.m % self._blocks(width).tile.rows == 0 for width in (16, 32, 64))

    @property
    def packs_once(self) -> bool:
        """Whether the right operand is packed as one block of all steps, which serves for other rows, too."""
        is_one = self.is_packed and self.k <= ALONE and not self.dtype.is_complex and not self.rhs.in_panels
        return is_one and not self.in_place(self.rhs)

    def order(self, side: Side) -> str:
        """What is known of where an operand of a packed product lies: an order of `packing`, or IN_PLACE."""
        if self.in_place(side):
            return IN_PLACE
        if side.in_panels:
            return PANELS
        if self.packs(side) or self.dtype.is_complex:
            return ANYHOW
        _, line, step = side.strides
        return order_of(side.shape.dtype, line, step)

    @property
    def keeps(self) -> bool:
        """Whether a packed product keeps sums in scratch until they are complete: the result cannot hold them."""
        if self.finishes_blocks:
            return not self.holds
        return self.out.shape.dtype.real_part is not self.dtype.real_part

    @property
    def terms(self) -> int:
        """How many terms of a sum a lane of packed operands holds."""
        return terms_a_lane(self.dtype, self.lhs.shape.dtype, self.rhs.shape.dtype)

    def _blocks(self, vector_bytes: int) -> GemmPlan:
        """The plan of operands that are packed."""
        # A pair's product takes a register more: broad tiles leave none.
        broad = self.terms == 1
        width = panel_width(self.dtype) if self.rhs.in_panels else 0
        return GemmPlan.of(
            self.m, self.n, self.k, self.dtype.real_part, vector_bytes, self.keeps, broad, self.terms, width
        )

    def gemm(self, vector_bytes: int) -> GemmPlan:
        plan = self._blocks(vector_bytes)
        left, right = self.in_place(self.lhs), self.in_place(self.rhs)
        if right or (left and not self.reads_rows):
            plan = replace(plan, k_block=self.k)
        if left and (right or not self.reads_rows):
            plan = replace(plan, m_block=self.m, m_part=self.m if plan.m_part else 0)
        return replace(plan, n_block=self.n) if right else plan

    @property
    def is_inline(self) -> bool:
        """Small, and lying so that vectors of columns can be read from it."""
        if not self._is_simple or self.m * self.n * self.k > _SMALL:
            return False
        return self.rhs.strides[1] == self.out.strides[2] == 1

    @property
    def is_inline_dots(self) -> bool:
        """Small, few rows, and both operands contiguous along the sums."""
        if not self._is_simple or self.m * self.n * self.k > _FEW_DOTS or self.m > MOST_ROWS:
            return False
        if self.k < 4 or self.n < 4 or self.m * self.k > _SHORT:
            return False
        return self.lhs.strides[2] == self.rhs.strides[2] == 1 and not self.is_inline

    @property
    def _is_simple(self) -> bool:
        """Whether it is of one real type, on operands and a result as they lie."""
        if self.dtype.is_complex or self.dtype is PRED:
            return False
        sides = (self.lhs, self.rhs, self.out)
        return all(side.shape.dtype is self.dtype and not side.copied for side in sides)

    @property
    def is_row_sum(self) -> bool:
        """Few rows, and the other operand's columns side by side."""
        return self._is_thin and self.rhs.strides[1] == 1 and not self.is_row_dot

    @property
    def has_few_rows(self) -> bool:
        """More rows, but few enough for a large matrix whose columns lie side by side to be read once, in order."""
        if self.epilogue is not None or not MOST_ROWS < self.m <= few_rows.MOST_ROWS or not self._is_simple:
            return False
        itemsize = self.dtype.itemsize
        if self.k * self.n * itemsize < few_rows.LEAST_BYTES or self.n % (_WIDEST // itemsize):
            return False
        return self.rhs.strides[1] == self.out.strides[2] == 1

    @cached_property
    def has_long_sums(self) -> bool:
        """Few rows and columns, but many terms, so that sums are made in parts, of operands where they lie."""
        return self._is_simple and long_dot.suits(self)

    @property
    def is_row_dot(self) -> bool:
        """Few rows, and the other operand contiguous along the contracted dimension."""
        return self._is_thin and (self.rhs.strides[2] == 1 or self.k == 1)

    @property
    def _is_thin(self) -> bool:
        return self.m <= MOST_ROWS and not self.dtype.is_complex

    @property
    def is_thin_complex(self) -> bool:
        """Few rows of complex numbers, each multiplied as real ones with the other operand, which is dense one way."""
        if not self.dtype.is_complex or self.m > MOST_ROWS or self.is_plain or 1 not in self.rhs.strides[1:]:
            return False
        return all(side.shape.dtype is self.dtype for side in (self.lhs, self.rhs, self.out))

    @property
    def copies(self) -> int:
        operands = sum(side.copy_bytes for side in (self.lhs, self.rhs) if not self.packs(side))
        return operands + self.out.copy_bytes

    @property
    def result_bytes(self) -> int:
        """Scratch for the result that an epilogue is applied to: all of it, or the sums of one block."""
        if self.epilogue is None or self.is_plain or self.has_long_sums:
            return 0
        if self.finishes_blocks:
            return max(padded(self.gemm(w).m_block * GROUP * self.dtype.itemsize) for w in (16, 32, 64))
        return 0 if self.holder is not None else padded(self.out.shape.byte_size)

    @property
    def scratch_bytes(self) -> int:
        if self.is_plain:
            return 0
        if self.is_inline or self.is_inline_dots:
            return self.result_bytes
        if self.has_long_sums:
            return prod(self.batch) * long_dot.sums_of(self.m, self.n, self.k) * self.dtype.itemsize
        fixed = self.copies + self.result_bytes
        if self.is_row_dot:
            return fixed + self.m * self.k * self.dtype.itemsize
        if self.is_thin_complex:
            return fixed + 2 * max(self.n, self.k) * self.dtype.itemsize
        if self.is_row_sum or self.has_few_rows:
            return fixed
        fixed += PACKED_BYTES if self.packs_once else 0
        return fixed + max(self._packed_bytes(width) for width in (16, 32, 64))

    def _packed_bytes(self, vector_bytes: int) -> int:
        plan = self.gemm(vector_bytes)
        return replace(plan, n_block=0).scratch_bytes if self.rhs.in_panels and not self.keeps else plan.scratch_bytes
