"""HLO modules as text, byte for byte as XLA (jaxlib 0.10.2) prints them.

Known differences are those where XLA's print does not read back as the same module; they are listed in
`tools/roundtrip.py`. Forms that only newer XLA knows are printed as that prints them.
"""

from __future__ import annotations

from hloc.ir import opcodes as kinds
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.text.print_header import print_header
from hloc.text.print_instruction import InstructionPrinter
from hloc.text.print_literals import print_literal
from hloc.text.print_options import PrintOptions
from hloc.text.print_order import computations_in_order, fusion_computations, instructions_in_order
from hloc.text.print_shapes import print_shape
from hloc.text.print_tables import Frames
from hloc.text.print_values import PRINTERS

__all__ = [
    "PrintOptions",
    "print_computation",
    "print_instruction",
    "print_literal",
    "print_module",
    "print_shape",
]


def print_module(module: Module, options: PrintOptions = PrintOptions()) -> str:  # noqa: B008 (frozen)
    """The text of a whole module; it ends with an empty line, as XLA's does."""
    frames = Frames(module) if options.metadata else None
    printer = InstructionPrinter(options, frames)
    parts = [print_header(module, options, print_module)]
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
    names = (printer.name(parameter.name).removeprefix("%") for parameter in computation.parameters)
    shapes = (print_shape(parameter.shape, False) for parameter in computation.parameters)
    parameters = ", ".join(map("{}: {}".format, names, shapes))
    return f"{text}({parameters}) -> {print_shape(computation.root.shape, False)} "
