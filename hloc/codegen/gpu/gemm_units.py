"""Which matrix unit (tensor core) makes a product, and what it takes.

A unit is used where it gives what arithmetic in the type of the sums gives: products of the elements are exact in it,
or the program, or an option, allows less. From "Warp Level Matrix Instructions" of the PTX ISA manual.
"""

from __future__ import annotations

from hloc.codegen.dot_plan import DotPlan
from hloc.codegen.dot_side import Side
from hloc.ir.dtypes import BF16, F16, F32, F64, S8, S32, U8, DType
from hloc.ir.instruction import Instruction
from hloc.options import Options
from hloc.records import NamedTuple

_LEAST_SM = 80
"""The first architecture whose units are used."""

ROW_BYTES = 128
"""Bytes of a row of a tile in shared memory, all banks once: so many steps are made of a tile."""


class Unit(NamedTuple):
    """`mma` of a `shape`, m x n x k. Elements lie in shared memory as `lhs` and `rhs`, and are `names` to PTX.

    Where elements are f32, and become sums of parts of fewer bits, `products` are the pairs of parts (0 the largest)
    that are multiplied, in order; the last one is (0, 0).
    """

    shape: tuple[int, int, int]
    lhs: DType
    rhs: DType
    names: str
    products: tuple[tuple[int, int], ...] = ((0, 0),)

    @property
    def parts(self) -> int:
        """Parts of an element."""
        return 1 + max(max(pair) for pair in self.products)

    @property
    def itemsize(self) -> int:
        return self.lhs.itemsize

    @property
    def steps(self) -> int:
        """Steps of a tile."""
        return ROW_BYTES // self.itemsize

    @property
    def group_names(self) -> str | None:
        """PTX's types of sums, lhs and rhs, where warpgroups have such products too (`wgmma`): of f64 they have none,
        and of s8 by u8 only since PTX 8.4."""
        exists = self.parts == 1 and self.itemsize < 8 and self.lhs is self.rhs
        return self.names.rpartition(".")[0] if exists else None

    @property
    def ptx_shape(self) -> str:
        m, n, k = self.shape
        return f"m{m}n{n}k{k}"


BF16_UNIT = Unit((16, 8, 16), BF16, BF16, "f32.bf16.bf16.f32")
F16_UNIT = Unit((16, 8, 16), F16, F16, "f32.f16.f16.f32")
TF32_UNIT = Unit((16, 8, 8), F32, F32, "f32.tf32.tf32.f32")
F64_UNIT = Unit((8, 8, 4), F64, F64, "f64.f64.f64.f64")

_SIX = ((2, 0), (0, 2), (1, 1), (1, 0), (0, 1), (0, 0))
_X3, _X6, _X9 = _SIX[-3:], _SIX, ((2, 2), (2, 1), (1, 2), *_SIX)
"""Pairs of parts, the least products first."""

_ALGORITHMS = {
    "dot_bf16_bf16_f32": BF16_UNIT,
    "dot_bf16_bf16_bf16": BF16_UNIT,
    "dot_f16_f16_f32": F16_UNIT,
    "dot_f16_f16_f16": F16_UNIT,
    "dot_tf32_tf32_f32": TF32_UNIT,
    "dot_bf16_bf16_f32_x3": BF16_UNIT._replace(products=_X3),
    "dot_bf16_bf16_f32_x6": BF16_UNIT._replace(products=_X6),
    "dot_bf16_bf16_f32_x9": BF16_UNIT._replace(products=_X9),
    "dot_tf32_tf32_f32_x3": TF32_UNIT._replace(products=_X3),
}
"""Values of `algorithm` that allow operands to be rounded to a unit's type, or to sums of numbers of it."""

_FLOAT_UNITS = {BF16_UNIT: (8, 7), F16_UNIT: (5, 10), TF32_UNIT: (8, 10)}
"""Units that sum in f32, and the exponent and mantissa bits of what they multiply, the best one first."""


def unit_of(dot: DotPlan, instruction: Instruction, sm: int, options: Options) -> Unit | None:
    """The unit for a product on an architecture; None if its threads have to do it."""
    if sm < _LEAST_SM:
        return None
    lhs, rhs = source_of(dot.lhs), source_of(dot.rhs)
    if dot.dtype is F64:
        return F64_UNIT if lhs is rhs is F64 else None
    if dot.dtype is S32:
        return _integer_unit(lhs, rhs)
    if dot.dtype is not F32:
        return None
    for unit, (exponent, mantissa) in _FLOAT_UNITS.items():
        if _is_exact(lhs, exponent, mantissa) and _is_exact(rhs, exponent, mantissa):
            return unit
    allowed = _ALGORITHMS.get(instruction.get("algorithm"))
    precision = instruction.get("operand_precision") or ()
    is_default = instruction.get("algorithm") in (None, "unset") and all(word == "default" for word in precision)
    return TF32_UNIT if allowed is None and is_default and options.allow_tf32 else allowed


def possible_units(dot: DotPlan, instruction: Instruction) -> list[Unit | None]:
    """All that `unit_of` may say of a product, on any architecture with any options."""
    found = [unit_of(dot, instruction, _LEAST_SM, Options(allow_tf32=allow)) for allow in (False, True)]
    return list(dict.fromkeys([None, *found]))


def source_of(side: Side) -> DType:
    """The type of an operand's elements as they are found."""
    return side.value.shape.dtype if side.copied else side.shape.dtype


def lies_by_steps(along_steps: bool, dtype: DType) -> bool:
    """Whether rows of a tile of such elements, which lie together along steps or not, are lines."""
    return along_steps or dtype.itemsize != 2


def copied_together(along_steps: bool, width: int, dtype: DType) -> int:
    """Elements that can be copied as they lie, of `width` that lie together; 0 if there are not 4 bytes of them."""
    count = min(width, 16 // dtype.itemsize) if lies_by_steps(along_steps, dtype) == along_steps else 1
    return count if count * dtype.itemsize >= 4 else 0


def _integer_unit(lhs: DType, rhs: DType) -> Unit | None:
    if not (lhs.is_integer and rhs.is_integer and lhs.bits <= 8 and rhs.bits <= 8):
        return None
    left, right = (S8 if side.is_signed else U8 for side in (lhs, rhs))
    return Unit((16, 8, 32), left, right, f"s32.{left.name}.{right.name}.s32")


def _is_exact(dtype: DType, exponent: int, mantissa: int) -> bool:
    """Whether a float format has all values of a type."""
    if dtype.is_integer:
        return dtype.bits - dtype.is_signed <= mantissa + 1
    return dtype.is_float and 0 < dtype.mantissa_bits <= mantissa and dtype.exponent_bits <= exponent
