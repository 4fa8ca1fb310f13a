"""Collectives between threads of one process: each reads the others' operands where they lie.

A device shows the addresses of its operands, waits for the other members of its group, computes its own
results, and waits again, so that nobody's operands change while others read them. Reductions fold the
members' operands in the order of the group on every device: all get the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.codegen.arrays import ArrayRef, Register
from hloc.codegen.kernel import Index, KernelContext, kernel
from hloc.codegen.llvm import Value
from hloc.codegen.rendezvous import Meeting, devices_of, fill, number_at, within
from hloc.codegen.routines import i64
from hloc.errors import HloError
from hloc.ir.instruction import Instruction
from hloc.reference.collectives import check_parts, members_of

Peers = list[list[ArrayRef]]
"""The operands of each member of the group, in order."""

Body = Callable[[KernelContext, Instruction, Peers, Value], None]
"""Writes a device's results from the members' operands and its own place among them."""


def groups_of(instruction: Instruction) -> list[tuple[int, ...]]:
    """The group of each device. HloError if there is no such device, or if the op is made for groups of other sizes."""
    devices = devices_of(instruction)
    groups = [members_of(instruction, device) for device in devices]
    for member in {member: None for group in groups for member in group}:
        if not 0 <= member < len(devices):
            message = (
                f"there is no device {member} among {len(devices)}: replica_count and num_partitions "
                "of the module give their number"
            )
            raise HloError(message, instruction.span)
    for size in dict.fromkeys(map(len, groups)):
        check_parts(instruction, size)
    return groups


def _in_groups(k: KernelContext, instruction: Instruction, body: Body) -> None:
    """Writes an op on groups; where their sizes differ, once for each size."""
    groups = groups_of(instruction)
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


@kernel(
    "all-gather", "all-gather-start", "all-reduce", "all-reduce-start", "all-to-all", "collective-broadcast",
    "collective-reduce", "reduce-scatter",
    fails=True,
)
def collective(k: KernelContext, instruction: Instruction) -> None:
    _in_groups(k, instruction, BODIES[instruction.opcode])


@kernel("ragged-all-to-all", fails=True, in_place=lambda instruction: ((1, 0),))
def ragged_all_to_all(k: KernelContext, instruction: Instruction) -> None:
    """Rows from every member, as many, from where and to where it says; cut at the edges."""

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
    b, data, output = k.b, peer[0], k.outputs[0]
    start, size, place = rows_of(k, peer, entry)
    with b.for_loop(i64(0), size) as row:
        k.loop_nest(
            data.shape.dims[1:],
            lambda index: output.store((b.add(place, row), *index), data.load((b.add(start, row), *index))),
        )


def rows_of(k: KernelContext, peer: list[ArrayRef], entry: Value) -> tuple[Value, Value, Value]:
    """What a member of a ragged-all-to-all says in an entry: where its rows start, how many there are, and where they
    go; within the bounds of both arrays."""
    b = k.b
    rows, places = peer[0].shape.dims[0], k.outputs[0].shape.dims[0]
    start, size, place = (number_at(k, peer[i], entry) for i in (2, 3, 4))
    start, place = within(k, start, rows), within(k, place, places)
    size = within(k, size, min(rows, places))
    for room in (b.sub(i64(rows), start), b.sub(i64(places), place)):
        size = b.select(b.icmp_signed("<", size, room), size, room)
    return start, size, place


# What devices compute from all operands, natively or in kernels of a device of its own


def _shifted(k: KernelContext, index: Index, dimension: int, by: Value) -> Index:
    return (*index[:dimension], k.b.add(index[dimension], by), *index[dimension + 1 :])


def _folded(k: KernelContext, instruction: Instruction, arrays: Sequence[ArrayRef], index: Index) -> Register:
    """The members' elements at an index, folded in the order of the group."""
    total = arrays[0].load(index)
    for array in arrays[1:]:
        (total,) = k.apply(instruction.attributes["to_apply"], [total, array.load(index)])
    return total


def _all_reduce(k: KernelContext, instruction: Instruction, peers: Peers, rank: Value) -> None:
    for i, output in enumerate(k.outputs):
        arrays = [peer[i] for peer in peers]
        fill(k, output, lambda index, arrays=arrays: _folded(k, instruction, arrays, index))


def _reduce_scatter(k: KernelContext, instruction: Instruction, peers: Peers, rank: Value) -> None:
    (dimension,) = instruction.attributes["dimensions"]
    for i, output in enumerate(k.outputs):
        arrays = [peer[i] for peer in peers]
        start = k.b.mul(rank, i64(output.shape.dims[dimension]))

        def element(index: Index, arrays: list[ArrayRef] = arrays, start: Value = start) -> Register:
            return _folded(k, instruction, arrays, _shifted(k, index, dimension, start))

        fill(k, output, element)


def _collective_reduce(k: KernelContext, instruction: Instruction, peers: Peers, rank: Value) -> None:
    """The fold on the root, the own operand elsewhere."""
    is_root = k.b.icmp_signed("==", rank, _root(k, instruction))
    for i, output in enumerate(k.outputs):
        arrays, own = [peer[i] for peer in peers], k.input_array(i)
        k.b.if_else(
            is_root,
            lambda output=output, arrays=arrays: fill(
                k, output, lambda index: _folded(k, instruction, arrays, index)
            ),
            lambda output=output, own=own: k.copy(own, output),
        )


def _root(k: KernelContext, instruction: Instruction) -> Value:
    """The root's place in the group; any number beyond counts as the nearest one."""
    if not instruction.get("has_dynamic_root"):
        return i64(0)
    number = len(instruction.operands) - 1
    root = k.input_array(number).load(tuple(i64(0) for _ in instruction.operands[number].shape.dims))
    wide = k.b.sext(root, "i64")
    least = k.b.select(k.b.icmp_signed("<", wide, i64(0)), i64(0), wide)
    most = max(map(len, groups_of(instruction))) - 1
    return k.b.select(k.b.icmp_signed(">", least, i64(most)), i64(most), least)


def _all_gather(k: KernelContext, instruction: Instruction, peers: Peers, rank: Value) -> None:
    (dimension,) = instruction.attributes["dimensions"]
    started = len(instruction.operands) if instruction.opcode.endswith("-start") else 0
    for i in range(started):
        k.copy(k.input_array(i), k.outputs[i])
    for i, output in enumerate(k.outputs[started:]):
        for j, peer in enumerate(peers):
            _place_part(k, peer[i], output, dimension, j)


def _place_part(k: KernelContext, part: ArrayRef, output: ArrayRef, dimension: int, number: int) -> None:
    """Copies an array to its place among others of its shape, joined along a dimension."""
    start = i64(number * part.shape.dims[dimension])
    order = output.shape.minor_to_major[::-1]
    k.loop_nest(
        part.shape.dims,
        lambda index: output.store(_shifted(k, index, dimension, start), part.load(index)),
        order,
    )


def _all_to_all(k: KernelContext, instruction: Instruction, peers: Peers, rank: Value) -> None:
    dimensions = instruction.get("dimensions")
    if dimensions:
        _exchange_parts(k, dimensions[0], [peer for (peer,) in peers], rank)
        return
    for output, peer in zip(k.outputs, peers, strict=True):
        pointer = peer[0].pointer
        for j, array in enumerate(peer[1:], 1):
            pointer = k.b.select(k.b.icmp_signed("==", rank, i64(j)), array.pointer, pointer)
        k.copy(ArrayRef(k.b, peer[0].shape, pointer), output)


def _exchange_parts(k: KernelContext, dimension: int, peers: list[ArrayRef], rank: Value) -> None:
    """Parts of one operand along a dimension."""
    (output,) = k.outputs
    dims = list(output.shape.dims)
    dims[dimension] //= len(peers)
    taken = k.b.mul(rank, i64(dims[dimension]))
    for j, peer in enumerate(peers):
        start = i64(j * dims[dimension])
        k.loop_nest(
            dims,
            lambda index, peer=peer, start=start: output.store(
                _shifted(k, index, dimension, start), peer.load(_shifted(k, index, dimension, taken))
            ),
            output.shape.minor_to_major[::-1],
        )


def _collective_broadcast(k: KernelContext, instruction: Instruction, peers: Peers, rank: Value) -> None:
    root = _root(k, instruction)
    for i, output in enumerate(k.outputs):
        pointer = peers[0][i].pointer
        for j, peer in enumerate(peers[1:], 1):
            pointer = k.b.select(k.b.icmp_signed("==", root, i64(j)), peer[i].pointer, pointer)
        k.copy(ArrayRef(k.b, peers[0][i].shape, pointer), output)


BODIES: dict[str, Body] = {
    "all-gather": _all_gather,
    "all-gather-start": _all_gather,
    "all-reduce": _all_reduce,
    "all-reduce-start": _all_reduce,
    "all-to-all": _all_to_all,
    "collective-broadcast": _collective_broadcast,
    "collective-reduce": _collective_reduce,
    "reduce-scatter": _reduce_scatter,
}
"""Opcode -> body. No two iterations of its loop nests write the same place."""


# The ends of asynchronous pairs


@kernel("all-gather-done", "all-reduce-done", "collective-permute-done")
def done(k: KernelContext, instruction: Instruction) -> None:
    """The results that the start op has left."""
    for leaf, output in zip(done_leaves(instruction), k.outputs, strict=True):
        k.copy(k.input_array(0, leaf), output)


def done_leaves(instruction: Instruction) -> list[tuple[int, ...]]:
    """Where the results are among what the start op has left."""
    prefix = () if instruction.opcode == "all-reduce-done" else (1,)
    return [(*prefix, *leaf) for leaf, shape in instruction.shape.leaves() if shape.is_array]
