"""The result shape of every op, and the check of a declared one: the op table names the rules in RULES.

The parser asks for shapes that a text omits, the builder for those of new instructions, the verifier for
those of all instructions: one rule serves them all, after XLA's `ShapeInference` and `ShapeVerifier`. A rule
that hands on an operand's shape hands on its layout too, as XLA's do; all others give no layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hloc.errors import HloError
from hloc.ir.instruction import Instruction
from hloc.ir.opcodes import OPS
from hloc.ir.shape_rules import (
    collectives,
    contractions,
    control,
    data_movement,
    elementwise,
    folds,
    indexing,
    structure,
)
from hloc.ir.shape_rules.common import Site, compatible
from hloc.ir.shapes import Shape

RULES: dict[str, Callable[[Site], Shape]] = {
    "abs": elementwise.absolute,
    "all_gather": collectives.all_gather,
    "all_gather_done": collectives.all_gather_done,
    "all_gather_start": collectives.all_gather_start,
    "all_reduce": collectives.all_reduce,
    "all_to_all": collectives.all_to_all,
    "async_done": control.async_done,
    "async_start": control.async_start,
    "async_update": control.async_update,
    "batch_norm_grad": folds.batch_norm_grad,
    "batch_norm_inference": folds.batch_norm_inference,
    "batch_norm_training": folds.batch_norm_training,
    "binary": elementwise.binary,
    "binary_bits": elementwise.binary_bits,
    "binary_float": elementwise.binary_float,
    "binary_integer": elementwise.binary_integer,
    "bitcast": data_movement.bitcast,
    "bitcast_convert": data_movement.bitcast_convert,
    "broadcast": data_movement.broadcast,
    "called_root": control.called_root,
    "cholesky": contractions.cholesky,
    "clamp": elementwise.clamp,
    "collective_broadcast": collectives.collective_broadcast,
    "collective_permute": collectives.collective_permute,
    "collective_permute_done": collectives.collective_permute_done,
    "collective_permute_start": collectives.collective_permute_start,
    "compare": elementwise.compare,
    "complex": elementwise.complex_number,
    "complex_part": elementwise.complex_part,
    "concatenate": data_movement.concatenate,
    "conditional": control.conditional,
    "convert": elementwise.convert,
    "convolution": contractions.convolution,
    "copy_done": structure.copy_done,
    "copy_start": structure.copy_start,
    "dot": contractions.dot,
    "dynamic_reshape": data_movement.dynamic_reshape,
    "dynamic_slice": data_movement.dynamic_slice,
    "dynamic_update_slice": data_movement.dynamic_update_slice,
    "fft": contractions.fft,
    "first_operand": structure.first_operand,
    "gather": indexing.gather,
    "get_dimension_size": data_movement.get_dimension_size,
    "get_tuple_element": structure.get_tuple_element,
    "given": structure.given,
    "iota": structure.iota,
    "is_finite": elementwise.is_finite,
    "map": elementwise.map_,
    "pad": data_movement.pad,
    "ragged_all_to_all": collectives.ragged_all_to_all,
    "ragged_dot": contractions.ragged_dot,
    "recv": structure.recv,
    "recv_done": structure.recv_done,
    "reduce": folds.reduce,
    "reduce_scatter": collectives.reduce_scatter,
    "reduce_window": folds.reduce_window,
    "reshape": data_movement.reshape,
    "reverse": data_movement.reverse,
    "rng": structure.rng,
    "rng_bit_generator": structure.rng_bit_generator,
    "same_shape": structure.same_shape,
    "scaled_dot": contractions.scaled_dot,
    "scan": folds.scan,
    "scatter": indexing.scatter,
    "select": elementwise.select,
    "select_and_scatter": folds.select_and_scatter,
    "send": structure.send,
    "set_dimension_size": data_movement.set_dimension_size,
    "shuffle": data_movement.shuffle,
    "slice": data_movement.slice_,
    "sort": folds.sort,
    "stochastic_convert": elementwise.stochastic_convert,
    "token": structure.token,
    "topk": folds.topk,
    "transpose": data_movement.transpose,
    "triangular_solve": contractions.triangular_solve,
    "tuple": structure.tuple_,
    "u32_scalar": structure.u32_scalar,
    "unary_bits": elementwise.unary_bits,
    "unary_float": elementwise.unary_float,
    "unary_integer": elementwise.unary_integer,
    "unary_math": elementwise.unary_math,
    "unary_numeric": elementwise.unary_numeric,
    "while": control.while_,
}

_FORMS = {
    op.name: (*op.arity, tuple(row.name for row in op.attributes.values() if row.required), RULES[op.rule])
    for op in OPS.values()
}
"""By opcode: the least number of operands and the most, the required attributes, the rule."""


def infer_shape(
    opcode: str,
    operand_shapes: Sequence[Shape],
    attributes: Mapping[str, Any] | None = None,
    declared: Shape | None = None,
) -> Shape:
    """The result shape of an operation.

    `attributes` are the op's own by their text names (called computations as Computation objects); those
    at their default may be left out. `declared` gives what does not follow from the operands: the element
    type of a convert, the sizes of a broadcast. Raises HloError, labelled with the invariant that the
    operation breaks, or `SHAPE_C2` when the shape must be declared and is not.
    """
    site = Site(opcode, operand_shapes, {} if attributes is None else attributes, declared)
    return _inferred(site)


def _inferred(site: Site) -> Shape:
    """What the rule says, which relies on the number of operands and the presence of required attributes."""
    least, most, required, rule = _FORMS[site.opcode]
    count = len(site.shapes)
    if count < least or (most is not None and count > most):
        expected = (
            str(least) if least == most else f"at least {least}" if most is None else f"{least} to {most}"
        )
        raise site.error("ARITY_C1", f"{count} operands, expected {expected}")
    for name in required:
        if name not in site.attributes:
            raise site.error("ATTRIBUTE_C1", f"the attribute {name} is missing")
    return rule(site)


def check_instruction(instruction: Instruction) -> None:
    """Raise HloError at the first invariant of its op that an instruction, or its declared shape, breaks."""
    shapes = [operand.shape for operand in instruction.operands]
    site = Site(instruction.opcode, shapes, instruction.attributes, instruction.shape, instruction.operands)
    try:
        inferred = _inferred(site)
        if not compatible(instruction.shape, inferred):
            raise site.error("SHAPE_C1", f"its result is {instruction.shape!r}, expected {inferred!r}")
    except HloError as error:
        error.span = error.span or instruction.span
        raise
