"""Writes `ragged-dot` as a loop over its groups."""

from __future__ import annotations

from hloc.errors import HloError
from hloc.ir.computation import Computation
from hloc.ir.dtypes import PRED, S64
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.ir.shapes import ArrayShape, TupleShape, array
from hloc.passes.emit import Emit, dense, replace

_STEP, _START, _OUTPUT, _LHS, _RHS, _SIZES = range(6)
"""The loop's state: group number, first place of the group, result so far, and the operands."""


def run(module: Module) -> bool:
    """Replaces ragged-dot by a `while` that does a whole dot for each group and keeps the group's part of it.

    Where the ragged dimension is free, rows of other groups are left as they are in the result; where it is
    contracted, other groups' places count as zero in both operands. A ragged batch dimension changes nothing.

    Requires: nothing.
    Ensures: no ragged-dot.
    Leaves: dots of full size, one a group. HloError for group sizes that differ by batch.
    """
    found = [i for computation in call_order(module.entry) for i in computation if i.opcode == "ragged-dot"]
    for instruction in found:
        replace(instruction, _expanded(instruction))
    if found:
        module.order_computations()
    return bool(found)


def _expanded(instruction: Instruction) -> Instruction:
    emit = Emit.at(instruction)
    lhs, rhs, sizes = instruction.operands
    if instruction.attributes["lhs_ragged_dims"][0] in instruction.get("lhs_batch_dims"):
        return _dot(emit, instruction, lhs, rhs, dense(instruction.shape))
    if sizes.shape.rank != 1:
        message = f"ragged-dot with group sizes of rank {sizes.shape.rank} is not supported"
        raise HloError(message, instruction.span)
    module = instruction.computation.module
    sizes = emit.convert(sizes, S64)
    zero = emit.scalar(0, S64)
    start = emit.tuple([zero, zero, emit.full(0, instruction.shape), lhs, rhs, sizes])
    loop = emit.op(
        "while",
        start.shape,
        [start],
        condition=module.add_computation(_condition(start.shape)),
        body=module.add_computation(_body(instruction, start.shape)),
    )
    return emit.element(loop, _OUTPUT)


def _condition(state: TupleShape) -> Computation:
    computation = Computation("ragged_dot.condition")
    emit = Emit(computation)
    step = emit.element(emit.parameter(0, state, "state"), _STEP)
    groups = emit.scalar(state.elements[_SIZES].dims[0], S64)
    computation.root = emit.op("compare", array(PRED), (step, groups), direction="LT")
    return computation


def _body(instruction: Instruction, state: TupleShape) -> Computation:
    computation = Computation("ragged_dot.body")
    emit = Emit(computation, like=instruction)
    parameter = emit.parameter(0, state, "state")
    values = [emit.element(parameter, index) for index in range(len(state.elements))]
    step, start = values[_STEP], values[_START]
    size = emit.reshape(emit.dynamic_slice(values[_SIZES], [step], (1,)), ())
    end = emit.map("add", start, size)
    ragged = instruction.attributes["lhs_ragged_dims"][0]
    part = _contracting if ragged in instruction.get("lhs_contracting_dims") else _free
    output = part(emit, instruction, values, (start, end), ragged)
    following = emit.map("add", step, emit.scalar(1, S64))
    computation.root = emit.tuple([following, end, output, *values[_LHS:]])
    return computation


def _inside(
    emit: Emit, shape: ArrayShape, dimension: int, group: tuple[Instruction, Instruction]
) -> Instruction:
    """Whether each element's index along a dimension belongs to the group."""
    place = emit.iota(S64, shape.dims, dimension)
    start, end = (emit.broadcast(border, shape.dims) for border in group)
    return emit.map("and", emit.compare("GE", place, start), emit.compare("LT", place, end))


def _contracting(
    emit: Emit, instruction: Instruction, values: list[Instruction], group, ragged: int
) -> Instruction:
    """Puts the dot of the group's places into the group's part of the result, which is in front."""
    partner = instruction.get("rhs_contracting_dims")[instruction.get("lhs_contracting_dims").index(ragged)]
    masked = []
    for operand, dimension in ((values[_LHS], ragged), (values[_RHS], partner)):
        keep = _inside(emit, operand.shape, dimension, group)
        masked.append(emit.map("select", keep, operand, emit.full(0, operand.shape)))
    output = values[_OUTPUT]
    dims = output.shape.dims[1:]
    product = _dot(emit, instruction, *masked, array(output.shape.dtype, *dims))
    zero = emit.scalar(0, S64)
    starts = [values[_STEP], *[zero] * len(dims)]
    return emit.dynamic_update_slice(output, emit.reshape(product, (1, *dims)), starts)


def _free(emit: Emit, instruction: Instruction, values: list[Instruction], group, ragged: int) -> Instruction:
    """Puts the rows of the group, times the group's matrix, into the result."""
    (along,) = instruction.attributes["rhs_group_dims"]
    rhs = values[_RHS]
    zero = emit.scalar(0, S64)
    starts = [values[_STEP] if d == along else zero for d in range(rhs.shape.rank)]
    sizes = [1 if d == along else size for d, size in enumerate(rhs.shape.dims)]
    matrix = emit.dynamic_slice(rhs, starts, sizes)
    matrix = emit.reshape(matrix, [size for d, size in enumerate(sizes) if d != along])
    output = values[_OUTPUT]
    product = _dot(emit, instruction, values[_LHS], matrix, output.shape, along)
    batch, contracting = instruction.get("lhs_batch_dims"), instruction.get("lhs_contracting_dims")
    free = [d for d in range(values[_LHS].shape.rank) if d not in batch and d not in contracting]
    keep = _inside(emit, output.shape, len(batch) + free.index(ragged), group)
    return emit.map("select", keep, product, output)


def _dot(
    emit: Emit,
    instruction: Instruction,
    lhs: Instruction,
    rhs: Instruction,
    shape: ArrayShape,
    dropped: int | None = None,
) -> Instruction:
    """The dot with the instruction's dimensions; `dropped` is a dimension that rhs no longer has."""
    attributes = {}
    for name in ("lhs_batch_dims", "lhs_contracting_dims", "rhs_batch_dims", "rhs_contracting_dims"):
        dims = instruction.get(name)
        if dropped is not None and name.startswith("rhs"):
            dims = tuple(d - (d > dropped) for d in dims)
        attributes[name] = dims
    precision = instruction.get("operand_precision")
    if precision:
        attributes["operand_precision"] = precision
    return emit.op("dot", shape, (lhs, rhs), **attributes)
