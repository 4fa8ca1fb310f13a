"""What is told of a run of passes: figures of each pass, what passes have to say, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from hloc.records import record

_SHOWN = 10
"""Remarks of one pass in the table; `Options.dump_to` and `hloc opt --remarks` give all."""


@record
class Remark:
    """What a pass has to say of one instruction: a decision that users may want to know of, and its reason.

    `text` is a sentence about the instruction named before it; `data` holds its figures under names, values that
    JSON knows, for tools. See `hloc.passes.runner` for how a pass makes them.
    """

    pass_name: str
    instruction: str
    text: str
    data: Mapping[str, object] = MappingProxyType({})

    def __str__(self) -> str:
        return f"%{self.instruction}: {self.text}"

    def as_json(self) -> dict[str, object]:
        return {"instruction": self.instruction, "text": self.text, "data": dict(self.data)}


@record
class PassRun:
    """What one run of a pass did.

    `number` counts runs from 1. `seconds` is the pass's own time, `checks` that of verifying and comparing after
    it. `before` and `after` count instructions of the whole module; `rewrites` is None where the pass doesn't tell.
    `file` is the dump's name, None where there is none.
    """

    number: int
    name: str
    changed: bool
    seconds: float
    checks: float
    before: int
    after: int
    rewrites: int | None = None
    remarks: tuple[Remark, ...] = ()
    file: str | None = None

    def as_json(self) -> dict[str, object]:
        return {
            "number": self.number,
            "pass": self.name,
            "changed": self.changed,
            "ms": round(self.seconds * 1e3, 3),
            "checks_ms": round(self.checks * 1e3, 3),
            "before": self.before,
            "after": self.after,
            "rewrites": self.rewrites,
            "remarks": [remark.as_json() for remark in self.remarks],
            "file": self.file,
        }


class Report:
    """All runs of a pipeline in order, and the texts asked for by `Options.print_after`."""

    def __init__(self) -> None:
        self.runs: list[PassRun] = []
        self.printed: list[str] = []

    @property
    def seconds(self) -> float:
        """The time of the passes themselves."""
        return sum(run.seconds for run in self.runs)

    @property
    def checks(self) -> float:
        """The time that verifying and comparing took, beside the passes themselves."""
        return sum(run.checks for run in self.runs)

    @property
    def changed(self) -> bool:
        return any(run.changed for run in self.runs)

    def remarks(self, *passes: str) -> list[Remark]:
        """What these passes, or all, had to say, in order; what a later round says again, once."""
        every = (remark for run in self.runs for remark in run.remarks)
        wanted = (remark for remark in every if not passes or remark.pass_name in passes)
        return list({(r.pass_name, r.instruction, r.text): r for r in wanted}.values())

    def table(self) -> str:
        """A line a run: number, name, milliseconds, instructions before and after, rewrites; then the remarks."""
        width = max([6, *(len(run.name) for run in self.runs)])
        lines = [f" no  {'pass':{width}}       ms   before    after  rewrites"]
        for run in self.runs:
            after = str(run.after) if run.changed else "-"
            rewrites = "" if run.rewrites is None or not run.changed else str(run.rewrites)
            cells = f"{run.seconds * 1e3:8.2f} {run.before:8} {after:>8} {rewrites:>9}"
            lines.append(f"{run.number:3}  {run.name:{width}} {cells}".rstrip())
        lines.append(f"     {'passes':{width}} {self.seconds * 1e3:8.2f}")
        lines.append(f"     {'checks':{width}} {self.checks * 1e3:8.2f}")
        return "\n".join([*lines, *_listed(self.remarks())])

    def as_json(self) -> dict[str, object]:
        """The figures of all runs, as `index.json` has them; only times differ from one process to the next."""
        return {
            "passes_ms": round(self.seconds * 1e3, 3),
            "checks_ms": round(self.checks * 1e3, 3),
            "passes": [run.as_json() for run in self.runs],
        }


def _listed(remarks: Iterable[Remark]) -> list[str]:
    """Lines for people: the first remarks of each pass."""
    by_pass: dict[str, list[Remark]] = {}
    for remark in remarks:
        by_pass.setdefault(remark.pass_name, []).append(remark)
    lines = []
    for name, found in by_pass.items():
        lines.append(f"{name}:")
        lines += [f"  {remark}" for remark in found[:_SHOWN]]
        if len(found) > _SHOWN:
            lines.append(f"  and {len(found) - _SHOWN} more: --remarks={name} prints all")
    return lines
