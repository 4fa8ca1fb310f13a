"""`hloc fmt`: XLA's canonical text."""

from __future__ import annotations

import click

from hloc.cli.common import FILE, OUTPUT, read_module, write_out


@click.command()
@FILE
@OUTPUT
@click.option("--in-place", "-i", is_flag=True, help="Write to FILE itself.")
@click.option("--elide-constants", is_flag=True, help="Print constants of more than 10 elements as {...}.")
@click.option("--no-metadata", is_flag=True, help="Leave metadata out.")
def fmt(file, output, in_place, elide_constants, no_metadata):
    """Print a module in XLA's canonical form."""
    if in_place and (output or file == "-"):
        raise click.UsageError("--in-place needs a FILE and no --output")
    module = read_module(file)
    text = module.to_text(large_constants=not elide_constants, metadata=not no_metadata)
    write_out(text, file if in_place else output)
