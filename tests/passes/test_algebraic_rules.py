"""Every algebraic rule has a test of its name, in which it fires once and must not fire once."""

from __future__ import annotations

from pathlib import Path

import hloc.passes.algebraic.simplifier  # noqa: F401  (enters all families in the table)
from hloc.passes.algebraic.rules import RULES

FOLDER = Path(__file__).parent / "algebraic"


def test_every_rule_has_a_test() -> None:
    names = {rule.__name__ for rules in RULES.values() for rule in rules}
    assert names - {path.stem for path in FOLDER.glob("*.hlo")} == set()
