"""Making a program smaller while it goes on failing.

Steps, each kept if the program still fails: results dropped; an instruction replaced by a parameter that
holds its value, or by an operand of its shape; arguments made one value all over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np

import hloc
from hloc.arrays import in_layout, parameter_leaves
from hloc.errors import HloError
from hloc.ir.clone import clone_module
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.passes import dce
from hloc.reference.evaluate import evaluate
from tools.fuzz.executors import Program

Fails = Callable[[Program], bool]
_SECONDS = 90.0


def shrink(program: Program, fails: Fails, seconds: float = _SECONDS) -> Program:
    """The smallest program found that fails like the given one, within about that many seconds."""
    program = replace(program, text=hloc.parse(program.text).to_text())
    until = time.monotonic() + seconds
    changed = True
    while changed and time.monotonic() < until:
        changed = False
        for candidate in _candidates(program):
            if time.monotonic() > until:
                break
            if fails(candidate):
                program, changed = candidate, True
                break
    return program


def _candidates(program: Program) -> Iterator[Program]:
    """Smaller programs, the much smaller ones first."""
    module = hloc.parse(program.text)
    for change in (_one_result, _cut_at, _bypass):
        for number in range(_count(module, change)):
            with suppress(HloError, ValueError, KeyError, TypeError):
                made = change(program, number)
                if made is not None and len(made.text) < len(program.text):
                    yield made
    for number in range(len(program.arguments)):
        made = _plain_argument(program, number)
        if made is not None:
            yield made


def _count(module: Module, change: Callable) -> int:
    return len(module.entry.root.operands) if change is _one_result else len(module.entry)


def _one_result(program: Program, number: int) -> Program | None:
    """Only one of the root's operands as the result."""
    module = hloc.parse(program.text)
    root = module.entry.root
    return _with_root(program, module, root.operands[number])


def _with_root(program: Program, module: Module, root: Instruction) -> Program | None:
    if root.opcode == "parameter" or root is module.entry.root:
        return None
    module.entry.root = root
    return _cleaned(module, program.arguments, program.portable)


def _cut_at(program: Program, number: int) -> Program | None:
    """An instruction's value as a parameter."""
    module = hloc.parse(program.text)
    instruction = module.entry.instructions[number]
    if instruction.opcode in ("parameter", "constant") or not instruction.shape.is_array:
        return None
    value = _value_of(program, number)
    entry = module.entry
    fresh = Instruction("parameter", instruction.shape, [], {"number": len(entry.parameters)}, name="cut")
    entry.add(fresh, instruction)
    if instruction is entry.root:
        return None
    entry.replace_uses(instruction, fresh)
    return _cleaned(module, [*program.arguments, value], program.portable)


def _value_of(program: Program, number: int) -> np.ndarray:
    module = hloc.parse(program.text)
    module.entry.root = module.entry.instructions[number]
    module.entry_layout = None
    with np.errstate(all="ignore"):
        return np.asarray(evaluate(module, program.arguments)[0])


def _bypass(program: Program, number: int) -> Program | None:
    """An instruction replaced by an operand of its shape."""
    module = hloc.parse(program.text)
    instruction = module.entry.instructions[number]
    for operand in instruction.operands:
        if operand.shape == instruction.shape and operand.opcode != "parameter":
            module.entry.replace_uses(instruction, operand)
            return _cleaned(module, program.arguments, program.portable)
    return None


def _plain_argument(program: Program, number: int) -> Program | None:
    """An argument that is one value all over."""
    array = program.arguments[number]
    if array.size < 2 or (array == array.reshape(-1)[0]).all():
        return None
    arguments = list(program.arguments)
    arguments[number] = np.full_like(array, array.reshape(-1)[0])
    return Program(program.text, arguments, program.portable)


def _cleaned(module: Module, arguments: list[np.ndarray], portable: bool) -> Program | None:
    """The module without what the root does not need, parameters and their arguments included."""
    module = clone_module(module)
    module.entry_layout = None
    dce.run(module)
    entry = module.entry
    used = [p for p in entry.parameters if p.users or p is entry.root]
    kept = [arguments[p.attributes["number"]] for p in used]
    for parameter in [p for p in entry.parameters if p not in used]:
        entry.remove(parameter)
    for number, parameter in enumerate(used):
        parameter.attributes["number"] = number
    entry.parameters = used
    shapes = [shape for _, shape in parameter_leaves(module)]
    text = module.to_text()
    if hloc.verify(hloc.parse(text)):
        return None
    return Program(text, [in_layout(a, s) for a, s in zip(kept, shapes, strict=True)], portable)
