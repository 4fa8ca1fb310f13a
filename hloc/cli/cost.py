"""`hloc cost` and `hloc memory`: what a run of a program takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from hloc import api
from hloc.cli.common import FILE, PIPELINE, TARGET, read_module, read_source

if TYPE_CHECKING:
    from hloc.analysis.costs import ModuleCost
    from hloc.runtime.memory_report import MemoryAnalysis

_JSON = click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
_TOP = click.option("--top", metavar="N", default=20, show_default=True, help="How many rows to print at most.")


@click.command()
@FILE
@click.option("--as-is", is_flag=True, help="Count the instructions of FILE itself, without any passes.")
@PIPELINE
@_TOP
@_JSON
def cost(file, as_is, pipeline, top, as_json):
    """Count the arithmetic and the bytes of a run.

    Counts are of the program after its passes: loops as often as they turn, of branches the most costly one,
    slices and updates by what they touch.
    """
    found = api.cost_analysis(read_module(file), None if as_is else pipeline or "cpu")
    click.echo(json.dumps(_cost_record(found), indent=1) if as_json else _cost_table(found, top))


def _cost_record(found: ModuleCost) -> dict[str, object]:
    record = found._asdict()
    record["instructions"] = [{**row._asdict(), "bytes_accessed": row.bytes_accessed} for row in found.instructions]
    return record


def _cost_table(found: ModuleCost, top: int) -> str:
    heads = ("flops", "transcend.", "int ops", "bytes", "times")
    lines = ["".join(f"{head:>14}" for head in heads) + "  instruction"]
    rows = sorted(found.instructions, key=lambda row: -row.times * (row.bytes_accessed + row.flops))
    for row in [row for row in rows if row.times][:top]:
        numbers = (row.flops, row.transcendentals, row.integer_ops, row.bytes_accessed)
        cells = [f"{row.times * number:14,.0f}" for number in numbers]
        lines.append("".join([*cells, f"{row.times:14,}"]) + f"  {row.name} {row.op_name}".rstrip())
    totals = (found.flops, found.transcendentals, found.integer_ops, found.bytes_accessed, found.kernels)
    lines.append("".join(f"{total:14,.0f}" for total in totals) + "  in total")
    if found.unknown_loops:
        lines.append(f"turns unknown, counted once: {', '.join(found.unknown_loops)}")
    if found.opaque_calls:
        lines.append(f"arithmetic unknown, not counted: {', '.join(found.opaque_calls)}")
    return "\n".join(lines)


@click.command()
@FILE
@TARGET
@PIPELINE
@click.option("--live", is_flag=True, help="Print every buffer with its place and its life.")
@_TOP
@_JSON
def memory(file, target, pipeline, live, top, as_json):
    """Say how much memory a run takes, and who owns it at the peak."""
    text, name = read_source(file)
    found = api.compile(text, target, api.Options(pipeline=pipeline), name).memory_analysis()
    if as_json:
        click.echo(json.dumps(_memory_record(found), indent=1))
    else:
        click.echo(_memory_table(found, live, top))


def _memory_record(found: MemoryAnalysis) -> dict[str, object]:
    record = found._asdict()
    for field in ("owners", "live_ranges", "copies"):
        record[field] = [row._asdict() for row in record[field]]
    return record


def _memory_table(found: MemoryAnalysis, live: bool, top: int) -> str:
    parts = ("argument", "output", "alias", "constant", "temporary", "peak", "generated_code")
    lines = [f"{getattr(found, f'{part}_bytes'):16,}  {part.replace('_', ' ')} bytes" for part in parts]
    if found.peak_at:
        lines.append(f"at the peak, in {' > '.join(found.peak_at)}:")
    for row in found.owners[:top]:
        lines.append(f"{row.bytes:16,}  {row.name} {row.shape} {row.op_name}".rstrip())
    if found.copies:
        lines.append("copies made:")
    for copy in found.copies[:top]:
        lines.append(f"{copy.bytes:16,}  {copy.name}: {copy.reason}")
    for row in found.live_ranges if live else ():
        lines.append(f"{row.bytes:16,}  {row.place:16} {row.first} .. {row.last}  {', '.join(row.names)} {row.shape}")
    return "\n".join(lines)
