"""Ops without a choice: element by element, or a result of full size."""

from __future__ import annotations

from hloc.ir.literals import Literal
from hloc.ir.opcodes import OPS
from hloc.passes.padding.values import Padded, Rules, Site, common_sizes


def elementwise(site: Site) -> Padded:
    """Where live sizes differ, the least counts."""
    return Padded(site.same(), common_sizes(site.emit, site.operands))


def full(site: Site) -> Padded | list[Padded]:
    """What has no dynamic operand fills its bounds."""
    made = site.same()
    if made.shape.is_tuple:
        return [Padded(site.emit.element(made, i), {}) for i in range(len(made.shape.elements))]
    return Padded(made, {})


def constant(site: Site) -> Padded:
    literal = site.instruction.attributes["literal"]
    return Padded(site.same(literal=Literal(site.shape, literal.array)), {})


RULES: Rules = {
    **{name: elementwise for name, op in OPS.items() if op.is_elementwise},
    **dict.fromkeys(("iota", "rng", "rng-bit-generator"), full),
    "constant": constant,
}
