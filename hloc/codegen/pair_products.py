"""Products of narrow integers, two terms of a sum at a time.

Terms that s16 holds are packed in pairs, one pair a lane of 32 bits (`pair_packing.py`). Machines multiply such
vectors and add neighbours at once (pmaddwd of x86, or vpdpwssd, which LLVM makes of it where it can), twice as many
products as lanes, or widen halves of vectors as they multiply (smlal of NEON). All sums are exact modulo 2**32.
"""

from __future__ import annotations

from hloc.codegen.llvm import Builder, Value, lane_count, vector_type
from hloc.codegen.targets.target import Target
from hloc.ir.dtypes import S16, S32, DType

_X86 = {
    4: ("llvm.x86.sse2.pmadd.wd", "sse2"),
    8: ("llvm.x86.avx2.pmadd.wd", "avx2"),
    16: ("llvm.x86.avx512.pmaddw.d.512", "avx512bw"),
}
"""x86's product of pairs for a number of lanes, and the feature that has it."""


def terms_a_lane(sums: DType, *operands: DType) -> int:
    """How many terms of a sum a lane of packed operands holds: 2 where that is exact, else 1."""
    return 2 if sums is S32 and all(map(_fits, operands)) else 1


def _fits(dtype: DType) -> bool:
    """Whether s16 holds all numbers of a type."""
    return dtype is S16 or (dtype.is_integer and dtype.bits <= 8)


def add_pairs(b: Builder, x: Value, y: Value, total: Value, target: Target) -> Value:
    """total + x0 y0 + x1 y1, lane by lane: x and y are vectors of i32 that hold pairs, as long as total."""
    lanes = lane_count(total.type)
    halves = vector_type("i16", 2 * lanes)
    x, y = b.bitcast(x, halves), b.bitcast(y, halves)
    name, feature = _X86.get(lanes, ("", ""))
    if target.triple.startswith("x86_64") and feature in target.features:
        return b.add(total, b.intrinsic(name, total.type, [x, y], overloads=()))

    def term(value: Value, half: int) -> Value:
        return b.sext(b.shufflevector(value, None, range(half, 2 * lanes, 2)), total.type)

    for half in range(2):
        total = b.add(total, b.mul(term(x, half), term(y, half)))
    return total
