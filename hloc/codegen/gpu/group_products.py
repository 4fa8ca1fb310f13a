"""The products of warpgroups that PTX has (`wgmma.mma_async`): what both dialects and those who plan kernels ask.

A warpgroup is four warps, the first of them a multiple of four. It multiplies 64 rows of one matrix in shared memory by
n columns of another, over 32 bytes of each row: `k` elements.
"""

from __future__ import annotations

from hloc.errors import HloError
from hloc.records import NamedTuple

WARPGROUP = 128
"""Threads."""

ROWS, STEP_BYTES = 64, 32
"""Rows of a product, and the bytes of a row of either operand that it goes over."""

ATOM_BYTES = 1024
"""Eight rows of 128 bytes, over which the places of 16 bytes are mixed: where they begin is aligned to as much."""

_FLOATS8 = ("e4m3", "e5m2")

_OPERANDS = {
    **{("f32", name, name): bits for name, bits in (("f16", 16), ("bf16", 16), ("tf32", 32))},
    **{("f32", a, b): 8 for a in _FLOATS8 for b in _FLOATS8},
    **{("s32", name, name): 8 for name in ("s8", "u8")},
}
"""Types of d, a and b -> bits of an element of a or b. (PTX 8.4 has products of s8 by u8 as well.)"""


class GroupProduct(NamedTuple):
    """d += a b of 64 rows, n columns and k steps. `kind` is LLVM's type of the sums, `bits` those of an element."""

    n: int
    k: int
    types: tuple[str, str, str]
    kind: str
    bits: int

    @property
    def registers(self) -> int:
        """Sums of each thread."""
        return self.n // 2


def group_product(n: int, names: str, lhs_by_lines: bool = False, rhs_by_lines: bool = False) -> GroupProduct:
    """The product of a number of columns and types such as "f32.bf16.bf16". HloError if PTX has none."""
    types = tuple(names.split("."))
    bits = _OPERANDS.get(types, 0) if len(types) == 3 else 0
    wide = types[0] == "s32" and n > 32
    if not bits or not 8 <= n <= 256 or n % (16 if wide else 8):
        raise HloError(f"there is no wgmma m64n{n} of {names}")
    if (lhs_by_lines or rhs_by_lines) and bits != 16:
        raise HloError(f"wgmma m64n{n} of {names} takes operands by steps only")
    return GroupProduct(n, 8 * STEP_BYTES // bits, types, "i32" if types[0] == "s32" else "float", bits)


def check_registers(count: int) -> None:
    """HloError unless threads may ask for so many registers (`setmaxnreg`)."""
    if count % 8 or not 24 <= count <= 256:
        raise HloError(f"threads have 24 to 256 registers, a multiple of 8, not {count}")
