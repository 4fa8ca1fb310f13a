"""hloc against its peers, workload by workload, in turns within one run.

    python -m tools.bench                                        # every workload, all peers that are installed
    python -m tools.bench --only 'gemm_*' --only norm --peers xla,numpy --rounds 5
    python -m tools.bench --python torch=VENV/bin/python --json OUT.json --markdown OUT.md --plot OUT.svg
    python -m tools.bench --corpus FOLDER --only 'corpus/*'      # programs with stored inputs, against XLA
    python -m tools.bench --cold --only softmax_3                # whole processes, too

Each peer has a process of its own, of another interpreter if `--python` says so. Nothing is compared that is wrong:
results are judged against XLA's, those of corpus programs against the stored ones. What the ratios mean is in
`tools.bench.ratios`, the goals are in `tools.bench.goals`, the workloads in `tools.bench.workloads`. XLA is `jax.jit`;
`inductor` is `torch.compile`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from tools.bench import cold, peers, tasks
from tools.bench.driver import ROOT, Bench, Plan
from tools.bench.limits import Gauge
from tools.bench.plot import draw
from tools.bench.ratios import OURS, Row, row_of
from tools.bench.report import Run, gaps, markdown, time_of
from tools.bench.workloads import WORKLOADS


def machine(plan: Plan) -> dict[str, str]:
    """What the figures are of."""
    lines = Path("/proc/cpuinfo").read_text().split("\n") if Path("/proc/cpuinfo").exists() else []
    processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "?")
    threads = f"{len(plan.processors)} of {os.cpu_count()}"
    return {"processor": processor, "threads": threads, "versions": f"Python {sys.version.split()[0]}"}


def line_of(row: Row) -> str:
    """A task as it is done."""
    outcome = row.outcome
    times = " ".join(f"{peer} {time_of(row.seconds(peer))}" for peer in outcome.timings)
    ratio = f"{row.to_best.median:.2f} of {row.best}" if row.to_best else "no ratio"
    wrong = "".join(f"; {peer} WRONG: {what}" for peer, what in outcome.wrong.items())
    absent = "".join(f"; no {peer}: {why}" for peer, why in outcome.absent.items() if why != tasks.NO_PROGRAM)
    return f"{outcome.name:28} {ratio:18} {row.verdict or '':8} {times}{wrong}{absent}"


def arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        prog="python -m tools.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--only", action="append", metavar="NAME", help="a pattern of names, or a family")
    others = [name for name in peers.NAMES if name != OURS]
    options.add_argument("--peers", default=",".join(others), help="separated by commas; all if nothing is said")
    options.add_argument("--python", action="append", default=[], metavar="PEER=PATH", help="a peer's interpreter")
    options.add_argument("--corpus", type=Path, metavar="FOLDER", help="its programs too, named corpus/NAME")
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--batch-ms", type=float, default=8.0, help="one peer's share of a round")
    options.add_argument("--seconds", type=float, default=20.0, help="for all rounds of a workload, about")
    options.add_argument("--patience", type=float, default=120.0, help="seconds until a peer is given up")
    options.add_argument("--threads", type=int, metavar="N", help="keep every peer to N processors")
    options.add_argument("--cold", action="store_true", help="time whole processes from their start, too")
    options.add_argument("--json", type=Path, metavar="OUT", help="everything, for tools.bench.report")
    options.add_argument("--markdown", type=Path, metavar="OUT", help="the report; else it is printed")
    options.add_argument("--plot", type=Path, metavar="PNG/SVG")
    options.add_argument("--list", action="store_true", help="the names alone")
    given = options.parse_args()
    given.peers = [name for name in given.peers.split(",") if name and name != OURS]
    unknown = [name for name in given.peers if name not in others]
    if unknown or given.rounds < 1 or (given.threads is not None and given.threads < 1):
        options.error(f"peers are {', '.join(others)}; rounds and threads are at least 1")
    processors = sorted(os.sched_getaffinity(0))
    given.processors = frozenset(processors[-given.threads :] if given.threads else processors)
    if any("=" not in pair for pair in given.python):
        options.error("--python takes PEER=PATH")
    given.python = dict(pair.split("=", 1) for pair in given.python)
    given.names, given.left_out = tasks.chosen(given.only or ["*"], given.corpus)
    if not given.names:
        options.error("there is no such workload")
    return given


def measure(given: argparse.Namespace) -> Run:
    """The whole run. What is done is kept after each task, if there is a file for it."""
    plan = Plan(given.rounds, given.batch_ms / 1e3, given.seconds, given.patience, given.processors)
    run = Run(machine(plan), [], {}, left_out=given.left_out)
    with Bench([OURS, *given.peers], given.python, plan, given.corpus) as bench:
        run.peers, run.missing = bench.peers, bench.missing
        run.machine["versions"] = ", ".join(dict.fromkeys([run.machine["versions"], *bench.versions()]))
        for line in gaps(run):
            print(line, flush=True)
        gauge = Gauge(len(plan.processors))
        for name in given.names:
            if name in WORKLOADS:  # which have a floor
                gauge.look()
                run.limits = gauge.limits
            run.outcomes.append(bench.run(name))
            print(line_of(row_of(run.outcomes[-1], run.limits)), flush=True)
            keep(run, given.json)
        run.peaks = bench.peaks()
    if given.cold:
        run.cold = cold.costs(str(ROOT / "samples" / "softmax.hlo"), min(given.rounds, 7))
    keep(run, given.json)
    return run


def keep(run: Run, path: Path | None) -> None:
    if path is not None:
        path.write_text(json.dumps(run.as_json(), indent=1) + "\n", encoding="utf-8")


def main() -> None:
    given = arguments()
    if given.list:
        print("\n".join(given.names))
        return
    run = measure(given)
    text = markdown(run)
    if given.markdown:
        given.markdown.write_text(text, encoding="utf-8")
    else:
        print("\n" + text, end="")
    if given.plot:
        draw(run.rows(), given.plot)


if __name__ == "__main__":
    main()
