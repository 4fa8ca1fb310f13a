"""Damages HLO texts at random and expects of each a Module, perhaps with faults, or an HloError at a place.

    python -m tools.mutate FOLDER [--count N] [--seed S] [--limit SECONDS]

An edit cuts, doubles, swaps or garbles a piece of one text. Exit status 1 if an edit ends in anything else (another
exception, an error without a place), or takes longer than the limit; the damaged text is then written to --out.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from hloc.analysis.verifier import verify
from hloc.errors import HloError
from hloc.text.parser import parse

LONGEST = 40_000
"""Longer texts are cut to a window of this length first: thousands of edits should take minutes."""

SPLINTERS = (*"{}()[]=,:%\"'*/<>-#?~ \n\0", "é", "0", "-1", "99999999999999999999", "1e999", "nan", "ROOT ", "ENTRY ",
             "f32[4]", "(", "/*", "*/", "//", '"', "{...}", "parameter(1)", "%undefined", "->", "{1,0}", "<=")


def cut(text: str, random_: random.Random) -> str:
    start, end = _piece(text, random_)
    return text[:start] + text[end:]


def double(text: str, random_: random.Random) -> str:
    start, end = _piece(text, random_)
    return text[:end] + text[start:end] + text[end:]


def swap(text: str, random_: random.Random) -> str:
    (a, b), (c, d) = sorted((_piece(text, random_), _piece(text, random_)))
    return text if c < b else text[:a] + text[c:d] + text[b:c] + text[a:b] + text[d:]


def garble(text: str, random_: random.Random) -> str:
    start, end = _piece(text, random_)
    return text[:start] + random_.choice(SPLINTERS) + text[end if random_.random() < 0.5 else start :]


EDITS = (cut, double, swap, garble)


def _piece(text: str, random_: random.Random) -> tuple[int, int]:
    """A range: a few characters, a line, or a longer stretch."""
    start = random_.randrange(len(text) + 1)
    kind = random_.random()
    if kind < 0.5:
        return start, min(len(text), start + random_.randrange(1, 8))
    if kind < 0.85:
        return text.rfind("\n", 0, start) + 1, text.find("\n", start) + 1 or len(text)
    return start, min(len(text), start + random_.randrange(8, 600))


def edits(texts: list[str], count: int, seed: int) -> Iterator[tuple[str, str]]:
    """(name of the edit, damaged text), the same for the same seed."""
    random_ = random.Random(seed)
    for _ in range(count):
        text = random_.choice(texts)
        if len(text) > LONGEST:
            start = random_.randrange(len(text) - LONGEST)
            text = text[:2000] + text[start : start + LONGEST]
        edit = random_.choice(EDITS)
        yield edit.__name__, edit(text, random_)


def judge(text: str, limit: float) -> tuple[str, str]:
    """(what the text came to, complaint): "module", "faults" or "error"; the complaint is empty if that is right."""
    start = time.perf_counter()
    outcome, complaint = "module", ""
    try:
        if verify(parse(text, "damaged")):
            outcome = "faults"
    except HloError as error:
        outcome = "error"
        if error.span is None:
            complaint = f"an error without a place: {error}"
    except Exception as error:  # whatever else comes is a defect of hloc
        outcome, complaint = "crash", f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - start
    return outcome, complaint or (f"took {seconds:.1f} s" if seconds > limit else "")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--count", type=int, default=2000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--limit", type=float, default=2.0, help="seconds for one text")
    options.add_argument("--out", type=Path, help="folder for texts that end badly")
    chosen = options.parse_args()
    texts = [path.read_text() for path in sorted(chosen.folder.rglob("*.hlo"))]
    if not texts:
        sys.exit(f"no .hlo file below {chosen.folder}")
    outcomes: Counter[str] = Counter()
    complaints = 0
    for number, (edit, text) in enumerate(edits(texts, chosen.count, chosen.seed)):
        outcome, complaint = judge(text, chosen.limit)
        outcomes[outcome] += 1
        if complaint:
            complaints += 1
            print(f"edit {number} ({edit}): {complaint}")
            if chosen.out is not None:
                chosen.out.mkdir(parents=True, exist_ok=True)
                (chosen.out / f"{number}.{edit}.hlo").write_text(text)
    print(f"{chosen.count} edits of {len(texts)} texts: {dict(sorted(outcomes.items()))}, {complaints} ended badly")
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
