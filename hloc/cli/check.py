"""`hloc check`: every fault of a text, with its place."""

from __future__ import annotations

import json
import sys

import click

from hloc import api
from hloc.cli.common import read_module
from hloc.errors import HloError


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(allow_dash=True))
@click.option("--json", "as_json", is_flag=True, help="Print the faults as a JSON list.")
def check(files, as_json):
    """Parse and verify; print every fault with its place."""
    faults = []
    for file in files:
        try:
            faults += api.verify(read_module(file))
        except HloError as error:
            faults.append(error)
    if as_json:
        click.echo(json.dumps([fault_record(fault) for fault in faults], indent=1))
    else:
        for fault in faults:
            click.echo(str(fault))
    if faults:
        sys.exit(1)


def fault_record(fault) -> dict[str, object]:
    """A fault as JSON has it; without a place if it has none."""
    record: dict[str, object] = {"message": fault.message, "label": fault.label}
    if fault.span is not None:
        line, column = fault.span.source.position(fault.span.start)
        record |= {"file": fault.span.source.name, "line": line, "column": column}
    return record
