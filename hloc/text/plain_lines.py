"""Builds plain instructions: lines that were read in one piece, all of whose names are defined before."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from hloc.errors import Source, Span
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.literals import Literal
from hloc.ir.shapes import Shape
from hloc.text.coarse import CoarseLine
from hloc.text.lenient_shapes import PEER_OPCODES, peer_shape
from hloc.text.literal_values import Elision, literal_of
from hloc.text.scope import Scope, adjust
from hloc.text.templates import Entry
from hloc.text.tokens import Fault, Token, fault_at


class PlainLines:
    """Adds lines that were read in one piece to their computations.

    `read_again(start, end, scope)` adds a line by the fine rules: one that is not plain, or is wrong.
    """

    def __init__(
        self,
        source: Source,
        named: dict[str, tuple[Computation, Token]],
        elision: Elision,
        read_again: Callable[[int, int, Scope], Instruction],
    ):
        self.source = source
        self.named = named
        self.elision = elision
        self.read_again = read_again
        self.literals: dict[tuple[Shape, str], Literal] = {}

    def run(self, lines: list[CoarseLine], scope: Scope) -> None:
        """Add instructions that were read in one piece; those that aren't plain are read again."""
        names, append, source, text = scope.names, scope.computation.append, self.source, self.source.text
        instruction = None
        for start, end, root, name, operands, shape, entry in lines:
            instruction = None if name in names else self._plain(name, shape, operands, entry, scope)
            if instruction is None:
                instruction = self.read_again(start, end, scope)
                continue
            if root:
                start += 5
                if scope.root is not None:
                    place = Token("ROOT", "ROOT", start - 5, start - 1)
                    raise fault_at(place, f"a second ROOT: {scope.root.name} is the root")
                scope.root = instruction
            instruction.span = _new_span(Span, (source, start, start + len(name) + (text[start] == "%")))
            names[name] = append(instruction)
        scope.last = instruction

    def _plain(self, name: str, shape: Shape, text: str, entry: Entry, scope: Scope) -> Instruction | None:
        """The instruction of a line, in no computation yet; None if anything about it is wrong or unusual."""
        (op, own, common, references, _), named, metadata = entry
        opcode = op.name
        own = own.copy() if own else {}
        common = common.copy() if common else {}
        operands: list[Instruction] = []
        special = _SPECIAL.get(opcode)
        if special is not None:
            shape = special(self, shape, text, own, scope)
        elif text:
            names = scope.names
            listed = text[1:].split(", %") if text[0] == "%" else text.split(", ")
            try:
                operands = [names[operand] for operand in listed]
            except KeyError:
                return None
        least, most = op.arity
        if len(operands) < least or (most is not None and len(operands) > most) or shape is None or name[:2] == "__":
            return None
        if opcode in _PECULIAR:
            if opcode == "tuple" and (not shape.is_tuple or len(shape.elements) != len(operands)):
                return None
            if opcode == "custom-call" and any(name == "to_apply" for name, _, _ in references):
                return None
            if opcode in PEER_OPCODES:
                shape = peer_shape(opcode, operands, shape)
            adjust(op, operands, own, shape)
        if metadata is not None:
            common["metadata"] = metadata
        if common and "sharding" in common:
            common["sharding"] = common["sharding"].for_shape(shape)
        instruction = Instruction(opcode, shape, operands, own, name=name, annotations=common)
        return instruction if not references or self._refer(instruction, references, named, scope) else None

    def _refer(
        self,
        instruction: Instruction,
        references: list[tuple[str, int, bool]],
        named: tuple[str, ...],
        scope: Scope,
    ) -> bool:
        """Look up what the attributes of a line name; False, with nothing done, if anything is not there."""
        names = iter(named)
        called: dict[str, Any] = {}
        controls: list[Instruction | None] = []
        for attribute, count, is_list in references:
            if attribute == "control-predecessors":
                controls = [scope.names.get(name) for name in islice(names, count)]
                continue
            found = [self.named.get(name) for name in islice(names, count)]
            if None in found:
                return False
            called[attribute] = tuple(known[0] for known in found) if is_list else found[0][0]
        if None in controls:
            return False
        instruction.attributes.update(called)
        for earlier in controls:
            scope.computation.add_control_edge(earlier, instruction)
        return True

    def _parameter(self, shape: Shape, text: str, own: dict[str, Any], scope: Scope) -> Shape | None:
        parameters = scope.computation.parameters
        number = int(text) if text.isdecimal() and len(text) < 6 else -1
        if number < 0 or (number < len(parameters) and parameters[number] is not None):
            return None
        own["number"] = number
        return shape

    def _constant(self, shape: Shape, text: str, own: dict[str, Any], scope: Scope) -> Shape | None:
        literal = self.literals.get((shape, text))
        if literal is None:
            try:
                literal = literal_of(shape, text, 0, self.elision)
            except Fault:
                return None
            if "..." not in text:
                self.literals[shape, text] = literal
        own["literal"] = literal
        return literal.shape


# Opcodes that hold something else than operands in their parentheses.
_SPECIAL = {"parameter": PlainLines._parameter, "constant": PlainLines._constant}

# Opcodes whose attributes `adjust` may change, or whose shape is not what it is declared to be.
_PECULIAR = frozenset(("compare", "map", "custom-call", "reshape", "tuple", *PEER_OPCODES))

_new_span = tuple.__new__
