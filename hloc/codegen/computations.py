"""Computations that are called, as LLVM functions: kernels in order, and control flow between them.

Every such function has the signature of the program's entry (see program.py): it reads its arguments' leaves
through `args`, leaves its results in the memory that `results` points to, and has its temporaries at fixed
offsets of `arena`. A caller gives it a piece of its own arena.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hloc.codegen import scalar
from hloc.codegen.arena import aligned
from hloc.codegen.bodies import immediate
from hloc.codegen.buffers import ARENA, LONG, RESULT, STACK, Buffers, Place, assign
from hloc.codegen.guarded_arena import GuardedArena, rooms
from hloc.codegen.kernel_code import KernelCode, function_attributes, is_short
from hloc.codegen.kernel_steps import KernelStep
from hloc.codegen.llvm import Builder, Function, Value, integer
from hloc.codegen.memory_plan import memory_plan
from hloc.codegen.program import MemoryPlan, aligned_copy
from hloc.codegen.schedule import Schedule
from hloc.codegen.shared_copies import copying_threads, shared_copy
from hloc.codegen.values import CONSTANT, SMALL_BYTES, CallStep, Step, View
from hloc.ir.computation import Computation
from hloc.ir.dtypes import PRED
from hloc.ir.shapes import ArrayShape, array
from hloc.records import NamedTuple, record

PARAMETERS = [("ptr", name) for name in ("args", "results", "arena", "constants", "context")]
"""Of every function that stands for a computation; each returns an i32, 0 if all went well."""


_MOST_NESTED = 8
"""LLVM may put that many functions into each other: what it does then takes more than linear time."""

_PART = 200
"""Steps of a function that is part of a long computation."""


class Variant(NamedTuple):
    """A computation with given result layouts; `slots` says which argument lies in which result's memory."""

    computation: Computation
    results: tuple[ArrayShape, ...]
    slots: tuple[int | None, ...]


@record
class Compiled:
    """A computation's function, its number, the memory it needs, and how deep the calls in it nest.

    `buffers` are (offset, bytes) of all that is in a guarded arena.
    """

    function: Function
    number: int
    memory: MemoryPlan
    depth: int
    buffers: tuple[tuple[int, int], ...]

    @property
    def arena_bytes(self) -> int:
        return self.memory.arena_bytes


class ConstantPool:
    """The bytes of constants that lie in memory; equal ones are stored once.

    With guards they lie apart at run time: `guarded` has (offset there, bytes, where in the block they come from).
    """

    def __init__(self, guard: str = ""):
        self._offsets: dict[bytes, int] = {}
        self._pieces: list[bytes] = []
        self.size = 0
        self.arena = GuardedArena(guard) if guard else None
        self.guarded: list[tuple[int, int, int]] = []

    def offset(self, view: View) -> int:
        """Where the constant lies from the address that the program is given."""
        array, shape = view.value.literal.array, view.value.literal.shape
        data = np.ascontiguousarray(array.transpose(shape.minor_to_major[::-1])).tobytes()
        offset = self._offsets.get(data)
        if offset is None:
            offset = self.size
            if self.arena is not None:
                offset = self.arena.take(0, 0, len(data))
                self.guarded.append((offset, len(data), self.size))
            self._offsets[data] = offset
            padded = aligned(len(data))
            self._pieces.append(data.ljust(padded, b"\0"))
            self.size += padded
        return offset

    def block(self) -> np.ndarray:
        """All constants, 64-byte aligned and read-only."""
        return aligned_copy(np.frombuffer(b"".join(self._pieces), np.uint8))


class ComputationCode:
    """The function of one computation, being written."""

    def __init__(
        self,
        name: str,
        plan: Schedule,
        variant: Variant,
        kernels: KernelCode,
        constants: ConstantPool,
        callees: dict[Variant, Compiled],
        is_called_once: bool = False,
    ):
        self.plan = plan
        self.kernels = kernels
        self.constants = constants
        self.callees = callees
        self.guard = kernels.options.guard_pages
        self.temporary = [self._temporary_bytes(step) for step in plan.steps]
        self.buffers: Buffers = assign(plan, self.temporary, self.guard)
        attributes = function_attributes(kernels.target, kernels.options)
        calls = [step for step in plan.steps if isinstance(step, CallStep)]
        self.depth = 1 + max((callee.depth for step in calls for callee in self._callees(step)), default=0)
        self.is_long = len(plan.steps) > LONG
        self.changes_arguments = any(slot is not None for slot in variant.slots)
        if self.is_long:
            attributes += " optnone noinline"
        elif self.depth % _MOST_NESTED == 0:
            attributes += " noinline"
        elif is_called_once and not self.guard:
            # LLVM would do so, but only after it has been through the function, and then again.
            attributes += " alwaysinline"
        self.name = name
        self.attributes = attributes

    def write(self) -> Compiled:
        """The whole function. A long one only calls its parts: LLVM takes more than linear time for each."""
        count = len(self.plan.steps)
        parts = [self._part(start) for start in range(0, count, _PART)] if self.is_long else []
        self._begin(self.name)
        for part in parts:
            self._fail_with(self.b.call(part, self.function.args))
        if not self.is_long:
            self._steps(0, count)
        self._final_copies()
        self.b.ret(integer("i32", 0))
        found = tuple(sorted({piece for piece in self._guarded() if piece[1]})) if self.guard else ()
        return Compiled(self.function, len(self.callees), self._memory(), self.depth, found)

    def _memory(self) -> MemoryPlan:
        steps = self.plan.steps
        callees = [
            tuple(callee.number for callee in self._callees(step)) if isinstance(step, CallStep) else ()
            for step in steps
        ]
        return memory_plan(self.plan, self.buffers, self.temporary, callees)

    def _begin(self, name: str) -> None:
        """Turns to a new function of the computation's signature, and writes there from now on."""
        self.function = self.kernels.module.function(name, "i32", PARAMETERS, self.attributes, "internal")
        self.function.settled = True
        self.b = Builder(self.function)
        self.pointers: dict[object, Value] = {}

    def _part(self, start: int) -> Function:
        self._begin(f"{self.name}.part.{start}")
        self._steps(start, start + _PART)
        self.b.ret(integer("i32", 0))
        return self.function

    def _steps(self, start: int, end: int) -> None:
        steps = self.plan.steps[start:end]
        tables = [self._pointer_tables(step) for step in steps]
        slot = f"[{SMALL_BYTES} x i8]"
        self.stack: list[Value] = [
            self.b.alloca(slot, align=SMALL_BYTES) for _ in range(self.buffers.stack_slots)
        ]
        for number, (step, pointers) in enumerate(zip(steps, tables, strict=True), start):
            if isinstance(step, KernelStep):
                self._kernel(step, number)
            elif isinstance(step, CallStep):
                how = {"while": self._loop, "conditional": self._choice}
                write = how.get(step.instruction.opcode, self._call)
                write(step, self._arena_at(self.buffers.scratch[number]), pointers)

    # Memory

    def _callees(self, step: CallStep) -> list[Compiled]:
        return [self.callees[variant] for variant in variants_of(step)]

    def _temporary_bytes(self, step: Step) -> int:
        if isinstance(step, KernelStep):
            workers = self.kernels.workers(step)
            return aligned(step.scratch_bytes) * workers if workers > 1 else step.scratch_bytes
        return self._rooms(step)[1]

    def _rooms(self, step: CallStep) -> tuple[list[int], int]:
        """Where a step's callees have their arenas in its temporary memory, and a loop's verdict; the bytes of all."""
        sizes = [callee.arena_bytes for callee in self._callees(step)]
        return rooms(sizes, 1 if step.is_loop else 0, self.guard)

    def _guarded(self) -> Iterator[tuple[int, int]]:
        """(offset, bytes) of every buffer in the arena."""
        for value, place in self.buffers.places.items():
            if place.kind == ARENA:
                yield place.number, value.bytes
        for view, _, offset in self.buffers.copies:
            if offset is not None:
                yield offset, view.value.bytes
        for step, scratch in zip(self.plan.steps, self.buffers.scratch, strict=True):
            if isinstance(step, KernelStep):
                yield scratch, step.scratch_bytes
                continue
            offsets, _ = self._rooms(step)
            for offset, callee in zip(offsets, self._callees(step), strict=False):
                yield from ((scratch + offset + inner, size) for inner, size in callee.buffers)
            yield scratch + offsets[-1], 1 if step.is_loop else 0

    def _arena_at(self, offset: int) -> Value:
        return self.b.gep("i8", self.function.args[2], integer("i64", offset))

    def _pointer(self, view: View) -> Value:
        """The address of a value. The first use of each comes before all branches that need it."""
        value = view.value
        if value.kind == CONSTANT:
            return self.b.gep("i8", self.function.args[3], integer("i64", self.constants.offset(view)))
        return self._at(self.buffers.places[value])

    def _at(self, place: Place) -> Value:
        if place.kind == ARENA:
            return self._arena_at(place.number)
        if place.kind == STACK:
            return self.stack[place.number]
        if place not in self.pointers:
            table = self.function.args[1 if place.kind == RESULT else 0]
            self.pointers[place] = self.b.load("ptr", self.b.gep("ptr", table, integer("i64", place.number)))
        return self.pointers[place]

    def _pointer_tables(self, step: Step) -> list[Value]:
        """Stack room for the pointers that a step's callees are given: each one's arguments, the results."""
        if not isinstance(step, CallStep):
            return []
        if step.is_loop:
            sizes = [len(step.operands[0]), 1]
        else:
            sizes = [*map(len, step.operands), len(step.outputs)]
        return [self.b.alloca(f"[{max(1, size)} x ptr]", align=8) for size in sizes]

    def _fill(self, table: Value, pointers: Sequence[Value]) -> None:
        for number, pointer in enumerate(pointers):
            self.b.store(pointer, self.b.gep("ptr", table, integer("i64", number)))

    def _copy(self, view: View, target: Value) -> None:
        literal = view.value.literal
        if literal is not None and literal.shape.count == 1:
            scalar.store(self.b, literal.shape.dtype, immediate(literal)(()), target)
        elif view.value.bytes:
            self._move(target, self._pointer(view), view.value.bytes)

    def _move(self, target: Value, source: Value, size: int) -> None:
        """Copies so many bytes, by several threads if that pays."""
        workers = copying_threads(size, self.kernels.options)
        if workers == 1:
            self.b.memcpy(target, source, integer("i64", size))
            return
        self.kernels.threads = workers
        function = shared_copy(self.kernels.module, self.kernels.target)
        sizes = [integer("i64", number) for number in (size, workers)]
        self.b.call(function, [self.function.args[4], target, source, *sizes])

    def _final_copies(self) -> None:
        """Results that lie elsewhere; those whose memory is overwritten here go aside first."""
        for view, _, offset in self.buffers.copies:
            if offset is not None:
                self._copy(view, self._arena_at(offset))
        for view, number, offset in self.buffers.copies:
            target = self._at(Place(RESULT, number))
            if offset is None:
                self._copy(view, target)
            else:
                self._move(target, self._arena_at(offset), view.value.bytes)

    # Steps

    def _kernel(self, step: KernelStep, number: int) -> None:
        places = self.buffers.places
        outputs = {places[view.value]: output for output, view in enumerate(step.outputs)}
        shared = {
            i: outputs[places[view.value]]
            for i, view in enumerate(step.inputs)
            if view.value.kind != CONSTANT and view.value.bytes and places[view.value] in outputs
        }
        function = self.kernels.function(step, shared)
        inputs = [self._pointer(view) for i, view in enumerate(step.inputs) if i not in shared]
        results = [self._pointer(view) for view in step.outputs]
        scratch = self._arena_at(self.buffers.scratch[number])
        given = [*inputs, *results, scratch, self.function.args[4]]
        status = self.b.call(function, given, attributes=self._inlining(step))
        if status is not None:
            self._fail_with(status)

    def _inlining(self, step: KernelStep) -> str:
        """Attributes of a kernel's call. Small ones become part of what changes its arguments: of bodies of loops."""
        if self.is_long:
            return "noinline"
        return "alwaysinline" if self.changes_arguments and not self.guard and is_short(step) else ""

    def _room(self, arena: Value, step: CallStep, number: int) -> Value:
        return self.b.gep("i8", arena, integer("i64", self._rooms(step)[0][number]))

    def _run(self, callee: Compiled, args: Value, results: Value, arena: Value) -> None:
        """Calls a computation's function."""
        self._fail_with(self.b.call(callee.function, [args, results, arena, *self.function.args[3:]]))

    def _fail_with(self, status: Value) -> None:
        """If something that was called failed, this function does."""
        with self.b.if_then(self.b.icmp_signed("!=", status, integer("i32", 0)), "failed"):
            self.b.ret(status)

    def _call(self, step: CallStep, arena: Value, tables: list[Value]) -> None:
        self._carry(step)
        self._fill(tables[0], [self._pointer(view) for view in step.operands[0]])
        self._fill(tables[1], [self._pointer(view) for view in step.outputs])
        self._run(self._callees(step)[0], tables[0], tables[1], self._room(arena, step, 0))

    def _choice(self, step: CallStep, arena: Value, tables: list[Value]) -> None:
        """A branch for each index, the last one for those out of range; true is the first of two."""
        b = self.b
        self._carry(step)
        for table, views in zip(tables, [*step.operands, step.outputs], strict=True):
            self._fill(table, [self._pointer(view) for view in views])
        chosen = self._chosen(step.inputs[0])
        start, end = b.block, b.append_block("chosen", b.block)
        branches = [b.append_block(f"branch.{number}", start) for number in range(len(step.callees))]
        b.switch(chosen, branches[-1], list(enumerate(branches))[:-1])
        for number, (branch, callee) in enumerate(zip(branches, self._callees(step), strict=True)):
            b.position_at_end(branch)
            self._run(callee, tables[number], tables[-1], self._room(arena, step, number))
            b.branch(end)
        b.position_at_end(end)

    def _carry(self, step: CallStep) -> None:
        """Puts what callees change where it has to be."""
        for before, after in step.carried:
            source, target = step.inputs[before], step.outputs[after]
            if self.buffers.places.get(source.value) != self.buffers.places[target.value]:
                self._copy(source, self._pointer(target))

    def _chosen(self, view: View) -> Value:
        """The number of the branch, as an i32: of a pred, 0 for true."""
        b = self.b
        dtype = view.shape.dtype
        literal = view.value.literal
        value = immediate(literal)(()) if literal else scalar.load(b, dtype, self._pointer(view))
        if dtype is PRED:
            return b.select(value, integer("i32", 0), integer("i32", 1))
        return value

    def _loop(self, step: CallStep, arena: Value, tables: list[Value]) -> None:
        """The changing state lives in the outputs: the condition reads it there, the body changes it there."""
        b = self.b
        condition, body = self._callees(step)
        state, verdict = tables
        self._carry(step)
        flag = self._room(arena, step, 2)
        self._fill(state, [self._pointer(view) for view in step.operands[0]])
        self._fill(verdict, [flag])
        for function in (self.function, condition.function, body.function):
            function.settled = False
        head = b.append_block("while", b.block)
        b.branch(head)
        b.position_at_end(head)
        self._run(condition, state, verdict, self._room(arena, step, 0))
        again = b.icmp_unsigned("!=", b.load("i8", flag), integer("i8", 0))
        turn, end = b.append_block("while.body", b.block), b.append_block("while.end", b.block)
        b.cbranch(again, turn, end)
        b.position_at_end(turn)
        self._run(body, state, state, self._room(arena, step, 1))
        b.branch(head)
        b.position_at_end(end)


def variants_of(step: CallStep) -> list[Variant]:
    """The functions that a step calls."""
    if step.is_loop:
        condition, body = step.callees
        state = tuple(view.shape for view in step.operands[0])
        same = tuple(range(len(state)))
        return [Variant(condition, (array(PRED),), (None,) * len(state)), Variant(body, state, same)]
    shapes = tuple(view.shape for view in step.outputs)
    return [Variant(callee, shapes, step.slots(number)) for number, callee in enumerate(step.callees)]
