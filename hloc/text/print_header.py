"""The first lines of a module: its name and header attributes, in XLA's order."""

from __future__ import annotations

import re
from collections.abc import Callable

from hloc.ir import opcodes as kinds
from hloc.ir.attributes import Alias, Donor, Raw, Recovery
from hloc.ir.module import Module
from hloc.records import replace
from hloc.text.print_options import PrintOptions
from hloc.text.print_shapes import print_shape, print_shapes
from hloc.text.print_values import PRINTERS, print_dims

# Attributes behind the entry's layout, in order: name, kind, the value that is not shown.
_AFTER_LAYOUT = (
    ("allow_spmd_sharding_propagation_to_parameters", kinds.BOOLS, (False,)),
    ("allow_spmd_sharding_propagation_to_output", kinds.BOOLS, (False,)),
    ("replica_count", kinds.INT, 1),
    ("num_partitions", kinds.INT, 1),
    ("frontend_attributes", kinds.DICTIONARY, ()),
    ("backend_config", kinds.CONFIG, ""),
)

# `{"a" {1}} : ({log_mode=default},{op_id=2})`: an origin and what a debugger is to do there.
_DEBUG_ROW = re.compile(r'(\{\s*"(?:[^"\\]|\\.)*"[^}]*?\}?\s*\})\s*:\s*\(([^)]*)\)', re.DOTALL)


PrintWhole = Callable[[Module, PrintOptions], str]


def print_header(module: Module, options: PrintOptions, print_whole: PrintWhole) -> str:
    """All up to the tables; `print_whole` prints the modules that an origin recovery table holds."""
    parts = [f"{'  ' * options.indent}HloModule {module.name if options.ids else ''}"]
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
    for name, kind, unseen in _AFTER_LAYOUT:
        value = values.get(name)
        if value is not None and value != unseen:
            parts.append(f"{name}={PRINTERS[kind](value)}")
    text = ", ".join(parts)
    rows = module.attributes.get("origin_recovery_table")
    if rows:
        inner = replace(options, indent=options.indent + 1)
        text += f", origin_recovery_table={{\n{_recoveries(rows, inner, print_whole)}}}\n"
    debug = module.attributes.get("debug_attributes")
    return text + _debug_attributes(debug, "  " * (options.indent + 1)) if debug else text


def _aliases(aliases: tuple[Alias, ...]) -> str:
    rows = (
        f"{print_dims(alias.output_index)}: ({alias.number}, {print_dims(alias.input_index)}, "
        f"{'must' if alias.must else 'may'}-alias)"
        for alias in sorted(aliases)
    )
    return f"{{ {', '.join(rows)} }}"


def _donors(donors: tuple[Donor, ...]) -> str:
    return f"{{ {', '.join(f'({donor.number}, {print_dims(donor.index)})' for donor in sorted(donors))} }}"


def _recoveries(rows: tuple[Recovery, ...], options: PrintOptions, print_whole: PrintWhole) -> str:
    """A line a row; a program follows in quotes, on lines of its own, one step further in."""
    tab = "  " * options.indent
    lines = []
    for row in sorted(rows, key=lambda row: row.replaced):
        line = f"{tab}{row.replaced} : {row.replacing}"
        if row.module is not None:
            program = print_whole(row.module, replace(options, indent=options.indent + 1))
            program = program.replace("\\", "\\\\").replace('"', '\\"')
            line += f',\n{tab}"\n{program}\n{tab}"'
        lines.append(line + "\n")
    return "".join(lines)


def _debug_attributes(value: Raw, tab: str) -> str:
    rows = []
    for origin, actions in _DEBUG_ROW.findall(value.text):
        listed = ["".join(action.split()) for action in re.findall(r"\{[^}]*\}", actions)]
        rows.append(f"{tab}{' '.join(origin.split())}:({','.join(listed)})")
    return ",\ndebug_attributes={\n" + ",\n".join(rows) + "\n}" if rows else ""
