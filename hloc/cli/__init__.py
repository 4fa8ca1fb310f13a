"""The `hloc` command: arguments in, text out. Everything it does is done by the Python API.

Exit status: 0 done, 1 the input is at fault (the message says where), 2 the command line is, 3 hloc itself is (the
message names the pass, and the command that repeats it).

A verb is a click command in a module of this folder, loaded when the verb is used; VERBS is the table of them.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import click

from hloc import __version__
from hloc.cli.common import fail
from hloc.errors import HloError, HloWarning, InternalError

VERBS = {
    "run": "hloc.cli.run",
    "check": "hloc.cli.check",
    "fmt": "hloc.cli.fmt",
    "eval": "hloc.cli.run",
    "opt": "hloc.cli.opt",
    "emit": "hloc.cli.emit",
    "cost": "hloc.cli.cost",
    "memory": "hloc.cli.cost",
    "bisect": "hloc.cli.bisect",
    "cache": "hloc.cli.cache",
    "devices": "hloc.cli.devices",
}
"""The module of each verb, in the order of a day's work. The module has the command under the verb's name, or under
that and `_command` where Python has taken the name."""


@contextmanager
def _warnings_told() -> Iterator[None]:
    """Warnings of the input go to standard error, each of them once."""
    told = set()

    def show(message: Warning | str, *_: object) -> None:
        if str(message) not in told:
            click.echo(f"warning: {message}", err=True)
        told.add(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", HloWarning)
        warnings.showwarning = show
        yield


class Commands(click.Group):
    """Finds verbs in VERBS; turns faults of the input into one message and exit status 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = import_module(VERBS[cmd_name])
        return getattr(module, f"{cmd_name}_command", None) or getattr(module, cmd_name)

    def invoke(self, ctx: click.Context) -> object:
        try:
            with _warnings_told():
                return super().invoke(ctx)
        except HloError as error:
            fail(str(error))
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to write has no reader
            sys.exit(1)
        except (OSError, MemoryError) as error:
            fail(f"error: {error or 'out of memory'}")
        except InternalError as error:
            fail(str(error), status=3)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="hloc")
def main() -> None:
    """Compile and run HLO, the language that JAX and XLA dump.

    FILE is HLO text; `-` reads it from standard input. To get such a file from JAX:

    \b
        text = jax.jit(f).lower(*args).as_text(dialect="hlo")

    \b
    Begin with:
        hloc run samples/softmax.hlo --random
        hloc run samples/softmax.hlo --random --check
        hloc opt samples/chain.hlo
    """
