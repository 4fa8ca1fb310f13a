"""Sides of products that are no dot's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape

if TYPE_CHECKING:
    from hloc.codegen.gpu.context import GpuContext
    from hloc.codegen.gpu.gemm_parts import Elements


class OwnSide:
    """An operand, or the result, of a product that has its own way to its elements, in the place of a `Side`.

    `value` is of the type that they have, and `copied` an operand whose elements are computed. `width` of an operand's
    elements lie together, along steps (`along_steps`) or along lines.
    """

    value: Instruction
    shape: ArrayShape
    copied: bool
    along_steps: bool
    width: int

    def operand(self, k: GpuContext, batch: Index, dtype: DType) -> Elements:
        """Its elements, of an operand."""
        raise NotImplementedError

    def index(self, k: GpuContext, batch: Index, row: Value, column: Value) -> Index:
        """The index of its array, of a result."""
        raise NotImplementedError
