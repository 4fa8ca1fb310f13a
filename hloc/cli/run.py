"""`hloc run` and `hloc eval`: a program's results, from native code or from the reference evaluator."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import click
import numpy as np

from hloc import api
from hloc.arrays import compare, load_inputs, parameter_leaves, random_inputs, show, to_stored
from hloc.cli.common import FILE, PIPELINE, TARGET, number_options, read_module, read_source, steering_options
from hloc.codegen.program import Program
from hloc.lazy import lazy
from hloc.options import Options
from hloc.runtime.runner import Runner

if TYPE_CHECKING:
    from hloc.ir.module import Module

statistics = lazy("statistics")


_INPUTS = "Arguments: arrays by parameter name, or in0, in1, ...; once for each device, or once for all."


def data_options(command: Callable) -> Callable:
    """The options that say which arrays go in and where the results go."""
    for option in reversed(
        (
            click.option("--inputs", metavar="X.npz", multiple=True, help=_INPUTS),
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
    program: Module | Program, inputs: Sequence[str], use_random: bool, seed: int, devices: int = 1
) -> list[list[np.ndarray]]:
    """The arguments of each device. Those made up are of a seed of its own, counted from `seed`."""
    if len(inputs) > 1 and len(inputs) != devices:
        raise click.UsageError(f"--inputs is given {len(inputs)} times, expected once or for each of {devices} devices")
    if inputs:
        given = [load_inputs(file, program) for file in inputs]
        return given * devices if len(given) == 1 else given
    leaves = parameter_leaves(program)
    if leaves and not use_random:
        wanted = ", ".join(f"{name} {shape!r}" for name, shape in leaves[:8]) + (", ..." if len(leaves) > 8 else "")
        raise click.UsageError(f"the program takes {len(leaves)} arrays ({wanted}): give --inputs X.npz or --random")
    return [random_inputs(program, seed + device) for device in range(devices)]


def named_results(results: Sequence[Sequence[np.ndarray]]) -> Iterator[tuple[str, np.ndarray]]:
    """Each result with its name: `out0` of one device, `device1.out0` of several."""
    for device, leaves in enumerate(results):
        for i, leaf in enumerate(leaves):
            yield f"device{device}.out{i}" if len(results) > 1 else f"out{i}", leaf


def report_results(results: Sequence[Sequence[np.ndarray]], output: str | None, quiet: bool) -> None:
    """Save and print the results of each device."""
    if output is not None:
        np.savez(output, **{name: to_stored(result) for name, result in named_results(results)})
    if not quiet:
        for name, result in named_results(results):
            click.echo(f"{name} {result.dtype.name}{list(result.shape)}")
            click.echo(show(result))


@click.command()
@FILE
@data_options
@click.option("--check", is_flag=True, help="Compare with the reference evaluator; exit status 1 if they differ.")
@click.option("--repeat", metavar="N", type=click.IntRange(1), help="Run N times more and print the times.")
@TARGET
@PIPELINE
@steering_options
@number_options
@guard_options
@click.option("--replicas", "replica_count", metavar="N", type=click.IntRange(1), help="Run N replicas of the program.")
@click.option("--partitions", "num_partitions", metavar="N", type=click.IntRange(1), help="Run N partitions of it.")
@click.option("--num-threads", metavar="N", type=click.IntRange(0), default=0, help="Threads of a kernel.")
@click.option("--cache/--no-cache", default=True, help="Keep the compiled program for later runs (see `hloc cache`).")
def run(file, inputs, use_random, seed, output, quiet, check, repeat, target, pipeline, cache, **steering):
    """Compile a program to native code and run it.

    Results print with their shapes; --check tells how far they are from the reference evaluator's, and where.
    A program for several devices, by its text or by --replicas and --partitions, runs on all of them as threads;
    results are named by device, replica * partitions + partition. --random gives each device arguments of its own.
    """
    text, name = read_source(file)
    options = Options(pipeline=pipeline, cache=cache, **steering)
    executable = api.compile(text, target, options, name)
    arguments = gather_inputs(executable.program, inputs, use_random, seed, executable.device_count)
    results = executed(executable, arguments)
    report_results(results, output, quiet)
    if repeat:
        click.echo(timing(executable, arguments, repeat))
    if check:
        several = executable.device_count > 1
        source = api.parse(text, name)
        expected = api.evaluate_replicated(source, arguments, options) if several else [
            api.evaluate_leaves(source, arguments[0])
        ]
        check_results(results, expected)


def executed(executable: Runner, arguments: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
    """The results of each device."""
    if executable.device_count > 1:
        return executable.execute_replicated(arguments)
    return [executable.execute(*arguments[0])]


def timing(executable: Runner, arguments: Sequence[Sequence[np.ndarray]], repeat: int) -> str:
    """Times of calls; on a GPU, with arguments and results in its memory."""
    times = []
    given = executable.resident(arguments)
    for _ in range(repeat):
        start = time.perf_counter()
        for result in (result for leaves in executed(executable, given) for result in leaves):
            if not isinstance(result, np.ndarray):
                result.block_until_ready()
        times.append((time.perf_counter() - start) * 1e6)
    return f"{repeat} runs: median {statistics.median(times):.1f} us, least {min(times):.1f}, most {max(times):.1f}"


def check_results(
    results: Sequence[Sequence[np.ndarray]], expected: Sequence[Sequence[np.ndarray]]
) -> None:
    """Print the largest error of each result; leave with status 1 if one is out of tolerance."""
    wrong = 0
    for (name, got), (_, wanted) in zip(named_results(results), named_results(expected), strict=True):
        difference = compare(got, wanted)
        wrong += not difference.equal
        verdict = "ok" if difference.equal else "WRONG"
        line = f"check {name}: {verdict}, largest error {difference.absolute:.3g}"
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
    report_results([api.evaluate_leaves(module, arguments[0])], output, quiet)
