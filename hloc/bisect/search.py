"""The search for what broke a program's answer: the pass, the rewrite in it, and the smallest module that shows it.

The passes run once, with a copy of the module kept after each that changed it. What every copy gives is held against
what the evaluator gives for the program itself, so a bisection finds the first copy that is wrong. A pass with the
option `limit` is then bisected by how many rewrites it may make. If every copy is right, native code is held
against the evaluator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache

import numpy as np

from hloc import api
from hloc.arrays import compare, random_inputs
from hloc.bisect.shrink import Case, shrink
from hloc.errors import HloError, InternalError
from hloc.ir.clone import clone_module
from hloc.ir.module import Module
from hloc.options import Options
from hloc.passes.pipeline import find_pass, run_pipeline
from hloc.passes.report import PassRun, Remark
from hloc.records import record, replace
from hloc.reference.evaluate import evaluate

LIMIT = "limit"
"""The option of a pass that bounds how many rewrites it makes."""


@record
class Culprit:
    """What was found to break the answer.

    `step` is what to run on `before.module`: a pass with its options, or "native code". `run` is the pass's number in
    the pipeline, `rewrites` how many of its rewrites are needed (the last one of them is at fault), None where the
    pass does not count them; `rewrite` is what the pass says of that one. `reason` says what is wrong after it.
    `smallest` is a small case for which the same step goes wrong.
    """

    step: str
    pass_name: str | None
    run: int | None
    rewrites: int | None
    rewrite: str | None
    reason: str
    before: Case
    smallest: Case


NATIVE = "native code"


def bisect(
    module: Module,
    arguments: Sequence[np.ndarray] | None = None,
    pipeline: str = "cpu",
    options: Options | None = None,
    seconds: float = 60.0,
) -> Culprit | None:
    """The culprit, or None if all passes and native code keep the answer.

    `arguments` are the leaves of the parameters; made up if None. Shrinking takes about `seconds` at most. HloError
    for a program that the evaluator does not run, or that is not well formed.
    """
    search = _Search(module, arguments, options or Options(), seconds)
    return search.among_passes(pipeline) or search.in_native_code(pipeline)


class _Search:
    def __init__(
        self, module: Module, arguments: Sequence[np.ndarray] | None, options: Options, seconds: float
    ):
        given = random_inputs(module) if arguments is None else list(arguments)
        self.case = Case(module, given)
        self.options = options
        self.seconds = seconds
        self.expected = _results(self.case)

    def among_passes(self, pipeline: str) -> Culprit | None:
        """The first pass after which the answer is another, or that does not come to its end."""
        copies: list[tuple[PassRun | None, Module]] = [(None, clone_module(self.case.module))]

        def observe(run: PassRun, module: Module) -> None:
            if run.changed:
                copies.append((run, clone_module(module)))

        failure = None
        try:
            run_pipeline(clone_module(self.case.module), pipeline, self.options, observe)
        except (InternalError, HloError) as error:
            failure = error
        first = _first_true(range(1, len(copies)), lambda place: self._difference(copies[place][1]) is not None)
        if first is not None:
            run, _ = copies[first]
            assert run is not None
            return self._culprit(run.name, run.number, copies[first - 1][1])
        if isinstance(failure, InternalError):
            run = copies[-1][0]
            return self._culprit(failure.pass_name, None if run is None else run.number + 1, copies[-1][1])
        if failure is not None:
            raise failure
        return None

    def in_native_code(self, pipeline: str) -> Culprit | None:
        """What code generation gets wrong of the module as the passes leave it."""
        options = replace(self.options, pipeline=pipeline, cache=False)
        reason = _native_fault(self.case, options)
        if reason is None:
            return None

        def fails(case: Case) -> bool:
            with suppress(HloError):
                return _native_fault(case, options) is not None
            return False

        smallest = shrink(self.case, fails, self.seconds)
        return Culprit(NATIVE, None, None, None, None, reason, self.case, smallest)

    def _difference(self, module: Module) -> str | None:
        try:
            got = _results(Case(module, self.case.arguments))
        except HloError as error:
            return f"the evaluator no longer runs it: {error.message}"
        return difference(got, self.expected)

    def _culprit(self, name: str, number: int | None, before: Module) -> Culprit:
        case = Case(before, self.case.arguments)
        step, remark = name, None
        rewrites = self._rewrites(name, case) if LIMIT in find_pass(name).defaults else None
        if rewrites is not None:
            step = f"{name}{{{LIMIT}={rewrites}}}"
            remark = _last_rewrite(name, rewrites, case)

        def fails(made: Case) -> bool:
            with suppress(HloError):  # what is left may be a program that has no meaning
                return _fault(name, made) is not None
            return False

        smallest = shrink(case, fails, self.seconds, remark and remark.instruction)
        rewrite = remark and remark.text
        reason = _fault(step, case) or _fault(name, case) or "differs only together with the passes before it"
        return Culprit(step, name, number, rewrites, rewrite, reason, case, smallest)

    def _rewrites(self, name: str, case: Case) -> int | None:
        """How many rewrites it takes to go wrong; None if it is wrong with none."""
        if _fault(f"{name}{{{LIMIT}=0}}", case) is not None:
            return None
        most = 1
        while _fault(f"{name}{{{LIMIT}={most}}}", case) is None:
            most *= 2
            if most > 1 << 24:
                return None
        return _first_true(range(most // 2 + 1, most + 1), lambda n: _fault(f"{name}{{{LIMIT}={n}}}", case) is not None)


def _first_true(places: range, holds: Callable[[int], bool]) -> int | None:
    """The first place at which something holds, given that it holds from there on; None if it does at none."""
    if not places or not holds(places[-1]):
        return None
    low, high = 0, len(places) - 1
    while low < high:
        middle = (low + high) // 2
        if holds(places[middle]):
            high = middle
        else:
            low = middle + 1
    return places[low]


def _fault(step: str, case: Case) -> str | None:
    """What is wrong after one pass alone, held against the module before it; None if nothing is."""
    expected = _expected(case)
    module = clone_module(case.module)
    try:
        run_pipeline(module, [step], Options())
        got = _results(Case(module, case.arguments))
    except InternalError as error:
        return str(error).splitlines()[0].removeprefix("internal error: ")
    except HloError as error:
        return f"the evaluator no longer runs it: {error.message}"
    return difference(got, expected)


def _last_rewrite(name: str, rewrites: int, case: Case) -> Remark | None:
    """What the pass says of its last rewrite: what it says only when it may do that one too."""
    before = _remarks(f"{name}{{{LIMIT}={rewrites - 1}}}", case)
    new = [remark for remark in _remarks(f"{name}{{{LIMIT}={rewrites}}}", case) if remark not in before]
    return new[-1] if new else None


def _remarks(step: str, case: Case) -> list[Remark]:
    try:
        report = run_pipeline(clone_module(case.module), [step], Options())
    except InternalError as error:
        report = error.report
    return [remark for run in report.runs for remark in run.remarks]


def _native_fault(case: Case, options: Options) -> str | None:
    """What is wrong with the results of native code. HloError for a program that does not run natively."""
    expected = _expected(case)
    try:
        got = api.compile(case.module, options=options).execute(*case.arguments)
    except RuntimeError as error:
        return f"code generation fails: {error}"
    return difference(got, expected)


@lru_cache(maxsize=2)
def _expected(case: Case) -> list[np.ndarray]:
    """The results of a case that is asked for them again and again."""
    return _results(case)


def _results(case: Case) -> list[np.ndarray]:
    with np.errstate(all="ignore"):
        return [np.asarray(result) for result in evaluate(case.module, case.arguments)]


def difference(got: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> str | None:
    """The first result that is further from what is expected than `arrays.compare` allows, in words."""
    for number, pair in enumerate(zip(got, expected, strict=True)):
        found = compare(*pair)
        if not found.equal:
            at = "".join(f"[{i}]" for i in found.index)
            return f"result {number} at {at or '[]'} is {found.got}, expected {found.expected}"
    return None
