"""Turns bounded dynamic arrays into padded ones and their sizes."""

from __future__ import annotations

from collections.abc import Callable

from hloc.errors import HloError
from hloc.ir.attributes import Alias
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.ir.shapes import Shape
from hloc.passes.emit import Emit
from hloc.passes.padding import contractions, elementwise, folds, indexing, movement, sizes
from hloc.passes.padding.boundaries import (
    adapted,
    is_dynamic,
    merged,
    pack,
    refuse_unbounded,
    unpacked,
    wrapped,
)
from hloc.passes.padding.values import Padded, Rule, Site, packed, settled

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **contractions.RULES,
    **folds.RULES,
    **indexing.RULES,
    **movement.RULES,
    **sizes.RULES,
}

Signatures = dict[Computation, tuple[list[Shape], Shape]]


def run(module: Module) -> bool:
    """Replaces arrays of bounded dynamic shapes by arrays of their bounds, and a size a dynamic dimension.

    Live elements lie at the low end of each dimension; the others may hold anything, and rules for each op
    see to it that they do not count. Where such an array passes between computations, a tuple (array,
    sizes...) stands for it; so also for the entry, of which `module.bounded_shapes` keeps what the caller
    sees. A size that is out of its bounds makes the run fail. The method is that of XLA's dynamic padder.

    Requires: no fusion, no asynchronous op, no computation that nobody calls.
    Ensures: no dynamic shape, and no op that asks for sizes or sets them.
    Leaves: tuples and their elements, for tuple_simplifier; sizes that nobody asks for, for dce.
    """
    if not any(is_dynamic(i.shape) or i.opcode in _OF_SIZES for i in module.instructions()):
        return False
    shapes = module.entry_shapes
    signatures: Signatures = {}
    for computation in call_order(module.entry):
        signatures[computation] = ([p.shape for p in computation.parameters], computation.root.shape)
        _Padding(computation, signatures).run()
    if any(map(is_dynamic, (*shapes[0], shapes[1]))):
        module.bounded_shapes = shapes
    if module.entry_layout is not None:
        parameters, result = module.entry_layout
        module.entry_layout = tuple(map(packed, parameters)), packed(result)
    module.input_output_alias = tuple(a for a in module.input_output_alias if _is_static(a, shapes))
    donors = module.buffer_donors
    module.buffer_donors = tuple(d for d in donors if not is_dynamic(shapes[0][d.number].at(d.index)))
    module.order_computations()
    return True


def _is_static(alias: Alias, shapes: tuple[tuple[Shape, ...], Shape]) -> bool:
    """Whether result and parameter of an alias are what they were."""
    parameter = shapes[0][alias.number].at(alias.input_index)
    return not is_dynamic(shapes[1].at(alias.output_index)) and not is_dynamic(parameter)


class _Padding:
    """One computation being rewritten.

    `padded` are its dynamic arrays, `tuples` its tuples with such arrays inside.
    """

    def __init__(self, computation: Computation, signatures: Signatures):
        self.computation = computation
        self.signatures = signatures
        self.padded: dict[Instruction, Padded] = {}
        self.tuples: dict[Instruction, Instruction] = {}
        self.shapes = {p: p.shape for p in computation.parameters}

    def run(self) -> None:
        replaced = [i for i in self.computation.instructions if self._is_touched(i)]
        for instruction in replaced:
            refuse_unbounded(instruction)
            if instruction.opcode == "parameter":
                self._parameter(instruction)
            else:
                self._replace(instruction, Emit.at(instruction))
        root = self.computation.root
        shape = self._shape(root)
        if is_dynamic(shape):
            self.computation.root = self._packed(root, Emit(self.computation, like=root), shape)
        for instruction in reversed(replaced):
            if instruction.opcode != "parameter":
                self.computation.remove(instruction)

    def _shape(self, instruction: Instruction) -> Shape:
        """The shape as the program had it."""
        return self.shapes.get(instruction, instruction.shape)

    def _is_touched(self, instruction: Instruction) -> bool:
        if is_dynamic(instruction.shape) or any(is_dynamic(o.shape) for o in instruction.operands):
            return True
        if instruction.opcode in _OF_SIZES:
            return True
        return instruction.opcode in _CONTROL and any(
            any(map(is_dynamic, (*self.signatures[callee][0], self.signatures[callee][1])))
            for callee in instruction.called
        )

    def _parameter(self, instruction: Instruction) -> None:
        shape = instruction.shape
        instruction.shape = packed(shape)
        if instruction.shape != shape:
            instruction.annotations.pop("parameter_replication", None)  # an entry for each leaf that it had
        self._keep(instruction, instruction, Emit(self.computation, instruction.next, like=instruction))

    # Values

    def _keep(self, instruction: Instruction, value: Instruction, emit: Emit) -> None:
        """Remembers what stands for an instruction's value."""
        shape = self._shape(instruction)
        if not is_dynamic(shape):
            self.computation.replace_uses(instruction, value)
        elif shape.is_tuple:
            self.tuples[instruction] = value
        else:
            self.padded[instruction] = unpacked(emit, value, shape)

    def _array(self, instruction: Instruction) -> Padded:
        return self.padded.get(instruction) or Padded(instruction, {})

    def _packed(self, instruction: Instruction, emit: Emit, shape: Shape) -> Instruction:
        """What stands for a value where one of a shape is expected."""
        own = self._shape(instruction)
        if instruction in self.padded:
            value = pack(emit, self.padded[instruction], own)
        else:
            value = self.tuples.get(instruction, instruction)
        return adapted(emit, value, own, shape)

    # Ops

    def _replace(self, instruction: Instruction, emit: Emit) -> None:
        handler = _STRUCTURE.get(instruction.opcode)
        if handler is not None:
            self._keep(instruction, handler(self, instruction, emit), emit)
            return
        rule = RULES.get(instruction.opcode)
        if rule is None:
            message = f"{instruction.opcode} of a dynamic shape is not supported"
            raise HloError(message, instruction.span)
        operands = [self._array(o) for o in instruction.operands if self._shape(o).is_array]
        self._finish(instruction, rule(Site(instruction, operands, emit)), emit)

    def _finish(self, instruction: Instruction, result: Padded | list[Padded], emit: Emit) -> None:
        """The result of a rule, in the dynamic dimensions that the program gives it."""
        shape = instruction.shape
        if isinstance(result, list):
            parts = zip(result, shape.elements, strict=True)
            value = emit.tuple([pack(emit, settled(emit, part, s), s) for part, s in parts])
            self._keep(instruction, value, emit)
            return
        value = settled(emit, result, shape)
        if shape.is_dynamic:
            self.padded[instruction] = value
        else:
            self.computation.replace_uses(instruction, value.data)

    def _tuple(self, instruction: Instruction, emit: Emit) -> Instruction:
        parts = zip(instruction.operands, instruction.shape.elements, strict=True)
        return emit.tuple([self._packed(operand, emit, shape) for operand, shape in parts])

    def _element(self, instruction: Instruction, emit: Emit) -> Instruction:
        (operand,), index = instruction.operands, instruction.attributes["index"]
        before = self._shape(operand).elements[index]
        value = emit.element(self.tuples.get(operand, operand), index)
        if instruction.shape.is_tuple:
            return adapted(emit, value, before, instruction.shape)
        return pack(
            emit, settled(emit, unpacked(emit, value, before), instruction.shape), instruction.shape
        )

    def _first_operand(self, instruction: Instruction, emit: Emit) -> Instruction:
        first, *rest = instruction.operands
        value = self._packed(first, emit, instruction.shape)
        shape = packed(instruction.shape)
        return emit.op(instruction.opcode, shape, [value, *rest], **instruction.attributes)

    # Control flow

    def _signature(self, callee: Computation) -> tuple[Shape, Shape]:
        """Of a computation with one parameter."""
        (parameter,), result = self.signatures[callee]
        return parameter, result

    def _call(self, instruction: Instruction, emit: Emit) -> Instruction:
        callee = instruction.attributes["to_apply"]
        parameters, result = self.signatures[callee]
        pairs = zip(instruction.operands, parameters, strict=True)
        operands = [self._packed(operand, emit, shape) for operand, shape in pairs]
        made = emit.op("call", packed(result), operands, to_apply=callee)
        return adapted(emit, made, result, instruction.shape)

    def _while(self, instruction: Instruction, emit: Emit) -> Instruction:
        condition, body = instruction.attributes["condition"], instruction.attributes["body"]
        tested, verdict = self._signature(condition)
        given, made = self._signature(body)
        state = merged([given, made, tested])
        loop = emit.op(
            "while",
            packed(state),
            [self._packed(instruction.operands[0], emit, state)],
            condition=wrapped(condition, (tested, verdict), state, verdict, instruction),
            body=wrapped(body, (given, made), state, state, instruction),
        )
        return adapted(emit, loop, state, instruction.shape)

    def _conditional(self, instruction: Instruction, emit: Emit) -> Instruction:
        branches = instruction.called
        signatures = [self._signature(branch) for branch in branches]
        result = merged([made for _, made in signatures])
        operands = [self._packed(instruction.operands[0], emit, instruction.operands[0].shape)]
        new = []
        for branch, signature, operand in zip(branches, signatures, instruction.operands[1:], strict=True):
            operands.append(self._packed(operand, emit, signature[0]))
            new.append(wrapped(branch, signature, signature[0], result, instruction))
        attributes = _branches(instruction, new)
        made = emit.op("conditional", packed(result), operands, **attributes)
        return adapted(emit, made, result, instruction.shape)


def _branches(instruction: Instruction, branches: list[Computation]) -> dict[str, object]:
    if "branch_computations" in instruction.attributes:
        return {"branch_computations": tuple(branches)}
    return dict(zip(("true_computation", "false_computation"), branches, strict=True))


_OF_SIZES = ("dynamic-reshape", "get-dimension-size", "set-dimension-size")
_CONTROL = ("call", "conditional", "while")

_STRUCTURE: dict[str, Callable[[_Padding, Instruction, Emit], Instruction]] = {
    "tuple": _Padding._tuple,
    "get-tuple-element": _Padding._element,
    **dict.fromkeys(("add-dependency", "domain", "opt-barrier"), _Padding._first_operand),
    "call": _Padding._call,
    "conditional": _Padding._conditional,
    "while": _Padding._while,
}
