"""Making a program smaller while it goes on failing.

Steps, each kept if the program still fails: only the surroundings of one instruction; a called computation in the place
of the program; fewer results; an instruction replaced by a parameter that holds its value, or by an operand of its
shape; a size of dimensions made smaller wherever it stands; arguments made one value all over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import numpy as np

from hloc.analysis.verifier import verify
from hloc.arrays import in_layout, parameter_leaves
from hloc.bisect.resize import cut, lesser_sizes, resized
from hloc.errors import HloError
from hloc.ir.clone import clone_module
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.ir.shapes import Shape, TupleShape
from hloc.passes import dce
from hloc.passes.emit import Emit
from hloc.records import record
from hloc.reference.evaluate import evaluate

_RADII = (0, 1, 2, 3, 5, 8, 13)
"""Steps from an instruction to all that is kept around it."""


@record
class Case:
    """A module with the arguments of one call: the leaves of its parameters."""

    module: Module
    arguments: list[np.ndarray]

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def size(self) -> tuple[int, int]:
        """What is to become less: instructions, then elements of constants and arguments."""
        instructions = list(self.module.instructions())
        constants = sum(leaf.count for i in instructions if i.opcode == "constant" for _, leaf in i.shape.leaves())
        return len(instructions), constants + sum(array.size for array in self.arguments)


Fails = Callable[[Case], bool]


def shrink(case: Case, fails: Fails, seconds: float = 60.0, near: str | None = None) -> Case:
    """The smallest case found that fails like the given one, within about that many seconds.

    `near` names an instruction that has to do with it: its surroundings are tried first.
    """
    until = time.monotonic() + seconds
    changed = True
    while changed and time.monotonic() < until:
        changed = False
        for candidate in _candidates(case, near):
            if time.monotonic() > until:
                break
            if candidate.size < case.size and fails(candidate):
                case, changed = candidate, True
                break
    return _plain(case, fails, until)


def _candidates(case: Case, near: str | None) -> Iterator[Case]:
    """Smaller cases, the much smaller ones first."""
    entry = case.module.entry
    values = _Values(case)
    for place, instruction in enumerate(entry.instructions):
        if instruction.name == near:
            yield from _tried((_surroundings, case, values, place, radius) for radius in _RADII)
    for place, instruction in enumerate(entry.instructions):
        for number in range(len(instruction.called)):
            yield from _tried([(_inside, case, values, place, number)])
    yield from _tried((_root_operand, case, number) for number in range(len(entry.root.operands)))
    count = len(entry)
    # Cuts in the middle take most away.
    places = sorted(range(count), key=lambda place: abs(place - count // 2))
    yield from _tried((_cut_at, case, values, place) for place in places)
    yield from _tried((_bypass, case, place) for place in places)
    yield from _tried((_with_size, case, *sizes) for sizes in lesser_sizes(case.module))


def _tried(calls: Iterator[tuple] | Sequence[tuple]) -> Iterator[Case]:
    """The cases that the calls make; what cannot be made is passed over."""
    for function, *arguments in calls:
        with suppress(HloError, ValueError, KeyError, TypeError):
            made = function(*arguments)
            if made is not None and not verify(made.module):
                yield made


class _Values:
    """The values of the entry's instructions, evaluated when first asked for."""

    def __init__(self, case: Case):
        self._case = case
        self._leaves: dict[int, list[np.ndarray]] | None = None

    def leaves(self, place: int) -> list[np.ndarray]:
        """The leaves of the value of the instruction at a place; KeyError where it has no value to hold."""
        if self._leaves is None:
            self._leaves = self._evaluated()
        return self._leaves[place]

    def _evaluated(self) -> dict[int, list[np.ndarray]]:
        module = clone_module(self._case.module)
        module.entry_layout = None
        entry = module.entry
        wanted = [(place, i) for place, i in enumerate(entry.instructions) if _has_value(i)]
        instructions = [instruction for _, instruction in wanted]
        entry.root = Emit(entry).op("tuple", TupleShape(tuple(i.shape for i in instructions)), instructions)
        with np.errstate(all="ignore"):
            leaves = iter(evaluate(module, self._case.arguments))
        return {place: [np.asarray(next(leaves)) for _ in i.shape.leaves()] for place, i in wanted}


def _has_value(instruction: Instruction) -> bool:
    return all(leaf.is_array and not leaf.is_dynamic for _, leaf in instruction.shape.leaves())


def _copy(case: Case) -> tuple[Module, list[Instruction]]:
    """A module to change, and its entry's instructions, at the places that they have in the case."""
    module = clone_module(case.module)
    module.input_output_alias = ()
    module.buffer_donors = ()
    return module, module.entry.instructions


def _cut(module: Module, instruction: Instruction) -> Instruction:
    """A new parameter in the place of an instruction."""
    entry = module.entry
    number = {"number": len(entry.parameters)}
    fresh = entry.add(Instruction("parameter", instruction.shape, [], number, name="cut"), instruction)
    entry.replace_uses(instruction, fresh)
    return fresh


def _surroundings(case: Case, values: _Values, place: int, radius: int) -> Case | None:
    """Only what is at most so many steps away from an instruction: all else as parameters and results."""
    module, instructions = _copy(case)
    places = {instruction: number for number, instruction in enumerate(instructions)}
    inside = {instructions[place]}
    for _ in range(radius):
        inside |= {near for i in inside for near in (*i.operands, *i.users)}
    border = dict.fromkeys(o for i in instructions if i in inside for o in i.operands if o not in inside)
    cut = [o for o in border if o.opcode not in ("parameter", "constant")]
    results = [i for i in instructions if i in inside and (i is module.entry.root or set(i.users) - inside)]
    if not results or len(inside) >= len(instructions) - 1:
        return None
    arguments = list(case.arguments)
    for operand in cut:
        arguments += values.leaves(places[operand])
        _cut(module, operand)
    shape = TupleShape(tuple(result.shape for result in results))
    module.entry.root = results[0] if len(results) == 1 else Emit(module.entry).op("tuple", shape, results)
    return _cleaned(module, arguments)


def _inside(case: Case, values: _Values, place: int, number: int) -> Case | None:
    """A computation that an instruction calls, with the values of the first call, in the place of the program."""
    module, instructions = _copy(case)
    instruction = instructions[place]
    operands = _first_operands(instruction, number)
    callee = instruction.called[number]
    if operands is None or len(operands) != len(callee.parameters):
        return None
    places = {other: where for where, other in enumerate(instructions)}
    arguments = [leaf for operand in operands for leaf in values.leaves(places[operand])]
    module.entry, module.entry_layout = callee, None
    return _cleaned(module, arguments)


def _first_operands(instruction: Instruction, number: int) -> Sequence[Instruction] | None:
    """What a called computation is first called with, where it is operands as they are."""
    if instruction.opcode in ("call", "fusion", "while"):
        return instruction.operands
    if instruction.opcode == "conditional":
        return instruction.operands[1 + number : 2 + number]
    return None


def _root_operand(case: Case, number: int) -> Case:
    """One of the root's operands as the result: one of several results, or what comes before the last op."""
    module, _ = _copy(case)
    module.entry.root = module.entry.root.operands[number]
    return _cleaned(module, case.arguments)


def _cut_at(case: Case, values: _Values, place: int) -> Case | None:
    """An instruction's value as a parameter."""
    module, instructions = _copy(case)
    instruction = instructions[place]
    if instruction.opcode in ("parameter", "constant") or instruction is module.entry.root:
        return None
    leaves = values.leaves(place)
    _cut(module, instruction)
    return _cleaned(module, [*case.arguments, *leaves])


def _bypass(case: Case, place: int) -> Case | None:
    """An instruction replaced by an operand of its shape."""
    module, instructions = _copy(case)
    instruction = instructions[place]
    for operand in instruction.operands:
        if operand.shape == instruction.shape:
            module.entry.replace_uses(instruction, operand)
            return _cleaned(module, case.arguments)
    return None


def _with_size(case: Case, size: int, lesser: int) -> Case:
    """All dimensions of a size made smaller."""
    module = resized(case.module, size, lesser)
    shapes = [shape for _, shape in parameter_leaves(module)]
    arrays = [cut(array, {size: lesser}) for array in case.arguments]
    return Case(module, [in_layout(array, shape) for array, shape in zip(arrays, shapes, strict=True)])


def _cleaned(module: Module, arguments: Sequence[np.ndarray]) -> Case:
    """The module without what the root does not need, parameters and their arguments included."""
    entry = module.entry
    layouts = _layouts(module)
    module.entry_layout = None
    dce.run(module)
    module.order_computations()
    leaves = iter(arguments)
    given = {p: [next(leaves) for _, leaf in p.shape.leaves() if leaf.is_array] for p in entry.parameters}
    used = [parameter for parameter in entry.parameters if parameter.users or parameter is entry.root]
    module.entry_layout = tuple(layouts[parameter] for parameter in used), layouts[entry.root]
    _keep_parameters(entry, used)
    module = clone_module(module)  # compact ids and names
    shapes = [shape for _, shape in parameter_leaves(module)]
    arrays = [array for parameter in used for array in given[parameter]]
    return Case(module, [in_layout(array, shape) for array, shape in zip(arrays, shapes, strict=True)])


def _layouts(module: Module) -> dict[Instruction, Shape]:
    """The shapes of the entry's parameters and root as the caller sees them, where the layout still says it."""
    entry = module.entry
    found = {i: i.shape.with_default_layout() for i in (*entry.parameters, entry.root)}
    if module.entry_layout is not None:
        parameters, result = module.entry_layout
        found |= zip(entry.parameters, parameters, strict=False)  # those that are new come last
        if entry.root.shape.compatible(result) and entry.root not in entry.parameters:
            found[entry.root] = result
    return found


def _keep_parameters(entry: Computation, used: Sequence[Instruction]) -> None:
    for parameter in [parameter for parameter in entry.parameters if parameter not in used]:
        entry.remove(parameter)
    for number, parameter in enumerate(used):
        parameter.attributes["number"] = number
    entry.parameters = list(used)


def _plain(case: Case, fails: Fails, until: float) -> Case:
    """Arguments made one value all over, where that still fails."""
    for number, array in enumerate(case.arguments):
        if array.size < 2 or time.monotonic() > until or (array == array.reshape(-1)[0]).all():
            continue
        arguments = list(case.arguments)
        arguments[number] = np.full_like(array, array.reshape(-1)[0])
        candidate = Case(case.module, arguments)
        if fails(candidate):
            case = candidate
    return case
