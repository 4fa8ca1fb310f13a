"""Parsing: hloc against jaxlib's C++ parser, in turns over the same texts.

    python -m tools.bench.parse FOLDER|FILE... [--rounds 7] [--pattern '*.hlo']

Reads each file, all HLO texts of each folder, and a large literal of its own making. `hloc` remembers shapes and
attribute lists from one text to the next, `hloc, forgetful` drops them before each text. Texts that either parser
refuses are left out and counted.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from jaxlib import _hlo

from hloc.errors import HloError
from hloc.text import parser

Parse = Callable[[str], object]


def forgetful(text: str) -> object:
    parser.forget()
    return parser.parse(text)


PARSERS: dict[str, Parse] = {"jaxlib": _hlo.hlo_module_from_text, "hloc": parser.parse, "hloc, forgetful": forgetful}


def seconds(parse: Parse, texts: list[str]) -> float:
    """Processor seconds that one parser takes for all texts. Freeing a module is not timed, collecting garbage is."""
    total = 0.0
    for text in texts:
        gc.collect()
        start = time.process_time()
        module = parse(text)
        total += time.process_time() - start
        del module
    return total


def compare(title: str, texts: list[str], rounds: int) -> None:
    """Print MB/s of each parser (median, best of the rounds), and its speed relative to jaxlib's in the same round."""
    size = sum(map(len, texts)) / 1e6
    times: dict[str, list[float]] = {name: [] for name in PARSERS}
    for number in range(rounds + 1):
        for name, parse in PARSERS.items():
            elapsed = seconds(parse, texts)
            if number:
                times[name].append(elapsed)
    print(f"{title}: {len(texts)} texts, {size:.2f} MB\n{'':16} {'MB/s median':>12} {'best':>8} {'of jaxlib':>10}")
    for name, measured in times.items():
        ratio = statistics.median(base / own for base, own in zip(times["jaxlib"], measured, strict=True))
        print(f"{name:16} {size / statistics.median(measured):12.2f} {size / min(measured):8.2f} {ratio:10.2f}")


def large_literal(rows: int = 300, columns: int = 500) -> str:
    """A program that is one constant of random floats, with as many digits as it takes to tell them apart."""
    values = np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)
    body = ", ".join("{ " + ", ".join(map(str, row)) + " }" for row in values)
    return f"HloModule literal\n\nENTRY main {{\n  ROOT c = f32[{rows},{columns}] constant({{ {body} }})\n}}\n"


def readable(paths: Iterable[Path]) -> list[str]:
    """The texts that both parsers take."""
    texts, refused = [], []
    for path in paths:
        text = path.read_text()
        try:
            parser.parse(text)
            _hlo.hlo_module_from_text(text)
            texts.append(text)
        except (HloError, RuntimeError, ValueError):
            refused.append(path.name)
    if refused:
        print(f"refused: {len(refused)} {' '.join(refused[:5])}")
    return texts


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("paths", type=Path, nargs="+")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--pattern", default="*.hlo")
    chosen = options.parse_args()
    gc.freeze()  # what is loaded by now need not be walked before each text
    for path in chosen.paths:
        texts = readable(sorted(path.glob(chosen.pattern)) if path.is_dir() else [path])
        if texts:
            compare(path.name, texts, chosen.rounds)
    compare("a literal", [large_literal()], chosen.rounds)


if __name__ == "__main__":
    main()
