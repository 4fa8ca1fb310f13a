"""Simplifies conditionals: what goes into their branches and what comes out, and those that decide nothing."""

from __future__ import annotations

from hloc.analysis.cost import weight
from hloc.analysis.effects import Effects
from hloc.ir.clone import clone_instruction
from hloc.ir.dtypes import PRED
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.ir.shapes import array
from hloc.passes.choices import Choice, choices_of, make_explicit
from hloc.passes.emit import Emit, replace
from hloc.passes.equivalence import key
from hloc.passes.inlining import inline
from hloc.passes.tuples import Owners, element_after

_MOST_WORK = 4096
"""Work of all branches together, in simple operations, that is less than what a branch costs otherwise: a
kernel or more that nothing fuses with."""

_MOVES = ("broadcast", "reshape", "slice", "transpose", "reverse", "pad", "concatenate", "iota", "dynamic-slice")
_STAY = ("parameter", "get-tuple-element", "tuple", "conditional", "opt-barrier")
"""What is not put into branches: names, and what may be long."""

_NAMES = ("parameter", "get-tuple-element", "tuple", "constant", "bitcast")


def run(module: Module) -> bool:
    """Takes out conditionals that decide nothing, and from the others what goes in or out for nothing.

    Where all branches are the same and are given the same, it is a call. Where all branches together are a
    little elementwise work, all of them are done, and each result is selected. A result that nobody reads
    goes, one that all branches compute alike is computed in front, one that is always another one is read
    there. Constants are put into the branches that are given them, and so is work that only one branch needs;
    what a branch does not read it is not given. Side effects stay where they are.

    Requires: nothing; does most when tuples are simple and equal computations are shared.
    Ensures: each conditional that is left has explicit form, which is flat tuples in and out.
    Leaves: calls, for call_inliner; tuples of reads, for tuple_simplifier; dead code, for dce.
    """
    owners = Owners(module)
    effects = Effects()
    changed = False
    for instruction in choices_of(module):
        if _decides_nothing(instruction):
            branch = instruction.called[0]
            call = Emit.at(instruction).op("call", instruction.shape, [instruction.operands[1]], to_apply=branch)
            replace(instruction, call)
            changed = True
        elif not instruction.control_predecessors and not instruction.control_successors:
            changed |= make_explicit(instruction, owners)
    for instruction in choices_of(module):
        choice = Choice.of(instruction)
        if choice is not None:
            changed |= _simplify(choice, owners, effects)
    if changed:
        module.order_computations()
    return changed


def _decides_nothing(instruction: Instruction) -> bool:
    edges = instruction.control_predecessors or instruction.control_successors
    return len(set(instruction.called)) == len(set(instruction.operands[1:])) == 1 and not edges


def _simplify(choice: Choice, owners: Owners, effects: Effects) -> bool:
    if _is_little_work(choice, effects):
        _select_results(choice)
        return True
    changed = _read_elsewhere(choice, effects)
    changed |= _drop_results(choice, owners)
    changed |= _put_in(choice, owners, effects)
    return changed | _drop_given(choice, owners, effects)


# Selects in place of branches


def _is_little_work(choice: Choice, effects: Effects) -> bool:
    total = 0.0
    for branch in choice.branches:
        for instruction in branch:
            if instruction.opcode in _NAMES and (instruction.shape.is_array or instruction.opcode != "constant"):
                continue
            if not instruction.shape.is_array or instruction.shape.is_dynamic or effects.of(instruction):
                return False
            if not (instruction.op.is_elementwise or instruction.opcode in _MOVES) or instruction.opcode == "map":
                return False
            total += (1 + weight(instruction)) * instruction.shape.count
    leaves = choice.instruction.shape.elements
    if any(not leaf.is_array or leaf.is_dynamic for leaf in leaves):
        return False
    return total + len(choice.branches) * sum(leaf.count for leaf in leaves) <= _MOST_WORK


def _select_results(choice: Choice) -> None:
    """Does all branches and selects; an index out of range takes the last one."""
    instruction = choice.instruction
    emit = Emit.at(instruction)
    results = []
    for branch, operand in zip(choice.branches, instruction.operands[1:], strict=True):
        call = emit.op("call", instruction.shape, [operand], to_apply=branch)
        results.append(inline(call, branch))
    chosen = instruction.operands[0]
    values = list(results[-1].operands)
    for number in reversed(range(len(results) - 1)):
        here = chosen if chosen.shape.dtype is PRED else _is_index(emit, chosen, number)
        values = [_selected(emit, here, *pair) for pair in zip(results[number].operands, values, strict=True)]
    replace(instruction, emit.tuple(values))


def _is_index(emit: Emit, chosen: Instruction, number: int) -> Instruction:
    return emit.op(
        "compare", array(PRED), (chosen, emit.scalar(number, chosen.shape.dtype)), direction="EQ"
    )


def _selected(emit: Emit, here: Instruction, one: Instruction, other: Instruction) -> Instruction:
    if one is other:
        return one
    return emit.map("select", emit.broadcast(here, one.shape.dims), one, other)


# Results


def _read_elsewhere(choice: Choice, effects: Effects) -> bool:
    """Reads of a result that all branches compute alike, or that is another one, read that instead."""
    found: dict[object, int] = {}
    numbers = [_numbered(choice, number, found, effects) for number in range(len(choice.branches))]
    first: dict[tuple[int, ...], int] = {}
    outside: dict[Instruction, Instruction] = {}
    changed = False
    for place in range(choice.size):
        values = [branch.root.operands[place] for branch in choice.branches]
        names = tuple(found_here[value] for found_here, value in zip(numbers, values, strict=True))
        other = first.setdefault(names, place)
        reads = [read for read in choice.instruction.users if read.attributes["index"] == place]
        if not any(read.users or read.is_root for read in reads):
            continue
        if len(set(names)) == 1:
            value = _copied_out(choice, choice.branches[0].root.operands[place], outside)
        elif other != place:
            value = element_after(choice.instruction, other)
        else:
            continue
        for read in reads:
            read.computation.replace_uses(read, value)
        changed = True
    return changed


def _numbered(choice: Choice, number: int, found: dict[object, int], effects: Effects) -> dict[Instruction, int]:
    """A number for each instruction of a branch, the same in all branches for what has the same value.

    One computation may be several branches, which are given other values.
    """
    branch, given = choice.branches[number], choice.given(number)
    numbers: dict[Instruction, int] = {}
    for instruction in branch:
        if instruction.opcode == "get-tuple-element" and instruction.operands[0] is branch.parameters[0]:
            name: object = given[instruction.attributes["index"]]
        elif instruction.opcode == "parameter" or not effects.is_repeatable(instruction):
            name = (number, instruction)
        else:
            name = key(instruction, numbers.__getitem__, id)
        numbers[instruction] = found.setdefault(name, len(found))
    return numbers


def _copied_out(choice: Choice, value: Instruction, outside: dict[Instruction, Instruction]) -> Instruction:
    """A copy, in front of the conditional, of a value of the first branch and of all that it is computed from."""
    branch = choice.branches[0]
    stack = [value]
    while stack:
        instruction = stack[-1]
        missing = [operand for operand in instruction.operands if operand not in outside]
        if instruction in outside:
            stack.pop()
        elif instruction.operands == [branch.parameters[0]]:
            outside[instruction] = choice.given(0)[instruction.attributes["index"]]
        elif missing:
            stack += missing
        else:
            copy = clone_instruction(instruction, [outside[operand] for operand in instruction.operands])
            outside[instruction] = choice.instruction.computation.add(copy, choice.instruction)
    return outside[value]


def _drop_results(choice: Choice, owners: Owners) -> bool:
    """Takes out the results that nobody reads."""
    read = {user.attributes["index"] for user in choice.instruction.users if user.users or user.is_root}
    kept = sorted(read) or [0]
    if len(kept) == choice.size:
        return False
    choice.own(owners)
    places = {place: at for at, place in enumerate(kept)}
    choice.set_results(lambda branch: [branch.root.operands[place] for place in kept], places)
    return True


# What the branches are given


def _put_in(choice: Choice, owners: Owners, effects: Effects) -> bool:
    """Moves into the branches what is theirs alone, constants and work."""
    changed = False
    for number in range(len(choice.branches)):
        while (place := _to_put_in(choice, number, effects)) is not None:
            choice.own(owners)
            _move_in(choice, number, place, effects)
            changed = True
    return changed


def _to_put_in(choice: Choice, number: int, effects: Effects) -> int | None:
    parameter = choice.branches[number].parameters[0]
    read = {user.attributes["index"] for user in parameter.users if user.users or user.is_root}
    values = choice.given(number)
    for place in sorted(read):
        value = values[place]
        if value.opcode in ("constant", "iota"):
            return place
        if value.opcode in _STAY or not all(operand.shape.is_array for operand in value.operands):
            continue
        alone = value.users == {choice.instruction.operands[1 + number]: 1} and not value.is_root
        bound = value.control_predecessors or value.control_successors
        if alone and _is_theirs(choice, number) and not bound and effects.is_repeatable(value):
            return place
    return None


def _is_theirs(choice: Choice, number: int) -> bool:
    """Whether no other branch, and nobody else, is given the same tuple."""
    operand = choice.instruction.operands[1 + number]
    return operand.users == {choice.instruction: 1} and not operand.is_root


def _move_in(choice: Choice, number: int, place: int, effects: Effects) -> None:
    value = choice.given(number)[place]
    given = choice.given(number)
    added = [operand for operand in dict.fromkeys(value.operands) if operand not in given]
    choice.set_given(number, range(len(given)), added, effects)
    given = choice.given(number)
    branch = choice.branches[number]
    parameter = branch.parameters[0]
    places = [given.index(operand) for operand in value.operands]
    for read in [user for user in parameter.users if user.attributes["index"] == place]:
        operands = [element_after(parameter, at) for at in places]
        branch.replace_uses(read, branch.add(clone_instruction(value, operands), _behind(parameter)))
    choice.set_given(number, [at for at in range(len(given)) if at != place], [], effects)
    if not value.users and not value.is_root:
        value.computation.remove(value)


def _behind(parameter: Instruction) -> Instruction:
    """The first instruction behind a parameter and the reads that follow it."""
    following = parameter.next
    while following.opcode == "get-tuple-element" and following.operands[0] is parameter:
        following = following.next
    return following


def _drop_given(choice: Choice, owners: Owners, effects: Effects) -> bool:
    """Takes out what a branch does not read."""
    changed = False
    for number, branch in enumerate(choice.branches):
        users = branch.parameters[0].users
        kept = sorted({user.attributes["index"] for user in users if user.users or user.is_root})
        if len(kept) < len(choice.given(number)):
            choice.own(owners)
            choice.set_given(number, kept, [], effects)
            changed = True
    return changed
