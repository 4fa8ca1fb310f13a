"""Runs passes one after the other: verifies, times, counts, dumps, and checks what each one claims."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hloc.analysis.verifier import verify
from hloc.errors import HloError, InternalError
from hloc.ir.module import Module
from hloc.lazy import lazy
from hloc.options import Options
from hloc.passes.snapshot import Snapshot
from hloc.records import record

json = lazy("json")
printer = lazy("hloc.text.printer")
tempfile = lazy("tempfile")


@record
class Step:
    """One pass to run: its name, the text that asks for it on a command line, and what makes its object.

    It runs on modules that it `concerns`; others have nothing that it could change.
    """

    name: str
    text: str
    make: Callable[[Options], object]
    concerns: Callable[[Module], bool]


@record
class Group:
    """Steps to repeat until a whole round changes nothing, `limit` rounds at most."""

    steps: tuple[Step, ...]
    limit: int


@record
class PassRun:
    """What one run of a pass did: seconds, instructions before and after, and what it had to say."""

    number: int
    name: str
    changed: bool
    seconds: float
    before: int
    after: int
    notes: tuple[str, ...] = ()
    file: str | None = None


class Report:
    """All runs of a pipeline in order, and the texts asked for by `Options.print_after`.

    `checking` is the time in seconds that verifying and comparing took, beside the passes themselves.
    """

    def __init__(self) -> None:
        self.runs: list[PassRun] = []
        self.printed: list[str] = []
        self.checking = 0.0

    @property
    def seconds(self) -> float:
        return sum(run.seconds for run in self.runs)

    @property
    def changed(self) -> bool:
        return any(run.changed for run in self.runs)

    def table(self) -> str:
        """A line a pass: number, name, milliseconds, instructions before and after, notes."""
        width = max([6, *(len(run.name) for run in self.runs)])
        lines = [f" no  {'pass':{width}}       ms   before    after"]
        for run in self.runs:
            after = str(run.after) if run.changed else "-"
            lines.append(
                f"{run.number:3}  {run.name:{width}} {run.seconds * 1e3:8.2f} {run.before:8} {after:>8}"
            )
            lines += [f"     {note}" for note in run.notes]
        lines.append(f"     {'passes':{width}} {self.seconds * 1e3:8.2f}")
        lines.append(f"     {'checks':{width}} {self.checking * 1e3:8.2f}")
        return "\n".join(lines)


Observer = Callable[[PassRun, Module], None]


@contextmanager
def _collection_paused() -> Iterator[None]:
    """Snapshots make many objects that live on: looking through them for cycles would take longest."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Runner:
    """One run of steps over one module. See `pipeline.run_pipeline` for what the options do."""

    def __init__(self, module: Module, options: Options, observer: Observer | None = None):
        self.module = module
        self.options = options
        self.observer = observer
        self.report = Report()
        self._state = Snapshot(module)
        self._stopped = False
        self._directory = Path(options.dump_to) if options.dump_to is not None else None

    def run(self, plan: Iterable[Step | Group]) -> Report:
        """Run the steps of a plan; the report says what each did."""
        if self._directory is not None:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._write("00.input.hlo")
        try:
            with _collection_paused():
                self._run_rows(plan)
        finally:
            self._write_index()
        return self.report

    def _run_rows(self, plan: Iterable[Step | Group]) -> None:
        for row in plan:
            if self._stopped:
                break
            if isinstance(row, Group):
                self._run_group(row)
            else:
                self._run_step(row)

    def _run_group(self, group: Group) -> None:
        for _ in range(group.limit):
            changed = [self._run_step(step) for step in self._until_stopped(group.steps)]
            if self._stopped or not any(changed):
                return

    def _until_stopped(self, steps: Iterable[Step]) -> Iterator[Step]:
        for step in steps:
            if not self._stopped:
                yield step

    def _run_step(self, step: Step) -> bool:
        """Run one pass unless it is disabled; whether it changed the module."""
        changed = False
        if step.name not in self.options.disabled_passes:
            changed = self._run_checked(step)
        self._stopped = step.name == self.options.until
        return changed

    def _run_checked(self, step: Step) -> bool:
        before = self._state
        if not step.concerns(self.module):
            self._record(step, False, 0.0, before.instruction_count, ())
            return False
        start = time.perf_counter()
        runner = step.make(self.options)
        try:
            changed = bool(runner.run(self.module))
        except Exception as error:
            if isinstance(error, HloError) and error.label is None:
                raise  # the input asks for something that the pass refuses; a label tells of an ill-formed op
            raise self._failure(step, f"failed with {type(error).__name__}: {error}") from error
        seconds = time.perf_counter() - start
        self._state = Snapshot(self.module)
        self._check(step, before, changed)
        self.report.checking += time.perf_counter() - start - seconds
        self._record(step, changed, seconds, before.instruction_count, tuple(getattr(runner, "notes", ())))
        return changed

    def _check(self, step: Step, before: Snapshot, changed: bool) -> None:
        """The claim, and the module's good form."""
        if changed is (before == self._state):
            claim = "changed" if changed else "left alone"
            self._state = before
            raise self._failure(step, f"says that it {claim} the module, which is not so")
        faults = verify(self.module) if changed else []
        if faults:
            self._state = before
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            raise self._failure(step, f"left a module that does not verify{more}: {faults[0]}")

    def _record(self, step: Step, changed: bool, seconds: float, before: int, notes: tuple[str, ...]) -> None:
        number = len(self.report.runs) + 1
        file = f"{number:02}.{step.name}.hlo" if changed and self._directory is not None else None
        run = PassRun(number, step.name, changed, seconds, before, self._state.instruction_count, notes, file)
        self.report.runs.append(run)
        if file is not None:
            self._write(file)
        if step.name in self.options.print_after:
            text = printer.print_module(self.module)
            self.report.printed.append(f"// after pass {number}, {step.name}\n{text}")
        if self.observer is not None:
            self.observer(run, self.module)

    def _failure(self, step: Step, what: str) -> InternalError:
        """Saves the module as it was before the step, and says how to repeat the failure."""
        module = self._state.restored()
        directory = self._directory or Path(tempfile.mkdtemp(prefix="hloc-"))
        path = directory / f"reproducer.{step.name}.hlo"
        path.write_text(printer.print_module(module), encoding="utf-8")
        message = (
            f"internal error: pass {step.name} {what}\n"
            f"  The module as it was before the pass is in {path}. To repeat:\n"
            f"  hloc opt {path} --passes='{step.text}'"
        )
        return InternalError(message, step.name, path)

    def _write(self, name: str) -> None:
        text = printer.print_module(self.module)
        (self._directory / name).write_text(text, encoding="utf-8")

    def _write_index(self) -> None:
        if self._directory is None:
            return
        rows = [
            {
                "number": run.number,
                "pass": run.name,
                "changed": run.changed,
                "seconds": round(run.seconds, 6),
                "before": run.before,
                "after": run.after,
                "notes": list(run.notes),
                "file": run.file,
            }
            for run in self.report.runs
        ]
        index = {"module": self.module.name, "input": "00.input.hlo", "passes": rows}
        (self._directory / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
