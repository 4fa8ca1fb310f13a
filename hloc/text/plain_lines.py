"""Builds plain instructions: lines that were read in one piece, all of whose names are defined before."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from hloc.errors import Source
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction, read_instruction
from hloc.ir.literals import Literal
from hloc.ir.opcodes import OPS
from hloc.ir.shapes import Shape
from hloc.text.coarse import CoarseLine
from hloc.text.lenient_shapes import PEER_OPCODES, peer_shape
from hloc.text.literal_values import Elision, literal_of
from hloc.text.scope import Scope, adjust
from hloc.text.templates import PECULIAR, Entry
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
        names, computation, source = scope.names, scope.computation, self.source
        known, instruction = names.__getitem__, None
        made: list[Instruction] = []
        for start, end, root, name, operands, shape, entry in lines:
            (opcode, simple, own, common, _, _, least, most), _, metadata = entry
            instruction = None
            if root:
                start += 5
            if name in names:
                pass
            elif not simple:
                instruction = self._peculiar(name, start, shape, operands, entry, scope)
            else:
                try:
                    if not operands:
                        found = []
                    elif operands[0] == "%":
                        found = [*map(known, operands[1:].split(", %"))]
                    else:
                        found = [*map(known, operands.split(", "))]
                    count = len(found)
                except KeyError:
                    count = -1
                if least <= count <= most:
                    own = own.copy() if own else {}
                    if metadata is None:
                        common = common.copy() if common else {}
                    else:
                        common = {**common, "metadata": metadata} if common else {"metadata": metadata}
                    instruction = read_instruction(opcode, shape, found, own, common, name, source, start)
            if instruction is None:
                computation.extend(made)
                made = []
                instruction = self.read_again(start - 5 if root else start, end, scope)
                continue
            if root:
                if scope.root is not None:
                    place = Token("ROOT", "ROOT", start - 5, start - 1)
                    raise fault_at(place, f"a second ROOT: {scope.root.name} is the root")
                scope.root = instruction
            names[name] = instruction
            made.append(instruction)
        computation.extend(made)
        scope.last = instruction

    def _peculiar(
        self, name: str, start: int, shape: Shape, text: str, entry: Entry, scope: Scope
    ) -> Instruction | None:
        """The instruction of a line whose template is not simple, in no computation yet; None if anything about it is
        wrong or unusual."""
        (opcode, _, own, common, references, _, least, most), named, metadata = entry
        own = own.copy()
        common = common.copy()
        operands: list[Instruction] = []
        special = _SPECIAL.get(opcode)
        if special is not None:
            shape = special(self, shape, text, own, scope)
        elif text:
            listed = text[1:].split(", %") if text[0] == "%" else text.split(", ")
            try:
                operands = [*map(scope.names.__getitem__, listed)]
            except KeyError:
                return None
        if not least <= len(operands) <= most or shape is None:
            return None
        if opcode in PECULIAR:
            if opcode == "tuple" and (not shape.is_tuple or len(shape.elements) != len(operands)):
                return None
            if opcode == "custom-call" and any(name == "to_apply" for name, _, _ in references):
                return None
            if opcode in PEER_OPCODES:
                shape = peer_shape(opcode, operands, shape)
            adjust(OPS[opcode], operands, own, shape)
        if metadata is not None:
            common["metadata"] = metadata
        if "sharding" in common:
            common["sharding"] = common["sharding"].for_shape(shape)
        instruction = read_instruction(opcode, shape, operands, own, common, name, self.source, start)
        if opcode == "parameter":
            scope.computation.place_parameter(instruction)
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
