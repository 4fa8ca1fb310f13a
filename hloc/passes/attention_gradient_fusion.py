"""Fusion of the backward pass of attentions: its products, and all between them, as one kernel."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field

from hloc.analysis.attention import Attention, attention_of, is_passed
from hloc.analysis.attention_gradient import AttentionGradient, gradient_of
from hloc.analysis.call_graph import CallGraph
from hloc.analysis.effects import Effects
from hloc.ir.clone import clone_instruction
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.passes.fusion_report import Edges
from hloc.passes.fusion_rewrite import RENAMING, with_producers, within, write_fusions
from hloc.passes.report import Remark

_FEWEST = 16
"""Rows and columns of a batch from which on it pays to pack operands for them."""

_FEWEST_BATCHES = 8
"""Threads share batches: their number should be a good part of such a count."""

_KNOWN, _MOST_OPS = ("iota", "constant", "broadcast", "reshape", "transpose"), 24
"""What a mask is made of that is known when a kernel is written, besides elementwise ops, and how many of them."""


@dataclass
class AttentionGradientFusion:
    """Joins what an attention's gradients are made of: s = q k', p = softmax(s), g v', p' g, and z k and z' q.

    One kernel makes some rows of the scores s and of g v', lets them go through what lies between, and multiplies what
    they become, all in temporary memory that stays in a cache. The scores are computed again there: the attention
    itself gets scores of its own, so that attention_fusion can make one kernel of it, and neither scores nor weights
    need be kept for the gradients. A mask that is known has to make up for that: the kernels leave out what it hides.
    With `limit` so many fusions are made at most.

    Requires: layouts (layout_assignment).
    Ensures: in each of its fusions what lies between the products goes row by row.
    Leaves: gradients of attentions without a mask, with few rows, columns or batches, or if something in between is
    needed elsewhere.
    """

    instructions: int = 250
    operands: int = 64
    limit: int | None = None
    explain: bool = False
    remarks: list[Remark] = field(default_factory=list, init=False)

    def run(self, module: Module) -> int:
        effects = Effects()
        made = 0
        for computation in CallGraph(module).with_kernels():
            groups = within(self.limit, list(self._groups(computation)), self.remarks, "attention_gradient_fusion")
            for group in groups:
                group.part_from_attention(computation)
            edges = Edges("attention_gradient_fusion", computation) if self.explain else None
            write_fusions(computation, groups, effects, edges)
            self.remarks += edges.fused() if edges is not None else ()
            made += len(groups)
        if made:
            module.order_computations()
        return made

    def _groups(self, computation: Computation) -> Iterator[GradientGroup]:
        dots = [instruction for instruction in computation if instruction.opcode == "dot"]
        if len(dots) < 4:
            return
        position = {instruction: place for place, instruction in enumerate(computation)}
        taken: set[Instruction] = set()
        for product in dots:
            found = attention_of(product, position) if product not in taken else None
            uses = None if found is None else _uses(found)
            if not uses:
                continue
            gradient = gradient_of(uses, position)
            reason = "its products do not share rows" if gradient is None else self._refusal(found, gradient, taken)
            if not reason:
                group = GradientGroup(found, gradient, position)
                taken.update(group.members)
                yield group
            figures = {"batch": found.batch, "rows": found.m, "columns": found.n, "scores": found.scores.name}
            text = f"its gradients are not one kernel: {reason}" if reason else (
                f"its gradients are one kernel: {found.batch} x {found.m} x {found.n} scores are not stored"
            )  # fmt: skip
            self.remarks.append(Remark("attention_gradient_fusion", product.name, text, figures))

    def _refusal(self, found: Attention, gradient: AttentionGradient, taken: set[Instruction]) -> str:
        """Why gradients had better be left alone; nothing if not."""
        inside = _members(gradient)
        if inside & taken:
            return "a part of it is in another one"
        if len(inside) > self.instructions:
            return f"it has {len(inside)} instructions"
        allowed = inside | {found.scores, *found.between, found.product}
        products = {product.dot for product in gradient.products}
        for instruction in sorted(inside - products, key=lambda i: i.name):
            if instruction.is_root or any(user not in allowed for user in instruction.users):
                return f"%{instruction.name} is needed elsewhere too"
        if any(i.control_predecessors or i.control_successors for i in allowed):
            return "it has to run in an order that is given"
        if not all(i.shape.dtype.is_float for i in inside if i.shape.dtype.name != "pred"):
            return "it is not of floats"
        if min(gradient.m, gradient.n) < _FEWEST or not gradient.is_packable:
            return f"{gradient.m} rows and {gradient.n} columns are no good size"
        if not any(_masks(instruction) for instruction in gradient.between):
            return "no known mask makes up for scores that are computed twice"
        if gradient.batch < _FEWEST_BATCHES:
            return f"{gradient.batch} batches are too few"
        given = {operand for member in inside for operand in member.operands}
        after = _descendants(products)
        return "an operand is made of a result" if given & (products | (after - inside)) else ""


class GradientGroup:
    """The members of one fusion: the gradients of `found`."""

    def __init__(self, found: Attention, gradient: AttentionGradient, position: dict[Instruction, int]):
        self.found = found
        self.outputs = sorted((product.dot for product in gradient.products), key=position.__getitem__)
        members = sorted(_members(gradient), key=position.__getitem__)
        self.members = with_producers(members, position, _takes)

    @property
    def last(self) -> Instruction:
        return self.outputs[-1]

    def part_from_attention(self, computation: Computation) -> None:
        """Gives the attention scores of its own, and all that lies between."""
        found = self.found
        twins: dict[Instruction, Instruction] = {}
        for instruction in (found.scores, *found.between):
            operands = [twins.get(operand, operand) for operand in instruction.operands]
            twins[instruction] = computation.add(clone_instruction(instruction, operands), before=found.product)
        weights = found.product.operands[found.weights]
        computation.set_operand(found.product, found.weights, twins[weights])


def _takes(producer: Instruction, members: Container[Instruction]) -> bool:
    """Whether it goes in: what only renames does even if others need it too, as it costs nothing to read it twice."""
    if producer.opcode in RENAMING:
        return producer.opcode != "constant" or producer.shape.count == 1
    return producer.op.is_elementwise and not producer.is_root and all(user in members for user in producer.users)


def _masks(instruction: Instruction) -> bool:
    """Whether an op is a select by what no argument has a part in."""
    if instruction.opcode != "select":
        return False
    pending, seen = [instruction.operands[0]], set()
    while pending and len(seen) < _MOST_OPS:
        value = pending.pop()
        if value.opcode not in _KNOWN and not value.op.is_elementwise:
            return False
        if value not in seen:
            seen.add(value)
            pending += value.operands
    return not pending


def _members(gradient: AttentionGradient) -> set[Instruction]:
    dots = [*(scores.dot for scores in gradient.scores), *(product.dot for product in gradient.products)]
    return {*dots, *gradient.between}


def _uses(found: Attention) -> list[tuple[Instruction, int]] | None:
    """The products, but the attention's own, of what depends on the scores; None if something else does."""
    uses: dict[tuple[Instruction, int], None] = {}
    seen = {found.scores}
    pending = [found.scores]
    while pending:
        instruction = pending.pop()
        if instruction.is_root:
            return None
        for user in instruction.users:
            if user.opcode == "dot":
                numbers = [number for number, operand in enumerate(user.operands) if operand is instruction]
                uses |= dict.fromkeys((user, number) for number in numbers)
            elif not is_passed(user):
                return None
            elif user not in seen:
                seen.add(user)
                pending.append(user)
    uses.pop((found.product, found.weights), None)
    dots = [dot for dot, _ in uses]
    return None if found.product in dots or len(set(dots)) < len(dots) else list(uses)


def _descendants(values: Iterable[Instruction]) -> set[Instruction]:
    seen: set[Instruction] = set()
    pending = list(values)
    while pending:
        for user in pending.pop().users:
            if user not in seen:
                seen.add(user)
                pending.append(user)
    return seen
