"""What builders of both kinds of lines share: the names of a computation, and attributes in one form."""

from __future__ import annotations

from typing import Any

from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.opcodes import Op
from hloc.ir.shapes import Shape


class Scope:
    """The names of one computation while it is read. With `single`, unknown operands are parameters."""

    def __init__(self, computation: Computation, single: bool = False):
        self.computation = computation
        self.names: dict[str, Instruction] = {}
        self.root: Instruction | None = None
        self.last: Instruction | None = None
        self.single = single


def adjust(op: Op, operands: list[Instruction], own: dict[str, Any], shape: Shape) -> None:
    """Bring attributes that can be written in two ways to one."""
    if op.name == "compare" and "type" in own and own["type"] == default_comparison(operands[0].shape):
        del own["type"]
    elif op.name == "map":
        own["dimensions"] = tuple(range(len(shape.dims))) if shape.is_array and shape.dims else ()
        if not own["dimensions"]:
            del own["dimensions"]
    elif op.name == "reshape" and own.get("inferred_dimension") == -1:
        del own["inferred_dimension"]
    elif op.name == "custom-call" and "to_apply" in own:
        own["called_computations"] = (own.pop("to_apply"),)
    elif op.name == "outfeed":
        own.setdefault("outfeed_shape", operands[0].shape)


def default_comparison(shape: Shape) -> str:
    """How compare relates elements of a shape when the text doesn't say."""
    dtype = getattr(shape, "dtype", None)
    if dtype is not None and dtype.is_signed:
        return "SIGNED"
    return "UNSIGNED" if dtype is not None and (dtype.is_unsigned or dtype.kind == "predicate") else "FLOAT"
