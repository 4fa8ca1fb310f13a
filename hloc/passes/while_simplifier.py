"""Simplifies loops: how often they run, and what they carry."""

from __future__ import annotations

from collections.abc import Callable

from hloc.analysis.effects import Effects
from hloc.analysis.trip_count import trip_count
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.passes.emit import Emit, replace
from hloc.passes.equivalence import key
from hloc.passes.loops import Loop, loops_of, make_explicit
from hloc.passes.tuples import Owners

_MOST_ROUNDS = 16
"""Looks at a body to find out which elements stay equal: a long queue of elements would take one for each."""


def run(module: Module) -> bool:
    """Takes out loops that run once or never, and from the others' state what they need not carry.

    A loop that never runs gives what it was given, one that runs once is a call of its body. An element that
    the body passes on unchanged is read behind the loop where it was made; elements that begin equal and stay
    equal become one; an element that nobody needs but for its own next value goes. Loops with side effects
    in their condition keep it.

    Requires: nothing; does most when tuples are simple and dead code is gone.
    Ensures: no loop is known to run less than twice; each has explicit form: a flat tuple of arrays is its
    state, and no element of it is dead, or read behind the loop though it did not change.
    Leaves: calls, for call_inliner; tuples of reads, for tuple_simplifier; dead code, for dce.
    """
    owners = Owners(module)
    effects = Effects()
    changed = False
    for instruction in loops_of(module):
        if _run_known_turns(instruction, effects):
            changed = True
        elif instruction.opcode == "while":
            changed |= make_explicit(instruction, owners)
    for instruction in loops_of(module):
        loop = Loop.of(instruction)
        if loop is not None:
            changed |= _read_invariants_outside(loop)
            changed |= _merge_equals(loop, owners)
            changed |= _drop_dead(loop, owners, effects)
    if changed:
        module.order_computations()
    return changed


def _run_known_turns(instruction: Instruction, effects: Effects) -> bool:
    """Replaces a loop that runs once or never."""
    trips = trip_count(instruction)
    if trips not in (0, 1) or effects.inside(instruction.attributes["condition"]):
        return False
    if instruction.control_predecessors or instruction.control_successors:
        return False
    start = instruction.operands[0]
    if trips == 1:
        body = instruction.attributes["body"]
        start = Emit.at(instruction).op("call", instruction.shape, [start], to_apply=body)
    replace(instruction, start)
    return True


def _read_invariants_outside(loop: Loop) -> bool:
    """Who reads an invariant element of the result reads what the loop was given instead."""
    changed = False
    computation = loop.instruction.computation
    for number in loop.invariants():
        for read in loop.read_outside(number):
            changed |= bool(read.users) or read.is_root
            computation.replace_uses(read, loop.initial[number])
    return changed


def _merge_equals(loop: Loop, owners: Owners) -> bool:
    """Of elements that are equal in each turn, who reads a later one reads the first one."""
    names = _equals(loop)
    reads = [*loop.read_inside(), *loop.instruction.users]
    if not any(read.attributes["index"] in names and loop.is_used(read) for read in reads):
        return False
    loop.own(owners)
    loop.rename(names)
    return True


def _equals(loop: Loop) -> dict[int, int]:
    """For each element that always equals an earlier one, the first such.

    Elements are taken for equal as long as they begin as the same value and what the body makes of them,
    under this assumption, is the same.
    """
    classes = _first_of(loop.initial, lambda value: (value.id, value.shape))
    for _ in range(_MOST_ROUNDS):
        groups = len(set(classes))
        if groups == len(classes):
            return {}
        numbers = _numbered(loop, classes)
        pairs = [(before, numbers[value]) for before, value in zip(classes, loop.results, strict=True)]
        classes = _first_of(pairs, lambda pair: pair)
        if len(set(classes)) == groups:
            return {number: first for number, first in enumerate(classes) if first != number}
    return {}


def _first_of(values: list, name: Callable[[object], object]) -> list[int]:
    """For each value the place of the first one of the same name."""
    first: dict[object, int] = {}
    return [first.setdefault(name(value), place) for place, value in enumerate(values)]


def _numbered(loop: Loop, classes: list[int]) -> dict[Instruction, int]:
    """A number for each instruction of the body, the same for equal values if elements of a class are equal."""
    state = loop.body.parameters[0]
    effects = Effects()
    numbers: dict[Instruction, int] = {}
    found: dict[object, int] = {}
    for instruction in loop.body:
        if instruction.opcode == "get-tuple-element" and instruction.operands[0] is state:
            name: object = classes[instruction.attributes["index"]]
        elif instruction is state or not effects.is_repeatable(instruction):
            name = instruction
        else:
            name = key(instruction, numbers.__getitem__, id)
        numbers[instruction] = found.setdefault(name, len(found))
    return numbers


def _drop_dead(loop: Loop, owners: Owners, effects: Effects) -> bool:
    """Takes out the elements that are not needed."""
    needed = _needed(loop, effects)
    if len(needed) == loop.size:
        return False
    loop.own(owners)
    loop.set_state(needed or [0], [], effects)
    return True


def _needed(loop: Loop, effects: Effects) -> list[int]:
    """The elements read behind the loop, by the condition, for side effects, or for what needed ones become."""
    reads = [*loop.condition.parameters[0].users, *loop.instruction.users]
    needed = 0
    for read in reads:
        if read.users or read.is_root:
            needed |= 1 << read.attributes["index"]
    reach = _reach(loop)
    for instruction in loop.body:
        if effects.must_stay(instruction):
            needed |= reach[instruction]
    sources = [reach[result] for result in loop.results]
    pending = needed
    while pending:
        number = pending.bit_length() - 1
        pending &= ~(1 << number)
        fresh = sources[number] & ~needed
        needed |= fresh
        pending |= fresh
    return [number for number in range(loop.size) if needed >> number & 1]


def _reach(loop: Loop) -> dict[Instruction, int]:
    """For each instruction of the body the elements that it is computed from, as a set of bits."""
    state = loop.body.parameters[0]
    reach = {state: 0}
    for instruction in loop.body:
        if instruction.opcode == "get-tuple-element" and instruction.operands[0] is state:
            reach[instruction] = 1 << instruction.attributes["index"]
        elif instruction is not state:
            bits = 0
            for operand in instruction.operands:
                bits |= reach[operand]
            reach[instruction] = bits
    return reach
