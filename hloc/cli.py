"""The `hloc` command: arguments in, text out. Everything it does is done by the Python API.

Exit status: 0 done, 1 the input is at fault (the message says where), 2 the command line is, 3 hloc itself is (the
message names the pass, and the command that repeats it).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import click
import numpy as np

from hloc import __version__, api
from hloc.arrays import compare, load_inputs, parameter_leaves, random_inputs, show, to_stored
from hloc.codegen.compile import STAGES, emit_stage
from hloc.errors import HloError
from hloc.ir.module import Module
from hloc.lazy import lazy
from hloc.options import Options
from hloc.passes.pipeline import PIPELINES, InternalError, describe_passes, run_pipeline
from hloc.runtime.executable import Executable

json = lazy("json")
statistics = lazy("statistics")

FILE = click.argument("file", metavar="FILE", type=click.Path(allow_dash=True))


class Commands(click.Group):
    """Turns faults of the input into one message and exit status 1; shows verbs in the order of a day's work."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except HloError as error:
            fail(str(error))
        except (OSError, MemoryError) as error:
            fail(f"error: {error or 'out of memory'}")
        except InternalError as error:
            fail(str(error), status=3)


def fail(message: str, status: int = 1) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(status)


def read_module(file: str) -> Module:
    """The module in a file, or on standard input if the name is `-`."""
    if file == "-":
        return api.parse(sys.stdin.read(), "<stdin>")
    return api.parse(Path(file))


def write_out(content: str | bytes, output: str | None) -> None:
    if output in (None, "-"):
        click.echo(content, nl=isinstance(content, str) and not content.endswith("\n"))
    elif isinstance(content, bytes):
        Path(output).write_bytes(content)
    else:
        Path(output).write_text(content if content.endswith("\n") else content + "\n")


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


def data_options(command: Callable) -> Callable:
    """The options that say which arrays go in and where the results go."""
    for option in reversed(
        (
            click.option("--inputs", metavar="X.npz", help="Arguments: arrays by parameter name, or in0, in1, ..."),
            click.option("--random", "use_random", is_flag=True, help="Make arguments up (see --seed)."),
            click.option("--seed", default=0, show_default=True, help="Seed of --random."),
            click.option("--output", "-o", metavar="Y.npz", help="Save the results as out0, out1, ..."),
            click.option("--quiet", "-q", is_flag=True, help="Do not print the results."),
        )
    ):
        command = option(command)
    return command


def gather_inputs(module: Module, inputs: str | None, use_random: bool, seed: int) -> list[np.ndarray]:
    if inputs is not None:
        return load_inputs(inputs, module)
    leaves = parameter_leaves(module)
    if leaves and not use_random:
        wanted = ", ".join(f"{name} {shape!r}" for name, shape in leaves[:8]) + (", ..." if len(leaves) > 8 else "")
        raise click.UsageError(f"the program takes {len(leaves)} arrays ({wanted}): give --inputs X.npz or --random")
    return random_inputs(module, seed)


def report_results(results: Sequence[np.ndarray], output: str | None, quiet: bool) -> None:
    if output is not None:
        np.savez(output, **{f"out{i}": to_stored(result) for i, result in enumerate(results)})
    if not quiet:
        for i, result in enumerate(results):
            click.echo(f"out{i} {result.dtype.name}{list(result.shape)}")
            click.echo(show(result))


@main.command()
@FILE
@data_options
@click.option("--check", is_flag=True, help="Compare with the reference evaluator; exit status 1 if they differ.")
@click.option("--repeat", metavar="N", type=click.IntRange(1), help="Run N times more and print the times.")
@click.option("--target", default="cpu", show_default=True, help="What to compile for.")
@click.option("--pipeline", metavar="NAME", help="Passes to run, by pipeline or comma-separated.")
@click.option("--dump-to", metavar="DIR", type=click.Path(file_okay=False), help="Write the module after each pass.")
def run(file, inputs, use_random, seed, output, quiet, check, repeat, target, pipeline, dump_to):
    """Compile a program to native code and run it.

    Results print with their shapes; --check tells how far they are from the reference evaluator's, and where.
    A program for several devices runs all of them as threads, each on the same arguments.
    """
    module = read_module(file)
    arguments = gather_inputs(module, inputs, use_random, seed)
    executable = api.compile(module, target, Options(pipeline=pipeline, dump_to=dump_to))
    results = executable.execute(*arguments)
    report_results(results, output, quiet)
    if repeat:
        click.echo(timing(executable, arguments, repeat))
    if check:
        check_results(module, arguments, results)


def timing(executable: Executable, arguments: Sequence[np.ndarray], repeat: int) -> str:
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        executable.execute(*arguments)
        times.append((time.perf_counter() - start) * 1e6)
    return f"{repeat} runs: median {statistics.median(times):.1f} us, least {min(times):.1f}, most {max(times):.1f}"


def check_results(module: Module, arguments: Sequence[np.ndarray], results: Sequence[np.ndarray]) -> None:
    """Print the largest error of each result; leave with status 1 if one is out of tolerance."""
    wrong = 0
    for i, (got, expected) in enumerate(zip(results, api.evaluate_leaves(module, arguments), strict=True)):
        difference = compare(got, expected)
        wrong += not difference.equal
        verdict = "ok" if difference.equal else "WRONG"
        line = f"check out{i}: {verdict}, largest error {difference.absolute:.3g}"
        if difference.absolute:
            at = "".join(f"[{i}]" for i in difference.index)
            line += f", at {at or '[]'}: got {difference.got}, evaluator {difference.expected}"
        click.echo(line)
    if wrong:
        sys.exit(1)


@main.command("eval")
@FILE
@data_options
def evaluate_command(file, inputs, use_random, seed, output, quiet):
    """Run a program by the reference evaluator: slow, and right by definition."""
    module = read_module(file)
    arguments = gather_inputs(module, inputs, use_random, seed)
    report_results(api.evaluate_leaves(module, arguments), output, quiet)


@main.command()
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
    record: dict[str, object] = {"message": fault.message, "label": fault.label}
    if fault.span is not None:
        line, column = fault.span.source.position(fault.span.start)
        record |= {"file": fault.span.source.name, "line": line, "column": column}
    return record


def require_valid(module: Module) -> None:
    faults = api.verify(module)
    if faults:
        fail("\n".join(map(str, faults)))


@main.command("fmt")
@FILE
@click.option("--output", "-o", metavar="OUT", help="Where to write; standard output if absent.")
@click.option("--in-place", "-i", is_flag=True, help="Write to FILE itself.")
@click.option("--elide-constants", is_flag=True, help="Print constants of more than 10 elements as {...}.")
@click.option("--no-metadata", is_flag=True, help="Leave metadata out.")
def format_command(file, output, in_place, elide_constants, no_metadata):
    """Print a module in XLA's canonical form."""
    if in_place and (output or file == "-"):
        raise click.UsageError("--in-place needs a FILE and no --output")
    module = read_module(file)
    text = module.to_text(large_constants=not elide_constants, metadata=not no_metadata)
    write_out(text, file if in_place else output)


@main.command()
@click.argument("file", metavar="FILE", required=False, type=click.Path(allow_dash=True))
@click.option("--passes", metavar="A,B,...", help="Run these passes, in this order.")
@click.option("--pipeline", metavar="NAME", help=f"Run a pipeline: {', '.join(PIPELINES)} (cpu if nothing is said).")
@click.option("--disable-pass", "disabled", metavar="A", multiple=True, help="Leave a pass out; may be repeated.")
@click.option("--until", metavar="A", help="Stop after this pass.")
@click.option("--print-after", metavar="A,B,...", help="Print the module after these passes, to standard error.")
@click.option("--dump-to", metavar="DIR", type=click.Path(file_okay=False), help="Write the module after each pass.")
@click.option("--stats", is_flag=True, help="Print time and instruction counts of each pass, to standard error.")
@click.option("--list-passes", is_flag=True, help="List the passes and leave.")
@click.option("--output", "-o", metavar="OUT", help="Where to write; standard output if absent.")
def opt(file, passes, pipeline, disabled, until, print_after, dump_to, stats, list_passes, output):
    """Run passes over a module and print what comes out."""
    if list_passes:
        click.echo(describe_passes())
        return
    if file is None or (passes and pipeline):
        raise click.UsageError("give a FILE, and --passes or --pipeline but not both")
    module = read_module(file)
    require_valid(module)
    options = Options(
        disabled_passes=tuple(disabled),
        until=until,
        print_after=tuple(print_after.split(",")) if print_after else (),
        dump_to=dump_to,
    )
    report = run_pipeline(module, passes or pipeline or "cpu", options)
    for text in report.printed:
        click.echo(text, err=True)
    if stats:
        click.echo(report.table(), err=True)
    write_out(module.to_text(), output)


@main.command()
@FILE
@click.option("--stage", type=click.Choice(list(STAGES)), default="llvm", show_default=True, help="What to write.")
@click.option("--target", default="cpu", show_default=True, help="What to compile for.")
@click.option("--pipeline", metavar="NAME", help="Passes to run, by pipeline or comma-separated.")
@click.option("--output", "-o", metavar="OUT", help="Where to write; standard output if absent.")
def emit(file, stage, target, pipeline, output):
    """Write one stage of a compile.

    \b
    hlo       the module after its passes
    llvm      LLVM IR as generated
    llvm-opt  LLVM IR after LLVM's passes
    asm       assembly
    obj       an object file
    """
    module = read_module(file)
    require_valid(module)
    content = emit_stage(module, stage, target, Options(pipeline=pipeline))
    if isinstance(content, bytes) and output is None and sys.stdout.isatty():
        raise click.UsageError(f"stage {stage} is binary: say where with --output")
    write_out(content, output)
