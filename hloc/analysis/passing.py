"""Which leaves of results are leaves of operands where they lie: names, and what loops and callees pass on."""

from __future__ import annotations

from hloc.analysis.layouts import moves_nothing
from hloc.analysis.sharing import based_on
from hloc.analysis.updates import UPDATES, base_of, in_place_update, root_leaves
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction

Path = tuple[int, ...]

RENAMING = ("bitcast", "opt-barrier", "add-dependency", "domain", "async-update")
"""Ops whose result is their first operand, maybe under another shape."""


def is_unmoved(instruction: Instruction) -> bool:
    """Whether an instruction is a reshape or transpose of an array as it lies."""
    return instruction.opcode in ("reshape", "transpose") and moves_nothing(instruction)


def passed_on(body: Computation) -> set[Path]:
    """The leaves of a loop's state that its body passes on unchanged."""
    found = set()
    for path, _ in body.parameters[0].shape.leaves():
        node, at = body.root, path
        while at and node.opcode == "tuple" or node.opcode == "get-tuple-element":
            if node.opcode == "tuple":
                node, at = node.operands[at[0]], at[1:]
            else:
                node, at = node.operands[0], (node.attributes["index"], *at)
        if node.opcode == "parameter" and at == path:
            found.add(path)
    return found


def changed_leaves(computation: Computation) -> dict[int, int]:
    """Which argument leaf becomes which result leaf by changes where it lies, or by nothing at all.

    Leaves count from 0, depth first, without tokens. An update, a loop and a fusion around either change their
    operand; a result that begins as a copy of the argument is best made in the argument's memory.
    """
    numbers: dict[tuple[Instruction, Path], int] = {}
    for parameter in computation.parameters:
        for path, leaf in parameter.shape.leaves():
            if leaf.is_array:
                numbers[parameter, path] = len(numbers)
    results = [path for path, leaf in computation.root.shape.leaves() if leaf.is_array]
    found: dict[int, int] = {}
    for number, path in enumerate(results):
        origin = _origin(computation.root, path)
        if origin in numbers:
            found.setdefault(numbers[origin], number)
    return found


def _origin(node: Instruction, path: Path) -> tuple[Instruction, Path]:
    """The array that a leaf is, or begins as a copy of."""
    while True:
        opcode = node.opcode
        if opcode == "tuple" and path:
            node, path = node.operands[path[0]], path[1:]
        elif opcode == "get-tuple-element":
            node, path = node.operands[0], (node.attributes["index"], *path)
        elif opcode in RENAMING or opcode == "while" or is_unmoved(node):
            node = node.operands[0]
        elif opcode in UPDATES:
            number = next(number for number, leaf in based_on(node) if leaf == path)
            node, path = node.operands[number], ()
        elif opcode == "fusion" and (base := _fused_base(node, path)) is not None:
            node, path = base, ()
        else:
            return node, path


def _fused_base(fusion: Instruction, path: Path) -> Instruction | None:
    """The operand of a fusion that an update at its root changes."""
    update = in_place_update(dict(root_leaves(fusion.called[0])).get(path, fusion))
    return None if update is None else fusion.operands[base_of(update).attributes["number"]]
