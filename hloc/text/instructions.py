"""Builds instructions: operands and callees by name, attributes by the op table, omitted shapes inferred."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hloc.errors import HloError, Source, Span
from hloc.ir.computation import Computation
from hloc.ir.dtypes import BY_NAME
from hloc.ir.instruction import Instruction
from hloc.ir.opcodes import OPS, Op
from hloc.ir.opcodes import Attribute as Row
from hloc.ir.shape_inference import infer_shape
from hloc.ir.shapes import Shape, TupleShape
from hloc.text.async_lines import (
    STEP_ATTRIBUTES,
    STEPS,
    check_inherited,
    check_start,
    check_step,
    set_thread,
    share,
    step_of,
    wrap,
)
from hloc.text.lenient_shapes import PEER_OPCODES, peer_shape, without_bounds
from hloc.text.literal_values import Elision, literal_of
from hloc.text.meaning import Meaning
from hloc.text.messages import suggest
from hloc.text.plain_lines import PlainLines
from hloc.text.scope import Scope, adjust
from hloc.text.syntax import Attribute, Body, Line, Operand, Operation
from hloc.text.tokens import Fault, Token, fault_at

_STEPS = frozenset(STEPS.values())
_NO_ATTRIBUTES: dict[str, Row] = {}


class InstructionBuilder:
    """Adds the instructions of a module to their computations."""

    def __init__(
        self,
        source: Source,
        callee: Callable[[Token | Body], Computation],
        named: dict[str, tuple[Computation, Token]],
        wrapped: Callable[[Computation], None],
        fine: Callable[[int, int], Line],
    ):
        self.source = source
        self.fine = fine
        self.elision = Elision()
        self.meaning = Meaning(callee, self.elision)
        self.plain = PlainLines(source, named, self.elision, self._read_again)
        self.wrapped = wrapped
        self.anonymous: dict[str, int] = {}
        self.async_computations: set[Computation] = set()

    def line(self, line: Line, scope: Scope, default_name: str = "") -> Instruction:
        """Add one instruction of the text, after the operations nested in its operands."""
        token = line.name
        name = token.value if token is not None else default_name
        place = token or line.operation.opcode
        if name in BY_NAME or name.startswith("__"):
            raise fault_at(place, f"{name!r} cannot be the name of an instruction")
        instruction = self._operation(line.operation, line.attributes, scope, name, place)
        if line.root is not None:
            if scope.root is not None:
                raise fault_at(line.root, f"a second ROOT: {scope.root.name} is the root")
            scope.root = instruction
        return instruction

    def _read_again(self, start: int, end: int, scope: Scope) -> Instruction:
        return self.line(self.fine(start, end), scope)

    def _operation(
        self, operation: Operation, attributes: list[Attribute], scope: Scope, name: str, place: Token
    ) -> Instruction:
        """Add an operation and those nested in it, innermost and leftmost first; depth has no limit."""
        stack: list[tuple[Operation, list[Instruction]]] = [(operation, [])]
        while True:
            current, operands = stack[-1]
            if len(operands) < len(current.operands) and current.opcode.value != "parameter":
                operand = current.operands[len(operands)]
                if operand.operation is not None:
                    stack.append((operand.operation, []))
                else:
                    operands.append(self._operand(operand, scope))
                continue
            stack.pop()
            if not stack:
                return self._create(current, operands, attributes, scope, name, place)
            nested = self._create(current, operands, [], scope, self._anonymous(current, scope), current.opcode)
            stack[-1][1].append(nested)

    def _anonymous(self, operation: Operation, scope: Scope) -> str:
        stem = f"{operation.opcode.value}.anon"
        while True:
            number = self.anonymous.get(stem, 0)
            self.anonymous[stem] = number + 1
            name = f"{stem}.{number}" if number else stem
            if name not in scope.names:
                return name

    # Operands.

    def _operand(self, operand: Operand, scope: Scope) -> Instruction:
        token, shape = operand.token, operand.shape
        if token is None:
            if not scope.single:
                raise Fault(f"expected a name after the shape {shape!r}", 0, 0)
            return self._parameter(scope, f"_{len(scope.computation.parameters)}", shape, None)
        if token.type == "INT":
            raise fault_at(token, f"expected an operand, got {token.value}")
        found = scope.names.get(token.value)
        if found is None:
            if scope.single and shape is not None:
                return self._parameter(scope, token.value, shape, token)
            message = f"instruction {token.value!r} is not defined before its use"
            raise fault_at(token, message, suggest(token.value, scope.names))
        for index in operand.indices:
            found = self._element(found, index, scope)
        if shape is not None and not without_bounds(found.shape).compatible(without_bounds(shape)):
            raise fault_at(token, f"operand {token.value} is declared as {shape!r}, but is {found.shape!r}")
        return found

    def _parameter(self, scope: Scope, name: str, shape: Shape, token: Token | None) -> Instruction:
        attributes = {"number": len(scope.computation.parameters)}
        return self._add(scope, Instruction("parameter", shape, [], attributes, name=name), token)

    def _element(self, tuple_value: Instruction, index: Token, scope: Scope) -> Instruction:
        """The get-tuple-element that `%x#0` stands for."""
        shape, number = tuple_value.shape, int(index.value[:20])
        if not isinstance(shape, TupleShape) or not 0 <= number < len(shape.elements):
            raise fault_at(index, f"{tuple_value.name} of shape {shape!r} has no element {index.value}")
        name = f"{tuple_value.name}.{number}"
        while name in scope.names:
            name += ".1"
        attributes = {"index": number}
        element = Instruction("get-tuple-element", shape.elements[number], [tuple_value], attributes, name=name)
        return self._add(scope, element, index)

    # Instructions.

    def _create(
        self, operation: Operation, operands: list[Instruction], listed: list[Attribute], scope: Scope,
        name: str,
        place: Token,
    ) -> Instruction:  # fmt: skip
        opcode = operation.opcode
        op = OPS.get(opcode.value)
        if op is None:
            return self._async_sugar(operation, operands, listed, scope, name, place)
        if op.name == "parameter":
            return self._parameter_line(operation, listed, scope, name, place)
        self._check_count(op, operation, len(operands))
        own, common, _ = self.meaning.attributes(op, listed, _NO_ATTRIBUTES, opcode)
        if op.name == "constant":
            if operation.literal is None:
                raise fault_at(opcode, "expected a constant with its shape and literal")
            token = operation.literal
            own["literal"] = literal_of(operation.shape, token.value, token.start, self.elision)
            operation.shape = own["literal"].shape
        finish = self._finish_step if op.name in _STEPS else self._finish
        return finish(op, operation, operands, own, common, scope, name, place)

    def _finish(
        self, op: Op, operation: Operation, operands: list[Instruction], own: dict[str, Any],
        common: dict[str, Any],
        scope: Scope, name: str, place: Token,
    ) -> Instruction:  # fmt: skip
        shape = operation.shape
        if shape is None:
            shape = self._inferred(op, operands, own, operation.opcode)
        if op.name == "constant":
            shape = own["literal"].shape
        if op.name in PEER_OPCODES:
            shape = peer_shape(op.name, operands, shape)
        adjust(op, operands, own, shape)
        controls = common.pop("control-predecessors", ())
        instruction = Instruction(op.name, shape, operands, own, name=name, annotations=common)
        if "sharding" in common:
            common["sharding"] = common["sharding"].for_shape(shape)
        self._add(scope, instruction, place)
        for control in controls:
            earlier = scope.names.get(control.value)
            if earlier is None or earlier is instruction:
                message = f"instruction {control.value!r} is not defined before its use"
                raise fault_at(control, message, suggest(control.value, scope.names))
            scope.computation.add_control_edge(earlier, instruction)
        return instruction

    def _inferred(self, op: Op, operands: list[Instruction], own: dict[str, Any], place: Token) -> Shape:
        try:
            shape = infer_shape(op.name, [operand.shape for operand in operands], own)
        except HloError as error:
            message = f"the shape of {op.name} is omitted and cannot be inferred: {error.message}"
            raise fault_at(place, message) from None
        return shape.with_default_layout()

    def _check_count(self, op: Op, operation: Operation, count: int) -> None:
        least, most = op.arity
        if count < least or (most is not None and count > most):
            wanted = str(least) if most == least else f"at least {least}" if most is None else f"{least} to {most}"
            operands = "operand" if wanted == "1" else "operands"
            raise fault_at(operation.opcode, f"{op.name} takes {wanted} {operands}, got {count}")
        shape = operation.shape
        if op.name == "tuple" and shape is not None:
            if not isinstance(shape, TupleShape):
                raise fault_at(operation.opcode, f"a tuple cannot have the shape {shape!r}")
            if len(shape.elements) != count:
                message = f"a tuple of {len(shape.elements)} elements takes as many operands, got {count}"
                raise fault_at(operation.opcode, message)

    def _parameter_line(
        self, operation: Operation, listed: list[Attribute], scope: Scope, name: str, place: Token
    ) -> Instruction:
        opcode, shape = operation.opcode, operation.shape
        if len(operation.operands) != 1 or getattr(operation.operands[0].token, "type", "") != "INT":
            raise fault_at(opcode, "expected the number of the parameter in parentheses")
        token = operation.operands[0].token
        number = int(token.value) if len(token.value) < 10 else -1
        if number < 0 or number > MOST_PARAMETERS:
            raise fault_at(token, f"expected a parameter number from 0 to {MOST_PARAMETERS}, got {token.value}")
        parameters = scope.computation.parameters
        if number < len(parameters) and parameters[number] is not None:
            raise fault_at(token, f"parameter {number} is defined already, as {parameters[number].name}")
        if shape is None:
            raise fault_at(opcode, "a parameter needs its shape")
        own, common, _ = self.meaning.attributes(OPS["parameter"], listed, _NO_ATTRIBUTES, opcode)
        replicated = common.get("parameter_replication")
        leaves = sum(1 for _ in shape.leaves())
        if replicated is not None and len(replicated) != leaves:
            flag = next(attribute for attribute in listed if attribute.name == "parameter_replication")
            raise fault_at(flag.token, f"expected {leaves} flags, one a leaf, got {len(replicated)}")
        own["number"] = number
        return self._finish(OPS["parameter"], operation, [], own, common, scope, name, place)

    # Asynchronous operations.

    def _async_sugar(
        self, operation: Operation, operands: list[Instruction], listed: list[Attribute], scope: Scope,
        name: str,
        place: Token,
    ) -> Instruction:  # fmt: skip
        """`slice-start(x), slice={..}` and the like."""
        opcode, shape = operation.opcode, operation.shape
        step, op = step_of(opcode)
        if step != "async-start":
            start = check_step(step, operands, shape, opcode)
            wrapped = start.attributes["calls"].root
            if wrapped.opcode != op.name:
                raise fault_at(opcode, f"{start.name} began {wrapped.opcode}, not {op.name}")
            own, common, _ = self.meaning.attributes(OPS[step], listed, _NO_ATTRIBUTES, opcode)
            return self._finish_step(OPS[step], operation, operands, own, common, scope, name, place)
        taken, result = check_start(shape, opcode).elements[:2]
        self._check_count(op, Operation(result, opcode, []), len(taken.elements))
        more = {name: row for name, row in STEP_ATTRIBUTES.items() if name not in op.attributes}
        own, common, others = self.meaning.attributes(op, listed, more, opcode)
        if op.name == "call" and _ALIASING in own:
            others[_ALIASING] = own.pop(_ALIASING)  # newer XLA lets a call have it too, but here it is the start's
        adjust(op, operands, own, result)
        computation = wrap(op, shape, own, Span(self.source, opcode.start, opcode.end))
        self.wrapped(computation)
        start_own = {key: value for key, value in others.items() if value != STEP_ATTRIBUTES[key].default}
        start_own["calls"] = computation
        return self._finish_step(OPS[step], operation, operands, start_own, common, scope, name, place)

    def _finish_step(
        self, op: Op, operation: Operation, operands: list[Instruction], own: dict[str, Any],
        common: dict[str, Any],
        scope: Scope, name: str, place: Token,
    ) -> Instruction:  # fmt: skip
        opcode, shape = operation.opcode, operation.shape
        if op.name == "async-start":
            check_start(shape, opcode)
            computation = own["calls"]
            if computation in self.async_computations:
                raise fault_at(opcode, f"computation {computation.name} is run by two asynchronous operations")
            self.async_computations.add(computation)
            set_thread(computation, own.get("async_execution_thread", "main"))
            share(computation, common)
        else:
            start = check_step(op.name, operands, shape, opcode)
            check_inherited(start, own, opcode)
            share(start.attributes["calls"], common)
        return self._finish(op, operation, operands, own, common, scope, name, place)

    def _add(self, scope: Scope, instruction: Instruction, token: Token | None) -> Instruction:
        known = scope.names.get(instruction.name)
        if known is not None and token is not None:
            line, column = self.source.position(known.span.start)
            raise fault_at(token, f"instruction {instruction.name} is defined already, at {line}:{column}")
        start, end = (token.start, token.end) if token is not None else (0, 0)
        instruction.span = Span(self.source, start, end)
        scope.computation.add(instruction)
        scope.names[instruction.name] = instruction
        scope.last = instruction
        return instruction


_ALIASING = "output_to_operand_aliasing"

# A missing number would make a list of as many holes.
MOST_PARAMETERS = 1_000_000
