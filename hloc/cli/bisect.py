"""`hloc bisect`: which pass, and which of its rewrites, broke the answer."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import numpy as np

from hloc.arrays import load_inputs, random_inputs, to_stored
from hloc.bisect.search import NATIVE, Culprit, bisect
from hloc.cli.common import FILE, read_module, require_valid
from hloc.options import Options


@click.command("bisect")
@FILE
@click.option("--inputs", metavar="X.npz", help="Arguments by parameter name, or in0, in1, ...; else random.")
@click.option("--seed", default=0, show_default=True, help="Seed of random arguments.")
@click.option("--pipeline", default="cpu", show_default=True, metavar="NAME", help="A pipeline, or passes: A,B,...")
@click.option("--disable-pass", "disabled", metavar="A", multiple=True, help="Leave a pass out; may be repeated.")
@click.option("--seconds", default=60.0, show_default=True, help="Time for making the module small.")
@click.option("--output", "-o", metavar="DIR", default=".", type=click.Path(file_okay=False), help="Where files go.")
def bisect_command(file, inputs, seed, pipeline, disabled, seconds, output):
    """Find what changes a program's result against the evaluator's, or makes its compile fail.

    Runs the passes, finds the first one after which the evaluator gives another result (or which fails), then the first
    of its rewrites, then makes the module as small as it can while that pass goes on doing so. If every pass keeps the
    answer, native code is held against the evaluator. Exit status 1 if something was found: the module before the
    pass, the smallest one and its arguments are written.
    """
    module = read_module(file)
    require_valid(module)
    arguments = random_inputs(module, seed) if inputs is None else load_inputs(inputs, module)
    culprit = bisect(module, arguments, pipeline, Options(disabled_passes=tuple(disabled)), seconds)
    if culprit is None:
        click.echo("all passes and native code keep the answer")
        return
    click.echo(report(culprit, pipeline, Path(output)))
    sys.exit(1)


def report(culprit: Culprit, pipeline: str, folder: Path) -> str:
    """Writes the culprit's files; what was found, as text."""
    name = culprit.pass_name or "native"
    before, smallest, data = (folder / f"bisect.{name}.{end}" for end in ("before.hlo", "smallest.hlo", "npz"))
    folder.mkdir(parents=True, exist_ok=True)
    before.write_text(culprit.before.module.to_text(), encoding="utf-8")
    smallest.write_text(culprit.smallest.module.to_text(), encoding="utf-8")
    np.savez(data, **{f"in{i}": to_stored(array) for i, array in enumerate(culprit.smallest.arguments)})
    count = len(list(culprit.smallest.module.instructions()))
    lines = [found(culprit), f"  {culprit.reason}"]
    lines += [f"{before}: the module before it", f"{smallest}: the smallest that shows it, {count} instructions"]
    if culprit.step == NATIVE:
        lines += ["To repeat:", f"  hloc run {smallest} --inputs {data} --pipeline={pipeline} --check"]
    else:
        lines += ["To repeat:", f"  hloc opt {before} --passes='{culprit.step}'"]
        lines += [f"  hloc bisect {smallest} --inputs {data} --pipeline={culprit.pass_name}"]
    return "\n".join(lines)


def found(culprit: Culprit) -> str:
    """What is at fault, in one line."""
    if culprit.step == NATIVE:
        return "every pass keeps the answer; native code does not"
    text = f"pass {culprit.pass_name}, run {culprit.run} of the pipeline"
    if culprit.rewrites is not None:
        text += f", rewrite {culprit.rewrites}"
    return text + (f": {culprit.rewrite}" if culprit.rewrite else "")
