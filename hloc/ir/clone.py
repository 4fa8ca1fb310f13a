"""Copies of computations and modules that share nothing that can change."""

from __future__ import annotations

from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module


def clone_instruction(source: Instruction, operands: list[Instruction]) -> Instruction:
    """The same operation on other operands, in no computation yet; control edges are left out."""
    return Instruction(
        source.opcode,
        source.shape,
        operands,
        dict(source.attributes),
        name=source.name,
        annotations=dict(source.annotations),
        span=source.span,
    )


def clone_computation(source: Computation, name: str | None = None) -> Computation:
    """A copy in no module yet, calling the same computations as the source."""
    copy = Computation(name or source.name, source.span)
    copy.execution_thread = source.execution_thread
    copy.attributes = dict(source.attributes)
    twins: dict[Instruction, Instruction] = {}
    for instruction in source:
        twin = clone_instruction(instruction, [twins[operand] for operand in instruction.operands])
        twins[instruction] = copy.add(twin)
    for instruction, twin in twins.items():
        for earlier in instruction.control_predecessors:
            copy.add_control_edge(twins[earlier], twin)
    copy.root = twins[source.root] if source.root is not None else None
    return copy


def clone_module(source: Module) -> Module:
    """A copy of the whole program, names, ids' order and header included."""
    copy = Module(source.name, source.source)
    copy.is_scheduled = source.is_scheduled
    copy.entry_layout = source.entry_layout
    copy.bounded_shapes = source.bounded_shapes
    copy.input_output_alias = source.input_output_alias
    copy.buffer_donors = source.buffer_donors
    copy.replica_count = source.replica_count
    copy.num_partitions = source.num_partitions
    copy.attributes = dict(source.attributes)
    copy.tables = dict(source.tables)
    twins: dict[str, Computation] = {}
    for computation in source:
        twin = clone_computation(computation)
        twins[computation.name] = copy.add_computation(twin, entry=computation is source.entry)
    for instruction in copy.instructions():
        for callee in instruction.called:
            instruction.replace_called(callee, twins[callee.name])
    return copy
