"""From the syntax of attributes to what the op table asks for: names looked up, words checked, defaults dropped."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hloc.ir.attributes import Metadata, Raw, ReplicaGroups, ResultAccuracy
from hloc.ir.computation import Computation
from hloc.ir.literals import Literal
from hloc.ir.opcodes import (
    COMMON,
    COMPUTATION,
    COMPUTATIONS,
    DIMS,
    ENUM,
    ENUMS,
    FLOAT_VALUE,
    GROUPS,
    LISTS,
    LITERAL,
    RAW,
    Op,
)
from hloc.ir.opcodes import Attribute as Row
from hloc.text.literal_values import Elision, literal_of
from hloc.text.messages import suggest
from hloc.text.patterns import Later
from hloc.text.syntax import Attribute, Body, LiteralText
from hloc.text.tokens import Fault, Token, fault_at

# Parsed and dropped, as XLA does: the attribute had a meaning for a short while only.
_DROPPED = frozenset((("all-reduce", "mode"), ("all-reduce-start", "mode"), ("reduce-scatter", "mode")))
# Kept though it is the default: that it was given says that the result's layout is fixed.
_KEPT = frozenset((("custom-call", "operand_layout_constraints"),))
_FLOAT32_MAX = 3.4028234663852886e38
_BRACES = Later(r'"(?:[^"\\]|\\.)*+"|[{}]', re.DOTALL)
_GROUP_MODES = ("cross_replica", "cross_partition", "cross_replica_and_partition", "flattened_id")


class Meaning:
    """The values of one instruction's attributes. `callee` gives the Computation of a name or of a Body."""

    def __init__(self, callee: Callable[[Token | Body], Computation], elision: Elision):
        self.callee = callee
        self.elision = elision

    def attributes(
        self, op: Op, listed: list[Attribute], also: dict[str, Row], place: Token
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """(the op's own, the common ones, those of `also`) by name. Missing ones are a fault at `place`."""
        own: dict[str, Any] = {}
        common: dict[str, Any] = {}
        others: dict[str, Any] = {}
        seen: dict[str, Attribute] = {}
        for attribute in listed:
            name = attribute.name
            if name in seen:
                raise fault_at(attribute.token, f"attribute {name} is given twice")
            seen[name] = attribute
            if name in op.attributes:
                self._own(op, op.attributes[name], attribute, own)
            elif name == "parameter_replication" and op.name != "parameter":
                raise fault_at(attribute.token, "only a parameter has parameter_replication")
            elif name in COMMON:
                value = _common(name, attribute.value)
                if value is not None:
                    common[name] = value
            elif name in also:
                others[name] = self.value(also[name], attribute)
            else:
                known = [*op.attributes, *also, *COMMON]
                allowed = ", ".join([*op.attributes, *also]) or "only those that every instruction takes"
                hint = suggest(name, known) or f"it takes {allowed}"
                raise fault_at(attribute.token, f"{op.name} has no attribute {name!r}", hint)
        for row in op.attributes.values():
            if row.required and row.name not in seen:
                raise fault_at(place, f"{op.name} needs the attribute {row.name}")
        return own, common, others

    def _own(self, op: Op, row: Row, attribute: Attribute, own: dict[str, Any]) -> None:
        value = self.value(row, attribute)
        if (op.name, row.name) in _DROPPED:
            if value.text not in _GROUP_MODES:
                raise _no_choice(attribute.value, _GROUP_MODES)
        elif (op.name, row.name) in _KEPT or (value != row.default and not _says_nothing(value)):
            own[row.name] = value

    def value(self, row: Row, attribute: Attribute) -> Any:
        """The value of an attribute, by the kind that its row names."""
        value, kind = attribute.value, row.kind
        if kind == ENUM:
            if value.value not in row.choices:
                raise _no_choice(value, row.choices)
            return value.value
        if kind == ENUMS:
            return tuple(_one_of(word, row.choices) for word in value)
        if kind == COMPUTATION:
            return self.callee(value)
        if kind == COMPUTATIONS:
            return tuple(map(self.callee, value))
        if kind == LITERAL:
            return self.literal(value)
        if kind == RAW:
            return value if isinstance(value, Raw) else Raw(value.value)
        if kind == FLOAT_VALUE and not abs(value) <= _FLOAT32_MAX:
            raise fault_at(attribute.token, f"{value} is out of range for a 32-bit float")
        if kind in (DIMS, LISTS):
            _check_lists(row, attribute)
        if kind == GROUPS and any(isinstance(group, int) for group in value.listed):
            raise fault_at(attribute.token, "expected groups of devices {{..},{..}}")
        return value

    def literal(self, text: LiteralText) -> Literal:
        if text.token is not None and text.shape is not None:
            return literal_of(text.shape, text.token.value, text.token.start, self.elision)
        return Literal.tuple_of(map(self.literal, text.parts))


def _common(name: str, value: Any) -> Any:
    """The value of a common attribute in the one form that the printer writes; None if it says nothing."""
    if name == "backend_config":
        return as_config(value)
    if name == "metadata":
        return None if value == Metadata() else value
    return None if value == () else value


def as_config(value: str | Raw) -> str | Raw | None:
    """A string that is a dictionary in braces is the same as the dictionary; an empty one is none."""
    if isinstance(value, str) and value[:1] == "{" and _closes_at_end(value):
        return Raw(value)
    return value or None


def _closes_at_end(text: str) -> bool:
    depth = 0
    for found in _BRACES.finditer(text):
        depth += (found[0] == "{") - (found[0] == "}")
        if depth == 0:
            return found.end() == len(text)
    return False


def _check_lists(row: Row, attribute: Attribute) -> None:
    value = attribute.value
    if row.kind == DIMS and any(isinstance(part, tuple) for part in value):
        raise fault_at(attribute.token, f"expected {row.name} to be a list of integers")
    if row.kind == LISTS and any(isinstance(part, int) for part in value):
        raise fault_at(attribute.token, f"expected {row.name} to be a list of lists {{{{..}},{{..}}}}")
    if row.name == "source_target_pairs" and any(len(pair) != 2 for pair in value):
        raise fault_at(attribute.token, "expected pairs of devices {source,target}")


def _one_of(word: Token, choices: tuple[str, ...]) -> str:
    lowered = word.value.lower()
    if lowered not in choices:
        raise _no_choice(word, choices)
    return lowered


def _no_choice(word: Token, choices: tuple[str, ...]) -> Fault:
    listed = ", ".join(choices)
    return fault_at(word, f"expected one of {listed}; got {word.value!r}", suggest(word.value, choices))


def _says_nothing(value: Any) -> bool:
    """Whether a value means what leaving the attribute out means, and is printed so."""
    if isinstance(value, ReplicaGroups):
        return value == ReplicaGroups()
    if isinstance(value, ResultAccuracy):
        return value == ResultAccuracy(mode="default")
    return isinstance(value, tuple) and bool(value) and all(part == "default" for part in value)
