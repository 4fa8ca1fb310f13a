"""How the right operand of a product lies where it need not be packed: in panels, as packed ones do.

A panel holds some columns side by side, step by step of the contracted dimension: an array of panels, steps and
columns. A pass makes such arrays of what a loop multiplies by; products read them as they lie.
"""

from __future__ import annotations

from hloc.ir.dtypes import F32, F64, DType

_BYTES = 64
"""Bytes of the columns of a panel: whole vectors of every target."""


def panel_width(dtype: DType) -> int:
    """Columns of a panel of elements of a type; 0 if there are no panels of them."""
    return _BYTES // dtype.itemsize if dtype in (F32, F64) else 0
