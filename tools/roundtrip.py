"""Prints what we parse beside what XLA prints of what it parses, for every `.hlo` under a folder.

    python -m tools.roundtrip FOLDER [--processes 2]

Each text is parsed, printed (constants in full, and with XLA's default options) and parsed again. The print
must equal jaxlib's byte for byte where jaxlib is installed and can parse the text, but for EXCEPTIONS; the
second parse must give the same module. Texts that jaxlib cannot parse are only checked for the latter. The
exit status is 1 if anything else differs.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hloc.errors import HloError
from hloc.ir.equality import structurally_equal
from hloc.text.parser import parse
from hloc.text.printer import PrintOptions, print_module

Texts = tuple[str, str]


class Allowed(NamedTuple):
    """A way in which our print differs from XLA's on purpose: `level` takes it out of both texts."""

    name: str
    why: str
    level: Callable[[str, str], Texts]


def _both(change: Callable[[str], str], ours: str, xla: str) -> Texts:
    return change(ours), change(xla)


_ZERO = re.compile(r"(?<=[ {(])-0(?=[,)} ])")
_COMPLEX_NAN = re.compile(r"\((-?nan(?:\(0x[0-9a-f]+\))?), [^() ]+(?:\(0x[0-9a-f]+\))?\)")
_RETIRED = re.compile(r'"wait_on_operation_queues"\s*:\s*\[\s*\]\s*,')
_STATISTICS = re.compile(r"(, statistics=\{[^}]*\})(.*?)\1")
_ASYNC = re.compile(r"(%\S+) = \S.* async-(?:start|update|done)\(")


def _sorted_computations(text: str) -> str:
    return "\n\n".join(sorted(text.split("\n\n")))


def _without_async(ours: str, xla: str) -> Texts:
    """Both texts without the instructions that ours writes in full; ours without their computations."""
    names = {found[1] for line in ours.splitlines() if (found := _ASYNC.search(line))}
    if not names:
        return ours, xla
    heads = {block.split(" ")[0] for block in xla.split("\n\n")}
    kept = [block for block in ours.split("\n\n") if block.split(" ")[0] in heads]

    def others(text: str) -> str:
        lines = text.splitlines()
        return "\n".join(x for x in lines if x.strip().removeprefix("ROOT ").split(" ")[0] not in names)

    return others("\n\n".join(kept)), others(xla)


EXCEPTIONS = (
    Allowed(
        "negative zero",
        "XLA prints -0 and reads that as the integer 0: its own text loses the sign",
        partial(_both, lambda text: _ZERO.sub("0", text)),
    ),
    Allowed(
        "complex NaN",
        "XLA reads a complex number with a NaN real part as if its imaginary part were that NaN too",
        partial(_both, lambda text: _COMPLEX_NAN.sub(r"(\1, \1)", text)),
    ),
    Allowed(
        "retired configuration",
        'XLA cuts `"wait_on_operation_queues":[],` out of every backend_config',
        partial(_both, lambda text: _RETIRED.sub("", text)),
    ),
    Allowed(
        "quotes inside strings",
        "XLA prints scheduling names, and modules that are held as strings, without escaping quotes",
        partial(_both, lambda text: text.replace('\\"', '"')),
    ),
    Allowed(
        "least f8e8m0fnu",
        "XLA prints 2**-127 with two digits, 5.9e-39, and reads that as 2**-126",
        partial(_both, lambda text: text.replace("5.877471754111438e-39", "5.9e-39")),
    ),
    Allowed(
        "statistics twice",
        "XLA prints the statistics of an async start twice, which its parser then refuses",
        partial(_both, lambda text: _STATISTICS.sub(r"\2\1", text)),
    ),
    Allowed(
        "order of computations",
        "XLA may print a caller before one of its callees, which its parser then does not know",
        partial(_both, _sorted_computations),
    ),
    Allowed(
        "async operation in full",
        "XLA names the one operation of an async computation in the opcode even where that reads back as "
        "another program: `all-reduce-start` is an opcode itself, notes and shapes of the operation get lost",
        _without_async,
    ),
)


def explain(ours: str, xla: str) -> tuple[list[str], str | None]:
    """(names of the exceptions that were needed, the first line that they do not explain or None)."""
    for exception in EXCEPTIONS:
        if ours != xla and len(set(exception.level(ours, xla))) == 1:
            return [exception.name], None
    needed = []
    for exception in EXCEPTIONS:
        if ours == xla:
            break
        leveled = exception.level(ours, xla)
        if leveled != (ours, xla):
            needed.append(exception.name)
            ours, xla = leveled
    return (needed, None) if ours == xla else (needed, _first_difference(ours, xla))


def _first_difference(ours: str, xla: str) -> str:
    left, right = ours.split("\n"), xla.split("\n")
    for number, (a, b) in enumerate(zip(left, right), 1):
        if a != b:
            place = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
            start = max(0, place - 60)
            return f"line {number}:\n    ours {a[start : place + 100]}\n    xla  {b[start : place + 100]}"
    return f"{len(left)} lines, XLA prints {len(right)}"


def xla_prints() -> Callable[[str], list[str] | None] | None:
    """A function from a text to XLA's prints of it (in full, by default), None if it cannot parse it.

    None if jaxlib is not installed.
    """
    try:
        from jaxlib import _hlo
    except ImportError:
        return None

    def prints(text: str) -> list[str] | None:
        try:
            module = _hlo.hlo_module_from_text(text)
        except Exception:  # its type is XLA's
            return None
        full = _hlo.HloPrintOptions()
        full.print_large_constants = True
        return [module.to_string(full), module.to_string(_hlo.HloPrintOptions())]

    return prints


def check(path: Path) -> tuple[list[str], list[str], bool]:
    """(what is wrong, exceptions that were needed, whether XLA was asked) for one file."""
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    try:
        module = parse(text, str(path))
        prints = [print_module(module), print_module(module, PrintOptions(large_constants=False))]
        wrong = structurally_equal(module, parse(prints[0], "the print of " + str(path)))
    except HloError as error:
        return [str(error)], [], False
    faults = [f"{path}: does not read back: {wrong}"] if wrong else []
    ask = xla_prints()
    xla = ask(text) if ask else None
    names: list[str] = []
    for ours, theirs in zip(prints, xla or ()):
        needed, difference = explain(ours, theirs)
        names += needed
        faults += [f"{path}: {difference}"] if difference else []
    return faults, list(dict.fromkeys(names)), xla is not None


def main() -> int:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--processes", type=int, default=2)
    chosen = arguments.parse_args()
    paths = sorted(chosen.folder.rglob("*.hlo"))
    needed: Counter[str] = Counter()
    asked = bad = 0
    with ProcessPoolExecutor(chosen.processes) as pool:
        for faults, names, was_asked in pool.map(check, paths, chunksize=8):
            bad += bool(faults)
            asked += was_asked
            needed.update(names)
            for fault in faults:
                print(fault)
    print(f"{len(paths)} texts read back, {asked} compared with XLA, {bad} differ")
    for exception in EXCEPTIONS:
        print(f"  {needed[exception.name]:4} {exception.name}: {exception.why}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
