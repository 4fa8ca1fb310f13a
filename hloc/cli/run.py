"""`hloc run` and `hloc eval`: a program's results, from native code or from the reference evaluator."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click
import numpy as np

from hloc import api
from hloc.arrays import compare, load_inputs, parameter_leaves, random_inputs, show, to_stored
from hloc.cli.common import FILE, PIPELINE, TARGET, read_module, read_source, steering_options
from hloc.codegen.program import Program
from hloc.lazy import lazy
from hloc.options import Options
from hloc.runtime.executable import Executable

if TYPE_CHECKING:
    from hloc.ir.module import Module

statistics = lazy("statistics")


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


def guard_options(command: Callable) -> Callable:
    """Where pages that cannot be touched lie: `Options.guard_pages`."""
    sides = (("--guard-starts", "start", "before the start"), ("--guard-pages", "end", "beyond the end"))
    for name, side, where in sides:
        what = f"Stop with a message where the program reaches {where} of a buffer."
        command = click.option(name, "guard_pages", flag_value=side, default="", help=what)(command)
    return command


def gather_inputs(
    program: Module | Program, inputs: str | None, use_random: bool, seed: int
) -> list[np.ndarray]:
    if inputs is not None:
        return load_inputs(inputs, program)
    leaves = parameter_leaves(program)
    if leaves and not use_random:
        wanted = ", ".join(f"{name} {shape!r}" for name, shape in leaves[:8]) + (", ..." if len(leaves) > 8 else "")
        raise click.UsageError(f"the program takes {len(leaves)} arrays ({wanted}): give --inputs X.npz or --random")
    return random_inputs(program, seed)


def report_results(results: Sequence[np.ndarray], output: str | None, quiet: bool) -> None:
    if output is not None:
        np.savez(output, **{f"out{i}": to_stored(result) for i, result in enumerate(results)})
    if not quiet:
        for i, result in enumerate(results):
            click.echo(f"out{i} {result.dtype.name}{list(result.shape)}")
            click.echo(show(result))


@click.command()
@FILE
@data_options
@click.option("--check", is_flag=True, help="Compare with the reference evaluator; exit status 1 if they differ.")
@click.option("--repeat", metavar="N", type=click.IntRange(1), help="Run N times more and print the times.")
@TARGET
@PIPELINE
@steering_options
@guard_options
@click.option("--cache/--no-cache", default=True, help="Keep the compiled program for later runs (see `hloc cache`).")
def run(file, inputs, use_random, seed, output, quiet, check, repeat, target, pipeline, cache, **steering):
    """Compile a program to native code and run it.

    Results print with their shapes; --check tells how far they are from the reference evaluator's, and where.
    A program for several devices runs all of them as threads, each on the same arguments.
    """
    text, name = read_source(file)
    options = Options(pipeline=pipeline, cache=cache, **steering)
    executable = api.compile(text, target, options, name)
    arguments = gather_inputs(executable.program, inputs, use_random, seed)
    results = executable.execute(*arguments)
    report_results(results, output, quiet)
    if repeat:
        click.echo(timing(executable, arguments, repeat))
    if check:
        check_results(api.parse(text, name), arguments, results)


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


@click.command("eval")
@FILE
@data_options
def eval_command(file, inputs, use_random, seed, output, quiet):
    """Run a program by the reference evaluator: slow, and right by definition."""
    module = read_module(file)
    arguments = gather_inputs(module, inputs, use_random, seed)
    report_results(api.evaluate_leaves(module, arguments), output, quiet)
