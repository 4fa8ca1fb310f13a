"""HLO modules as text, byte for byte as XLA (jaxlib 0.10.2) prints them.

Known differences are those where XLA's print does not read back as the same module; they are listed in
`tools/roundtrip.py`. Forms that only newer XLA knows are printed as that prints them.
"""

from __future__ import annotations

from dataclasses import replace

from hloc.ir import opcodes as kinds
from hloc.ir.attributes import Alias, Donor
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.text.print_instruction import InstructionPrinter
from hloc.text.print_literals import print_literal
from hloc.text.print_options import PrintOptions
from hloc.text.print_order import computations_in_order, fusion_computations, instructions_in_order
from hloc.text.print_shapes import print_shape, print_shapes
from hloc.text.print_tables import Frames
from hloc.text.print_values import PRINTERS, print_dims

__all__ = [
    "PrintOptions",
    "print_computation",
    "print_instruction",
    "print_literal",
    "print_module",
    "print_shape",
]

# Header attributes behind the entry's layout, in order: name, kind, the value that is not shown.
_HEADER = (
    ("allow_spmd_sharding_propagation_to_parameters", kinds.BOOLS, (False,)),
    ("allow_spmd_sharding_propagation_to_output", kinds.BOOLS, (False,)),
    ("replica_count", kinds.INT, 1),
    ("num_partitions", kinds.INT, 1),
    ("frontend_attributes", kinds.DICTIONARY, ()),
    ("backend_config", kinds.CONFIG, ""),
    ("debug_attributes", kinds.RAW, ""),
)


def print_module(module: Module, options: PrintOptions = PrintOptions()) -> str:  # noqa: B008 (frozen)
    """The text of a whole module; it ends with an empty line, as XLA's does."""
    frames = Frames(module) if options.metadata else None
    printer = InstructionPrinter(options, frames)
    parts = ["  " * options.indent + _header(module, options)]
    if frames is not None:
        parts.append(frames.text())
    parts.append("\n\n")
    fused = fusion_computations(module) if module.is_scheduled else set()
    for computation in computations_in_order(module):
        scheduled = module.is_scheduled and computation not in fused
        parts.append(_computation(computation, printer, scheduled))
        parts.append("\n\n")
    return "".join(parts)


def print_computation(computation: Computation, options: PrintOptions = PrintOptions()) -> str:  # noqa: B008
    """The text of one computation, `ENTRY` before that of the entry, instructions in their order."""
    return _computation(computation, InstructionPrinter(options), scheduled=True)


def print_instruction(instruction: Instruction, options: PrintOptions = PrintOptions()) -> str:  # noqa: B008
    """One line, without `ROOT`; for messages, take options with `large_constants=False`."""
    return InstructionPrinter(options).line(instruction)


def _header(module: Module, options: PrintOptions) -> str:
    parts = [f"HloModule {module.name if options.ids else ''}"]
    if module.is_scheduled:
        parts.append("is_scheduled=true")
    if module.input_output_alias:
        parts.append(f"input_output_alias={_aliases(module.input_output_alias)}")
    if module.buffer_donors:
        parts.append(f"buffer_donor={_donors(module.buffer_donors)}")
    if module.attributes.get("alias_passthrough_params"):
        parts.append("alias_passthrough_params=true")
    parameters, result = module.entry_shapes
    parts.append(f"entry_computation_layout={{({print_shapes(parameters)})->{print_shape(result)}}}")
    counts = {"replica_count": module.replica_count, "num_partitions": module.num_partitions}
    values = {**module.attributes, **counts}
    for name, kind, unseen in _HEADER:
        value = values.get(name)
        if value is not None and value != unseen:
            parts.append(f"{name}={PRINTERS[kind](value)}")
    return ", ".join(parts)


def _aliases(aliases: tuple[Alias, ...]) -> str:
    rows = (
        f"{print_dims(alias.output_index)}: ({alias.number}, {print_dims(alias.input_index)}, "
        f"{'must' if alias.must else 'may'}-alias)"
        for alias in sorted(aliases)
    )
    return f"{{ {', '.join(rows)} }}"


def _donors(donors: tuple[Donor, ...]) -> str:
    return f"{{ {', '.join(f'({donor.number}, {print_dims(donor.index)})' for donor in sorted(donors))} }}"


def _computation(computation: Computation, printer: InstructionPrinter, scheduled: bool) -> str:
    options = printer.options
    tab = "  " * options.indent
    lines = [tab + _signature(computation, printer) + "{"]
    for instruction in instructions_in_order(computation, scheduled):
        root = "ROOT " if instruction is computation.root else ""
        lines.append(f"{tab}  {root}{printer.line(instruction)}")
    end = f"{tab}}}"
    if options.ids and computation.execution_thread != "main":
        end += f', execution_thread="{computation.execution_thread}"'
    for name, value in computation.attributes.items():
        end += f", {name}={PRINTERS[kinds.CONFIG](value)}"
    return "\n".join((*lines, end))


def _signature(computation: Computation, printer: InstructionPrinter) -> str:
    options = printer.options
    text = "ENTRY " if computation.is_entry else ""
    text += ("%" if options.percent else "") + (f"{computation.name} " if options.ids else "")
    if not options.program_shapes:
        return text
    names = replace(options, percent=False)
    bare = InstructionPrinter(names).name
    parameters = ", ".join(f"{bare(p.name)}: {print_shape(p.shape, False)}" for p in computation.parameters)
    return f"{text}({parameters}) -> {print_shape(computation.root.shape, False)} "
