"""How the devices of one run, threads of one process, meet in a kernel: the communicator, and the waiting.

The communicator is an array of 8-byte words that all devices of a run share, zero at the start:

    0                  status: 0, or a key of `program.ERRORS` once a device has failed
    1                  patience: how many sleeps a device waits for another before it gives up
    2 ..               a word a device: the address of what it shows to the others, pointers to its operands
    2 + devices ..     devices x devices words: how often device d (row) has come to meet device m (column)

Two devices meet for the n-th time when both of their counts for each other are n. As all devices run the same
program, any two come to the meetings that they have in common in the same order, whatever others do: these
counts serve all ops and groups. A group meets when its members have met pairwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np

from hloc.codegen.arrays import ArrayRef, Register
from hloc.codegen.graphs import operand_leaves
from hloc.codegen.kernel import Index, KernelContext
from hloc.codegen.llvm import Builder, Function, Value, integer
from hloc.codegen.program import CONTEXT_FIELDS, DEVICE_LATE
from hloc.codegen.routines import PLAIN, Routines, i64
from hloc.ir.instruction import Instruction
from hloc.reference.context import Device

_STATUS, _PATIENCE, _SHOWN = 0, 1, 2

_SPINS = 200
"""Looks without a pause."""

_YIELDS = 5000
"""Looks after which the processor is left to others in between; then come sleeps."""

_SLEEP_MICROSECONDS = 200

_PATIENCE_BY_DEFAULT = 300_000
"""Sleeps: a minute at least."""


def _word(b: Builder, communicator: Value, index: Value | int) -> Value:
    """The address of a word of the communicator."""
    return b.gep("i64", communicator, i64(index) if isinstance(index, int) else index)


def _wait_routine(routines: Routines) -> Function:
    """`i32 wait(communicator, count, wanted)`: until a count has come to what is wanted; the run's status.

    Who has waited too long sets that status, unless somebody else has.
    """

    def write(b: Builder, p: SimpleNamespace) -> Value:
        status = _word(b, p.communicator, _STATUS)
        given = b.load("i64", _word(b, p.communicator, _PATIENCE))
        patience = b.select(b.icmp_signed("==", given, i64(0)), i64(_PATIENCE_BY_DEFAULT), given)

        def waits(carried: list[Value]) -> Value:
            come = b.icmp_signed(">=", b.load_atomic("i64", p.count), p.wanted)
            return b.and_(b.not_(come), b.icmp_signed("==", b.load_atomic("i64", status), i64(0)))

        def look(carried: list[Value]) -> list[Value]:
            _pause(b, carried[0])
            with b.if_then(b.icmp_signed(">", b.sub(carried[0], i64(_YIELDS)), patience)):
                b.cmpxchg(status, i64(0), i64(DEVICE_LATE))
            return [b.add(carried[0], i64(1))]

        b.while_loop([i64(0)], waits, look, "wait")
        return b.trunc(b.load_atomic("i64", status), "i32")

    return routines.get("hloc.wait", "ptr communicator, ptr count, i64 wanted", write, "i32", PLAIN)


def _pause(b: Builder, looks: Value) -> None:
    """Between two looks: nothing at first, then a yield, then a sleep."""

    def give_way() -> None:
        b.call(b.module.declare("sched_yield", "i32", []), [])

    def sleep() -> None:
        b.call(b.module.declare("usleep", "i32", ["i32"]), [integer("i32", _SLEEP_MICROSECONDS)])

    with b.if_then(b.icmp_signed(">", looks, i64(_SPINS))):
        b.if_else(b.icmp_signed("<", looks, i64(_YIELDS)), give_way, sleep)


def _meet_routine(routines: Routines, devices: int) -> Function:
    """`i32 meet(communicator, device, members, number)`: until all members have come to this meeting.

    `members` is an array of i64 device numbers, the device itself among them or not. 0, or the status of a
    run that has failed.
    """

    def count(b: Builder, p: SimpleNamespace, row: Value, column: Value) -> Value:
        place = b.add(b.mul(row, i64(devices)), column)
        return _word(b, p.communicator, b.add(place, i64(_SHOWN + devices)))

    def write(b: Builder, p: SimpleNamespace) -> Value:
        wait = _wait_routine(routines)

        def member(i: Value) -> Value:
            return b.load("i64", b.gep("i64", p.members, i))

        with b.for_loop(i64(0), p.number, unroll=False) as i:
            mine = count(b, p, p.device, member(i))
            b.store_atomic(b.add(b.load("i64", mine), i64(1)), mine)

        def next_member(i: Value, carried: list[Value]) -> list[Value]:
            other = member(i)
            wanted = b.load("i64", count(b, p, p.device, other))
            status = b.call(wait, [p.communicator, count(b, p, other, p.device), wanted])
            return [b.or_(carried[0], status)]

        (status,) = b.for_loop_carrying(i64(0), p.number, [integer("i32", 0)], next_member, unroll=False)
        return status

    params = "ptr communicator, i64 device, ptr members, i64 number"
    return routines.get(f"hloc.meet.{devices}", params, write, "i32", PLAIN)


class Meeting:
    """A kernel in which devices meet; `members[d]` are those that device d waits for, in order.

    While all are there, `operands_of` gives the arrays that a member brought.
    """

    def __init__(self, k: KernelContext, members: Sequence[Sequence[int]]):
        self.k, self.b, self.members = k, k.b, [tuple(each) for each in members]
        self.arrays = [k.input_array(number, leaf) for number, leaf, _ in operand_leaves(k.instruction)]
        self.device = k.b.load("i64", self._field("device"))
        self.communicator = k.b.load("ptr", self._field("communicator"))
        most = max(map(len, self.members))
        self.row = self._table([(*each, *[0] * (most - len(each))) for each in self.members])
        self.number = self.of_device([len(each) for each in self.members])

    def _field(self, name: str) -> Value:
        return self.b.gep("i64", self.k.context, i64(CONTEXT_FIELDS.index(name)))

    def _table(self, rows: Sequence[Sequence[int]]) -> Value:
        """The address of this device's row in a table of constants."""
        table = self.b.module.constant_bytes(np.array(rows, "<i8").tobytes() or bytes(8), align=8)
        return self.b.gep("i64", table, self.b.mul(self.device, i64(len(rows[0]))))

    def of_device(self, numbers: Sequence[int]) -> Value:
        """This device's number among one for each device."""
        if len(set(numbers)) == 1:
            return i64(numbers[0])
        return self.b.load("i64", self._table([(number,) for number in numbers]))

    def member(self, position: int) -> Value:
        """The device at a position of this device's members."""
        return self.b.load("i64", self.b.gep("i64", self.row, i64(position)))

    def _shown(self, device: Value) -> Value:
        return _word(self.b, self.communicator, self.b.add(device, i64(_SHOWN)))

    def operands_of(self, device: Value) -> list[ArrayRef]:
        """The arrays that a member, or this device itself, has brought, leaf by leaf."""
        b = self.b
        shown = b.load("ptr", self._shown(device))
        pointers = [b.load("ptr", b.gep("ptr", shown, i64(i))) for i in range(len(self.arrays))]
        return [
            ArrayRef(b, array.shape, pointer) for array, pointer in zip(self.arrays, pointers, strict=True)
        ]

    def run(self, body: Callable[[], object]) -> None:
        """Writes the meeting, with `body` while all are there; sets the kernel's status."""
        b = self.b
        pointers = b.alloca("ptr", max(len(self.arrays), 1))
        for i, array in enumerate(self.arrays):
            b.store(array.pointer, b.gep("ptr", pointers, i64(i)))
        b.store(pointers, self._shown(self.device))
        meet = _meet_routine(Routines(b.module, self.k.target), len(self.members))
        arguments = [self.communicator, self.device, self.row, self.number]

        def together() -> Value:
            body()
            return b.call(meet, arguments)

        status = b.call(meet, arguments)
        self.k.status = b.if_else(b.icmp_signed("==", status, integer("i32", 0)), together, lambda: status)


# What several collectives need


def devices_of(instruction: Instruction) -> list[Device]:
    """The devices that an instruction's module runs on, in order of their numbers."""
    module = instruction.computation.module
    replicas, partitions = module.replica_count, module.num_partitions
    return [Device(*divmod(d, partitions), replicas, partitions) for d in range(replicas * partitions)]


def fill(k: KernelContext, output: ArrayRef, element: Callable[[Index], Register]) -> None:
    """Stores element(index) at every index of a result."""
    order = output.shape.minor_to_major[::-1]
    k.loop_nest(output.shape.dims, lambda index: output.store(index, element(index)), order)


def number_at(k: KernelContext, array: ArrayRef, entry: Value) -> Value:
    """An element of an array of integers, counted through in row-major order, as an i64."""
    index, left = [], entry
    for size in reversed(array.shape.dims):
        index.insert(0, k.b.urem(left, i64(max(size, 1))))
        left = k.b.udiv(left, i64(max(size, 1)))
    value = array.load(tuple(index))
    return k.b.zext(value, "i64") if array.shape.dtype.is_unsigned else k.b.sext(value, "i64")


def within(k: KernelContext, value: Value, most: int) -> Value:
    """A number within 0 .. most."""
    least = k.b.select(k.b.icmp_signed("<", value, i64(0)), i64(0), value)
    return k.b.select(k.b.icmp_signed(">", least, i64(most)), i64(most), least)
