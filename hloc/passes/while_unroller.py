"""Writes the turns of short loops one behind the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain

from hloc.analysis.effects import Effects
from hloc.analysis.trip_count import trip_count
from hloc.ir.clone import clone_instruction
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.passes.emit import Emit
from hloc.passes.inlining import inline
from hloc.passes.loops import Loop, loops_of
from hloc.passes.report import Remark

_TINY = 48
"""Instructions of all turns together that are worth it whatever they are."""

_FEW_ELEMENTS = 64
"""Arrays of so many may be cut and put together in a turn."""

_FREE = ("parameter", "get-tuple-element", "tuple", "constant", "iota", "bitcast", "reshape")


@dataclass
class WhileUnroller:
    """Replaces a loop of few turns by its body, as many times.

    It is done where the turns then fuse: where all that the body does to arrays of more than a few elements
    is elementwise, so that none of them is written to memory between turns; and for loops that are tiny
    with all their turns. The turns of one loop have at most `instructions`, and the module grows by at most
    `growth`, in all rounds of a pipeline together; `remarks` tell of loops that were too long. A body that has
    side effects, communicates, or has loops of its own stays as it is.

    Requires: nothing; does most when the bodies are simple.
    Ensures: no such loop, within the budget.
    Leaves: bodies that nobody calls any more, for dce; reads of tuples, for tuple_simplifier, if a loop was not in
    the explicit form of while_simplifier.
    """

    instructions: int = 600
    growth: int = 2_000
    remarks: list[Remark] = field(default_factory=list, init=False)
    _grown: int = field(default=0, init=False)

    def run(self, module: Module) -> bool:
        effects = Effects()
        changed = False
        for instruction in loops_of(module):
            turns = _turns(instruction, effects)
            if turns is None:
                continue
            body = instruction.attributes["body"]
            added = turns * size(body)
            if added > _TINY and not _fuses(body):
                continue
            if added > self.instructions or self._grown + added > self.growth:
                text = f"left a loop: its {turns} turns have {added} instructions"
                data = {"turns": turns, "instructions": added, "grown": self._grown}
                self.remarks.append(Remark("while_unroller", instruction.name, text, data))
                continue
            _unroll(instruction, body, turns)
            self._grown += added
            changed = True
        return changed


def size(body: Computation) -> int:
    """Instructions that compute something."""
    return sum(instruction.opcode not in _FREE for instruction in body)


def _turns(instruction: Instruction, effects: Effects) -> int | None:
    """How often the body runs, if nothing but its number of turns speaks against writing them out."""
    if effects.of(instruction) or instruction.control_predecessors or instruction.control_successors:
        return None
    body = instruction.attributes["body"]
    if any(inner.opcode in ("while", "call", "conditional", "scan") for inner in body):
        return None
    return trip_count(instruction)


def _fuses(body: Computation) -> bool:
    return all(map(_stays_in_place, body))


def _stays_in_place(instruction: Instruction) -> bool:
    """Whether one kernel can do the op in several turns, without recomputing anything."""
    if instruction.opcode in ("parameter", "tuple"):
        return True
    if not instruction.shape.is_array:
        return False
    if instruction.op.is_elementwise or instruction.opcode in ("get-tuple-element", "constant", "iota"):
        return True
    if instruction.opcode == "broadcast":
        return instruction.operands[0].shape.count <= _FEW_ELEMENTS
    moves = ("slice", "reshape", "concatenate", "dynamic-slice", "reverse", "transpose", "pad")
    return instruction.opcode in moves and instruction.operands[0].shape.count <= _FEW_ELEMENTS


def _unroll(instruction: Instruction, body: Computation, turns: int) -> None:
    loop = Loop.of(instruction)
    if loop is not None and not any(map(_is_bound, chain(body, instruction.users))):
        _unroll_explicit(loop, turns)
        return
    computation = instruction.computation
    emit = Emit.at(instruction)
    state = instruction.operands[0]
    for _ in range(turns):
        call = emit.op("call", instruction.shape, [state], to_apply=body)
        state = inline(call, body)
    computation.replace_uses(instruction, state)
    computation.remove(instruction)


def _is_bound(instruction: Instruction) -> bool:
    """Whether a copy is more than the op on other operands: edges to others, a computation that it alone may start."""
    if instruction.opcode.startswith("async-"):
        return True
    return bool(instruction.control_predecessors or instruction.control_successors)


def _unroll_explicit(loop: Loop, turns: int) -> None:
    """Without the tuples between turns; what is the same in several turns, as constants are, is written once."""
    instruction, body = loop.instruction, loop.body
    computation, parameter = instruction.computation, body.parameters[0]
    state = list(loop.initial)
    copies: dict[tuple[int, ...], Instruction] = {}
    for _ in range(turns):
        values: dict[Instruction, Instruction] = {}
        for inner in body:
            if inner is parameter or inner is body.root:
                continue
            if inner.operands and inner.operands[0] is parameter:
                values[inner] = state[inner.attributes["index"]]
                continue
            operands = [values[operand] for operand in inner.operands]
            key = (inner.id, *(operand.id for operand in operands))
            if key not in copies:
                copies[key] = computation.add(clone_instruction(inner, operands), instruction)
            values[inner] = copies[key]
        state = [values[result] for result in loop.results]
    for read in list(instruction.users):
        computation.replace_uses(read, state[read.attributes["index"]])
        computation.remove(read)
    computation.remove(instruction)
