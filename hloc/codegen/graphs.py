"""Graphs of leaves: what the evaluation of a value element by element asks for, and whether that can be done."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hloc.codegen.bodies import INLINED, MOST_NESTED, PASS_THROUGH, Leaf, is_immediate, literal_at, source
from hloc.codegen.kernel import ELEMENTS
from hloc.codegen.scalar_control import CONTROL
from hloc.ir.instruction import Instruction
from hloc.ir.opcodes import OPS
from hloc.ir.shapes import ArrayShape

_ELEMENTWISE = frozenset(name for name, op in OPS.items() if op.is_elementwise)

_KEEPING = _ELEMENTWISE | {"bitcast-convert"}
"""Ops that look at one index of all operands, as wide as their result."""

_NAMES = ("parameter", "constant", "tuple", "get-tuple-element")

_MOST_INDEX_CHANGES = 48
"""Ops that change the index, one after the other: their evaluation is recursive."""


def array_leaves(instruction: Instruction) -> list[Leaf]:
    """The leaves that have memory: all but tokens."""
    return [(instruction, leaf) for leaf, shape in instruction.shape.leaves() if shape.is_array]


def operand_leaves(instruction: Instruction) -> list[tuple[int, tuple[int, ...], ArrayShape]]:
    """(operand number, index path, shape) of every array that an op takes."""
    return [
        (number, leaf, shape)
        for number, operand in enumerate(instruction.operands)
        for leaf, shape in operand.shape.leaves()
        if shape.is_array
    ]


def shape_of(leaf: Leaf) -> ArrayShape:
    """The array shape of a leaf."""
    instruction, path = leaf
    return instruction.shape.at(path) if path else instruction.shape  # type: ignore[return-value]


def operands_of(node: Leaf) -> list[Leaf]:
    """What the evaluation of a leaf asks for."""
    operands = node[0].operands
    if node[0].opcode in INLINED:
        return [source(*leaf) for operand in operands for leaf in array_leaves(operand)]
    return [source(operand, ()) for operand in operands]


def keeps_index(node: Leaf, operand: Leaf) -> bool:
    """Whether an operand is wanted at the index of the node."""
    return node[0].opcode in _KEEPING and shape_of(operand).dims == shape_of(node).dims


def post_order(roots: Sequence[Leaf], ends: Collection[Leaf]) -> list[Leaf]:
    """Everything that the roots need, operands first, not looking behind `ends`."""
    return list(_needed(roots, ends))


def _needed(roots: Sequence[Leaf], ends: Collection[Leaf]) -> dict[Leaf, list[Leaf]]:
    """The same with what the evaluation of each asks for: of `ends` nothing."""
    done: dict[Leaf, list[Leaf]] = {}
    opened: dict[Leaf, list[Leaf]] = {}
    stack = list(reversed(roots))
    while stack:
        node = stack[-1]
        if node in done:
            stack.pop()
        elif node in opened or node in ends:
            stack.pop()
            done[node] = opened.get(node, [])
        else:
            operands = opened[node] = operands_of(node)
            stack += [operand for operand in operands if operand not in done]
    return done


def are_elements(roots: Sequence[Leaf], size: int, given: Collection[Leaf] = frozenset()) -> bool:
    """Whether leaves can be evaluated element by element, without too much done again at other indices.

    Those that are `given` are there already.
    """
    needed = _needed(roots, given)
    if not all(node in given or is_element(node) for node in needed):
        return False
    depth: dict[Leaf, int] = dict.fromkeys(given, 0)
    for node, operands in needed.items():
        if node in given:
            continue
        step = 0 if node[0].opcode in _ELEMENTWISE else 1
        depth[node] = step + max([depth[operand] for operand in operands], default=0)
    if max(depth.values(), default=0) > _MOST_INDEX_CHANGES:
        return False
    return _evaluations(roots, needed) <= 4 * size + 1000


def is_element(node: Leaf, level: int = 0) -> bool:
    """Whether one element of a leaf can be computed by itself."""
    instruction, leaf = node
    if instruction.opcode in ("parameter", "constant"):
        return True
    if instruction.opcode in INLINED:
        if level == MOST_NESTED - 1:
            return False
        inner = post_order([source(instruction.called[0].root, leaf)], set())
        return all(is_element(nested, level + 1) and _has_no_memory(nested) for nested in inner)
    return instruction.opcode in ELEMENTS and instruction.shape.is_array


def is_scalar_control(instruction: Instruction, level: int = 0) -> bool:
    """Whether a while or conditional works on nothing but scalars, op by op: then one thread can run all of it."""
    if level == MOST_NESTED or not all(_is_of_scalars(i) for i in (instruction, *instruction.operands)):
        return False
    return all(_is_scalar_op(inner, level) for callee in instruction.called for inner in callee)


def _is_scalar_op(instruction: Instruction, level: int) -> bool:
    if not _is_of_scalars(instruction):
        return False
    if instruction.opcode in (*CONTROL, *INLINED):
        return is_scalar_control(instruction, level + 1)
    return instruction.op.is_elementwise or instruction.opcode in (*_NAMES, *PASS_THROUGH)


def _is_of_scalars(instruction: Instruction) -> bool:
    return all(leaf.is_array and not leaf.dims for _, leaf in instruction.shape.leaves())


def _has_no_memory(node: Leaf) -> bool:
    """Only the outermost fused computation can have array constants: they are inputs of the kernel."""
    instruction, leaf = node
    if instruction.opcode != "constant":
        return True
    return is_immediate(literal_at(instruction.attributes["literal"], leaf))


def _evaluations(roots: Sequence[Leaf], needed: dict[Leaf, list[Leaf]]) -> int:
    """Elements computed for one of the result: an op counts once for each index that it is used at."""
    indices: dict[Leaf, set[int]] = {node: set() for node in needed}
    for root in roots:
        indices[root].add(0)
    fresh, total = 1, 0
    for node, operands in reversed(needed.items()):
        found = indices[node] if shape_of(node).dims else {0}
        total += len(found)
        if total > 1 << 14:
            break
        for operand in operands:
            if keeps_index(node, operand):
                indices[operand] |= found
            else:
                indices[operand].update(range(fresh, fresh + len(found)))
                fresh += len(found)
    return total
