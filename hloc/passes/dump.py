"""The folder that `Options.dump_to` names: the module before the passes, after each that changed it, and an index."""

from __future__ import annotations

import json
from pathlib import Path

from hloc.ir.module import Module
from hloc.options import Options
from hloc.passes.report import Report
from hloc.text import printer

INPUT = "00.input.hlo"
INDEX = "index.json"


class Dump:
    """Writes one compile's files; those that an earlier compile has left in the folder go."""

    def __init__(self, directory: Path, options: Options):
        self.directory = directory
        self._numbers = options.numbers
        self._form = printer.PrintOptions(large_constants=options.dump_constants)
        directory.mkdir(parents=True, exist_ok=True)
        self._remove_earlier()

    def write(self, name: str, module: Module) -> None:
        text = printer.print_module(module, self._form)
        (self.directory / name).write_text(text, encoding="utf-8")

    def write_index(self, module: Module, report: Report) -> None:
        """What each pass did (see `PassRun.as_json`), and how floats are computed."""
        head = {"module": module.name, "input": INPUT, "numbers": self._numbers}
        text = json.dumps({**head, **report.as_json()}, indent=1)
        (self.directory / INDEX).write_text(text + "\n", encoding="utf-8")

    def _remove_earlier(self) -> None:
        """The files of an index that is there already, so that old texts are not taken for new ones."""
        try:
            index = json.loads((self.directory / INDEX).read_text(encoding="utf-8"))
            names = [run["file"] for run in index["passes"] if run["file"]]
        except (OSError, ValueError, LookupError, TypeError):
            return
        for name in names:
            path = self.directory / name
            if path.parent == self.directory and path.suffix == ".hlo":
                path.unlink(missing_ok=True)
