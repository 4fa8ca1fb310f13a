"""What the verifier asks of a module as a whole: header, entry, names, calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hloc.analysis.call_graph import CallGraph
from hloc.errors import HloError
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.ir.shape_rules.common import compatible
from hloc.ir.shapes import Shape, TupleShape


def module_faults(module: Module, instructions: Sequence[Instruction], *, calls: bool) -> Iterator[HloError]:
    """The faults of the whole; those of calls among computations if they are asked for."""
    yield from _name_faults(module, instructions)
    if calls:
        yield from _call_faults(module)
    for what, count in (("replica_count", module.replica_count), ("num_partitions", module.num_partitions)):
        if count < 1:
            yield HloError(f"{what}={count}, expected at least 1", label="MODULE_C5")
    entry = module.entry
    if entry is None or module.computations.get(entry.name) is not entry:
        yield HloError(f"module {module.name} has no entry computation", label="MODULE_C1")
    elif entry.root is not None and None not in entry.parameters:
        yield from _entry_layout_faults(module)
        yield from _alias_faults(module)
        yield from _donor_faults(module)


def _name_faults(module: Module, instructions: Sequence[Instruction]) -> Iterator[HloError]:
    for key, computation in module.computations.items():
        if computation.name != key or computation.module is not module:
            yield HloError(
                f"%{computation.name} is not the computation {key} of its module", label="MODULE_C2"
            )
    if len({instruction.name for instruction in instructions}) == len(instructions):
        return
    seen: set[str] = set()
    for instruction in instructions:
        if instruction.name in seen:
            yield HloError(
                f"another instruction is called %{instruction.name}", instruction.span, label="MODULE_C2"
            )
        seen.add(instruction.name)


def _call_faults(module: Module) -> Iterator[HloError]:
    graph = CallGraph(module)
    for caller in module:
        for instruction in graph.call_sites(caller):
            for callee in instruction.called:
                if module.computations.get(callee.name) is not callee:
                    message = f"%{instruction.name} calls %{callee.name}, which is not in the module"
                    yield HloError(message, instruction.span, label="MODULE_C4")
    circle = graph.cycle()
    if circle:
        path = " -> ".join(f"%{computation.name}" for computation in [*circle, circle[0]])
        yield HloError(f"computations call each other in a circle: {path}", circle[0].span, label="MODULE_C3")


def _entry_layout_faults(module: Module) -> Iterator[HloError]:
    if module.entry_layout is None:
        return
    entry, (parameters, result) = module.entry, module.entry_layout
    if len(parameters) != len(entry.parameters):
        yield HloError(
            f"entry_computation_layout has {len(parameters)} parameters, the entry {len(entry.parameters)}",
            entry.span,
            label="ENTRY_LAYOUT_C1",
        )
        return
    for number, (shape, parameter) in enumerate(zip(parameters, entry.parameters, strict=True)):
        if not compatible(shape, parameter.shape):
            yield HloError(
                f"entry_computation_layout says that parameter {number} is {shape!r}, "
                f"but %{parameter.name} is {parameter.shape!r}",
                parameter.span,
                label="ENTRY_LAYOUT_C2",
            )
    if not compatible(result, entry.root.shape):
        yield HloError(
            f"entry_computation_layout says that the result is {result!r}, "
            f"but the root %{entry.root.name} is {entry.root.shape!r}",
            entry.root.span,
            label="ENTRY_LAYOUT_C3",
        )


def leaf_at(shape: Shape, index: Sequence[int]) -> Shape | None:
    """The sub-shape at a tuple index path, or None where there is none."""
    for position in index:
        if not isinstance(shape, TupleShape) or not 0 <= position < len(shape.elements):
            return None
        shape = shape.elements[position]
    return shape


def braced(index: Sequence[int]) -> str:
    return "{" + ",".join(map(str, index)) + "}"


def _parameter_leaf(module: Module, number: int, index: Sequence[int]) -> Shape | None:
    parameters = module.entry.parameters
    return leaf_at(parameters[number].shape, index) if 0 <= number < len(parameters) else None


def _alias_faults(module: Module) -> Iterator[HloError]:
    taken: set[tuple[int, tuple[int, ...]]] = set()
    filled: set[tuple[int, ...]] = set()
    for alias in module.input_output_alias:
        what = (
            f"input_output_alias {braced(alias.output_index)}: ({alias.number}, {braced(alias.input_index)})"
        )
        source = _parameter_leaf(module, alias.number, alias.input_index)
        target = leaf_at(module.entry.root.shape, alias.output_index)
        place = module.entry.root.span
        if target is None or not target.is_array:
            yield HloError(
                f"{what}: the result has no array at {braced(alias.output_index)}", place, label="ALIAS_C1"
            )
        if source is None or not source.is_array:
            yield HloError(f"{what}: no parameter has an array there", place, label="ALIAS_C2")
        if source is not None and target is not None and source.is_array and target.is_array:
            fits = compatible(source, target) if alias.must else source.byte_size == target.byte_size  # type: ignore[attr-defined]
            if not fits:
                yield HloError(f"{what}: {source!r} cannot hold {target!r}", place, label="ALIAS_C3")
        if (alias.number, alias.input_index) in taken or alias.output_index in filled:
            yield HloError(f"{what}: one of the two has an alias already", place, label="ALIAS_C4")
        taken.add((alias.number, alias.input_index))
        filled.add(alias.output_index)


def _donor_faults(module: Module) -> Iterator[HloError]:
    aliased = {(alias.number, alias.input_index) for alias in module.input_output_alias}
    for donor in module.buffer_donors:
        what = f"buffer_donor ({donor.number}, {braced(donor.index)})"
        if _parameter_leaf(module, donor.number, donor.index) is None:
            yield HloError(f"{what}: there is no such parameter", module.entry.span, label="DONOR_C1")
        if (donor.number, donor.index) in aliased:
            yield HloError(f"{what} is also in input_output_alias", module.entry.span, label="DONOR_C2")
