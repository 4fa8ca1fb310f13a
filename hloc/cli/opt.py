"""`hloc opt`: passes over a module, and a look at what each does."""

from __future__ import annotations

from collections.abc import Sequence

import click

from hloc.cli.common import OUTPUT, read_module, require_valid, steering_options, write_out
from hloc.errors import InternalError
from hloc.lazy import lazy
from hloc.options import Options
from hloc.passes.pipeline import PIPELINES, find_pass, own_passes, run_pipeline
from hloc.passes.report import Report
from hloc.passes.runner import EVERY

describe = lazy("hloc.passes.describe")
fusion_report = lazy("hloc.passes.fusion_report")
plugins = lazy("hloc.passes.plugins")


@click.command()
@click.argument("file", metavar="FILE", required=False, type=click.Path(allow_dash=True))
@click.option("--passes", metavar="A,B{X=1},...", help="Run these passes, in this order.")
@click.option("--pipeline", metavar="NAME", help=f"Run a pipeline: {', '.join(PIPELINES)} (cpu if nothing is said).")
@steering_options
@click.option("--until", metavar="A", help="Stop after this pass, or after the run of this number in --stats.")
@click.option("--print-after", metavar="A,B,...", help="Print the module after these passes; all: after each.")
@click.option("--stats", is_flag=True, help="Print time and counts of each pass, and what passes have left undone.")
@click.option("--remarks", metavar="A,B,...", help="Print what these passes have to say; all: of every pass.")
@click.option(
    "--explain-fusion",
    is_flag=False,
    flag_value="text",
    type=click.Choice(("text", "json")),
    help="Tell of each value and user whether they share a kernel, and why, instead of printing the module.",
)
@click.option("--elide-constants", is_flag=True, help="Write constants of more than 10 elements as {...}.")
@click.option("--list-passes", metavar="[A]", is_flag=False, flag_value="", help="Tell of all passes, or all of one.")
@OUTPUT
def opt(
    file,
    passes,
    pipeline,
    until,
    print_after,
    stats,
    remarks,
    explain_fusion,
    elide_constants,
    list_passes,
    output,
    **steering,
):
    """Run passes over a module and print what comes out.

    With --explain-fusion the module is only written where --output says. What --print-after, --stats and --remarks
    print goes to standard error. All but --passes and --pipeline may be had in `hloc.Options` too.
    """
    if list_passes is not None:
        click.echo(listed(list_passes, steering["load"]))
        return
    if file is None or (passes and pipeline):
        raise click.UsageError("give a FILE, and --passes or --pipeline but not both")
    module = read_module(file)
    require_valid(module)
    options = Options(
        until=until,
        print_after=_names(print_after),
        dump_constants=not elide_constants,
        explain_fusion=explain_fusion is not None,
        **steering,
    )
    wanted = _names(remarks)
    require_passes(wanted, options)
    try:
        report = run_pipeline(module, passes or pipeline or "cpu", options)
    except InternalError as error:
        tell(error.report, stats, wanted)
        raise
    tell(report, stats, wanted)
    if explain_fusion is not None:
        click.echo(fusion_report.explained(module, report, explain_fusion == "json"))
    if explain_fusion is None or output is not None:
        write_out(module.to_text(large_constants=not elide_constants), output)


def require_passes(names: Sequence[str], options: Options) -> None:
    """HloError if one of the names is that of no pass."""
    own = own_passes(options.load) if names else {}
    for name in names:
        if name != EVERY:
            find_pass(name, own)


def listed(name: str, load: Sequence[str]) -> str:
    """The text about one pass, or about all if there is no name."""
    own = own_passes(load)
    if name:
        return describe.describe_pass(name, own)
    installed, faults = plugins.all_installed()
    return "\n".join([describe.describe_passes({**installed, **own}), *faults])


def tell(report: Report, stats: bool, remarks: Sequence[str]) -> None:
    """Print what was asked for about the passes, to standard error."""
    for text in report.printed:
        click.echo(text, err=True)
    if stats:
        click.echo(report.table(), err=True)
    if remarks:
        for remark in report.remarks(*(() if EVERY in remarks else remarks)):
            click.echo(f"{remark.pass_name}: {remark}", err=True)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",")) if text else ()
