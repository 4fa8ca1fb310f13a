"""Runs passes one after the other: verifies, times, counts, dumps, and checks what each one claims.

A pass only transforms: it has `run(module)`, which returns whether it changed the module, or how many rewrites it
made where it can tell. One object serves all rounds of a fixed point, so what it keeps (a budget) holds for all.
A pass that found nothing to do is not asked again until another one has changed the module.

A pass that has something to say of an instruction says it in remarks. It is a dataclass then, with a list

    remarks: list[Remark] = field(default_factory=list, init=False)

to which `run` adds, say, `Remark("fusion", instruction.name, "stays alone: two users", {"users": 2})`. The runner takes
the list after each run: remarks stand in `PassRun.remarks`, in `--stats` (the first of each pass), in the `index.json`
of a dump, and `hloc opt --remarks=fusion` or `Report.remarks("fusion")` gives those of one pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from hloc import collection
from hloc.analysis.verifier import verify
from hloc.errors import HloError, InternalError
from hloc.ir.module import Module
from hloc.lazy import lazy
from hloc.options import Options
from hloc.passes.report import PassRun, Remark, Report
from hloc.passes.rows import having
from hloc.passes.snapshot import Difference, Snapshot
from hloc.records import record

dump = lazy("hloc.passes.dump")
printer = lazy("hloc.text.printer")
tempfile = lazy("tempfile")
traceback = lazy("traceback")


@record
class Step:
    """One pass to run: its name, the text that asks for it on a command line, and what makes its object.

    It runs on modules that it `concerns`; others have nothing that it could change. `origin` is where it comes
    from if it is not hloc's own, as `hloc opt --load` takes it.
    """

    name: str
    text: str
    make: Callable[[Options], object]
    concerns: Callable[[Module], bool]
    origin: str | None = None

    __eq__ = object.__eq__
    __hash__ = object.__hash__


@record
class Group:
    """Steps to repeat until a whole round changes nothing, `limit` rounds at most."""

    steps: tuple[Step, ...]
    limit: int


EVERY = "all"
"""Stands for every pass that changes something, in `Options.print_after`."""

Observer = Callable[[PassRun, Module], None]


class Runner:
    """One run of steps over one module. See `pipeline.run_pipeline` for what the options do."""

    def __init__(self, module: Module, options: Options, observer: Observer | None = None):
        self.module = module
        self.options = options
        self.observer = observer
        self.report = Report()
        self._state = Snapshot(module)
        self._objects: dict[Step, object] = {}
        self._changes = 0
        self._at_rest: dict[Step, int] = {}
        self._stopped = False
        self._dump = None

    def run(self, plan: Iterable[Step | Group]) -> Report:
        """Run the steps of a plan; the report says what each did."""
        if self.options.dump_to is not None:
            self._dump = dump.Dump(Path(self.options.dump_to), self.options)
            self._dump.write(dump.INPUT, self.module)
        try:
            with collection.paused():
                self._run_rows(plan)
        finally:
            if self._dump is not None:
                self._dump.write_index(self.module, self.report)
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
        until = self.options.until
        self._stopped = until is not None and until in (step.name, str(len(self.report.runs)))
        return changed

    def _run_checked(self, step: Step) -> bool:
        before = self._state
        if self._at_rest.get(step) == self._changes or not self._concerns(step):
            self._record(step, before, changed=False)
            return False
        try:
            runner = self._made(step)
            start = time.perf_counter()
            result = runner.run(self.module)
        except Exception as error:
            if isinstance(error, HloError) and error.label is None:
                raise  # the input asks for something that the pass refuses; a label tells of an ill-formed op
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f" ({frame.filename}:{frame.lineno})"
            raise self._failure(step, f"failed with {type(error).__name__}: {error}{place}") from error
        done = time.perf_counter()
        self._state, difference = before.again()
        changed = bool(result)
        self._check(step, before, changed, difference)
        self._changes += changed
        if not changed:
            self._at_rest[step] = self._changes
        self._record(
            step,
            before,
            changed=changed,
            seconds=done - start,
            checks=time.perf_counter() - done,
            rewrites=result if isinstance(result, int) and not isinstance(result, bool) else None,
            remarks=_taken(runner),
        )
        return changed

    def _concerns(self, step: Step) -> bool:
        if isinstance(step.concerns, having):
            return not step.concerns.opcodes.isdisjoint(self._state.opcodes)
        return step.concerns(self.module)

    def _made(self, step: Step) -> object:
        """The pass's object, the same for every round of a fixed point."""
        if step not in self._objects:
            self._objects[step] = step.make(self.options)
        return self._objects[step]

    def _check(self, step: Step, before: Snapshot, changed: bool, difference: Difference | None) -> None:
        """The claim, and the module's good form where it may have lost it."""
        if changed is (difference is None):
            claim = "changed" if changed else "left alone"
            self._state = before
            raise self._failure(step, f"says that it {claim} the module, which is not so")
        faults = verify(self.module, difference.affected()) if difference is not None else []
        if faults:
            self._state = before
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            raise self._failure(step, f"left a module that does not verify{more}: {faults[0]}")

    def _record(
        self,
        step: Step,
        before: Snapshot,
        *,
        changed: bool,
        seconds: float = 0.0,
        checks: float = 0.0,
        rewrites: int | None = None,
        remarks: tuple[Remark, ...] = (),
    ) -> None:
        number = len(self.report.runs) + 1
        file = f"{number:02}.{step.name}.hlo" if changed and self._dump is not None else None
        counts = before.instruction_count, self._state.instruction_count
        run = PassRun(number, step.name, changed, seconds, checks, *counts, rewrites, remarks, file)
        self.report.runs.append(run)
        if file is not None:
            self._dump.write(file, self.module)
        if self.options.print_after and self._is_printed(run):
            form = printer.PrintOptions(large_constants=self.options.dump_constants)
            text = printer.print_module(self.module, form)
            self.report.printed.append(f"// after pass {number}, {step.name}\n{text}")
        if self.observer is not None:
            self.observer(run, self.module)

    def _is_printed(self, run: PassRun) -> bool:
        names = {run.name, str(run.number), *((EVERY,) if run.changed else ())}
        return not names.isdisjoint(self.options.print_after)

    def _failure(self, step: Step, what: str) -> InternalError:
        """Saves the module as it was before the step, and says how to repeat the failure."""
        module = self._state.restored()
        directory = self._dump.directory if self._dump is not None else Path(tempfile.mkdtemp(prefix="hloc-"))
        path = directory / f"reproducer.{step.name}.hlo"
        path.write_text(printer.print_module(module), encoding="utf-8")
        culprit = f"internal error: pass {step.name}"
        load = ""
        if step.origin is not None:
            culprit = f"error: pass {step.name} of {step.origin}, which is not hloc's own,"
            load = f" --load {step.origin}"
        message = (
            f"{culprit} {what}\n"
            f"  The module as it was before the pass is in {path}. To repeat:\n"
            f"  hloc opt {path}{load} --passes='{step.text}'"
        )
        return InternalError(message, step.name, path, self.report)


def _taken(runner: object) -> tuple[Remark, ...]:
    """The remarks of a run, taken from the pass's object."""
    remarks = getattr(runner, "remarks", None)
    if not isinstance(remarks, list):
        return ()
    taken = tuple(remarks)
    remarks.clear()
    return taken
