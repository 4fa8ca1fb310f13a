"""What the verifier asks of attribute values, before a shape rule reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hloc.analysis.verify_module import braced, leaf_at
from hloc.errors import HloError
from hloc.ir import opcodes
from hloc.ir.attributes import Alias, ConvDims, Raw, ReplicaGroups, ResultAccuracy, Window
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.literals import Literal
from hloc.ir.opcodes import Attribute
from hloc.ir.shape_rules.common import compatible
from hloc.ir.shapes import BufferShape, Shape, TupleShape
from hloc.ir.sharding import Domain


def _all(kind: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, tuple) and all(isinstance(item, kind) for item in value)


def _triples(value: object) -> bool:
    return _lists(value) and all(len(entry) == 3 for entry in value)  # type: ignore[attr-defined]


def _lists(value: object) -> bool:
    return isinstance(value, tuple) and all(_FITS_DIMS(entry) for entry in value)


def _is(*kinds: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kinds)


_FITS_DIMS = _all(int)
FITS: dict[str, Callable[[object], bool]] = {
    opcodes.INT: _is(int),
    opcodes.BOOL: _is(bool),
    opcodes.FLOAT_VALUE: _is(float, int),
    opcodes.DIMS: _FITS_DIMS,
    opcodes.STRING: _is(str),
    opcodes.ENUM: _is(str),
    opcodes.ENUMS: _all(str),
    opcodes.COMPUTATION: _is(Computation),
    opcodes.COMPUTATIONS: _all(Computation),
    opcodes.LITERAL: _is(Literal),
    opcodes.SHAPE: _is(Shape),
    opcodes.SHAPES: _all(Shape),
    opcodes.WINDOW: _is(Window),
    opcodes.CONV_DIMS: _is(ConvDims),
    opcodes.SLICE: _triples,
    opcodes.PADDING: _triples,
    opcodes.GROUPS: _is(ReplicaGroups),
    opcodes.LISTS: _lists,
    opcodes.ALIASES: _all(Alias),
    opcodes.ACCURACY: _is(ResultAccuracy),
    opcodes.DOMAIN: _is(Domain),
    opcodes.RAW: _is(Raw),
}

# Attributes that stand between an op's parentheses in the text, and so in no row of the table.
_IN_PARENTHESES: dict[str, tuple[str, type]] = {
    "parameter": ("number", int),
    "constant": ("literal", Literal),
}


def attribute_faults(instruction: Instruction) -> list[HloError]:
    """Attributes that the op does not have, or whose value is not of its kind or no choice of it."""
    inside = _IN_PARENTHESES.get(instruction.opcode)
    if inside is None and not instruction.attributes:
        return []
    faults = []
    if inside is not None:
        name, kind = inside
        if not isinstance(instruction.attributes.get(name), kind):
            faults.append(_fault(instruction, f"the attribute {name} is missing", "ATTRIBUTE_C1"))
    rows = instruction.op.attributes
    for name, value in instruction.attributes.items():
        row = rows.get(name)
        if row is not None:
            faults.extend(_value_faults(instruction, row, value))
        elif inside is None or name != inside[0]:
            faults.append(_fault(instruction, f"it has no attribute {name}", "ATTRIBUTE_C2"))
    return faults


def _value_faults(instruction: Instruction, row: Attribute, value: object) -> Iterator[HloError]:
    if not FITS[row.kind](value):
        yield _fault(instruction, f"{row.name} is {value!r}, expected {row.kind}", "ATTRIBUTE_C4")
    elif row.choices:
        for word in (value,) if isinstance(value, str) else value:  # type: ignore[attr-defined]
            if word not in row.choices:
                yield _fault(
                    instruction, f"{row.name} is {word}, expected {', '.join(row.choices)}", "ATTRIBUTE_C3"
                )


def _fault(instruction: Instruction, message: str, label: str) -> HloError:
    return HloError(f"{instruction.opcode}: {message}", instruction.span, label=label)


def annotation_faults(instruction: Instruction) -> Iterator[HloError]:
    """parameter_replication, output_to_operand_aliasing and the attributes of composite calls."""
    if "parameter_replication" in instruction.annotations:
        flags = instruction.annotations["parameter_replication"]
        leaves = sum(1 for _ in instruction.shape.leaves())
        if len(flags) != leaves:
            message = f"parameter_replication has {len(flags)} entries for the {leaves} leaves of its shape"
            yield _fault(instruction, message, "REPLICATION_C1")
    if "output_to_operand_aliasing" in instruction.attributes:
        yield from _aliasing_faults(instruction, instruction.attributes["output_to_operand_aliasing"])
    if instruction.attributes.get("is_composite"):
        name = dict(instruction.annotations.get("frontend_attributes") or ()).get("composite.name")
        if not name:
            message = "is_composite=true needs a composite.name in frontend_attributes"
            yield _fault(instruction, message, "COMPOSITE_C1")


def _aliasing_faults(instruction: Instruction, aliases: tuple) -> Iterator[HloError]:
    frontend = dict(instruction.annotations.get("frontend_attributes") or ())
    is_unchecked = "xla_skip_custom_call_alias_shape_check" in frontend
    for alias in aliases:
        pair = f"{braced(alias.output_index)}: ({alias.number}, {braced(alias.input_index)})"
        what = f"output_to_operand_aliasing {pair}"
        target = leaf_at(instruction.shape, alias.output_index)
        has_operand = 0 <= alias.number < len(instruction.operands)
        source = leaf_at(instruction.operands[alias.number].shape, alias.input_index) if has_operand else None
        if target is None:
            yield _fault(instruction, f"{what}: the result has no such element", "OUTPUT_ALIAS_C1")
        elif source is None:
            yield _fault(instruction, f"{what}: there is no such operand element", "OUTPUT_ALIAS_C2")
        elif not is_unchecked and not compatible(_unpinned(source), _unpinned(target)):
            message = f"{what}: the operand is {source!r}, the result {target!r}"
            yield _fault(instruction, message, "OUTPUT_ALIAS_C3")


def _unpinned(shape: Shape) -> Shape:
    """A buffer's array in place of the buffer, since custom calls may pin what they alias."""
    if isinstance(shape, BufferShape):
        return shape.element
    return TupleShape(tuple(map(_unpinned, shape.elements))) if isinstance(shape, TupleShape) else shape
