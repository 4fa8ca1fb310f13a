"""Prints against XLA's, text by text: `roundtrip/NAME.hlo` must print as `NAME.xla`.

`NAME.elided.xla` is the print without large constants, where it differs. Both are what jaxlib 0.10.2 prints
of its own parse of NAME.hlo, and are made again by `python tests/text/test_printer_golden.py`; where jaxlib
is installed a test compares them. Texts under `roundtrip/head` are of a newer XLA, and their prints ours.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hloc.ir.equality import structurally_equal
from hloc.text.parser import parse
from hloc.text.printer import PrintOptions, print_module
from tools.roundtrip import EXCEPTIONS, explain

FOLDER = Path(__file__).parent / "roundtrip"
TEXTS = sorted(FOLDER.glob("*.hlo"))
HEAD = sorted((FOLDER / "head").glob("*.hlo"))

# Texts whose print differs from XLA's, and the exceptions (see tools/roundtrip.py) that say why.
NEEDED = {
    "calls_order": ["order of computations"],
    "exceptions": [exception.name for exception in EXCEPTIONS],
}

_ASK = """
import json, sys
from jaxlib import _hlo
full = _hlo.HloPrintOptions()
full.print_large_constants = True
prints = []
for path in sys.argv[1:]:
    module = _hlo.hlo_module_from_text(open(path, encoding="utf-8").read())
    prints.append([module.to_string(full), module.to_string(_hlo.HloPrintOptions())])
json.dump(prints, sys.stdout)
"""


def stem(path: Path) -> str:
    return path.stem


def stored(path: Path) -> list[str]:
    """XLA's prints of a text: in full, and with large constants elided."""
    full = path.with_suffix(".xla")
    elided = path.with_suffix(".elided.xla")
    return [p.read_text(encoding="utf-8") for p in (full, elided if elided.exists() else full)]


def xla_prints(paths: list[Path]) -> list[list[str]]:
    """What jaxlib prints, asked in a process of its own: a fault of XLA's ends the process."""
    answer = subprocess.run([sys.executable, "-c", _ASK, *map(str, paths)], capture_output=True, check=True)
    return json.loads(answer.stdout)


@pytest.mark.parametrize("path", TEXTS, ids=stem)
def test_prints_as_xla_does(path: Path) -> None:
    module = parse(path.read_text(encoding="utf-8"))
    prints = [print_module(module), print_module(module, PrintOptions(large_constants=False))]
    for ours, xla in zip(prints, stored(path)):
        needed, difference = explain(ours, xla)
        assert difference is None
        assert needed == NEEDED.get(path.stem, [])


@pytest.mark.parametrize("path", HEAD, ids=stem)
def test_prints_newer_forms(path: Path) -> None:
    assert print_module(parse(path.read_text(encoding="utf-8"))) == stored(path)[0]


@pytest.mark.parametrize("path", [*TEXTS, *HEAD], ids=stem)
def test_print_reads_back_as_the_same_module(path: Path) -> None:
    module = parse(path.read_text(encoding="utf-8"))
    text = print_module(module)
    again = parse(text)
    assert structurally_equal(module, again) is None
    assert structurally_equal(again, parse(print_module(again))) is None


@pytest.mark.parametrize("path", TEXTS, ids=stem)
def test_xla_prints_read_as_the_same_module(path: Path) -> None:
    if path.stem in NEEDED:
        pytest.skip("XLA's print of it is another program")
    module = parse(path.read_text(encoding="utf-8"))
    assert structurally_equal(module, parse(stored(path)[0])) is None


def test_printing_twice_gives_the_same_bytes() -> None:
    path = FOLDER / "collectives.hlo"
    module = parse(path.read_text(encoding="utf-8"))
    assert print_module(module) == print_module(module)


def test_stored_prints_are_those_of_jaxlib() -> None:
    pytest.importorskip("jaxlib")
    for path, prints in zip(TEXTS, xla_prints(TEXTS)):
        assert stored(path) == prints, path.name


def write() -> None:
    """Store jaxlib's prints beside the texts."""
    for path, (full, elided) in zip(TEXTS, xla_prints(TEXTS)):
        path.with_suffix(".xla").write_text(full, encoding="utf-8")
        if elided != full:
            path.with_suffix(".elided.xla").write_text(elided, encoding="utf-8")


if __name__ == "__main__":
    write()
