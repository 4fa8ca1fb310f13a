"""What verbs share: reading modules, writing text, leaving with a message."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from hloc import api

if TYPE_CHECKING:
    from hloc.ir.module import Module

FILE = click.argument("file", metavar="FILE", type=click.Path(allow_dash=True))
OUTPUT = click.option("--output", "-o", metavar="OUT", help="Where to write; standard output if absent or `-`.")
TARGET = click.option("--target", default="cpu", show_default=True, help="What to compile for: see `hloc devices`.")

PIPELINE = click.option("--pipeline", metavar="NAME", help="Passes to run, by pipeline or comma-separated.")


def steering_options(command: Callable) -> Callable:
    """What steers passes wherever they run: options named like the fields of `Options` that they fill."""
    disable = "Leave a pass out; may be repeated."
    load = "Load passes of a Python file, or an installed pass; may be repeated."
    dump = "Write the module after each pass that changes it."
    for option in reversed(
        (
            click.option("--disable-pass", "disabled_passes", metavar="A", multiple=True, help=disable),
            click.option("--load", metavar="P", multiple=True, help=load),
            click.option("--dump-to", metavar="DIR", type=click.Path(file_okay=False), help=dump),
        )
    ):
        command = option(command)
    return command


def number_options(command: Callable) -> Callable:
    """How floats are computed: options named like the fields of `Options` that they fill."""
    for option in reversed(
        (
            click.option("--fast-math", is_flag=True, help="Rewrite float ops at the cost of NaNs and last digits."),
            click.option("--fma", is_flag=True, help="Let a multiply and an add round once."),
            click.option("--allow-tf32", is_flag=True, help="Round f32 to tf32 in matrix products on GPUs."),
            click.option(
                "--flush-denormals/--no-flush-denormals", default=True, help="Take denormals for zeros, as XLA does."
            ),
        )
    ):
        command = option(command)
    return command


def fail(message: str, status: int = 1) -> NoReturn:
    """Leave the process with a message on standard error."""
    click.echo(message, err=True)
    sys.exit(status)


def read_source(file: str) -> tuple[str, str]:
    """The text in a file, or on standard input if the name is `-`; and what to call it in messages."""
    if file == "-":
        return sys.stdin.read(), "<stdin>"
    return api.read_text(Path(file)), file


def read_module(file: str) -> Module:
    """The module in a file, or on standard input if the name is `-`."""
    return api.parse(*read_source(file))


def require_valid(module: Module) -> None:
    """Leave with status 1 and every fault of a module that has any."""
    faults = api.verify(module)
    if faults:
        fail("\n".join(map(str, faults)))


def write_out(content: str | bytes, output: str | None) -> None:
    """Write a stage's text or bytes to a file, or to standard output for None and `-`."""
    if output in (None, "-"):
        click.echo(content, nl=isinstance(content, str) and not content.endswith("\n"))
    elif isinstance(content, bytes):
        Path(output).write_bytes(content)
    else:
        Path(output).write_text(content if content.endswith("\n") else content + "\n", encoding="utf-8")
