"""Where XLA does not take a shape at its word: results of talk with a peer, and bounds of operands."""

from __future__ import annotations

from hloc.ir.dtypes import U32
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import TOKEN_SHAPE, ArrayShape, BufferShape, Shape, TupleShape
from hloc.records import replace

PEER_OPCODES = frozenset(("send", "send-done", "recv", "recv-done", "outfeed"))


def peer_shape(opcode: str, operands: list[Instruction], declared: Shape) -> Shape:
    """The shape of one of PEER_OPCODES, made from its operands; `declared` where they do not tell."""
    if opcode in ("send-done", "outfeed"):
        return TOKEN_SHAPE
    if opcode == "send":
        return TupleShape((operands[0].shape, ArrayShape(U32), TOKEN_SHAPE))
    source = declared if opcode == "recv" else operands[0].shape
    if not isinstance(source, TupleShape) or not source.elements:
        return declared
    data = source.elements[0]
    return TupleShape((data, ArrayShape(U32), TOKEN_SHAPE) if opcode == "recv" else (data, TOKEN_SHAPE))


def without_bounds(shape: Shape) -> Shape:
    """The shape with the bounds of dynamic dimensions as sizes: an operand may be declared either way."""
    if isinstance(shape, TupleShape):
        return TupleShape(tuple(map(without_bounds, shape.elements)))
    if isinstance(shape, BufferShape):
        return replace(shape, element=without_bounds(shape.element))
    return replace(shape, dynamic=()) if isinstance(shape, ArrayShape) and shape.dynamic else shape
