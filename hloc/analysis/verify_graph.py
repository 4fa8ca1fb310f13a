"""What the verifier asks of a computation: parameters, root, order, and edges that agree on both ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hloc.errors import HloError
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module


def graph_faults(module: Module, instructions: Sequence[Instruction]) -> Iterator[HloError]:
    for computation in module:
        yield from _computation_faults(computation)
        yield from _order_faults(computation)
    for instruction in instructions:
        for earlier in instruction.control_predecessors:
            if instruction not in earlier.control_successors:
                message = f"%{earlier.name} does not know that %{instruction.name} waits for it"
                yield HloError(message, instruction.span, label="CONTROL_C3")
    yield from _user_faults(instructions)


def _computation_faults(computation: Computation) -> Iterator[HloError]:
    root = computation.root
    if root is None or root.computation is not computation:
        message = f"computation %{computation.name} has no root of its own"
        yield HloError(message, computation.span, label="COMPUTATION_C1")
    for number, parameter in enumerate(computation.parameters):
        if parameter is None:
            message = f"parameter({number}) of computation %{computation.name} is missing"
            yield HloError(message, computation.span, label="COMPUTATION_C2")


def _order_faults(computation: Computation) -> Iterator[HloError]:
    """Operands in the computation and before their user, so that nothing depends on itself."""
    earlier: set[Instruction] = set()
    for instruction in computation.instructions:
        if instruction.opcode == "parameter" and not _is_at_its_number(instruction, computation):
            message = f"another instruction has the parameter number of %{instruction.name}"
            yield HloError(message, instruction.span, label="COMPUTATION_C3")
        for number, operand in enumerate(instruction.operands):
            if operand not in earlier:
                what = f"operand {number} (%{operand.name}) of %{instruction.name}"
                yield _misplaced(instruction, operand, what, "OPERAND")
        for other in instruction.control_predecessors:
            if other not in earlier:
                what = f"the control predecessor %{other.name} of %{instruction.name}"
                yield _misplaced(instruction, other, what, "CONTROL")
        earlier.add(instruction)


def _is_at_its_number(instruction: Instruction, computation: Computation) -> bool:
    number = instruction.attributes.get("number")
    in_range = isinstance(number, int) and 0 <= number < len(computation.parameters)
    return in_range and computation.parameters[number] is instruction


def _misplaced(instruction: Instruction, other: Instruction, what: str, family: str) -> HloError:
    """`other`, on which an instruction depends, is not before it: because it is elsewhere, or later."""
    if other.computation is not instruction.computation:
        return HloError(f"{what} is in another computation", instruction.span, label=f"{family}_C1")
    return HloError(f"{what} comes after it", instruction.span, label=f"{family}_C2")


def _user_faults(instructions: Sequence[Instruction]) -> Iterator[HloError]:
    """Every instruction counts its uses; a pass that edits operands by hand breaks this."""
    if _are_users_right(instructions):
        return
    counts: dict[Instruction, dict[Instruction, int]] = {instruction: {} for instruction in instructions}
    for instruction in instructions:
        for operand in instruction.operands:
            users = counts.get(operand)
            if users is not None:
                users[instruction] = users.get(instruction, 0) + 1
    for instruction, users in counts.items():
        if instruction.users != users:
            message = f"the users that %{instruction.name} lists are not those that use it"
            yield HloError(message, instruction.span, label="USERS_C1")


def _are_users_right(instructions: Sequence[Instruction]) -> bool:
    """Whether each use is counted where it should be, and no others are: told quickly, as it mostly is so."""
    uses = listed = 0
    for instruction in instructions:
        operands = instruction.operands
        uses += len(operands)
        for operand in operands:
            if instruction not in operand.users:
                return False
        if len(operands) > 1 and len(set(operands)) < len(operands):
            for operand in operands:
                if operand.users[instruction] != operands.count(operand):
                    return False
        if instruction.users:
            listed += sum(instruction.users.values())
    return uses == listed  # no count is below 1, so none is above if all are there
