"""The table that the families of rules enter themselves in."""

from __future__ import annotations

from collections.abc import Callable

from hloc.passes.rewriter import Rule

RULES: dict[str, list[Rule]] = {}
"""opcode -> rules to try on such an instruction, in order."""


def rule(*opcodes: str) -> Callable[[Rule], Rule]:
    """Decorator: try the function on instructions of these opcodes."""

    def enter(function: Rule) -> Rule:
        for opcode in opcodes:
            RULES.setdefault(opcode, []).append(function)
        return function

    return enter
