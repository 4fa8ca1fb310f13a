"""`hloc cache`: what earlier runs have kept on disk."""

from __future__ import annotations

import time

import click

from hloc import cache


@click.group("cache")
def cache_command() -> None:
    """List or remove what earlier runs kept: compiled programs, and the parser's tables.

    Programs are found again by their text, the options, the processor and hloc's own version: nothing here ever needs
    to be removed, except for room.
    """


@cache_command.command("list")
def list_command() -> None:
    """Print what is kept, the latest used first."""
    entries = cache.entries()
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        click.echo(f"{used}  {entry.size:10,} bytes  {entry.about or '(damaged)'}")
    click.echo(f"{len(entries)} files, {sum(entry.size for entry in entries):,} bytes, in {cache.folder()}")


@cache_command.command("clear")
def clear_command() -> None:
    """Remove all that is kept."""
    click.echo(f"removed {cache.clear()} files from {cache.folder()}")
