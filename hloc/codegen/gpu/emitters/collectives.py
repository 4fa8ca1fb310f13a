"""Collectives: devices show each other where their operands lie, and each reads the others' to make its own results.

What a device computes is told where the CPU's collectives are; here its loops go over all threads of a grid. What a
result is before others write into it is there before devices meet.
"""

from __future__ import annotations

from collections.abc import Sequence

from hloc.codegen.arrays import ArrayRef
from hloc.codegen.emitters.collective_permute import device_pairs, receive_slice, sides, slices_in_place
from hloc.codegen.emitters.collectives import BODIES, Body, Peers, done_leaves, groups_of, rows_of
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.emitters import gpu_kernel
from hloc.codegen.gpu.grids import THREADS, GridContext, grid_for
from hloc.codegen.gpu.step import GpuStep, chosen
from hloc.codegen.graphs import operand_leaves
from hloc.codegen.kernel import Index, KernelContext
from hloc.codegen.llvm import Value, integer
from hloc.codegen.program import CONTEXT_FIELDS
from hloc.codegen.rendezvous import devices_of
from hloc.codegen.routines import i64
from hloc.ir.instruction import Instruction

_MOST_ARRAYS = 500
"""Arrays that a kernel takes: its parameters are 4 KiB at most."""

_SEPARATE = ("all-gather", "all-reduce", "all-reduce-start", "reduce-scatter")
"""Ops of which each result is made of one operand."""


def _shown_together(g: GpuStep, devices: int) -> list[range]:
    """The operands, in parts of which all devices' arrays are not too many for a kernel. HloError if that cannot be."""
    operands, room = len(g.instruction.operands), _MOST_ARRAYS - len(g.step.outputs)
    if devices * len(g.step.inputs) <= room:
        return [range(operands)]
    together = room // devices if g.instruction.opcode in _SEPARATE else 0
    if together < 1:
        raise g.error(
            f"{g.instruction.opcode} of {len(g.step.inputs)} arrays on {devices} devices: a kernel takes "
            f"{_MOST_ARRAYS} arrays at most"
        )
    return [range(first, min(first + together, operands)) for first in range(0, operands, together)]


def _grid(g: GpuStep) -> int:
    return grid_for(max(view.shape.count for view in g.step.outputs))


def _device(k: GpuContext) -> Value:
    """The number of the device that runs the kernel."""
    return k.b.load("i64", k.b.gep("i64", k.context, i64(CONTEXT_FIELDS.index("device"))))


def _leaves(g: GpuStep, operands: Sequence[int]) -> list[tuple[int, tuple[int, ...]]]:
    """(operand number, index path) of the arrays in some operands."""
    return [(number, leaf) for number, leaf, _ in operand_leaves(g.instruction) if number in operands]


def _of_device(k: GpuContext, device: Value, numbers: Sequence[int]) -> Value:
    return chosen(k.b, device, [i64(number) for number in numbers])


def _operands_of(
    g: GpuStep, k: GpuContext, device: Value, members: Sequence[int], operands: Sequence[int]
) -> list[ArrayRef]:
    """The leaves of some operands as they lie on the device `members[device]`."""
    arrays = []
    for number, leaf in _leaves(g, operands):
        place = g.input_number(number, leaf)
        pointer = chosen(k.b, device, [k.sources[member][place].pointer for member in members])
        arrays.append(ArrayRef(k.b, g.input_shape(number, leaf), pointer))
    return arrays


def _in_groups(g: GpuStep, body: Body) -> None:
    """Writes an op on groups; where their sizes differ, once for each size."""
    groups = groups_of(g.instruction)
    sizes = list(dict.fromkeys(map(len, groups)))
    if not any(view.shape.count for view in g.step.outputs):
        return
    if sizes == [1]:
        with g.launch(_grid(g), THREADS) as k:
            own = [k.input_array(number, leaf) for number, leaf, _ in operand_leaves(g.instruction)]
            body(GridContext(k), g.instruction, [own], i64(0))
        return
    for operands in _shown_together(g, len(groups)):
        inputs = sorted({g.input_number(*leaf) for leaf in _leaves(g, operands)})
        with g.meeting(len(groups), inputs), g.launch(_grid(g), THREADS) as k:
            if len(operands) < len(g.instruction.operands):
                k.outputs = [k.outputs[number] for number in operands]
            _in_sizes(g, k, body, groups, sizes, operands)


def _in_sizes(
    g: GpuStep, k: GpuContext, body: Body, groups: Sequence[tuple[int, ...]], sizes: Sequence[int], operands: range
) -> None:
    """Writes an op for the groups of each size."""
    device = _device(k)
    rank = _of_device(k, device, [group.index(number) for number, group in enumerate(groups)])
    count = _of_device(k, device, [len(group) for group in groups])
    for size in sizes:
        with k.b.if_then(k.b.icmp_signed("==", count, i64(size))):
            members = [[group[j] if len(group) == size else 0 for group in groups] for j in range(size)]
            peers = [_operands_of(g, k, device, each, operands) for each in members]
            body(GridContext(k), g.instruction, peers, rank)


@gpu_kernel(*BODIES)
def collective(g: GpuStep, instruction: Instruction) -> None:
    _in_groups(g, BODIES[instruction.opcode])


@gpu_kernel("ragged-all-to-all", in_place=lambda instruction: ((1, 0),))
def ragged_all_to_all(g: GpuStep, instruction: Instruction) -> None:
    """Each element of the output looks which of the members' rows come to it: the last ones stay."""
    g.copy(1, 0)

    def body(k: KernelContext, instruction: Instruction, peers: Peers, rank: Value) -> None:
        b, output = k.b, k.outputs[0]
        updates = instruction.operands[3].shape.count // len(peers)

        def element(index: Index) -> None:
            row = Value("i64", index[0].text)
            for peer in peers:
                with b.for_loop(0, updates, unroll=False) as update:
                    start, size, place = rows_of(k, peer, b.add(b.mul(rank, i64(updates)), update))
                    distance = b.sub(row, place)
                    with b.if_then(b.icmp_unsigned("<", distance, size)):
                        output.store(index, peer[0].load((b.add(start, distance), *index[1:])))

        if updates:
            k.loop_nest(output.shape.dims, element, output.shape.minor_to_major[::-1])

    _in_groups(g, body)


@gpu_kernel("collective-permute", "collective-permute-start", in_place=slices_in_place)
def collective_permute(g: GpuStep, instruction: Instruction) -> None:
    """Targets get their source's operands; other devices get zeros, or keep their output operand."""
    operands, results = sides(instruction)
    slices = instruction.get("slice_sizes")
    for number in operands:
        g.copy(number, number)
    for number, view in enumerate(g.step.outputs):
        if slices and number == results.start:
            g.copy(1, number)
        elif number not in operands:
            g.fill(number, 0, view.shape.byte_size)
    source = {target: origin for origin, target in device_pairs(instruction)}
    if not source:
        return
    count = len(devices_of(instruction))
    _shown_together(g, count)
    with g.meeting(count):
        for part in range(len(slices) if slices else 1):
            _receive(g, source, count, results, part)


def _receive(g: GpuStep, source: dict[int, int], count: int, results: range, part: int) -> None:
    """A launch that writes what comes from a device's source: a slice of it, or all."""
    with g.launch(_grid(g), THREADS) as k:
        device = _device(k)
        is_target = _of_device(k, device, [int(number in source) for number in range(count)])
        members = [source.get(number, number) for number in range(count)]
        arrays = _operands_of(g, k, device, members, range(len(g.instruction.operands)))
        grid = GridContext(k)
        with k.b.if_then(k.b.icmp_signed("!=", is_target, integer("i64", 0))):
            if g.instruction.get("slice_sizes"):
                own = [k.input_array(number, leaf) for number, leaf, _ in operand_leaves(g.instruction)]
                receive_slice(grid, g.instruction, part, arrays, own, k.outputs[results.start])
                return
            for array, number in zip(arrays, results, strict=True):
                grid.copy(array, k.outputs[number])


@gpu_kernel("all-gather-done", "all-reduce-done", "collective-permute-done")
def done(g: GpuStep, instruction: Instruction) -> None:
    """The results that the start op has left."""
    for output, leaf in enumerate(done_leaves(instruction)):
        g.copy(0, output, leaf)
