"""Recipes: what differs from device to device, and communication among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hloc.ir import dtypes
from hloc.ir.attributes import ReplicaGroups
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.ir.opcodes import OPS
from hloc.ir.shapes import ArrayShape, TupleShape
from tools.fuzz import elementwise
from tools.fuzz.folds import known
from tools.fuzz.maker import Maker
from tools.fuzz.values import ANY, NUMBERS

COUNTS = ((2, 1), (3, 1), (4, 1), (1, 2), (1, 4), (2, 2))


@dataclass
class Groups:
    """Who takes part together: attributes, and how many devices each group has (0: not all the same)."""

    attributes: dict
    size: int


def groups(m: Maker, opcode: str, uneven: bool = False) -> Groups:
    """Groups in one of the modes that the op has."""
    replicas, partitions = m.devices
    flag = "use_global_device_ids" in OPS[opcode].attributes
    mode = m.draw.choice(("replica", "both" if flag else "partition", *(("global",) if flag else ())))
    count = {"replica": replicas, "both": replicas, "partition": partitions}.get(mode, replicas * partitions)
    attributes: dict = {} if mode == "replica" else {"channel_id": m.channel()}
    if mode == "global":
        attributes["use_global_device_ids"] = True
    listed, size = _split(m, count, uneven)
    if mode == "global" or m.draw.chance(0.7):
        attributes["replica_groups"] = ReplicaGroups(listed)
    else:
        size = count
    return Groups(attributes, size * (partitions if mode == "both" else 1))


def _split(m: Maker, count: int, uneven: bool) -> tuple[tuple[tuple[int, ...], ...], int]:
    """All ids in groups, and the size of each or 0."""
    ids = m.draw.shuffled(range(count))
    if uneven and m.draw.chance(0.3):
        cut = m.draw.integer(1, count)
        return tuple(tuple(part) for part in (ids[:cut], ids[cut:]) if part), 0
    size = m.draw.choice([d for d in range(1, count + 1) if count % d == 0])
    return tuple(tuple(ids[i : i + size]) for i in range(0, count, size)), size


def number(m: Maker) -> Instruction:
    return m.b.op(m.draw.choice(("replica-id", "partition-id")))


def own(m: Maker, operand: Instruction | None = None) -> Instruction:
    """An array that is another one on each device."""
    operand = operand or m.operand(ANY)
    replica, partition = m.b.op("replica-id"), m.b.op("partition-id")
    device = m.b.add(m.b.op("multiply", replica, m.b.constant(3, dtypes.U32)), partition)
    if operand.shape.dtype is dtypes.PRED:
        odd = m.b.compare(m.b.op("and", device, m.b.constant(1, dtypes.U32)), m.b.constant(1, dtypes.U32), "EQ")
        return m.b.op("xor", operand, m.b.broadcast(odd, operand.shape.dims))
    shift = m.b.convert(device, operand.shape.dtype)
    return m.b.add(operand, m.b.broadcast(shift, operand.shape.dims))


def _operand(m: Maker, allowed: Sequence[DType] = ANY, least: int = 0) -> Instruction:
    operand = m.operand(allowed, least, 4)
    return own(m, operand) if m.draw.chance(0.8) else operand


def _sized(m: Maker, group: Groups, allowed: Sequence[DType] = ANY) -> tuple[Instruction, int]:
    """An operand and a dimension of it that a group can share."""
    dims = list(m.draw.dims(1, 3))
    along = m.draw.integer(0, len(dims) - 1)
    dims[along] = group.size * m.draw.integer(0 if m.draw.chance(0.1) else 1, 3)
    return own(m, m.value(m.draw.dtype(allowed), tuple(dims))), along


def all_reduce(m: Maker) -> Instruction:
    first = _operand(m, NUMBERS + (dtypes.PRED,))
    operands = [first]
    if m.draw.chance(0.25):
        operands.append(own(m, m.value(first.shape.dtype, m.draw.dims())))
    group = groups(m, "all-reduce", uneven=True)
    body = known(m, first.shape.dtype)[1]
    if m.draw.chance(0.3):
        start = m.b.op("all-reduce-start", *operands, **group.attributes, to_apply=body)
        return m.b.op("all-reduce-done", start)
    return m.b.op("all-reduce", *operands, **group.attributes, to_apply=body)


def reduce_scatter(m: Maker) -> Instruction:
    group = groups(m, "reduce-scatter")
    operand, along = _sized(m, group, NUMBERS + (dtypes.PRED,))
    shape = _scaled(operand.shape, along, 1, group.size)
    body = known(m, operand.shape.dtype)[1]
    return m.b.op(
        "reduce-scatter", operand, shape=shape, **group.attributes, dimensions=(along,), to_apply=body
    )


def _scaled(shape: ArrayShape, along: int, up: int, down: int = 1) -> ArrayShape:
    dims = tuple(size * up // down if d == along else size for d, size in enumerate(shape.dims))
    return ArrayShape(shape.dtype, dims)


def all_gather(m: Maker) -> Instruction:
    operand = _operand(m, least=1)
    along = m.draw.integer(0, operand.shape.rank - 1)
    group = groups(m, "all-gather")
    attributes = {**group.attributes, "dimensions": (along,)}
    shape = _scaled(operand.shape, along, group.size)
    if m.draw.chance(0.3):
        both = TupleShape((operand.shape, shape.with_default_layout()))
        return m.b.op("all-gather-done", m.b.op("all-gather-start", operand, shape=both, **attributes))
    return m.b.op("all-gather", operand, shape=shape, **attributes)


def all_to_all(m: Maker) -> Instruction:
    group = groups(m, "all-to-all")
    if m.draw.chance(0.6):
        operand, along = _sized(m, group)
        return m.b.op("all-to-all", operand, shape=operand.shape, **group.attributes, dimensions=(along,))
    first = _operand(m)
    rest = [m.value(first.shape.dtype, first.shape.dims) for _ in range(group.size - 1)]
    operands = [first, *(own(m, value) for value in rest)]
    shape = TupleShape(tuple(o.shape for o in operands))
    return m.b.op("all-to-all", *operands, shape=shape, **group.attributes)


def permute(m: Maker, operand: Instruction | None = None) -> Instruction:
    """From some devices to some, each at most once."""
    operand = operand or _operand(m)
    replicas, partitions = m.devices
    attributes: dict = {"channel_id": m.channel()} if m.draw.chance(0.5) else {}
    count = partitions if attributes else replicas
    many = m.draw.integer(0 if m.draw.chance(0.1) else 1, count)
    pairs = zip(m.draw.sample(range(count), many), m.draw.sample(range(count), many), strict=True)
    attributes["source_target_pairs"] = tuple(pairs)
    if m.draw.chance(0.3):
        both = TupleShape((operand.shape, operand.shape))
        start = m.b.op("collective-permute-start", operand, shape=both, **attributes)
        return m.b.op("collective-permute-done", start)
    return m.b.op("collective-permute", operand, **attributes)


def broadcast(m: Maker) -> Instruction:
    m.portable = False
    return m.b.op("collective-broadcast", _operand(m), **groups(m, "collective-broadcast").attributes)


def ragged_all_to_all(m: Maker) -> Instruction:
    """Every device sends as many rows to each; they land by the sender's number."""
    m.portable = False
    replicas, rows = m.devices[0], m.draw.integer(0, 3)
    dtype, rest = m.draw.dtype(), m.draw.dims(0, 2)
    given = own(m, m.value(dtype, (replicas * rows + m.draw.integer(0, 2), *rest)))
    target = m.value(dtype, (replicas * rows + m.draw.integer(0, 3), *rest))
    starts = m.b.constant([m.draw.integer(0, given.shape.dims[0] - rows) for _ in range(replicas)], dtypes.S32)
    sizes = m.b.constant([rows] * replicas, dtypes.S32)
    place = m.b.op("multiply", m.b.convert(m.b.op("replica-id"), dtypes.S32), m.s32(rows))
    places = m.b.broadcast(place, (replicas,))
    return m.b.op("ragged-all-to-all", given, target, starts, sizes, places, sizes)


def loop(m: Maker) -> Instruction:
    """Communication in each of some trips, as many on all devices."""
    operand = _operand(m)
    state = m.b.tuple(m.s32(0), operand)
    trips = m.draw.integer(0, 3)

    def body(p: list[Instruction]) -> Instruction:
        here = m.b.get_tuple_element(p[0], 1)
        m.pool[:] = [here]
        moved = permute(m, here)
        m.pool.append(moved)
        if m.draw.chance(0.5):
            moved = elementwise.select(m)
        fits = moved.shape.compatible(operand.shape)
        return m.b.tuple(m.b.add(m.b.get_tuple_element(p[0], 0), m.s32(1)), moved if fits else here)

    condition = m.computation(
        "condition",
        [state.shape],
        lambda p: m.b.compare(m.b.get_tuple_element(p[0], 0), m.s32(trips), "LT"),
    )
    looped = m.b.op(
        "while", state, condition=condition, body=m.computation("body", [state.shape], body)
    )
    return m.b.get_tuple_element(looped, 1)


RECIPES = {
    number: 1, own: 4, all_reduce: 4, reduce_scatter: 2, all_gather: 2, all_to_all: 2, permute: 3,
    broadcast: 1, ragged_all_to_all: 0.5, loop: 1,
}  # fmt: skip
