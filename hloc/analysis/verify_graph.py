"""What the verifier asks of a computation: parameters, root, order, and edges that agree on both ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from hloc.errors import HloError
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction

_FEW = 8
"""Operands that are looked through for each use; longer lists are counted once."""


def graph_faults(computations: Iterable[Computation], linked: Sequence[Instruction]) -> Iterator[HloError]:
    """The faults inside of computations, and those of edges between some of the instructions, `linked`."""
    for computation in computations:
        yield from _computation_faults(computation)
        yield from _order_faults(computation)
    for instruction in linked:
        for earlier in instruction.control_predecessors:
            if instruction not in earlier.control_successors:
                message = f"%{earlier.name} does not know that %{instruction.name} waits for it"
                yield HloError(message, instruction.span, label="CONTROL_C3")
    yield from _user_faults(linked)


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
    are_earlier = earlier.issuperset
    for instruction in computation.instructions:
        if instruction.opcode == "parameter" and not _is_at_its_number(instruction, computation):
            message = f"another instruction has the parameter number of %{instruction.name}"
            yield HloError(message, instruction.span, label="COMPUTATION_C3")
        if not are_earlier(instruction.operands):
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
    uses: dict[Instruction, Counter[Instruction]] = {}
    wrong = {i: None for i in instructions if i.users and not _are_users_right(i, uses)}
    for instruction in instructions:
        for operand in instruction.operands:
            if instruction not in operand.users and operand.computation is not None:
                wrong[operand] = None
    for instruction in wrong:
        message = f"the users that %{instruction.name} lists are not those that use it"
        yield HloError(message, instruction.span, label="USERS_C1")


def _are_users_right(instruction: Instruction, uses: dict[Instruction, Counter[Instruction]]) -> bool:
    """Whether those that an instruction lists use it so many times; `uses` keeps the counts of long lists."""
    for user, count in instruction.users.items():
        operands = user.operands
        if len(operands) <= _FEW:
            used = operands.count(instruction)
        else:
            counted = uses.get(user)
            if counted is None:
                counted = uses[user] = Counter(operands)
            used = counted[instruction]
        if used != count or user.computation is None:
            return False
    return True
