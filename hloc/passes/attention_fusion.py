"""Attention fusion: two products and the softmax between them as one kernel, which stores no scores."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from hloc.analysis.attention import Attention, attention_of
from hloc.analysis.call_graph import CallGraph
from hloc.analysis.effects import Effects
from hloc.analysis.softmax import softmax_of
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.passes.fusion_report import Edges
from hloc.passes.fusion_rewrite import RENAMING, with_producers, within, write_fusions
from hloc.passes.fusion_rules import CLONED, is_producer
from hloc.passes.report import Remark

_FEWEST_ROWS = 4
"""Rows of a batch from which on it pays to pack keys and values for them."""


@dataclass
class AttentionFusion:
    """Joins dot(f(dot(q, k)), v), where f works on rows of scores: scale, mask, softmax.

    A kernel makes the scores of some rows, lets them go through f, and multiplies them by v, all in temporary memory
    that stays in a cache. Elementwise ops, and ops that only rename elements, that lead to q, k, v or into f go in
    as well if nobody else needs their result. With `limit` so many fusions are made at most.

    Requires: layouts (layout_assignment).
    Ensures: each of its fusions has two dots, and f between them goes row by row.
    Leaves: attentions of which the scores, or what is made of them on the way, are needed elsewhere (for a gradient).
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
            groups = within(self.limit, list(self._groups(computation)), self.remarks, "attention_fusion")
            edges = Edges("attention_fusion", computation) if self.explain else None
            write_fusions(computation, groups, effects, edges)
            self.remarks += edges.fused() if edges is not None else ()
            made += len(groups)
        if made:
            module.order_computations()
        return made

    def _groups(self, computation: Computation) -> Iterator[AttentionGroup]:
        dots = [instruction for instruction in computation if instruction.opcode == "dot"]
        if len(dots) < 2:
            return
        position = {instruction: place for place, instruction in enumerate(computation)}
        taken: set[Instruction] = set()
        for product in dots:
            found = attention_of(product, position)
            if found is None:
                continue
            reason = self._refusal(found, taken)
            if not reason:
                group = AttentionGroup(found, self.instructions, position)
                taken.update(group.members)
                yield group
            figures = {"batch": found.batch, "rows": found.m, "columns": found.n, "scores": found.scores.name}
            text = f"not one kernel with %{found.scores.name}: {reason}" if reason else (
                f"one kernel with %{found.scores.name}: {found.batch} x {found.m} x {found.n} scores are not stored"
            )  # fmt: skip
            self.remarks.append(Remark("attention_fusion", product.name, text, figures))

    def _refusal(self, found: Attention, taken: set[Instruction]) -> str:
        """Why an attention had better be left alone; nothing if not."""
        inside = {found.scores, *found.between, found.product}
        if inside & taken:
            return "a part of it is in another one"
        if len(inside) > self.instructions:
            return f"it has {len(inside)} instructions"
        for instruction in (found.scores, *found.between):
            if instruction.is_root or any(user not in inside for user in instruction.users):
                return f"%{instruction.name} is needed elsewhere too"
        if any(i.control_predecessors or i.control_successors for i in inside):
            return "it has to run in an order that is given"
        if not all(i.shape.dtype.is_float for i in (found.scores, found.product, *found.between) if _is_value(i)):
            return "it is not of floats"
        if found.m < _FEWEST_ROWS:
            return f"{found.m} rows are too few"
        return self._unsuited(found)

    def _unsuited(self, found: Attention) -> str:
        """What keeps the machine from computing it as one kernel; nothing if it can."""
        return "" if found.is_packable else "keys and values stay in no cache"


class SoftmaxAttentionFusion(AttentionFusion):
    """Joins dot(softmax(f(dot(q, k))), v): what a device computes tile by tile of keys, however many there are.

    The same as AttentionFusion, of attentions whose softmax can go on from tile to tile.

    Requires: layouts (layout_assignment).
    Ensures: each of its fusions has two dots, and between them a softmax of what is made of scores one by one.
    Leaves: attentions with something else in between, or of which scores or weights are needed elsewhere.
    """

    def _unsuited(self, found: Attention) -> str:
        return "" if softmax_of(found) is not None else "what lies between the products is no softmax"


class AttentionGroup:
    """The members of one fusion."""

    def __init__(self, found: Attention, most: int, position: dict[Instruction, int]):
        self.outputs = [found.product]
        self.members = with_producers((found.scores, *found.between, found.product), position, _takes, most)

    @property
    def last(self) -> Instruction:
        return self.outputs[0]


def _takes(producer: Instruction, members: Container[Instruction]) -> bool:
    if not is_producer(producer) or not (producer.op.is_elementwise or producer.opcode in RENAMING):
        return False
    return producer.opcode in CLONED or (not producer.is_root and all(user in members for user in producer.users))


def _is_value(instruction: Instruction) -> bool:
    return instruction.shape.dtype.name != "pred"
