"""The syntax tree: what the grammar's rules of modules, computations and instructions give.

Names are not looked up here; hloc.text.build does that, in the order of the text.
"""

from __future__ import annotations

from typing import Any

from hloc.ir.attributes import Raw
from hloc.ir.shapes import Shape
from hloc.text.attribute_values import AttributeValues, conv_dims, padding
from hloc.text.messages import suggest
from hloc.text.shape_values import ShapeValues
from hloc.text.sharding_values import ShardingValues
from hloc.text.strings import int_of, string_of
from hloc.text.tokens import Token, fault_at


class Attribute:
    """`name=value`; `token` is the name. The value's meaning is that of the rule for its kind."""

    __slots__ = ("name", "value", "token")

    def __init__(self, token: Token, value: Any):
        self.name: str = token.value
        self.value = value
        self.token = token


class Operand:
    """One operand: a name, perhaps with `#index` steps and a declared shape; a shape alone; a nested operation; an
    integer (the number of a parameter)."""

    __slots__ = ("token", "indices", "shape", "operation")

    def __init__(self, token: Token | None, indices: tuple[Token, ...] = (), shape: Shape | None = None,
                 operation: Operation | None = None):  # fmt: skip
        self.token = token
        self.indices = indices
        self.shape = shape
        self.operation = operation


class Operation:
    """`shape opcode(operands)`; `literal` is the token of a constant's value."""

    __slots__ = ("shape", "opcode", "operands", "literal")

    def __init__(self, shape: Shape | None, opcode: Token, operands: list[Operand], literal: Token | None = None):
        self.shape = shape
        self.opcode = opcode
        self.operands = operands
        self.literal = literal


class Line:
    """One instruction of the text."""

    __slots__ = ("root", "name", "operation", "attributes")

    def __init__(self, root: Token | None, name: Token | None, operation: Operation, attributes: list[Attribute]):
        self.root = root
        self.name = name
        self.operation = operation
        self.attributes = attributes


class Body:
    """The instructions between braces: Lines and Tokens of type INSTRUCTIONS; `start` is where it begins."""

    __slots__ = ("start", "items")

    def __init__(self, start: Token, items: list[Any]):
        self.start = start
        self.items = items


class ComputationText:
    """One computation; `result` is (arrow token, shape) of its signature, if it has one."""

    __slots__ = ("entry", "name", "result", "body", "attributes")

    def __init__(self, entry: Token | None, name: Token, result: Any, body: Body, attributes: list[Attribute]):
        self.entry = entry
        self.name = name
        self.result = result
        self.body = body
        self.attributes = attributes


class Tables:
    """The sections behind the header: (section token, end of its rows) each."""

    __slots__ = ("sections",)

    def __init__(self, sections: list[tuple[Token, int]]):
        self.sections = sections


class ModuleText:
    """A whole text: name token and attributes of the header if there is one, tables, computations or one Line."""

    __slots__ = ("name", "attributes", "tables", "computations", "single")

    def __init__(self, parts: list[Any]):
        self.name: Token | None = None
        self.attributes: list[Attribute] = []
        self.tables: Tables | None = None
        self.computations: list[ComputationText] = []
        self.single: Line | None = None
        for part in parts:
            if isinstance(part, ComputationText):
                self.computations.append(part)
            elif isinstance(part, Token):
                self.computations += part.value
            elif isinstance(part, tuple):
                self.name, self.attributes = part
            elif isinstance(part, Tables):
                self.tables = part
            elif isinstance(part, Line):
                self.single = part


class LiteralText:
    """`s32[2]{0} {1, 2}`, or parts in parentheses."""

    __slots__ = ("shape", "token", "parts")

    def __init__(self, shape: Shape | None, token: Token | None, parts: list[LiteralText]):
        self.shape = shape
        self.token = token
        self.parts = parts


class Callbacks(ShapeValues, AttributeValues, ShardingValues):
    """One method for every rule of the grammar, called with the rule's children once they are complete."""

    def module(self, children: list[Any]) -> ModuleText:
        return ModuleText(children)

    def heading(self, children: list[Any]) -> tuple[Token, list[Attribute]]:
        return children[0], children[1]

    def tables(self, children: list[Any]) -> Tables:
        sections: list[tuple[Token, int]] = []
        for child in children:
            if child.type in ("FILE_NAMES", "FUNCTION_NAMES", "FILE_LOCATIONS", "STACK_FRAMES"):
                sections.append((child, child.end))
            else:
                sections[-1] = (sections[-1][0], child.end)
        return Tables(sections)

    def name_row(self, children: list[Token]) -> Token:
        string_of(children[1])
        return children[1]

    def location_row(self, children: list[Token]) -> Token:
        return _row(children, _LOCATION_FIELDS)

    def frame_row(self, children: list[Token]) -> Token:
        return _row(children, _FRAME_FIELDS)

    def computation(self, children: list[Any]) -> ComputationText:
        entry = children.pop(0) if children[0].type == "ENTRY" else None
        name, *signature, body, attributes = children
        return ComputationText(entry, name, signature[0] if signature else None, body, attributes)

    def opened_computation(self, children: list[Any]) -> ComputationText:
        opening, *items, attributes = children
        entry, name, result = opening.value
        return ComputationText(entry, name, result, Body(name, items), attributes)

    def signature(self, children: list[Any]) -> Any:
        return children[-2], children[-1]

    def parameter(self, children: list[Any]) -> None:
        return None

    def body(self, children: list[Any]) -> Body:
        return Body(children[0], children[1:-1])

    def single(self, children: list[Any]) -> Line:
        return children[0]

    def bare_instruction(self, children: list[Any]) -> Line:
        return Line(None, None, children[0], children[1])

    def instruction(self, children: list[Any]) -> Line:
        root = children.pop(0) if children[0].type == "ROOT" else None
        return Line(root, *children)

    def shaped_operation(self, children: list[Any]) -> Operation:
        return Operation(*children)

    def constant(self, children: list[Any]) -> Operation:
        shape, opcode, literal = children
        return Operation(shape, opcode, [], literal)

    def shapeless_operation(self, children: list[Any]) -> Operation:
        return Operation(None, *children)

    def operands(self, children: list[Operand]) -> list[Operand]:
        return children

    def operand(self, children: list[Operand]) -> Operand:
        return children[0]

    def shaped_operand(self, children: list[Any]) -> Operand:
        shape, operand = children
        operand.shape = shape
        return operand

    def unnamed_operand(self, children: list[Shape]) -> Operand:
        return Operand(None, shape=children[0])

    def nested_operand(self, children: list[Operation]) -> Operand:
        return Operand(children[0].opcode, operation=children[0])

    def number_operand(self, children: list[Token]) -> Operand:
        return Operand(children[0])

    def name_operand(self, children: list[Token]) -> Operand:
        return Operand(children[0], tuple(children[1:]))

    def attributes(self, children: list[Any]) -> list[Attribute]:
        listed: list[Attribute] = []
        for child in children:
            listed += child.value if isinstance(child, Token) else [child]
        return listed

    def attribute(self, children: list[Any]) -> Attribute:
        # Of a scalar, padding has no dimensions to write.
        key, value = children if len(children) == 2 else (children[0], ())
        if isinstance(value, Token):
            value = _token_value(value)
        return Attribute(key, value)

    def literal(self, children: list[Any]) -> LiteralText:
        return LiteralText(children[0], children[1], [])

    def tuple_literal(self, children: list[LiteralText]) -> LiteralText:
        return LiteralText(None, None, children)


_LOCATION_FIELDS = ("file_name_id", "function_name_id", "line", "end_line", "column", "end_column")
_FRAME_FIELDS = ("file_location_id", "parent_frame_id")


def _row(children: list[Token], fields: tuple[str, ...]) -> Token:
    """The last token of a row `1 {field=1 ...}` that has just these fields, once each and in any order."""
    keys = [child for child in children if child.type == "KEY"]
    for number, key in enumerate(keys):
        if key.value not in fields:
            raise fault_at(key, f"a row of this table has no field {key.value!r}", suggest(key.value, fields))
        if any(key.value == other.value for other in keys[:number]):
            raise fault_at(key, f"field {key.value} is given twice")
    missing = [field for field in fields if all(key.value != field for key in keys)]
    if missing:
        raise fault_at(children[0], f"the row lacks {', '.join(missing)}")
    return children[-1]


def _token_value(token: Token) -> Any:
    """The value of an attribute that is one token; words stay tokens until the op table is consulted."""
    if token.type == "INT":
        return int_of(token)
    if token.type == "STRING":
        return string_of(token)
    if token.type == "DICT":
        return Raw(token.value)
    if token.type == "DIM_LABELS":
        return conv_dims(token)
    if token.type == "PADS":
        return padding(token)
    return token.value if token.type == "METADATA" else token
