"""Rules of tuples, of sort, and of results that nobody uses."""

from __future__ import annotations

from collections.abc import Iterable

from hloc.ir.clone import clone_instruction
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import TupleShape
from hloc.passes.algebraic.rules import rule
from hloc.passes.emit import Emit
from hloc.passes.patterns import bind, op


@rule(op("get-tuple-element", bind("whole", op("tuple"))))
def element_of_tuple(instruction: Instruction, whole: Instruction) -> Instruction | None:
    """get-tuple-element(tuple(x, y), 1) = y"""
    return whole.operands[instruction.attributes["index"]]


@rule("sort")
def sort_of_one(instruction: Instruction) -> Instruction | None:
    """sort(x, y) = (x, y) along a dimension of size 1"""
    (along,) = instruction.attributes["dimensions"]
    if instruction.operands[0].shape.dims[along] > 1:
        return None
    if not instruction.shape.is_tuple:
        return instruction.operands[0]
    return Emit.at(instruction).tuple(instruction.operands)


@rule("sort")
def drop_unused_of_sort(instruction: Instruction) -> Instruction | None:
    """sort(x, y, z) = (sort(x, y), z), if nobody uses the third result and the comparator does not look at it"""
    used, callee = _used(instruction), instruction.attributes["to_apply"]
    if used is None:
        return None
    kept = sorted(used | {number // 2 for number in _numbers(_needed([callee.root]))})
    if not kept or len(kept) == len(instruction.operands):
        return None
    places = [place for k in kept for place in (2 * k, 2 * k + 1)]
    to_apply = _narrowed(callee, places, [callee.root])
    given = [instruction.operands[k] for k in kept]
    return _spread(instruction, kept, given, to_apply, instruction.operands)


@rule("reduce")
def drop_unused_of_reduce(instruction: Instruction) -> Instruction | None:
    """reduce(x, y) = (reduce(x), any), if nobody uses the second result and the first does not depend on y"""
    used, root = _used(instruction), instruction.attributes["to_apply"].root
    if not used or root.opcode != "tuple":
        return None
    count, kept = len(root.operands), set()
    while used - kept:
        kept |= used
        used = {number % count for number in _numbers(_needed(root.operands[k] for k in kept))}
    if len(kept) == count:
        return None
    order, operands = sorted(kept), instruction.operands
    places = [*order, *(count + k for k in order)]
    to_apply = _narrowed(instruction.attributes["to_apply"], places, [root.operands[k] for k in order])
    emit = Emit.at(instruction)
    others = [emit.broadcast(init, s.dims) for init, s in zip(operands[count:], instruction.shape.elements)]
    return _spread(instruction, order, [operands[place] for place in places], to_apply, others)


def _used(instruction: Instruction) -> set[int] | None:
    """The numbers of the results that somebody uses; None if they are used together, or there is but one."""
    users = instruction.users
    if not instruction.shape.is_tuple or instruction.is_root:
        return None
    if any(user.opcode != "get-tuple-element" for user in users):
        return None
    return {user.attributes["index"] for user in users}


def _needed(roots: Iterable[Instruction]) -> set[Instruction]:
    """The instructions that others depend on, these included."""
    found: set[Instruction] = set()
    stack = list(roots)
    while stack:
        instruction = stack.pop()
        if instruction not in found:
            found.add(instruction)
            stack += instruction.operands
    return found


def _numbers(instructions: set[Instruction]) -> set[int]:
    """The numbers of the parameters among them."""
    return {i.attributes["number"] for i in instructions if i.opcode == "parameter"}


def _narrowed(callee: Computation, places: list[int], roots: list[Instruction]) -> Computation:
    """A new computation like another one, with some of its parameters, and some of its values as results."""
    copy = Computation(callee.name)
    emit, needed = Emit(copy), _needed(roots)
    given = [callee.parameters[place] for place in places]
    twins = {parameter: emit.parameter(number, parameter.shape) for number, parameter in enumerate(given)}
    for instruction in callee:
        if instruction in needed and instruction not in twins:
            twins[instruction] = copy.add(clone_instruction(instruction, [twins[o] for o in instruction.operands]))
    copy.root = twins[roots[0]] if len(roots) == 1 else emit.tuple([twins[root] for root in roots])
    return callee.module.add_computation(copy)


def _spread(
    instruction: Instruction,
    kept: list[int],
    operands: list[Instruction],
    to_apply: Computation,
    others: list[Instruction],
) -> Instruction:
    """The op with only the results `kept`, and a tuple that has these at their places and `others` elsewhere."""
    emit, elements = Emit.at(instruction), instruction.shape.elements
    shape = elements[kept[0]] if len(kept) == 1 else TupleShape(tuple(elements[k] for k in kept))
    attributes = {**instruction.attributes, "to_apply": to_apply}
    inner = emit.op(instruction.opcode, shape, operands, **attributes)
    parts = dict(zip(kept, [inner] if len(kept) == 1 else (emit.element(inner, n) for n in range(len(kept)))))
    return emit.tuple([parts.get(k, others[k]) for k in range(len(elements))])
