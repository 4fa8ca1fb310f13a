"""What the verifier asks of a computation: parameters, root, order, and edges that agree on both ends."""

from __future__ import annotations

from collections.abc import Iterator

from hloc.errors import HloError
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module


def graph_faults(module: Module) -> Iterator[HloError]:
    for computation in module:
        yield from _computation_faults(computation)
        earlier: set[Instruction] = set()
        for instruction in computation:
            yield from _operand_faults(instruction, computation, earlier)
            earlier.add(instruction)
        for instruction in computation:
            yield from _control_faults(instruction, computation)
        yield from _user_faults(computation)


def _computation_faults(computation: Computation) -> Iterator[HloError]:
    root = computation.root
    if root is None or root.computation is not computation:
        yield HloError(
            f"computation %{computation.name} has no root of its own",
            computation.span,
            label="COMPUTATION_C1",
        )
    missing = [number for number, parameter in enumerate(computation.parameters) if parameter is None]
    if missing:
        last = len(computation.parameters) - 1
        yield HloError(
            f"computation %{computation.name} has a parameter({last}), but no parameter({missing[0]})",
            computation.parameters[last].span if computation.parameters[last] else computation.span,
            label="COMPUTATION_C2",
        )
    for instruction in computation:
        if instruction.opcode == "parameter" and not _is_at_its_number(instruction, computation):
            yield HloError(
                f"another instruction has the parameter number of %{instruction.name}",
                instruction.span,
                label="COMPUTATION_C3",
            )


def _is_at_its_number(instruction: Instruction, computation: Computation) -> bool:
    number = instruction.attributes.get("number")
    in_range = isinstance(number, int) and 0 <= number < len(computation.parameters)
    return in_range and computation.parameters[number] is instruction


def _operand_faults(
    instruction: Instruction, computation: Computation, earlier: set[Instruction]
) -> Iterator[HloError]:
    """Operands in the computation and before their user, so that nothing depends on itself."""
    for number, operand in enumerate(instruction.operands):
        if operand in earlier:
            continue
        what = f"operand {number} (%{operand.name}) of %{instruction.name}"
        if operand.computation is not computation:
            yield HloError(
                f"{what} is not in the computation %{computation.name}", instruction.span, label="OPERAND_C1"
            )
        else:
            yield HloError(f"{what} comes after it", instruction.span, label="OPERAND_C2")
    for other in instruction.control_predecessors:
        if other in earlier:
            continue
        what = f"the control predecessor %{other.name} of %{instruction.name}"
        if other.computation is not computation:
            yield HloError(
                f"{what} is not in the computation %{computation.name}", instruction.span, label="CONTROL_C1"
            )
        else:
            yield HloError(f"{what} comes after it", instruction.span, label="CONTROL_C2")


def _control_faults(instruction: Instruction, computation: Computation) -> Iterator[HloError]:
    for earlier in instruction.control_predecessors:
        if instruction not in earlier.control_successors:
            yield HloError(
                f"%{earlier.name} does not know that %{instruction.name} waits for it", label="CONTROL_C3"
            )


def _user_faults(computation: Computation) -> Iterator[HloError]:
    """Every instruction counts its uses; a pass that edits operands by hand breaks this."""
    counts: dict[Instruction, dict[Instruction, int]] = {instruction: {} for instruction in computation}
    for instruction in computation:
        for operand in instruction.operands:
            users = counts.get(operand)
            if users is not None:
                users[instruction] = users.get(instruction, 0) + 1
    for instruction, users in counts.items():
        if instruction.users != users:
            yield HloError(
                f"the users that %{instruction.name} lists are not those that use it",
                instruction.span,
                label="USERS_C1",
            )
