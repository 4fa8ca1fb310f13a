"""Putting a called computation's instructions in the place of the call."""

from __future__ import annotations

from hloc.ir.clone import clone_computation, clone_instruction
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module


def inline(call: Instruction, callee: Computation) -> Instruction:
    """Replace `call` by a copy of the instructions of `callee`, its operands standing for the parameters.

    What had to run before the call runs before each copied instruction, and likewise after it. Gives the
    instruction that now has the call's value. The callee stays as it is, and what it starts asynchronously,
    which only one op may start: copies start copies.
    """
    computation = call.computation
    started: dict[Computation, Computation] = {}
    values: dict[Instruction, Instruction] = {}
    copies = []
    for instruction in callee:
        if instruction.opcode == "parameter":
            values[instruction] = call.operands[instruction.attributes["number"]]
            continue
        copy = clone_instruction(instruction, [values[operand] for operand in instruction.operands])
        values[instruction] = computation.add(copy, before=call)
        if copy.opcode.startswith("async-") and "calls" in copy.attributes:
            copy.attributes["calls"] = _copied(copy.attributes["calls"], started, computation.module)
        copies.append(copy)
        for earlier in instruction.control_predecessors:
            _connect(computation, values[earlier], copy)
    for copy in copies:
        for earlier in call.control_predecessors:
            _connect(computation, earlier, copy)
        for later in call.control_successors:
            _connect(computation, copy, later)
    result = values[callee.root]
    computation.replace_uses(call, result)
    computation.remove(call)
    return result


def _copied(callee: Computation, copies: dict[Computation, Computation], module: Module) -> Computation:
    if callee not in copies:
        copies[callee] = module.add_computation(clone_computation(callee))
        module.order_computations()
    return copies[callee]


def _connect(computation: Computation, earlier: Instruction, later: Instruction) -> None:
    if earlier.computation is computation and earlier is not later:
        computation.add_control_edge(earlier, later)
