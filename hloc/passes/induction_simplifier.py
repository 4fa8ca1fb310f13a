"""Uses what is known of the values that counters of loops have."""

from __future__ import annotations

from collections.abc import Iterator

from hloc.analysis.trip_count import counted_loop
from hloc.ir.computation import Computation
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.passes.emit import Emit, replace
from hloc.passes.loops import Loop, loops_of
from hloc.passes.patterns import splat_value
from hloc.passes.tuples import Owners, element_after
from hloc.records import record

_SAME_VALUE = ("copy", "bitcast", "reshape", "broadcast", "convert")

_MOST_OPS = 16
"""Ops between a counter and what is computed from it."""

Range = tuple[int, int]


@record
class Counter:
    """An element of a loop's state that begins as `start` and grows by `step`; `least` to `most` in the body.

    `last` is what it is behind the loop, if that is known.
    """

    number: int
    dtype: DType
    start: int
    step: int
    least: int
    most: int
    last: int | None


def run(module: Module) -> bool:
    """Decides comparisons and bounds of counters, and computes all counters of a loop from one.

    A loop that is known to turn n times gives its counters known ranges; so does a loop whose condition asks that
    a counter that goes up by one be below something: it is never below its start. In the body comparisons
    with constants, maxima, minima, clamps and remainders that follow from this are replaced; behind the loop,
    the counter itself where it is known. Of counters that are equal but for a constant distance one is carried,
    and the other ones are sums of it.

    Requires: loops in explicit form, by while_simplifier; others are left alone.
    Ensures: in such loops no comparison of a counter plus a constant with a constant that is always the same.
    Leaves: elements that nobody reads, for while_simplifier; constants, for constant_folding.
    """
    owners = Owners(module)
    changed = False
    for instruction in loops_of(module):
        loop = Loop.of(instruction)
        if loop is not None:
            changed |= _simplify(loop, owners)
    if changed:
        module.order_computations()
    return changed


def _simplify(loop: Loop, owners: Owners) -> bool:
    counters = list(_counters(loop))
    distances = _distances(counters)
    changed = _read_last_values(loop, counters)
    decided = any(True for _ in _decided(loop.body, counters))
    moved = any(read.attributes["index"] in distances and loop.is_used(read) for read in _reads(loop))
    if not decided and not moved:
        return changed
    loop.own(owners)
    for instruction, value in list(_decided(loop.body, counters)):
        new = value if isinstance(value, Instruction) else Emit.at(instruction).full(value, instruction.shape)
        replace(instruction, new)
    if moved:
        _read_from_one(loop, distances)
    return True


def _reads(loop: Loop) -> list[Instruction]:
    return [*loop.read_inside(), *loop.instruction.users]


# Counters


def _counters(loop: Loop) -> Iterator[Counter]:
    known = counted_loop(loop.instruction)
    bounded = set() if known else set(_bounded_above(loop.condition))
    for number, (begin, result) in enumerate(zip(loop.initial, loop.results, strict=True)):
        step = _step(loop, number, result)
        start = splat_value(begin) if step and begin.shape.rank == 0 else None
        if start is None:
            continue
        low, high = _limits(begin)
        last = None
        if known:
            end = int(start) + step * max(known.trips - 1, 0)
            least, most = min(int(start), end), max(int(start), end)
            last = int(start) + step * known.trips
        elif step == 1 and number in bounded:
            least, most = int(start), high - 1
        else:
            continue
        if low <= least and most <= high:
            last = last if last is not None and low <= last <= high else None
            yield Counter(number, begin.shape.dtype, int(start), step, least, most, last)


def _step(loop: Loop, number: int, result: Instruction) -> int | None:
    """By how much an element grows in each turn, if by a constant."""
    if result.opcode not in ("add", "subtract") or result.shape.rank or not result.shape.dtype.is_integer:
        return None
    before, change = result.operands
    if result.opcode == "add" and _is_element(change, loop, number):
        before, change = change, before
    by = splat_value(change)
    if by is None or not _is_element(before, loop, number):
        return None
    return int(by) if result.opcode == "add" else -int(by)


def _is_element(instruction: Instruction, loop: Loop, number: int) -> bool:
    if instruction.opcode != "get-tuple-element" or instruction.attributes["index"] != number:
        return False
    return instruction.operands[0] is loop.body.parameters[0]


def _bounded_above(condition: Computation) -> Iterator[int]:
    """The elements that are below something whenever the condition holds."""
    stack = [condition.root]
    while stack:
        instruction = stack.pop()
        if instruction.opcode == "and":
            stack += instruction.operands
        elif instruction.opcode == "compare" and instruction.attributes["direction"] in ("LT", "GT"):
            less = instruction.operands[instruction.attributes["direction"] == "GT"]
            if less.opcode == "get-tuple-element" and less.operands[0] is condition.parameters[0]:
                yield less.attributes["index"]


def _limits(instruction: Instruction) -> Range:
    dtype = instruction.shape.dtype
    top = 2 ** (dtype.bits - dtype.is_signed) - 1
    return (-top - 1 if dtype.is_signed else 0), top


# What follows of their ranges


def _read_last_values(loop: Loop, counters: list[Counter]) -> bool:
    """Who reads a counter behind the loop reads a constant."""
    last = {counter.number: counter.last for counter in counters if counter.last is not None}
    changed = False
    for read in list(loop.instruction.users):
        value = last.get(read.attributes["index"])
        if value is not None and (read.users or read.is_root):
            read.computation.replace_uses(read, Emit.at(read).scalar(value, read.shape.dtype))
            changed = True
    return changed


def _decided(body: Computation, counters: list[Counter]) -> Iterator[tuple[Instruction, object]]:
    """Instructions of the body, and the number or the operand that they always give."""
    ranges = {counter.number: (counter.least, counter.most) for counter in counters}
    if not ranges:
        return
    for instruction in body:
        rule = _RULES.get(instruction.opcode)
        if rule is None or not instruction.operands[0].shape.dtype.is_integer:
            continue
        found = [_range(operand, body, ranges) for operand in instruction.operands]
        value = rule(instruction, *found) if None not in found else None
        if value is not None and (isinstance(value, bool) or value.shape == instruction.shape):
            yield instruction, value


def _range(
    instruction: Instruction, body: Computation, ranges: dict[int, Range], depth: int = _MOST_OPS
) -> Range | None:
    """The range of a constant, or of a counter to which constants are added, if nothing in between wraps."""
    if depth == 0 or not instruction.shape.is_array or not instruction.shape.dtype.is_integer:
        return None
    known = splat_value(instruction)
    if known is not None:
        return int(known), int(known)
    opcode, operands = instruction.opcode, instruction.operands
    if opcode == "get-tuple-element":
        return ranges.get(instruction.attributes["index"]) if operands[0] is body.parameters[0] else None
    if opcode not in (*_SAME_VALUE, "add", "subtract"):
        return None
    found = [_range(operand, body, ranges, depth - 1) for operand in operands]
    if None in found:
        return None
    least, most = found[0] if len(found) == 1 else _SUMS[opcode](*found)
    low, high = _limits(instruction)
    return (least, most) if low <= least and most <= high else None


_SUMS = {
    "add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "subtract": lambda a, b: (a[0] - b[1], a[1] - b[0]),
}


def _compared(instruction: Instruction, a: Range, b: Range) -> bool | None:
    direction = instruction.attributes["direction"]
    if direction in ("GT", "GE"):
        a, b, direction = b, a, {"GT": "LT", "GE": "LE"}[direction]
    if direction == "LT":
        return True if a[1] < b[0] else False if a[0] >= b[1] else None
    if direction == "LE":
        return True if a[1] <= b[0] else False if a[0] > b[1] else None
    apart = a[1] < b[0] or b[1] < a[0]
    return direction == "NE" if apart else None


def _greatest(instruction: Instruction, a: Range, b: Range) -> Instruction | None:
    left, right = instruction.operands
    return left if a[0] >= b[1] else right if b[0] >= a[1] else None


def _least(instruction: Instruction, a: Range, b: Range) -> Instruction | None:
    left, right = instruction.operands
    return left if a[1] <= b[0] else right if b[1] <= a[0] else None


def _clamped(instruction: Instruction, low: Range, value: Range, high: Range) -> Instruction | None:
    return instruction.operands[1] if low[1] <= value[0] and value[1] <= high[0] else None


def _remaining(instruction: Instruction, a: Range, b: Range) -> Instruction | None:
    return instruction.operands[0] if a[0] >= 0 and a[1] < b[0] else None


_RULES = {
    "compare": _compared,
    "maximum": _greatest,
    "minimum": _least,
    "clamp": _clamped,
    "remainder": _remaining,
}


# One counter in place of several


def _distances(counters: list[Counter]) -> dict[int, tuple[int, int]]:
    """For each counter that goes with an earlier one, that one and how far it is ahead of it."""
    first: dict[tuple, Counter] = {}
    found = {}
    for counter in counters:
        other = first.setdefault((counter.dtype, counter.step), counter)
        if other is not counter:
            found[counter.number] = (other.number, counter.start - other.start)
    return found


def _read_from_one(loop: Loop, distances: dict[int, tuple[int, int]]) -> None:
    for read in _reads(loop):
        number = read.attributes["index"]
        if number not in distances or not loop.is_used(read):
            continue
        other, distance = distances[number]
        value = element_after(read.operands[0], other)
        emit = Emit.at(read)
        if distance:
            value = emit.map("add", value, emit.scalar(distance, read.shape.dtype))
        read.computation.replace_uses(read, value)
