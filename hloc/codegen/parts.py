"""Long folds made of the folds of their parts, which threads share. Sizes alone decide what is a part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from hloc.codegen.llvm import Builder, Value
from hloc.codegen.loops import Index, delinearize
from hloc.codegen.routines import i64
from hloc.records import record

_LEAST, _MOST = 1 << 16, 64
"""Elements of a part at least, some microseconds of work; parts at most."""

_EVEN = 1 << 12
"""Longer blocks are multiples of this."""

Body = Callable[[Index, Value, int], object]
"""body(index of the dimensions before the divided one, first index along that, how many of them)."""


@record
class Parts:
    """Parts of an index space: one index of each dimension in front of one, and there a block of indices.

    `before` are the sizes of these dimensions, `size` that of the divided one. A part has `block` indices, those at its
    end may be fewer.
    """

    before: tuple[int, ...]
    size: int
    block: int

    @staticmethod
    def of(sizes: Sequence[int], each: int, least: int = 1) -> Parts | None:
        """How to divide a space of `sizes`, for `each` index so many elements; None if it has no two large parts.

        A part has `least` indices of the space or more.
        """
        total = prod(sizes)
        wanted = min(_MOST, total * each // _LEAST, total // least)
        if wanted < 2:
            return None
        dimension = next(d for d in range(len(sizes)) if prod(sizes[: d + 1]) >= wanted)
        before = tuple(sizes[:dimension])
        block = sizes[dimension] // -(-wanted // prod(before))
        if block > _EVEN:
            block = block // _EVEN * _EVEN
        else:
            block = next((n for n in range(block, block // 2, -1) if sizes[dimension] % n == 0), block)
        return Parts(before, sizes[dimension], block)

    @property
    def dimension(self) -> int:
        """The number of the divided dimension."""
        return len(self.before)

    @property
    def _whole(self) -> int:
        return prod(self.before) * (self.size // self.block)

    @property
    def count(self) -> int:
        """The number of parts."""
        return self._whole + (prod(self.before) if self.size % self.block else 0)

    def run(self, b: Builder, number: Value, body: Body) -> None:
        """Runs `body` for a part."""
        blocks, rest = divmod(self.size, self.block)

        def whole() -> None:
            first = b.mul(b.urem(number, i64(blocks)), i64(self.block))
            body(tuple(delinearize(b, b.udiv(number, i64(blocks)), self.before)), first, self.block)

        def end() -> None:
            outer = delinearize(b, b.sub(number, i64(self._whole)), self.before)
            body(tuple(outer), i64(blocks * self.block), rest)

        if rest:
            b.if_else(b.icmp_signed("<", number, i64(self._whole)), whole, end)
        else:
            whole()
