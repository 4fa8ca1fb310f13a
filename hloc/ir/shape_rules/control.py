"""Shape rules of ops that run computations: calls, loops, branches, and work begun and finished later."""

from __future__ import annotations

from hloc.ir.computation import Computation
from hloc.ir.dtypes import PRED, S32
from hloc.ir.shape_rules.common import (
    Site,
    check_parameters,
    check_returns,
    compatible,
    scalar_shape,
    signature,
)
from hloc.ir.shapes import ArrayShape, Shape, TupleShape


def called_root(site: Site) -> Shape:
    """call and fusion: parameters take the operands, the result is the computation's."""
    attribute = "calls" if site.opcode == "fusion" else "to_apply"
    return check_parameters(site, site.get(attribute), site.shapes, attribute)


def while_(site: Site) -> Shape:
    state = [site.shapes[0]]
    condition, body = site.get("condition"), site.get("body")
    proceeds = check_parameters(site, condition, state, "condition")
    check_returns(site, condition, proceeds, scalar_shape(PRED), "condition")
    check_returns(site, body, check_parameters(site, body, state, "body"), site.shapes[0], "body")
    return site.shapes[0]


def branches_of(site: Site) -> tuple[Computation, ...]:
    """The branch computations by index; of a pred, the true one is 0."""
    pair = (site.get("true_computation"), site.get("false_computation"))
    named = [computation for computation in pair if computation is not None]
    listed = site.get("branch_computations")
    by_truth = site.array(0).dtype is PRED
    if by_truth and len(named) == 2 and not listed:
        return tuple(named)
    if not by_truth and listed and not named:
        return tuple(listed)
    expected = "true_computation and false_computation" if by_truth else "branch_computations"
    raise site.error("CONDITIONAL_C1", f"{site.name(0)} is {site.shapes[0]!r}, expected {expected}")


def conditional(site: Site) -> Shape:
    """The first branch's result, with a dimension dynamic where any branch has it so."""
    chooser = site.array(0)
    if chooser.dims or chooser.dtype not in (PRED, S32):
        raise site.error("CONDITIONAL_C2", f"{site.name(0)} is {chooser!r}, expected pred[] or s32[]")
    branches = branches_of(site)
    if len(site.shapes) != len(branches) + 1:
        raise site.error(
            "CONDITIONAL_C3",
            f"{len(site.shapes) - 1} branch operands for {len(branches)} branches, expected one each",
        )
    result = signature(site, branches[0])[1]
    for number, branch in enumerate(branches):
        returned = check_parameters(site, branch, [site.shapes[number + 1]], f"branch {number}")
        check_returns(site, branch, returned, result, f"branch {number}")
        result = _either_dynamic(result, returned)
    return result


def _either_dynamic(one: Shape, other: Shape) -> Shape:
    if one is other or one == other:
        return one
    if isinstance(one, TupleShape) and isinstance(other, TupleShape):
        return TupleShape(tuple(map(_either_dynamic, one.elements, other.elements)))
    if not isinstance(one, ArrayShape) or not isinstance(other, ArrayShape) or not other.dynamic:
        return one
    flags = tuple(one.is_dynamic_dim(d) or other.is_dynamic_dim(d) for d in range(one.rank))
    return ArrayShape(one.dtype, one.dims, one.layout, flags)


def async_start(site: Site) -> Shape:
    """((operands), result, contexts...), with the contexts that are declared."""
    computation = site.get("calls")
    result = check_parameters(site, computation, site.shapes, "calls")
    begun = (TupleShape(tuple(site.shapes)), result)
    declared = site.declared
    contexts = declared.elements[2:] if isinstance(declared, TupleShape) else ()
    return TupleShape((*begun, *contexts))


def _begun(site: Site) -> TupleShape:
    """The operand that an async-start began: ((operands), result, ...)."""
    begun = site.tuple(0, 2)
    if not begun.elements[0].is_tuple:
        raise site.error("ASYNC_C1", f"{site.name(0)} is {begun!r}, expected ((operands), result, ...)")
    return begun


def async_update(site: Site) -> Shape:
    return _begun(site)


def async_done(site: Site) -> Shape:
    begun = _begun(site)
    computation = site.get("calls")
    if computation is not None:
        result = signature(site, computation)[1]
        if not compatible(result, begun.elements[1]):
            raise site.error(
                "CALLED_C3",
                f"calls %{computation.name} returns {result!r}, but {begun.elements[1]!r} was begun",
            )
    return begun.elements[1]
