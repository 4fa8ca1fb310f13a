"""One op, or one fused computation, as a kernel over values in memory: inputs, and what may share memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hloc.codegen.bodies import Leaf, is_immediate, literal_at, source
from hloc.codegen.forms import (
    Form,
    array_leaves,
    leaves_needed,
    loop_nests,
    read_by,
    reads_only_its_part,
    same_index_only,
)
from hloc.codegen.values import Leaves, Step, View, constant_view, same_memory
from hloc.ir.instruction import Instruction
from hloc.ir.literals import Literal
from hloc.lazy import lazy

if TYPE_CHECKING:
    from hloc.codegen.epilogue import Epilogue
    from hloc.codegen.row_stages import RowStages

row_stages = lazy("hloc.codegen.row_stages")


class KernelStep(Step):
    """A kernel. `bound` names, input by input, the leaf of the op's graph that lies there.

    The other leaves on the graph's border are `immediates`: constants whose elements are all equal.
    """

    def __init__(self, instruction: Instruction, form: Form):
        super().__init__(instruction, [])
        self.form = form
        self.bound: list[Leaf] = []
        self.immediates: list[tuple[Leaf, Literal]] = []
        self.scratch_bytes = 0

    @property
    def common_scratch(self) -> bool:
        """Whether threads that share the kernel have its scratch in common."""
        own = self.form.own
        return own is not None and self.form.row.common_scratch(own, self.instruction.opcode == "fusion")

    @property
    def turns(self) -> int:
        """How many times threads share the kernel's loop, one time after the other."""
        return 1 if self.form.row is None else self.form.row.turns(self.form.own)

    def operand_leaves(self) -> list[list[Leaf]]:
        """What stands for each operand's leaves on the border of the op's graph."""
        if self.instruction.opcode == "fusion":
            return [array_leaves(parameter) for parameter in self.instruction.called[0].parameters]
        return [[source(*leaf) for leaf in array_leaves(operand)] for operand in self.instruction.operands]

    def pairs(self) -> list[tuple[int, int]]:
        """(input, output) numbers that may share memory, if no later step needs the input's value."""
        own = self.form.own
        sizes = {view.shape.dims for view in self.outputs}
        if self.form.attention is not None or not any(view.shape.dims in sizes for view in self.inputs):
            return []
        if self.form.stages is not None:
            found = self._row_pairs(self.form.stages)
        else:
            found = self._loop_pairs() if own is None else self._own_pairs(own)
        return [(i, o) for i, o in found if _alike(self.inputs[i], self.outputs[o])]

    def _loop_pairs(self) -> Iterator[tuple[int, int]]:
        """An output may lie where its own loop nest reads at the same index only, and no other one at all."""
        nests = loop_nests(self.form)
        border = set(self.bound)
        roots = [[self.form.roots[output] for output in nest] for nest in nests]
        needed = [leaves_needed(part, border) for part in roots] if len(nests) > 1 else []
        for number, nest in enumerate(nests):
            others = set().union(*needed[:number], *needed[number + 1 :])
            readable = same_index_only(Form(None, tuple(roots[number])), border) - others
            inputs = [number for number, leaf in enumerate(self.bound) if leaf in readable]
            yield from ((number, output) for output in nest for number in inputs)

    def _row_pairs(self, stages: RowStages) -> Iterator[tuple[int, int]]:
        for leaf, output in row_stages.in_place(stages, self.form.roots, self.bound):
            yield self.bound.index(leaf), output

    def _own_pairs(self, own: Instruction) -> Iterator[tuple[int, int]]:
        border = set(self.bound)
        for operand, output in self.form.row.in_place(own):
            (leaf,) = read_by(own, [operand], border)
            others = [number for number in range(len(own.operands)) if number != operand]
            if leaf not in read_by(own, others, border) or (
                own.opcode == "dynamic-update-slice" and reads_only_its_part(own, leaf, border)
            ):
                yield self.bound.index(leaf), output
        if self.form.epilogue is not None:
            yield from self._epilogue_pairs(own, self.form.epilogue)

    def _epilogue_pairs(self, own: Instruction, epilogue: Epilogue) -> Iterator[tuple[int, int]]:
        """What only the epilogue reads, each element just before it writes the one of the same index."""
        if len(set(epilogue.moves)) > 1:
            return
        border = set(self.bound)
        readable = same_index_only(Form(None, epilogue.roots), border | set(epilogue.own))
        readable -= read_by(own, range(len(own.operands)), border)
        numbers = [number for number, leaf in enumerate(self.bound) if leaf in readable]
        for output in self.form.row.written_once(own, epilogue):
            yield from ((number, output) for number in numbers)


def _alike(view: View, other: View) -> bool:
    return view.shape.dims == other.shape.dims and same_memory(view.shape, other.shape)


def kernel_step(instruction: Instruction, form: Form, leaves: dict[Instruction, Leaves]) -> KernelStep:
    """The kernel of an op, given the leaves of the instructions before it; without outputs yet."""
    step = KernelStep(instruction, form)
    border = _border(instruction, leaves)
    arrays: set[Leaf] = set()
    step.scratch_bytes = form.row_bytes
    if form.attention is not None:
        step.scratch_bytes = form.attention.scratch_bytes
    if form.own is not None:
        row = form.row
        if row.fused_scratch is not None and instruction.opcode == "fusion":
            step.scratch_bytes = row.fused_scratch(form.own, form.epilogue)
        else:
            step.scratch_bytes = row.scratch(form.own)
        elements = set(row.element_operands(form.own))
        needed = [number for number in range(len(form.own.operands)) if number not in elements]
        arrays = read_by(form.own, needed, set(border))
    for leaf, view in border.items():
        literal = view.value.literal
        if literal is not None and leaf not in arrays and is_immediate(literal):
            step.immediates.append((leaf, literal))
        else:
            step.bound.append(leaf)
            step.inputs.append(view)
    return step


def _border(instruction: Instruction, leaves: dict[Instruction, Leaves]) -> dict[Leaf, View]:
    """Where the op's graph begins: the operands' leaves, or a fusion's parameters and array constants."""
    if instruction.opcode != "fusion":
        return {
            source(operand, leaf): view
            for operand in instruction.operands
            for leaf, view in leaves[operand].items()
        }
    body = instruction.called[0]
    border = {
        (parameter, leaf): view
        for parameter, operand in zip(body.parameters, instruction.operands, strict=True)
        for leaf, view in leaves[operand].items()
    }
    for inner in body:
        for _, leaf in array_leaves(inner) if inner.opcode == "constant" else ():
            literal = literal_at(inner.attributes["literal"], leaf)
            border[inner, leaf] = constant_view(literal, inner.shape.at(leaf))
    return border
