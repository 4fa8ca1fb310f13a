"""Making a finding small: a program of the fuzzer, shrunk as `hloc.bisect` shrinks modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import hloc
from hloc.bisect.shrink import Case
from hloc.bisect.shrink import shrink as shrink_case
from tools.fuzz.executors import Program

_SECONDS = 90.0


def shrink(program: Program, fails: Callable[[Program], bool], seconds: float = _SECONDS) -> Program:
    """The smallest program found that fails like the given one, within about that many seconds."""

    def of(case: Case) -> Program:
        return replace(program, text=case.module.to_text(), arguments=case.arguments)

    given = Case(hloc.parse(program.text), program.arguments)
    return of(shrink_case(given, lambda case: fails(of(case)), seconds))
