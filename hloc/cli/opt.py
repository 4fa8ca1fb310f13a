"""`hloc opt`: passes over a module, and a look at what each does."""

from __future__ import annotations

import click

from hloc.cli.common import OUTPUT, read_module, require_valid, write_out
from hloc.options import Options
from hloc.passes.pipeline import PIPELINES, describe_passes, run_pipeline


@click.command()
@click.argument("file", metavar="FILE", required=False, type=click.Path(allow_dash=True))
@click.option("--passes", metavar="A,B,...", help="Run these passes, in this order.")
@click.option("--pipeline", metavar="NAME", help=f"Run a pipeline: {', '.join(PIPELINES)} (cpu if nothing is said).")
@click.option("--disable-pass", "disabled", metavar="A", multiple=True, help="Leave a pass out; may be repeated.")
@click.option("--until", metavar="A", help="Stop after this pass.")
@click.option("--print-after", metavar="A,B,...", help="Print the module after these passes, to standard error.")
@click.option("--dump-to", metavar="DIR", type=click.Path(file_okay=False), help="Write the module after each pass.")
@click.option("--stats", is_flag=True, help="Print time and instruction counts of each pass, to standard error.")
@click.option("--list-passes", is_flag=True, help="List the passes and leave.")
@OUTPUT
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
