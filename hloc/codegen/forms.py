"""In which form an op becomes native code: one loop nest, loops of its own, or a call of its computation.

A fused computation is one kernel if all of it can be evaluated element by element ("loop"; roots of unequal sizes
have a loop nest each, one after the other), or if its root
has loops of its own and takes the rest as elements ("own"), or if elementwise ops alone follow on such an op
(its epilogue), or if it is reduces over the same rows and what goes with them ("rows", see `row_stages.py`), or
two products with such rows in between ("attention", see `attention_plan.py`), or several such products and the
products of what lies between (its gradients, see `attention_gradient.py`). Any other one is compiled like a called
computation, each instruction a kernel ("call").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from hloc.analysis.moves import moves_from
from hloc.codegen.bodies import Leaf, lies_in_memory, source
from hloc.codegen.epilogue import Epilogue
from hloc.codegen.graphs import are_elements, array_leaves, keeps_index, operands_of, post_order, shape_of
from hloc.codegen.kernel import ELEMENTS, KERNELS, KernelRow, Kernels
from hloc.codegen.loops import reshape_runs
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape
from hloc.lazy import lazy
from hloc.records import record

if TYPE_CHECKING:
    from hloc.codegen.kernel import AttentionWay
    from hloc.codegen.row_stages import RowStages

attention_blocks = lazy("hloc.codegen.attention_blocks")
attention_gradient = lazy("hloc.codegen.attention_gradient")
attention_plan = lazy("hloc.codegen.attention_plan")
row_stages = lazy("hloc.codegen.row_stages")

CPU_KERNELS = Kernels(
    KERNELS,
    rows=lambda stages: stages.scratch_bytes,
    attention=lambda plan: attention_blocks.attention_blocks(plan),
    gradient=lambda body, roots: attention_gradient.gradient_way(body, roots),
)


@record
class Form:
    """How a kernel is made: `own` is the op with loops of its own, or None for loop nests over `roots`.

    `row` is that op's entry in the target's table. `epilogue` says what is done with each of the op's results, if they
    are not the roots themselves. `stages` is how a kernel goes through its rows, if it does, for which it needs
    `row_bytes` of temporary memory; `attention` how it goes through products and what lies between.
    """

    own: Instruction | None
    roots: tuple[Leaf, ...]
    epilogue: Epilogue | None = None
    stages: RowStages | None = None
    row_bytes: int = 0
    attention: AttentionWay | None = None
    row: KernelRow | None = None


def form_of(instruction: Instruction, kernels: Kernels = CPU_KERNELS) -> Form | None:
    """The form of an op that is not control flow; None if it has to be called or is not supported."""
    leaves = tuple(array_leaves(instruction))
    if instruction.opcode != "fusion":
        if instruction.opcode in kernels.own:
            return Form(instruction, leaves, row=kernels.own[instruction.opcode])
        return Form(None, leaves) if instruction.opcode in ELEMENTS else None
    return _fusion_form(instruction.called[0], kernels)


def _fusion_form(body: Computation, kernels: Kernels) -> Form | None:
    roots = tuple(source(*leaf) for leaf in array_leaves(body.root))
    if not roots:
        return None
    first = roots[0][0]
    table = kernels.own
    if first.opcode in table and roots == tuple(array_leaves(first)):
        row = table[first.opcode]
        if _takes_operands(first, row, len(body)):
            return Form(first, roots, row=row)
    if are_elements(roots, len(body)):
        return Form(None, roots)
    own = [i for i in body if i.opcode in table and i.opcode not in ELEMENTS]
    if len(own) == 1:
        row = table[own[0].opcode]
        if row.takes_epilogue(own[0]) and _takes_operands(own[0], row, len(body)):
            epilogue = _epilogue(own[0], roots, len(body))
            if epilogue is not None:
                return Form(own[0], roots, epilogue, row=row)
    if kernels.attention is not None and sum(i.opcode == "dot" for i in own) == 2:
        plan = attention_plan.attention_plan(body, roots, lambda dot: _epilogue(dot, roots, len(body)))
        way = None if plan is None else kernels.attention(plan)
        return None if way is None else Form(None, roots, plan.epilogue, attention=way)
    if kernels.gradient is not None and sum(i.opcode == "dot" for i in own) > 2:
        way = kernels.gradient(body, roots)
        return None if way is None else Form(None, roots, attention=way)
    has_reduce = any(i.opcode == "reduce" for i in body)
    stages = row_stages.row_stages(body, roots) if kernels.rows is not None and has_reduce else None
    return None if stages is None else Form(None, roots, stages=stages, row_bytes=kernels.rows(stages))


def _takes_operands(own: Instruction, row: KernelRow, size: int) -> bool:
    """Whether an op with loops of its own finds its operands in memory, or takes them element by element."""
    elements = set(row.element_operands(own))
    arrays = [operand for number, operand in enumerate(own.operands) if number not in elements]
    fused = own.operands if row.strided else [own.operands[number] for number in sorted(elements)]
    return (row.strided or all(map(lies_in_memory, arrays))) and are_elements([(i, ()) for i in fused], size)


def _epilogue(own: Instruction, roots: tuple[Leaf, ...], size: int) -> Epilogue | None:
    """What follows on an op up to the roots; None if that is not done at one index after the other."""
    leaves = tuple(array_leaves(own))
    if not are_elements(roots, size, set(leaves)):
        return None
    moves = moves_from(leaves, post_order(roots, set(leaves)), operands_of)
    if moves is None:
        return None
    by_dims = {shape_of(root).dims: moves[root] for root in roots if root in moves}
    if any(shape_of(root).dims not in by_dims for root in roots):
        return None
    found = tuple(moves.get(root, by_dims[shape_of(root).dims]) for root in roots)
    return Epilogue(leaves, roots, found)


def loop_nests(form: Form) -> list[list[int]]:
    """The numbers of the roots that each of the loop nests of a kernel computes."""
    nests: dict[tuple[int, ...], list[int]] = {}
    for number, root in enumerate(form.roots):
        nests.setdefault(shape_of(root).dims, []).append(number)
    return list(nests.values())


def dims_before_reshapes(shape: ArrayShape, roots: Sequence[Leaf]) -> tuple[int, ...] | None:
    """The dimensions that a reshape merges on the way to roots of a shape; None if there are none, or several such.

    A loop nest over them finds elements before the reshape without a division.
    """
    if shape.count == 0 or shape.minor_to_major != tuple(range(len(shape.dims)))[::-1]:
        return None
    found: set[tuple[int, ...]] = set()
    pending, seen = list(roots), set(roots)
    while pending:
        node = pending.pop()
        if node[0].opcode == "reshape" and shape_of(node).dims == shape.dims:
            (operand,) = operands_of(node)
            if operand[0].opcode not in ("parameter", "constant"):
                found.add(shape_of(operand).dims)
        new = [operand for operand in operands_of(node) if keeps_index(node, operand) and operand not in seen]
        pending += new
        seen.update(new)
    dims = found.pop() if len(found) == 1 else shape.dims
    runs = reshape_runs(dims, shape.dims)
    is_finer = sum(size != 1 for size in dims) > sum(size != 1 for size in shape.dims)
    is_merged = all(sum(shape.dims[d] != 1 for d in run) <= 1 for _, run in runs)
    return dims if is_finer and is_merged else None


def leaves_needed(roots: Sequence[Leaf], border: set[Leaf]) -> set[Leaf]:
    """The border leaves that some roots are computed from."""
    return border & set(post_order(roots, border))


def same_index_only(form: Form, bound: set[Leaf]) -> set[Leaf]:
    """The bound leaves that a loop nest reads only at the index that it writes: it may write over them."""
    if form.own is not None:
        return set()
    here, elsewhere = set(form.roots), set()
    for node in reversed(post_order(form.roots, bound)):
        for operand in () if node in bound else operands_of(node):
            if keeps_index(node, operand):
                here.add(operand)
            if not keeps_index(node, operand) or node in elsewhere:
                elsewhere.add(operand)
    return {leaf for leaf in bound if leaf in here and leaf not in elsewhere}


def read_by(instruction: Instruction, numbers: Iterable[int], border: set[Leaf]) -> set[Leaf]:
    """The border leaves that some operands of an op are computed from."""
    leaves = [leaf for number in numbers for leaf in array_leaves(instruction.operands[number])]
    return border & set(post_order([source(*leaf) for leaf in leaves], border))


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
        moved = [operand for operand in operands_of(node) if not _keeps_wide_index(node, operand)]
        if array in set(post_order(moved, border)):
            return False
        pending += [operand for operand in operands_of(node) if operand not in moved]
    return True


def _same_part(read: Instruction, starts: Sequence[Instruction], sizes: tuple[int, ...]) -> bool:
    given = [source(start, ()) for start in read.operands[1:]]
    return given == [source(start, ()) for start in starts] and read.shape.dims == sizes


def _keeps_wide_index(node: Leaf, operand: Leaf) -> bool:
    """Whether the op keeps each element at its index, but for dimensions of size 1."""
    instruction = node[0]
    if instruction.op.is_elementwise:
        return shape_of(operand).dims == shape_of(node).dims
    wide, before = ([size for size in shape_of(leaf).dims if size != 1] for leaf in (node, operand))
    if instruction.opcode == "broadcast":
        dimensions = instruction.get("dimensions")
        return wide == before and list(dimensions) == sorted(dimensions)
    return instruction.opcode == "reshape" and wide == before
