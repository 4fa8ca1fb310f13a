"""Collectives between devices that are threads of one process: each reads the others' operands where they
lie.

A device shows the addresses of its operands, waits for the other members of its group, computes its own
results, and waits again, so that nobody's operands change while others read them. Reductions fold the
members' operands in the order of the group on every device: all get the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.codegen import scalar
from hloc.codegen.arrays import ArrayRef, Register
from hloc.codegen.kernel import Index, KernelContext, kernel
from hloc.codegen.llvm import Value
from hloc.codegen.rendezvous import Meeting, array_leaves
from hloc.codegen.routines import i64
from hloc.ir.instruction import Instruction
from hloc.reference.collectives import expand, group_mode, members_of
from hloc.reference.context import Device

Peers = list[list[ArrayRef]]
"""The operands of each member of the group, in order."""

Body = Callable[[KernelContext, Instruction, Peers, Value], None]
"""Writes a device's results from the members' operands and its own place among them."""


def _devices(instruction: Instruction) -> list[Device]:
    module = instruction.computation.module
    replicas, partitions = module.replica_count, module.num_partitions
    return [Device(*divmod(d, partitions), replicas, partitions) for d in range(replicas * partitions)]


def _groups(k: KernelContext, instruction: Instruction) -> list[tuple[int, ...]]:
    """The group of each device."""
    devices = _devices(instruction)
    groups = [members_of(instruction, device) for device in devices]
    for member in {member: None for group in groups for member in group}:
        if not 0 <= member < len(devices):
            raise k.error(
                f"there is no device {member} among {len(devices)}: replica_count and num_partitions "
                "of the module give their number"
            )
    return groups


def _in_groups(k: KernelContext, instruction: Instruction, body: Body) -> None:
    """Writes an op on groups; where their sizes differ, once for each size."""
    groups = _groups(k, instruction)
    sizes = list(dict.fromkeys(map(len, groups)))
    if sizes == [1]:
        body(k, instruction, [[k.input_array(i) for i in range(len(instruction.operands))]], i64(0))
        return
    meeting = Meeting(k, groups)
    rank = meeting.of_device([group.index(device) for device, group in enumerate(groups)])

    def of_size(size: int) -> None:
        body(k, instruction, [meeting.operands_of(meeting.member(j)) for j in range(size)], rank)

    def together() -> None:
        if len(sizes) == 1:
            of_size(sizes[0])
            return
        for size in sizes:
            with k.b.if_then(k.b.icmp_signed("==", meeting.number, i64(size))):
                of_size(size)

    meeting.run(together)


def _fill(k: KernelContext, output: ArrayRef, element: Callable[[Index], Register]) -> None:
    """Stores element(index) at every index of a result."""
    order = output.shape.minor_to_major[::-1]
    k.loop_nest(output.shape.dims, lambda index: output.store(index, element(index)), order)


def _shifted(k: KernelContext, index: Index, dimension: int, by: Value) -> Index:
    return (*index[:dimension], k.b.add(index[dimension], by), *index[dimension + 1 :])


def _folded(k: KernelContext, instruction: Instruction, arrays: Sequence[ArrayRef], index: Index) -> Register:
    """The members' elements at an index, folded in the order of the group."""
    total = arrays[0].load(index)
    for array in arrays[1:]:
        (total,) = k.apply(instruction.attributes["to_apply"], [total, array.load(index)])
    return total


# Reductions


@kernel("all-reduce", "all-reduce-start", fails=True)
def all_reduce(k: KernelContext, instruction: Instruction) -> None:
    def body(k: KernelContext, instruction: Instruction, peers: Peers, rank: Value) -> None:
        for i, output in enumerate(k.outputs):
            arrays = [peer[i] for peer in peers]
            _fill(k, output, lambda index, arrays=arrays: _folded(k, instruction, arrays, index))

    _in_groups(k, instruction, body)


@kernel("reduce-scatter", fails=True)
def reduce_scatter(k: KernelContext, instruction: Instruction) -> None:
    (dimension,) = instruction.attributes["dimensions"]

    def body(k: KernelContext, instruction: Instruction, peers: Peers, rank: Value) -> None:
        for i, output in enumerate(k.outputs):
            arrays = [peer[i] for peer in peers]
            start = k.b.mul(rank, i64(output.shape.dims[dimension]))
            _fill(
                k,
                output,
                lambda index, arrays=arrays, start=start: _folded(
                    k, instruction, arrays, _shifted(k, index, dimension, start)
                ),
            )

    _in_groups(k, instruction, body)


@kernel("collective-reduce", fails=True)
def collective_reduce(k: KernelContext, instruction: Instruction) -> None:
    """The fold on the root, the own operand elsewhere."""

    def body(k: KernelContext, instruction: Instruction, peers: Peers, rank: Value) -> None:
        is_root = k.b.icmp_signed("==", rank, _root(k, instruction))
        for i, output in enumerate(k.outputs):
            arrays, own = [peer[i] for peer in peers], k.input_array(i)
            k.b.if_else(
                is_root,
                lambda output=output, arrays=arrays: _fill(
                    k, output, lambda index: _folded(k, instruction, arrays, index)
                ),
                lambda output=output, own=own: k.copy(own, output),
            )

    _in_groups(k, instruction, body)


def _root(k: KernelContext, instruction: Instruction) -> Value:
    """The root's place in the group; any number beyond counts as the nearest one."""
    if not instruction.get("has_dynamic_root"):
        return i64(0)
    number = len(instruction.operands) - 1
    root = k.input_array(number).load(tuple(i64(0) for _ in instruction.operands[number].shape.dims))
    wide = k.b.sext(root, "i64")
    least = k.b.select(k.b.icmp_signed("<", wide, i64(0)), i64(0), wide)
    most = max(map(len, _groups(k, instruction))) - 1
    return k.b.select(k.b.icmp_signed(">", least, i64(most)), i64(most), least)


# Movement


@kernel("all-gather", "all-gather-start", fails=True)
def all_gather(k: KernelContext, instruction: Instruction) -> None:
    (dimension,) = instruction.attributes["dimensions"]
    started = len(instruction.operands) if instruction.opcode.endswith("-start") else 0

    def body(k: KernelContext, instruction: Instruction, peers: Peers, rank: Value) -> None:
        for i in range(started):
            k.copy(k.input_array(i), k.outputs[i])
        for i, output in enumerate(k.outputs[started:]):
            for j, peer in enumerate(peers):
                _place_part(k, peer[i], output, dimension, j)

    _in_groups(k, instruction, body)


def _place_part(k: KernelContext, part: ArrayRef, output: ArrayRef, dimension: int, number: int) -> None:
    """Copies an array to its place among others of its shape, joined along a dimension."""
    start = i64(number * part.shape.dims[dimension])
    order = output.shape.minor_to_major[::-1]
    k.loop_nest(
        part.shape.dims,
        lambda index: output.store(_shifted(k, index, dimension, start), part.load(index)),
        order,
    )


@kernel("all-to-all", fails=True)
def all_to_all(k: KernelContext, instruction: Instruction) -> None:
    dimensions = instruction.get("dimensions")

    def of_parts(k: KernelContext, instruction: Instruction, peers: Peers, rank: Value) -> None:
        dimension = dimensions[0]
        (output,) = k.outputs
        dims = list(output.shape.dims)
        dims[dimension] //= len(peers)
        taken = k.b.mul(rank, i64(dims[dimension]))
        for j, (peer,) in enumerate(peers):
            start = i64(j * dims[dimension])
            k.loop_nest(
                dims,
                lambda index, peer=peer, start=start: output.store(
                    _shifted(k, index, dimension, start), peer.load(_shifted(k, index, dimension, taken))
                ),
                output.shape.minor_to_major[::-1],
            )

    def of_operands(k: KernelContext, instruction: Instruction, peers: Peers, rank: Value) -> None:
        if len(k.outputs) != len(peers):
            raise k.error(f"all-to-all of {len(k.outputs)} operands in a group of {len(peers)}")
        for output, peer in zip(k.outputs, peers, strict=True):
            pointer = peer[0].pointer
            for j, array in enumerate(peer[1:], 1):
                pointer = k.b.select(k.b.icmp_signed("==", rank, i64(j)), array.pointer, pointer)
            k.copy(ArrayRef(k.b, peer[0].shape, pointer), output)

    _in_groups(k, instruction, of_parts if dimensions else of_operands)


@kernel("collective-broadcast", fails=True)
def collective_broadcast(k: KernelContext, instruction: Instruction) -> None:
    def body(k: KernelContext, instruction: Instruction, peers: Peers, rank: Value) -> None:
        root = _root(k, instruction)
        for i, output in enumerate(k.outputs):
            pointer = peers[0][i].pointer
            for j, peer in enumerate(peers[1:], 1):
                pointer = k.b.select(k.b.icmp_signed("==", root, i64(j)), peer[i].pointer, pointer)
            k.copy(ArrayRef(k.b, peers[0][i].shape, pointer), output)

    _in_groups(k, instruction, body)


@kernel("ragged-all-to-all", fails=True, in_place=lambda instruction: ((1, 0),))
def ragged_all_to_all(k: KernelContext, instruction: Instruction) -> None:
    """Rows from every member, as many and from where it says, to where it says; what is out of range is cut.
    """

    def body(k: KernelContext, instruction: Instruction, peers: Peers, rank: Value) -> None:
        if not k.is_in_place(1, 0):
            k.copy(k.input_array(1), k.outputs[0])
        updates = instruction.operands[3].shape.count // len(peers)
        for peer in peers:
            with k.b.for_loop(0, updates) as update:
                entry = k.b.add(k.b.mul(rank, i64(updates)), update)
                _take_rows(k, peer, entry)

    _in_groups(k, instruction, body)


def _take_rows(k: KernelContext, peer: list[ArrayRef], entry: Value) -> None:
    b = k.b
    data, output = peer[0], k.outputs[0]
    rows, places = data.shape.dims[0], output.shape.dims[0]
    start, size, place = (_number(k, peer[i], entry) for i in (2, 3, 4))
    start, place = _within(k, start, rows), _within(k, place, places)
    size = _within(k, size, min(rows, places))
    for room in (b.sub(i64(rows), start), b.sub(i64(places), place)):
        size = b.select(b.icmp_signed("<", size, room), size, room)
    with b.for_loop(i64(0), size) as row:
        k.loop_nest(
            data.shape.dims[1:],
            lambda index: output.store((b.add(place, row), *index), data.load((b.add(start, row), *index))),
        )


def _number(k: KernelContext, array: ArrayRef, entry: Value) -> Value:
    """An element of an array of integers, counted through in row-major order, as an i64."""
    index, left = [], entry
    for size in reversed(array.shape.dims):
        index.insert(0, k.b.urem(left, i64(max(size, 1))))
        left = k.b.udiv(left, i64(max(size, 1)))
    value = array.load(tuple(index))
    return k.b.zext(value, "i64") if array.shape.dtype.is_unsigned else k.b.sext(value, "i64")


def _within(k: KernelContext, value: Value, most: int) -> Value:
    """A number within 0 .. most."""
    least = k.b.select(k.b.icmp_signed("<", value, i64(0)), i64(0), value)
    return k.b.select(k.b.icmp_signed(">", least, i64(most)), i64(most), least)


# Permutations


def _pairs(k: KernelContext, instruction: Instruction) -> list[tuple[int, int]]:
    """(source, target) device numbers."""
    pairs: dict[tuple[int, int], None] = {}
    for device in _devices(instruction):
        group = expand(None, group_mode(instruction), device)
        for pair in instruction.attributes["source_target_pairs"]:
            if any(not 0 <= i < len(group) for i in pair):
                raise k.error(f"source_target_pairs name a device beyond the {len(group)} that there are")
            pairs[group[pair[0]], group[pair[1]]] = None
    return list(pairs)


def _sides(instruction: Instruction) -> tuple[range, range]:
    """Numbers of the outputs that are operands again (of a start op), and of those that are results."""
    if not instruction.opcode.endswith("-start"):
        return range(0), range(len(list(instruction.shape.leaves())))
    operands, results = (len(list(element.leaves())) for element in instruction.shape.elements[:2])
    return range(operands), range(operands, operands + results)


def _slices_in_place(instruction: Instruction) -> tuple[tuple[int, int], ...]:
    return ((1, _sides(instruction)[1].start),) if instruction.get("slice_sizes") else ()


@kernel("collective-permute", "collective-permute-start", fails=True, in_place=_slices_in_place)
def collective_permute(k: KernelContext, instruction: Instruction) -> None:
    """Targets get their source's operands; a device that is no target gets zeros, or keeps its output
    operand.
    """
    pairs = _pairs(k, instruction)
    source = {target: origin for origin, target in pairs}
    _before_permute(k, instruction)
    results = [k.outputs[i] for i in _sides(instruction)[1]]

    def receive(arrays: list[ArrayRef], own: list[ArrayRef]) -> None:
        if instruction.get("slice_sizes"):
            _receive_slices(k, instruction, arrays, own, results[0])
            return
        for array, output in zip(arrays, results):
            k.copy(array, output)

    count = len(_devices(instruction))
    if count == 1:
        if source:
            own = [k.input_array(number, leaf) for number, leaf, _ in array_leaves(instruction)]
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
    """What a device has that receives nothing: its output operand, or zeros; and a start op's other outputs.
    """
    operands, results = _sides(instruction)
    for i in operands:
        k.copy(k.input_array(i), k.outputs[i])
    slices = instruction.get("slice_sizes")
    for i, output in enumerate(k.outputs):
        if slices and i == results.start:
            if not k.is_in_place(1, i):
                k.copy(k.input_array(1), output)
        elif i not in operands:
            _fill(k, output, lambda index, output=output: scalar.zero(output.shape.dtype))


def _receive_slices(
    k: KernelContext, instruction: Instruction, arrays: list[ArrayRef], own: list[ArrayRef], output: ArrayRef
) -> None:
    """Slices of the source's input at its offsets, to places at this device's offsets; starts are clamped."""
    slices = instruction.get("slice_sizes")
    numbers = [number for number, _, _ in array_leaves(instruction)]
    data = arrays[0]
    for row, sizes in enumerate(slices):
        starts, places = (
            [
                _within(k, start, whole - size)
                for start, size, whole in zip(
                    _offsets(
                        k,
                        [a for a, n in zip(given, numbers, strict=True) if n == number],
                        row,
                        len(slices),
                        sizes,
                    ),
                    sizes,
                    shape.dims,
                    strict=True,
                )
            ]
            for given, number, shape in ((arrays, 2, data.shape), (own, 3, output.shape))
        )
        k.loop_nest(
            sizes,
            lambda index, starts=starts, places=places: output.store(
                tuple(map(k.b.add, places, index)), data.load(tuple(map(k.b.add, starts, index)))
            ),
        )


def _offsets(
    k: KernelContext, leaves: list[ArrayRef], row: int, rows: int, sizes: Sequence[int]
) -> list[Value]:
    """Offsets of a slice, from one array of them or from scalars; all slices share them if there is one set.
    """
    rank = len(sizes)
    given = sum(leaf.shape.count for leaf in leaves)
    first = row * rank if given >= rows * rank else 0
    if len(leaves) == 1:
        return [_number(k, leaves[0], i64(first + d)) for d in range(rank)]
    return [_number(k, leaf, i64(0)) for leaf in leaves[first : first + rank]]


# The ends of asynchronous pairs


@kernel("all-gather-done", "all-reduce-done", "collective-permute-done")
def done(k: KernelContext, instruction: Instruction) -> None:
    """The results that the start op has left."""
    prefix = () if instruction.opcode == "all-reduce-done" else (1,)
    leaves = [leaf for leaf, shape in instruction.shape.leaves() if shape.is_array]
    for leaf, output in zip(leaves, k.outputs, strict=True):
        k.copy(k.input_array(0, (*prefix, *leaf)), output)
