"""The table that the families of rules enter themselves in."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from hloc.ir.instruction import Instruction
from hloc.passes.patterns import Pattern
from hloc.passes.rewriter import Rule

RULES: dict[str, list[Rule]] = {}
"""opcode -> rules to try on such an instruction, in order."""


def rule(*heads: str | Pattern) -> Callable[[Callable], Callable]:
    """Decorator: try the function on instructions of these opcodes, or on those that fit these patterns.

    What a pattern binds reaches the function by name, after the instruction itself.
    """

    def enter(function: Callable) -> Callable:
        for head in heads:
            opcodes = (head,) if isinstance(head, str) else head.opcodes
            if opcodes is None:
                raise ValueError(f"the pattern of rule {function.__name__} names no opcode")
            for opcode in opcodes:
                own = function if isinstance(head, str) else _on_match(head, function)
                RULES.setdefault(opcode, []).append(own)
        return function

    return enter


def _on_match(pattern: Pattern, function: Callable) -> Rule:
    test = pattern.test

    @wraps(function)
    def apply(instruction: Instruction) -> Instruction | None:
        found: dict[str, Instruction] = {}
        return function(instruction, **found) if test(instruction, found) else None

    apply.behind = pattern.behind  # type: ignore[attr-defined]  # for the rewriter
    return apply
