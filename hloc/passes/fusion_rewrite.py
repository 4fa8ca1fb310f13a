"""Writing planned groups as fusions."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Protocol

from hloc.analysis.effects import Effects
from hloc.ir.clone import clone_instruction
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import TupleShape
from hloc.passes.emit import Emit
from hloc.passes.fusion_report import Edges
from hloc.passes.ordering import reorder
from hloc.passes.report import Remark

RENAMING = ("broadcast", "reshape", "transpose", "slice", "iota", "constant")
"""What goes into an attention's kernel besides elementwise ops: it gives elements other places, or makes them."""


class Group(Protocol):
    """Instructions that become one kernel; `last` gives the fusion its place and its name."""

    members: Mapping[Instruction, object]
    outputs: list[Instruction]

    @property
    def last(self) -> Instruction: ...


def within(limit: int | None, groups: Sequence[Group], remarks: list[Remark], pass_name: str) -> Sequence[Group]:
    """The first groups, as many as a pass with a `limit` may make beyond those that its remarks tell of.

    With a limit a remark tells of each, so that `hloc bisect` can name the one that is at fault.
    """
    if limit is None:
        return groups
    left = max(0, limit - sum("kernel of" in remark.data for remark in remarks))
    for group in groups[:left]:
        figures = {"kernel of": len(group.members)}
        text = f"becomes one kernel with {len(group.members) - 1} other instructions"
        remarks.append(Remark(pass_name, group.last.name, text, figures))
    return groups[:left]


def write_fusions(
    computation: Computation, groups: Sequence[Group], effects: Effects, edges: Edges | None = None
) -> bool:
    """Replace each group by a fusion, and what is in no other place any more; whether there was any group.

    `edges` are told which fusion a group became.
    """
    position = {instruction: place for place, instruction in enumerate(computation)}
    fusions = [_fusion(computation, group, position) for group in groups]
    for group, fusion in zip(groups, fusions, strict=True):
        if edges is not None:
            edges.enter(group, fusion)
        outputs = sorted(group.outputs, key=position.__getitem__)
        emit = Emit(computation, before=group.last)
        for number, output in enumerate(outputs):
            value = fusion if len(outputs) == 1 else emit.element(fusion, number)
            computation.replace_uses(output, value)
    inside = {member for group in groups for member in group.members}
    for instruction in sorted(inside, key=position.__getitem__, reverse=True):
        if not instruction.users and not instruction.is_root:
            computation.remove(instruction)
    if groups:
        reorder(computation, effects)
    return bool(groups)


def _fusion(computation: Computation, group: Group, position: dict[Instruction, int]) -> Instruction:
    """A new fusion in front of the group's last output, which nobody uses yet."""
    members = sorted(group.members, key=position.__getitem__)
    outputs = sorted(group.outputs, key=position.__getitem__)
    inputs = [i for i in dict.fromkeys(o for m in members for o in m.operands) if i not in group.members]
    body = computation.module.add_computation(_body(group, members, inputs, outputs))
    kind = _kind({member.opcode for member in members})
    emit = Emit(computation, before=group.last)
    return emit.op("fusion", body.root.shape, inputs, kind=kind, calls=body)


def _kind(opcodes: set[str]) -> str:
    """What XLA would call it: `kOutput` for ops on the results of a product, `kInput` for those that feed a reduce."""
    if opcodes & {"dot", "convolution"}:
        return "kOutput"
    return "kInput" if "reduce" in opcodes else "kLoop"


def _body(
    group: Group, members: list[Instruction], inputs: list[Instruction], outputs: list[Instruction]
) -> Computation:
    body = Computation(f"fused_{group.last.opcode.replace('-', '_')}")
    emit = Emit(body)
    values = {value: emit.parameter(number, value.shape) for number, value in enumerate(inputs)}
    for member in members:
        values[member] = body.add(clone_instruction(member, [values[o] for o in member.operands]))
    results = [values[output] for output in outputs]
    if len(results) == 1:
        body.root = results[0]
    else:
        shape = TupleShape(tuple(result.shape for result in results))
        body.root = emit.op("tuple", shape, results)
    return body


def with_producers(
    members: Iterable[Instruction],
    position: Mapping[Instruction, int],
    takes: Callable[[Instruction, Container[Instruction]], bool],
    most: int | None = None,
) -> dict[Instruction, None]:
    """Members of a fusion and what leads to them, as far as `takes(producer, members)` says so, the latest first.

    `position` gives an order, operands first. There are no more than `most` in the end, or than there were.
    """
    found = dict.fromkeys(members)
    pending = [operand for member in found for operand in member.operands]
    while pending and (most is None or len(found) < most):
        producer = max(pending, key=position.__getitem__)
        pending = [other for other in pending if other is not producer]
        if producer not in found and takes(producer, found):
            found[producer] = None
            pending += producer.operands
    return found
