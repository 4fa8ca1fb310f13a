"""In which form an op becomes native code: one loop nest, loops of its own, or a call of its computation.

A fused computation is one kernel if all of it can be evaluated element by element ("loop"; roots of unequal sizes
have a loop nest each, one after the other), or if its root
has loops of its own and takes the rest as elements ("own"), or if elementwise ops alone follow on such an op
(its epilogue), or if it is reduces over the same rows and what goes with them ("rows", see `row_stages.py`), or
two products with such rows in between ("attention", see `attention_plan.py`). Any other one is compiled like a called
computation, each instruction a kernel ("call").
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from hloc.analysis.moves import moves_from
from hloc.codegen.bodies import INLINED, MOST_NESTED, Leaf, is_immediate, lies_in_memory, literal_at, source
from hloc.codegen.epilogue import Epilogue
from hloc.codegen.kernel import ELEMENTS, KERNELS
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.lazy import lazy
from hloc.records import record

if TYPE_CHECKING:
    from hloc.codegen.attention_plan import AttentionPlan
    from hloc.codegen.row_stages import RowStages

attention_plan = lazy("hloc.codegen.attention_plan")
row_stages = lazy("hloc.codegen.row_stages")

_MOST_INDEX_CHANGES = 48
"""Ops that change the index, one after the other: their evaluation is recursive."""


@record
class Form:
    """How a kernel is made: `own` is the op with loops of its own, or None for loop nests over `roots`.

    `epilogue` says what is done with each of the op's results, if they are not the roots themselves. `stages` is how
    a kernel goes through its rows, if it does; `attention` how it goes through two products and what lies between.
    """

    own: Instruction | None
    roots: tuple[Leaf, ...]
    epilogue: Epilogue | None = None
    stages: RowStages | None = None
    attention: AttentionPlan | None = None


def array_leaves(instruction: Instruction) -> list[Leaf]:
    """The leaves that have memory: all but tokens."""
    return [(instruction, leaf) for leaf, shape in instruction.shape.leaves() if shape.is_array]


def form_of(instruction: Instruction) -> Form | None:
    """The form of an op that is not control flow; None if it has to be called or is not supported."""
    leaves = tuple(array_leaves(instruction))
    if instruction.opcode != "fusion":
        if instruction.opcode in KERNELS:
            return Form(instruction, leaves)
        return Form(None, leaves) if instruction.opcode in ELEMENTS else None
    return _fusion_form(instruction.called[0])


def _fusion_form(body: Computation) -> Form | None:
    roots = tuple(source(*leaf) for leaf in array_leaves(body.root))
    if not roots:
        return None
    first = roots[0][0]
    if first.opcode in KERNELS and roots == tuple(array_leaves(first)) and _takes_operands(first, len(body)):
        return Form(first, roots)
    if _are_elements(roots, len(body)):
        return Form(None, roots)
    own = [i for i in body if i.opcode in KERNELS and i.opcode not in ELEMENTS]
    if len(own) == 1 and KERNELS[own[0].opcode].takes_epilogue(own[0]) and _takes_operands(own[0], len(body)):
        epilogue = _epilogue(own[0], roots, len(body))
        if epilogue is not None:
            return Form(own[0], roots, epilogue)
    if sum(i.opcode == "dot" for i in own) == 2:
        plan = attention_plan.attention_plan(body, roots, lambda dot: _epilogue(dot, roots, len(body)))
        return None if plan is None else Form(None, roots, plan.epilogue, attention=plan)
    stages = row_stages.row_stages(body, roots) if any(i.opcode == "reduce" for i in own) else None
    return None if stages is None else Form(None, roots, stages=stages)


def _takes_operands(own: Instruction, size: int) -> bool:
    """Whether an op with loops of its own finds its operands in memory, or takes them element by element."""
    row = KERNELS[own.opcode]
    elements = set(row.element_operands(own))
    arrays = [operand for number, operand in enumerate(own.operands) if number not in elements]
    fused = own.operands if row.strided else [own.operands[number] for number in sorted(elements)]
    return (row.strided or all(map(lies_in_memory, arrays))) and _are_elements([(i, ()) for i in fused], size)


def _epilogue(own: Instruction, roots: tuple[Leaf, ...], size: int) -> Epilogue | None:
    """What follows on an op up to the roots; None if that is not done at one index after the other."""
    leaves = tuple(array_leaves(own))
    if not _are_elements(roots, size, set(leaves)):
        return None
    moves = moves_from(leaves, _post_order(roots, set(leaves)), _operands)
    if moves is None:
        return None
    by_dims = {_dims(root): moves[root] for root in roots if root in moves}
    if any(_dims(root) not in by_dims for root in roots):
        return None
    found = tuple(moves.get(root, by_dims[_dims(root)]) for root in roots)
    return Epilogue(leaves, roots, found)


def _operands(node: Leaf) -> list[Leaf]:
    """What the evaluation of a leaf asks for."""
    instruction, _ = node
    if instruction.opcode in INLINED:
        leaves = [leaf for operand in instruction.operands for leaf in array_leaves(operand)]
        return [source(*leaf) for leaf in leaves]
    return [source(operand, ()) for operand in instruction.operands]


def _dims(node: Leaf) -> tuple[int, ...]:
    return node[0].shape.at(node[1]).dims


def _keeps_index(node: Leaf, operand: Leaf) -> bool:
    return node[0].op.is_elementwise and _dims(operand) == _dims(node)


def _post_order(roots: Sequence[Leaf], ends: Collection[Leaf]) -> list[Leaf]:
    """Everything that the roots need, operands first, not looking behind `ends`."""
    order: list[Leaf] = []
    done: set[Leaf] = set()
    opened: set[Leaf] = set()
    stack = list(reversed(roots))
    while stack:
        node = stack[-1]
        if node in done:
            stack.pop()
        elif node in opened or node in ends:
            stack.pop()
            done.add(node)
            order.append(node)
        else:
            opened.add(node)
            stack += [operand for operand in _operands(node) if operand not in done]
    return order


def _are_elements(roots: Sequence[Leaf], size: int, given: Collection[Leaf] = frozenset()) -> bool:
    """Whether leaves can be evaluated element by element, without too much done again at other indices.

    Those that are `given` are there already.
    """
    order = _post_order(roots, given)
    if not all(node in given or _is_element(node) for node in order):
        return False
    depth: dict[Leaf, int] = dict.fromkeys(given, 0)
    for node in order:
        if node in given:
            continue
        step = 0 if node[0].op.is_elementwise else 1
        depth[node] = step + max((depth[operand] for operand in _operands(node)), default=0)
    if max(depth.values(), default=0) > _MOST_INDEX_CHANGES:
        return False
    return _evaluations(roots, order, given) <= 4 * size + 1000


def _is_element(node: Leaf, level: int = 0) -> bool:
    instruction, leaf = node
    if instruction.opcode in ("parameter", "constant"):
        return True
    if instruction.opcode in INLINED:
        if level == MOST_NESTED - 1:
            return False
        inner = _post_order([source(instruction.called[0].root, leaf)], set())
        return all(_is_element(nested, level + 1) and _has_no_memory(nested) for nested in inner)
    return instruction.opcode in ELEMENTS and instruction.shape.is_array


def _has_no_memory(node: Leaf) -> bool:
    """Only the outermost fused computation can have array constants: they are inputs of the kernel."""
    instruction, leaf = node
    if instruction.opcode != "constant":
        return True
    return is_immediate(literal_at(instruction.attributes["literal"], leaf))


def _evaluations(roots: Sequence[Leaf], order: list[Leaf], given: Collection[Leaf]) -> int:
    """Elements computed for one of the result: an op counts once for each index that it is used at."""
    indices: dict[Leaf, set[int]] = {node: set() for node in order}
    for root in roots:
        indices[root].add(0)
    fresh, total = 1, 0
    for node in reversed(order):
        found = indices[node] if _dims(node) else {0}
        total += len(found)
        if total > 1 << 14:
            break
        for operand in () if node in given else _operands(node):
            if _keeps_index(node, operand):
                indices[operand] |= found
            else:
                indices[operand].update(range(fresh, fresh + len(found)))
                fresh += len(found)
    return total


def loop_nests(form: Form) -> list[list[int]]:
    """The numbers of the roots that each of the loop nests of a kernel computes."""
    nests: dict[tuple[int, ...], list[int]] = {}
    for number, root in enumerate(form.roots):
        nests.setdefault(_dims(root), []).append(number)
    return list(nests.values())


def leaves_needed(roots: Sequence[Leaf], border: set[Leaf]) -> set[Leaf]:
    """The border leaves that some roots are computed from."""
    return border & set(_post_order(roots, border))


def same_index_only(form: Form, bound: set[Leaf]) -> set[Leaf]:
    """The bound leaves that a loop nest reads only at the index that it writes: it may write over them."""
    if form.own is not None:
        return set()
    here, elsewhere = set(form.roots), set()
    for node in reversed(_post_order(form.roots, bound)):
        for operand in () if node in bound else _operands(node):
            if _keeps_index(node, operand):
                here.add(operand)
            if not _keeps_index(node, operand) or node in elsewhere:
                elsewhere.add(operand)
    return {leaf for leaf in bound if leaf in here and leaf not in elsewhere}


def read_by(instruction: Instruction, numbers: Iterable[int], border: set[Leaf]) -> set[Leaf]:
    """The border leaves that some operands of an op are computed from."""
    leaves = [leaf for number in numbers for leaf in array_leaves(instruction.operands[number])]
    return border & set(_post_order([source(*leaf) for leaf in leaves], border))


def reads_only_its_part(update: Instruction, array: Leaf, border: set[Leaf]) -> bool:
    """Whether a dynamic-update-slice reads the array only at the element that it is about to write.

    So it does where the array reaches the update only through dynamic-slices from the same place, and from
    there each element stays at its index, but for dimensions of size 1.
    """
    part, starts = update.operands[1], update.operands[2:]
    if array in read_by(update, range(2, len(update.operands)), border):
        return False
    pending, seen = [source(part, ())], set()
    while pending:
        node = pending.pop()
        if node == array:
            return False
        if node in seen or node in border:
            continue
        seen.add(node)
        instruction = node[0]
        if instruction.opcode == "dynamic-slice" and source(instruction.operands[0], ()) == array:
            if not _same_part(instruction, starts, part.shape.dims):
                return False
            continue
        moved = [operand for operand in _operands(node) if not _keeps_wide_index(node, operand)]
        if array in set(_post_order(moved, border)):
            return False
        pending += [operand for operand in _operands(node) if operand not in moved]
    return True


def _same_part(read: Instruction, starts: Sequence[Instruction], sizes: tuple[int, ...]) -> bool:
    given = [source(start, ()) for start in read.operands[1:]]
    return given == [source(start, ()) for start in starts] and read.shape.dims == sizes


def _keeps_wide_index(node: Leaf, operand: Leaf) -> bool:
    """Whether the op keeps each element at its index, but for dimensions of size 1."""
    instruction = node[0]
    if instruction.op.is_elementwise:
        return _dims(operand) == _dims(node)
    wide, before = ([size for size in _dims(leaf) if size != 1] for leaf in (node, operand))
    if instruction.opcode == "broadcast":
        dimensions = instruction.get("dimensions")
        return wide == before and list(dimensions) == sorted(dimensions)
    return instruction.opcode == "reshape" and wide == before


def minor_in_result(form: Form, minors: dict[Leaf, int]) -> list[int]:
    """Which result dimension the fastest dimension of each border leaf is, for those of which it is known.

    `minors` gives the leaves' fastest dimensions. Only ops that rename dimensions are seen through:
    elementwise ones, transposes and broadcasts.
    """
    found: list[int] = []
    names = {root: tuple(range(len(_dims(root)))) for root in form.roots}
    for node in reversed(_post_order(form.roots, set(minors))):
        dims = names.get(node)
        if dims is None:
            continue
        if node in minors:
            found.append(dims[minors[node]])
            continue
        for operand in _operands(node):
            renamed = _operand_dimensions(node, operand, dims)
            if renamed is not None:
                names.setdefault(operand, renamed)
    return found


def _operand_dimensions(node: Leaf, operand: Leaf, dims: tuple[int, ...]) -> tuple[int, ...] | None:
    """The operand's dimensions under the names that the node's dimensions have."""
    instruction = node[0]
    if _keeps_index(node, operand):
        return dims
    if instruction.opcode == "broadcast":
        return tuple(dims[dimension] for dimension in instruction.get("dimensions"))
    if instruction.opcode == "transpose":
        order = instruction.get("dimensions")
        return tuple(dims[order.index(dimension)] for dimension in range(len(order)))
    return None
