"""collective-permute between threads of one process: targets read their source's operands where they lie."""

from __future__ import annotations

from collections.abc import Sequence

from hloc.codegen import scalar
from hloc.codegen.arrays import ArrayRef
from hloc.codegen.graphs import operand_leaves
from hloc.codegen.kernel import KernelContext, kernel
from hloc.codegen.llvm import Value
from hloc.codegen.rendezvous import Meeting, devices_of, fill, number_at, within
from hloc.codegen.routines import i64
from hloc.errors import HloError
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape
from hloc.reference.collectives import expand, group_mode


def device_pairs(instruction: Instruction) -> list[tuple[int, int]]:
    """(source, target) device numbers. HloError if there is no such device."""
    pairs: dict[tuple[int, int], None] = {}
    for device in devices_of(instruction):
        group = expand(None, group_mode(instruction), device)
        for pair in instruction.attributes["source_target_pairs"]:
            if any(not 0 <= i < len(group) for i in pair):
                message = f"source_target_pairs name a device beyond the {len(group)} that there are"
                raise HloError(message, instruction.span)
            pairs[group[pair[0]], group[pair[1]]] = None
    return list(pairs)


def sides(instruction: Instruction) -> tuple[range, range]:
    """Numbers of the outputs that are operands again (of a start op), and of those that are results."""
    if not instruction.opcode.endswith("-start"):
        return range(0), range(len(list(instruction.shape.leaves())))
    operands, results = (len(list(element.leaves())) for element in instruction.shape.elements[:2])
    return range(operands), range(operands, operands + results)


def slices_in_place(instruction: Instruction) -> tuple[tuple[int, int], ...]:
    """Where the output operand lies; HloError for several of them, which come as tuples."""
    if instruction.get("slice_sizes") and not all(operand.shape.is_array for operand in instruction.operands[:2]):
        message = f"a {instruction.opcode} of slices of several arrays is not supported"
        raise HloError(message, instruction.span)
    return ((1, sides(instruction)[1].start),) if instruction.get("slice_sizes") else ()


@kernel("collective-permute", "collective-permute-start", fails=True, in_place=slices_in_place)
def collective_permute(k: KernelContext, instruction: Instruction) -> None:
    """Targets get their source's operands; other devices get zeros, or keep their output operand."""
    pairs = device_pairs(instruction)
    source = {target: origin for origin, target in pairs}
    _before_permute(k, instruction)
    results = [k.outputs[i] for i in sides(instruction)[1]]

    def receive(arrays: list[ArrayRef], own: list[ArrayRef]) -> None:
        if instruction.get("slice_sizes"):
            for row in range(len(instruction.get("slice_sizes"))):
                receive_slice(k, instruction, row, arrays, own, results[0])
            return
        for array, output in zip(arrays, results):
            k.copy(array, output)

    count = len(devices_of(instruction))
    if count == 1:
        if source:
            own = [k.input_array(number, leaf) for number, leaf, _ in operand_leaves(instruction)]
            receive(own, own)
        return
    met: list[dict[int, None]] = [{} for _ in range(count)]
    for one, other in pairs:
        if one != other:
            met[one][other] = met[other][one] = None
    meeting = Meeting(k, [tuple(each) for each in met])
    origin = meeting.of_device([source.get(device, -1) for device in range(count)])

    def together() -> None:
        with k.b.if_then(k.b.icmp_signed(">=", origin, i64(0))):
            receive(meeting.operands_of(origin), meeting.arrays)

    meeting.run(together)


def _before_permute(k: KernelContext, instruction: Instruction) -> None:
    """What a device that receives nothing has (output operand or zeros); a start op's other outputs."""
    operands, results = sides(instruction)
    for i in operands:
        k.copy(k.input_array(i), k.outputs[i])
    slices = instruction.get("slice_sizes")
    for i, output in enumerate(k.outputs):
        if slices and i == results.start:
            if not k.is_in_place(1, i):
                k.copy(k.input_array(1), output)
        elif i not in operands:
            fill(k, output, lambda index, output=output: scalar.zero(output.shape.dtype))


def receive_slice(
    k: KernelContext,
    instruction: Instruction,
    row: int,
    arrays: list[ArrayRef],
    own: list[ArrayRef],
    output: ArrayRef,
) -> None:
    """A slice of the source's input at its offsets, to a place at this device's offsets; starts are clamped."""
    slices = instruction.get("slice_sizes")
    numbers = [number for number, _, _ in operand_leaves(instruction)]
    sizes, data = slices[row], arrays[0]

    def offsets(given: list[ArrayRef], number: int, shape: ArrayShape) -> list[Value]:
        leaves = [array for array, n in zip(given, numbers, strict=True) if n == number]
        found = _offsets(k, leaves, row, len(slices), sizes)
        return [within(k, start, whole - size) for start, size, whole in zip(found, sizes, shape.dims, strict=True)]

    starts, places = offsets(arrays, 2, data.shape), offsets(own, 3, output.shape)
    k.loop_nest(
        sizes,
        lambda index: output.store(tuple(map(k.b.add, places, index)), data.load(tuple(map(k.b.add, starts, index)))),
    )


def _offsets(
    k: KernelContext, leaves: list[ArrayRef], row: int, rows: int, sizes: Sequence[int]
) -> list[Value]:
    """Offsets of a slice, from an array or from scalars; all slices share them if there is one set."""
    rank = len(sizes)
    given = sum(leaf.shape.count for leaf in leaves)
    first = row * rank if given >= rows * rank else 0
    if len(leaves) == 1:
        return [number_at(k, leaves[0], i64(first + d)) for d in range(rank)]
    return [number_at(k, leaf, i64(0)) for leaf in leaves[first : first + rank]]
