"""Collects `.hlo` tests: text files with a command on top and FileCheck directives beside what they judge.

    // RUN: hloc opt %s --passes=cse
    // CHECK: ...

`%s` is the file. The command runs in this process through the command line's own
code, and what it prints is checked against the file. `// RUN: not hloc ...` expects exit status 1. A file may
have several RUN lines; each checks its own prefix if it says `--check-prefix=NAME` at its end.
"""

from __future__ import annotations

import io
import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from click.testing import CliRunner
from filecheck.finput import FInput
from filecheck.matcher import Matcher
from filecheck.options import Options
from filecheck.parser import Parser

from hloc.cli import main

# What the tests compile is kept neither from one session to the next nor among the user's files.
_CACHE = tempfile.TemporaryDirectory(prefix="hloc-tests-")
os.environ["XDG_CACHE_HOME"] = _CACHE.name

_RUN = "// RUN:"
_PREFIX = "--check-prefix="


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix == ".hlo" and run_lines(file_path):
        return HloFile.from_parent(parent, path=file_path)
    return None


def run_lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix(_RUN).strip() for line in lines if line.startswith(_RUN)]


class HloFile(pytest.File):
    def collect(self) -> Iterator[pytest.Item]:
        commands = run_lines(self.path)
        for number, command in enumerate(commands):
            name = self.path.stem if len(commands) == 1 else f"{self.path.stem}[{number}]"
            yield HloItem.from_parent(self, name=name, command=command)


class HloItem(pytest.Item):
    """One RUN line."""

    def __init__(self, *, command: str, **keywords: object):
        super().__init__(**keywords)
        self.command = command

    def runtest(self) -> None:
        words = shlex.split(self.command.replace("%s", shlex.quote(str(self.path))))
        prefix = "CHECK"
        if words[-1].startswith(_PREFIX):
            prefix = words.pop().removeprefix(_PREFIX)
        expected = 0
        if words[0] == "not":
            expected = 1
            del words[0]
        if words.pop(0) != "hloc":
            raise HloFailure(f"a RUN line runs hloc: {self.command}")
        result = CliRunner().invoke(main, words)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        if result.exit_code != expected:
            raise HloFailure(f"exit status {result.exit_code}, expected {expected}\n{result.output}")
        self._check(result.output, prefix)

    def _check(self, output: str, prefix: str) -> None:
        options = Options(match_filename=str(self.path), input_file="output", check_prefixes=[prefix])
        said = io.StringIO()
        with redirect_stderr(said):
            code = Matcher(options, FInput("output", output), Parser.from_opts(options)).run()
        if code:
            raise HloFailure(f"{said.getvalue()}\nOutput of hloc:\n{output}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> object:
        if isinstance(excinfo.value, HloFailure):
            return f"{self.command}\n{excinfo.value}"
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, 0, self.command


class HloFailure(Exception):
    """The command or its output isn't as the file says."""
