"""How often loops run: those that count from a constant to a constant by a constant step."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hloc.ir.computation import Computation
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape
from hloc.records import NamedTuple

Path = tuple[int, ...]

_SAME = ("copy", "bitcast", "reshape", "opt-barrier", "add-dependency", "domain")
_CALLED = ("fusion", "call")

_MOST_STEPS = 64
"""Ops that are looked through, one behind the other."""

_MIRRORED = {"LT": "GT", "GT": "LT", "LE": "GE", "GE": "LE", "EQ": "EQ", "NE": "NE"}


class CountedLoop(NamedTuple):
    """A loop that runs `trips` times: leaf `index` of its state is `start`, and grows by `step` in each turn.

    `index` is the path in the state's shape, () for a state that is the counter alone. A loop whose condition
    is false from the start runs 0 times.
    """

    index: Path
    start: int
    step: int
    trips: int


class _Linear(NamedTuple):
    """A leaf of the parameter plus a number, or the number alone if `leaf` is None."""

    leaf: Path | None
    number: int


class _Place(NamedTuple):
    """A leaf of an instruction, seen from the call sites that lead to its computation, the last innermost."""

    instruction: Instruction
    path: Path
    sites: tuple[Instruction, ...] = ()


def trip_count(loop: Instruction) -> int | None:
    """How often the body of a `while` runs, or None if that cannot be told."""
    counted = counted_loop(loop)
    return None if counted is None else counted.trips


def stated_trip_count(loop: Instruction) -> int | None:
    """What a loop's `backend_config` says in XLA's words (`known_trip_count`), unchecked."""
    config = loop.annotations.get("backend_config")
    text = getattr(config, "text", config)
    found = re.search(r'"known_trip_count"\s*:\s*\{\s*"n"\s*:\s*"?(\d+)', text) if text else None
    return int(found[1]) if found else None


def counted_loop(loop: Instruction) -> CountedLoop | None:
    """The counter of a `while`, or None if the loop is of another kind.

    The condition has to compare the counter, plus a constant perhaps, with a constant or with a leaf that the
    body passes on unchanged; the body has to add a constant. Both may stand in fusions and calls. A counter
    that would leave the range of its type is none.
    """
    condition, body = loop.attributes["condition"], loop.attributes["body"]
    place = _origin(_Place(condition.root, ()))
    if place is None or place.instruction.opcode != "compare":
        return None
    compare = place.instruction
    dtype = compare.operands[0].shape.dtype
    if not dtype.is_integer:
        return None
    sides = [_side(_Place(operand, (), place.sites), loop, body) for operand in compare.operands]
    direction = compare.attributes["direction"]
    if sides[1] is not None and sides[1].leaf is not None:
        sides.reverse()
        direction = _MIRRORED[direction]
    counter, limit = sides
    if counter is None or limit is None or counter.leaf is None or limit.leaf is not None:
        return None
    step = _linear(_Place(body.root, counter.leaf))
    start = _linear(_Place(loop.operands[0], counter.leaf))
    if step is None or start is None or step.leaf != counter.leaf or start.leaf is not None:
        return None
    trips = _trips(start.number + counter.number, limit.number, step.number, direction)
    if trips is None or not all(_fits(dtype, n) for n in _extremes(start.number, step.number, counter.number, trips)):
        return None
    return CountedLoop(counter.leaf, start.number, step.number, trips)


def _side(place: _Place, loop: Instruction, body: Computation) -> _Linear | None:
    """One side of the comparison; a leaf that the body passes on unchanged counts as its initial value."""
    found = _linear(place)
    if found is None or found.leaf is None:
        return found
    after = _linear(_Place(body.root, found.leaf))
    if after != _Linear(found.leaf, 0):
        return found
    start = _linear(_Place(loop.operands[0], found.leaf))
    return None if start is None or start.leaf is not None else _Linear(None, start.number + found.number)


def _trips(start: int, limit: int, step: int, direction: str) -> int | None:
    """How often `value <direction> limit` holds for value = start, start + step, ... until it does not."""
    if direction in ("GT", "GE"):
        return _trips(-start, -limit, -step, _MIRRORED[direction])
    if direction == "EQ":
        return int(start == limit) if step or start != limit else None
    distance = limit - start
    if direction == "NE":
        if distance == 0:
            return 0
        return distance // step if step and distance % step == 0 and distance // step > 0 else None
    distance += direction == "LE"
    if distance <= 0:
        return 0
    return -(-distance // step) if step > 0 else None


def _extremes(start: int, step: int, offset: int, trips: int) -> Iterator[int]:
    """The first and the last value of the counter, and of what the condition makes of it."""
    for value in (start, start + trips * step):
        yield value
        yield value + offset


def _fits(dtype: DType, value: int) -> bool:
    low, high = (-(1 << dtype.bits - 1), 1 << dtype.bits - 1) if dtype.is_signed else (0, 1 << dtype.bits)
    return low <= value < high


def _origin(place: _Place) -> _Place | None:
    """Where a leaf is computed, seen through tuples, copies and calls; None if that is too far off."""
    for _ in range(_MOST_STEPS):
        instruction, path, sites = place
        opcode = instruction.opcode
        if opcode == "get-tuple-element":
            place = _Place(instruction.operands[0], (instruction.attributes["index"], *path), sites)
        elif opcode == "tuple" and path:
            place = _Place(instruction.operands[path[0]], path[1:], sites)
        elif opcode in _CALLED:
            place = _Place(instruction.called[0].root, path, (*sites, instruction))
        elif opcode == "parameter" and sites:
            place = _Place(sites[-1].operands[instruction.attributes["number"]], path, sites[:-1])
        elif opcode in _SAME:
            place = _Place(instruction.operands[0], path, sites)
        else:
            return place
    return None


def _linear(place: _Place, depth: int = 0) -> _Linear | None:
    """A scalar integer leaf as a leaf of the computation's one parameter plus a number, if it is that."""
    origin = _origin(place)
    if origin is None or depth > _MOST_STEPS:
        return None
    instruction, path, sites = origin
    if instruction.opcode == "parameter":
        return _Linear(path, 0) if instruction.attributes["number"] == 0 else None
    shape = instruction.shape.at(path)
    if not isinstance(shape, ArrayShape) or shape.count != 1 or not shape.dtype.is_integer:
        return None
    if instruction.opcode == "constant":
        literal = instruction.attributes["literal"]
        for position in path:
            literal = literal.value[position]
        return _Linear(None, int(literal.array.reshape(()).item()))
    if instruction.opcode not in ("add", "subtract"):
        return None
    sides = [_linear(_Place(operand, (), sites), depth + 1) for operand in instruction.operands]
    return _sum(instruction.opcode, *sides)


def _sum(opcode: str, one: _Linear | None, other: _Linear | None) -> _Linear | None:
    if one is None or other is None or None not in (one.leaf, other.leaf):
        return None
    if opcode == "add":
        return _Linear(other.leaf if one.leaf is None else one.leaf, one.number + other.number)
    return _Linear(one.leaf, one.number - other.number) if other.leaf is None else None
