"""One instruction as a line of text: name, shape, opcode, operands, attributes in XLA's order."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

from hloc.ir import opcodes as kinds
from hloc.ir.attributes import Raw
from hloc.ir.computation import Computation
from hloc.ir.dtypes import PRED
from hloc.ir.instruction import Instruction
from hloc.ir.literals import Literal
from hloc.ir.opcodes import OPS
from hloc.ir.shapes import Shape, TupleShape
from hloc.text.print_literals import ELIDED, LARGE, print_literal
from hloc.text.print_metadata import metadata_fields
from hloc.text.print_options import PrintOptions
from hloc.text.print_shapes import print_shape
from hloc.text.print_sharding import print_sharding
from hloc.text.print_tables import Frames
from hloc.text.print_values import PRINTERS, print_dims

# Attributes in the order of the print, where that is not the order of the op table.
_ORDERS = {
    "all-gather": "channel_id replica_groups constrain_layout dimensions use_global_device_ids",
    "all-reduce": "channel_id replica_groups constrain_layout use_global_device_ids",
    "reduce-scatter": "channel_id replica_groups constrain_layout use_global_device_ids dimensions",
    "all-to-all": "channel_id replica_groups constrain_layout dimensions",
    "ragged-all-to-all": "channel_id replica_groups dimensions",
    "collective-broadcast": "channel_id replica_groups has_dynamic_root",
    "collective-reduce": "channel_id replica_groups constrain_layout use_global_device_ids has_dynamic_root",
    "convolution": "window dim_labels feature_group_count batch_group_count convolution_kind "
    "operand_precision algorithm sparsity_config block_scaling_config",
    "ragged-dot": "lhs_batch_dims lhs_contracting_dims rhs_batch_dims rhs_contracting_dims lhs_ragged_dims "
    "rhs_group_dims operand_precision",
    "scan": "dimensions num_carries is_reverse is_associative",
    "sort": "dimensions is_stable",
    "outfeed": "outfeed_shape outfeed_config",
    "fusion": "kind output_to_operand_aliasing",
    "custom-call": "window dim_labels feature_group_count batch_group_count operand_precision padding_type "
    "custom_call_target operand_layout_constraints custom_call_has_side_effect literal "
    "output_to_operand_aliasing schedule api_version",
    "async-start": "",
    "async-update": "output_to_operand_aliasing",
    "async-done": "",
}
_ORDERS["all-gather-start"] = _ORDERS["all-gather"]
_ORDERS["all-reduce-start"] = _ORDERS["all-reduce"]

# Printed behind the computations.
_ELSEWHERE = frozenset(("result_accuracy", "is_composite"))

# Operations whose start or done is an opcode itself, and what a print of a start leaves out of its root.
_WITH_OWN_START = frozenset(("all-gather", "all-reduce", "collective-permute", "copy", "send", "recv"))
_LOST = ("metadata", "backend_config", "origin", "sharding")

_ASYNC = {"async-start": "-start", "async-update": "-update", "async-done": "-done"}

# Metadata that says nothing of these (nor has a stack frame or a payload) is not shown.
_ENOUGH = ("op_name", "op_type", "source_file", "scheduling_name")

Fallback = Callable[[Instruction], str]


def _all_dimensions(instruction: Instruction) -> str:
    return print_dims(tuple(range(instruction.shape.rank)))


# What is printed even at its default; the function gives the text where the instruction holds no value.
_FALLBACKS: dict[tuple[str, str], Fallback | None] = {
    ("custom-call", "operand_layout_constraints"): None,
    ("collective-reduce", "has_dynamic_root"): lambda _: "false",
    ("broadcast", "dimensions"): lambda _: "{}",
    ("map", "dimensions"): _all_dimensions,
    ("reduce", "dimensions"): lambda _: "{}",
    ("topk", "largest"): lambda _: "true",
    ("scan", "is_associative"): lambda _: "false",
    ("outfeed", "outfeed_shape"): lambda instruction: print_shape(instruction.operands[0].shape),
}
for _name in ("dot", "scaled-dot", "ragged-dot"):
    _FALLBACKS[_name, "lhs_contracting_dims"] = _FALLBACKS[_name, "rhs_contracting_dims"] = lambda _: "{}"
for _name in OPS:
    if "replica_groups" in OPS[_name].attributes:
        _FALLBACKS[_name, "replica_groups"] = lambda _: "{}"


def _hidden(instruction: Instruction, name: str, value: Any) -> bool:
    """Whether XLA leaves out a value though it is not the op table's default."""
    if name == "type":
        return value == _default_comparison(instruction)
    if name == "window":
        return not value.dims and instruction.opcode != "custom-call"
    if name == "operand_precision":
        return all(word == "default" for word in value)
    return value in ("", "TRANSPOSE_INVALID")


_SOMETIMES_HIDDEN = frozenset(
    ("type", "window", "operand_precision", "transpose_a", "infeed_config", "outfeed_config")
)


def _default_comparison(instruction: Instruction) -> str:
    dtype = instruction.operands[0].shape.dtype
    if dtype.is_float or dtype.is_complex:
        return "FLOAT"
    return "SIGNED" if dtype.is_signed else "UNSIGNED"


def _plan(opcode: str) -> list[tuple[str, str, Callable[[Any], str], object, Fallback | None, bool]]:
    """(name, `name=`, text of a value, default, fallback, sometimes hidden) for each attribute, in order."""
    rows = OPS[opcode].attributes
    names = _ORDERS[opcode].split() if opcode in _ORDERS else list(rows)
    plan = []
    for name in names:
        row = rows[name]
        if name in _ELSEWHERE or row.kind in (kinds.COMPUTATION, kinds.COMPUTATIONS):
            continue
        fallback = _FALLBACKS.get((opcode, name))
        default = None if (opcode, name) in _FALLBACKS else row.default
        plan.append((name, f"{name}=", PRINTERS[row.kind], default, fallback, name in _SOMETIMES_HIDDEN))
    return plan


_PLANS = {opcode: _plan(opcode) for opcode in OPS}

# Opcodes with attributes that name computations.
CALLING = frozenset(
    op.name
    for op in OPS.values()
    if any(row.kind in (kinds.COMPUTATION, kinds.COMPUTATIONS) for row in op.attributes.values())
)


class InstructionPrinter:
    """Prints instructions with one set of options; `frames` numbers the stack frames of their module."""

    def __init__(self, options: PrintOptions, frames: Frames | None = None):
        self.options = options
        self._frames = frames
        self._percent = "%" if options.percent else ""
        self._plain_names = options.ids
        self._plain_operands = options.ids and options.operand_names
        if options.operand_shapes or options.compact_operands:
            self._plain_operands = False
        self._shapes: dict[int, str] = {}

    def name(self, name: str) -> str:
        """A name with `%`, or what is left of it without ids."""
        return self._percent + (name if self._plain_names else name.partition(".")[0])

    def line(self, instruction: Instruction) -> str:
        """`%add.1 = f32[4]{0} add(%a, %b), metadata={...}`."""
        opcode = instruction.opcode
        if opcode in _ASYNC:
            wrapped = wrapped_instruction(instruction)
            opcode = opcode if wrapped is None else wrapped.opcode + _ASYNC[opcode]
        shape = f"{self._shape(instruction.shape)} " if self.options.result_shapes else ""
        head = f"{self.name(instruction.name)} = {shape}{opcode}({self._operands(instruction)})"
        parts = [head]
        self._add_attributes(instruction, parts, ())
        self._add_notes(instruction, parts)
        return ", ".join(parts) if len(parts) > 1 else head

    def _shape(self, shape: Shape) -> str:
        """The text of a shape of the module (shapes live as long as it, so their ids tell them apart)."""
        text = self._shapes.get(id(shape))
        if text is None:
            text = self._shapes[id(shape)] = print_shape(shape, self.options.layouts)
        return text

    # Operands.

    def _operands(self, instruction: Instruction) -> str:
        if instruction.opcode == "constant":
            return self.literal(instruction.attributes["literal"])
        if instruction.opcode == "parameter":
            return str(instruction.attributes["number"])
        operands = instruction.operands
        if not operands:
            return ""
        if self._plain_operands and len(operands) <= 5:
            return self._percent + f", {self._percent}".join([operand.name for operand in operands])
        shown = operands[:4] if self.options.compact_operands else operands
        texts = [self._operand(operand) for operand in shown]
        for place in range(5, len(texts), 5) if self.options.operand_comments else ():
            texts[place] = f"/*index={place}*/{texts[place]}"
        if len(shown) < len(operands):
            texts.append(f"...(+{len(operands) - len(shown)})")
        return ", ".join(texts)

    def _operand(self, operand: Instruction) -> str:
        texts = [self._shape(operand.shape)] if self.options.operand_shapes else []
        if self.options.operand_names:
            texts.append(self.name(operand.name))
        return " ".join(texts)

    def literal(self, literal: Literal) -> str:
        """The value of a constant, or `{...}`."""
        if self.options.large_constants or not (literal.is_tuple or literal.shape.count > LARGE):
            return print_literal(literal)
        return ELIDED

    # Attributes.

    def _add_attributes(self, instruction: Instruction, parts: list[str], hidden: Container[str]) -> None:
        """`name=value` texts of all but origin, metadata, backend_config and the annotations in `hidden`."""
        if self.options.attributes:
            self._own_attributes(instruction, parts)
        if instruction.opcode in CALLING:
            self._computations(instruction, parts)
        if instruction.annotations or instruction.control_predecessors:
            self._common_attributes(instruction, parts, hidden)
        accuracy = instruction.attributes.get("result_accuracy")
        if accuracy is not None and accuracy.mode != "default":
            parts.append(f"result_accuracy={PRINTERS[kinds.ACCURACY](accuracy)}")

    def _own_attributes(self, instruction: Instruction, parts: list[str]) -> None:
        opcode, attributes = instruction.opcode, instruction.attributes
        if opcode == "async-start":
            self._async_attributes(instruction, parts)
        for name, prefix, text, default, fallback, sometimes_hidden in _PLANS[opcode]:
            value = attributes.get(name)
            if value is None:
                if fallback is not None:
                    parts.append(prefix + fallback(instruction))
            elif value != default and not (sometimes_hidden and _hidden(instruction, name, value)):
                parts.append(prefix + text(value))
        if opcode == "parameter" and "parameter_replication" in instruction.annotations:
            flags = PRINTERS[kinds.BOOLS](instruction.annotations["parameter_replication"])
            parts.append(f"parameter_replication={flags}")

    def _async_attributes(self, instruction: Instruction, parts: list[str]) -> None:
        """The thread, what the one operation that it runs has, and the aliases."""
        thread = instruction.get("async_execution_thread")
        if thread != "main":
            parts.append(f'async_execution_thread="{thread}"')
        wrapped = wrapped_instruction(instruction)
        if wrapped is not None:
            self._add_attributes(wrapped, parts, hidden=instruction.annotations)
        aliases = instruction.get("output_to_operand_aliasing")
        if aliases:
            parts.append(f"output_to_operand_aliasing={PRINTERS[kinds.ALIASES](aliases)}")

    def _computations(self, instruction: Instruction, parts: list[str]) -> None:
        opcode, attributes = instruction.opcode, instruction.attributes
        if opcode in ("while", "select-and-scatter"):
            names = ("condition", "body") if opcode == "while" else ("select", "scatter")
            parts += [f"{name}={self._callee(attributes[name])}" for name in names]
        elif opcode == "conditional":
            self._branches(instruction, parts)
        elif opcode == "custom-call":
            called = instruction.called
            if called:
                parts.append(f"called_computations={{{', '.join(map(self._callee, called))}}}")
        elif "to_apply" in attributes:
            parts.append(f"to_apply={self._callee(attributes['to_apply'])}")
            if attributes.get("is_composite"):
                parts.append("is_composite=true")
        elif opcode == "fusion" or (opcode == "async-start" and wrapped_instruction(instruction) is None):
            parts.append(f"calls={self._callee(attributes['calls'])}")

    def _branches(self, instruction: Instruction, parts: list[str]) -> None:
        called = list(map(self._callee, instruction.called))
        if instruction.operands and instruction.operands[0].shape.dtype is PRED and len(called) == 2:
            parts += [f"true_computation={called[0]}", f"false_computation={called[1]}"]
        else:
            parts.append(f"branch_computations={{{', '.join(called)}}}")

    def _callee(self, computation: Computation) -> str:
        return self.name(computation.name)

    def _common_attributes(self, instruction: Instruction, parts: list[str], hidden: Container[str]) -> None:
        notes = instruction.annotations
        sharding = notes.get("sharding")
        if sharding is not None:
            full = sharding.for_shape(instruction.shape)
            parts.append(f"sharding={print_sharding(full, self.options.metadata)}")
        if notes.get("frontend_attributes") and "frontend_attributes" not in hidden:
            parts.append(f"frontend_attributes={PRINTERS[kinds.DICTIONARY](notes['frontend_attributes'])}")
        if instruction.control_predecessors and self.options.control_dependencies:
            names = ", ".join(self.name(earlier.name) for earlier in instruction.control_predecessors)
            parts.append(f"control-predecessors={{{names}}}")
        statistics = notes.get("statistics")
        if statistics is not None and statistics.text != "{}" and "statistics" not in hidden:
            parts.append(f"statistics={statistics.text}")

    def _add_notes(self, instruction: Instruction, parts: list[str]) -> None:
        """Origin, metadata and backend_config."""
        notes = instruction.annotations
        if "origin" in notes or instruction.opcode == "get-tuple-element":
            origin = origin_of(instruction)
            if origin is not None:
                parts.append(f"origin={origin.text}")
        if not notes:
            return
        metadata = notes.get("metadata")
        if metadata is not None and self.options.metadata:
            frame = metadata.stack_frame_id
            if frame and self._frames is not None:
                frame = self._frames.number(frame)
            if frame or metadata.payload is not None or any(getattr(metadata, name) for name in _ENOUGH):
                parts.append(f"metadata={{{metadata_fields(metadata, frame or 0)}}}")
        config = notes.get("backend_config")
        if config is not None and config != "" and self.options.backend_config:
            parts.append(f"backend_config={PRINTERS[kinds.CONFIG](config)}")


def origin_of(instruction: Instruction) -> Raw | None:
    """The origin of a value; an element of a `tuple` has that of the operand in its place."""
    while "origin" not in instruction.annotations:
        if instruction.opcode != "get-tuple-element" or instruction.operands[0].opcode != "tuple":
            return None
        instruction = instruction.operands[0].operands[instruction.attributes["index"]]
    return instruction.annotations["origin"]


def wrapped_instruction(instruction: Instruction) -> Instruction | None:
    """The one operation that an async instruction runs, if its opcode can name it (`add-start`)."""
    if instruction.opcode not in _ASYNC:
        return None
    start = instruction
    while start.opcode in ("async-update", "async-done") and start.operands:
        start = start.operands[0]
    return start.attributes["calls"].root if start.opcode == "async-start" and is_sugar(start) else None


def is_sugar(start: Instruction) -> bool:
    """Whether an async-start is written as the operation that it runs.

    XLA writes it so if its computation is parameters and a root. Some of these texts read back as something
    else: where the operation has a start and a done of its own, where it takes the parameters in another
    order or of other shapes than the start does, and where notes of it would get lost. Such a start is
    written in full here.
    """
    computation = start.attributes["calls"]
    root, parameters = computation.root, computation.parameters
    if len(computation) != len(parameters) + 1 or root.operands != parameters:
        return False
    if root.opcode in _WITH_OWN_START or any(i.annotations or i.control_successors for i in parameters):
        return False
    shapes = TupleShape(tuple(parameter.shape for parameter in parameters)), root.shape
    return start.shape.is_tuple and start.shape.elements[:2] == shapes and _keeps_notes(root, start)


def _keeps_notes(root: Instruction, start: Instruction) -> bool:
    """Whether the notes of a wrapped root are those that it gets from the start, the updates and the done."""
    steps = [start]
    for step in steps:
        steps += (user for user in step.users if user.opcode in _ASYNC)
    notes = {name: note for name, note in root.annotations.items() if name in _LOST}
    return all(any(step.annotations.get(name) == note for step in steps) for name, note in notes.items())
