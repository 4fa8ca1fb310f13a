"""Makes the parser's tables out of the grammar, with Lark. Takes half a second: see grammar.py for the cache.

The tables are plain data, so that they can be kept in a file and used without loading Lark:

- "states": for each state a dictionary from symbol to action. An action n >= 0 goes to state n (a shift for a
  terminal, a goto for a rule's name), an action n < 0 reduces by rule ~n.
- "rules": (name of the callback, name of the rule, length, kept children). A kept child is its index in the
  expansion, or ~index if its own children take its place. None keeps all as they are.
- "starts", "ends": the first and last state of each start rule.
- "terminals": (name, regular expression, text of a fixed terminal or None, priority).
- "patterns": what hloc.text.patterns makes of regular expressions, once a parser has asked for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from sys import intern
from typing import Any

import lark
from lark.grammar import NonTerminal, Rule, Symbol
from lark.lexer import Lexer
from lark.parsers.lalr_analysis import Shift

Tables = dict[str, Any]


class _NoLexer(Lexer):
    """Stands in for Lark's lexers: hloc.text.lexer feeds the engine."""

    def __init__(self, conf: object):
        pass

    def lex(self, *_: object) -> Any:
        raise NotImplementedError


def make_tables(text: str, starts: tuple[str, ...]) -> Tables:
    """The tables of a grammar's text. Raises lark.exceptions.GrammarError for one that isn't LALR(1)."""
    options: dict[str, Any] = {"parser": "lalr", "lexer": _NoLexer, "maybe_placeholders": False}
    made = lark.Lark(text, start=list(starts), **options)
    table = made.parser.parser.parser.parse_table
    numbers: dict[Rule, int] = {rule: number for number, rule in enumerate(made.rules)}
    order = _reached(table, starts)
    places = {state: place for place, state in enumerate(order)}

    def actions(state: int) -> Iterator[tuple[str, int]]:
        for symbol, (kind, argument) in sorted(table.states[state].items()):
            yield intern(str(symbol)), places[argument] if kind is Shift else ~numbers[argument]

    return {
        "states": [dict(actions(state)) for state in order],
        "rules": [_rule(rule) for rule in made.rules],
        "starts": {start: places[table.start_states[start]] for start in starts},
        "ends": {start: places[table.end_states[start]] for start in starts},
        "terminals": [_terminal(terminal) for terminal in made.terminals],
        "patterns": {},
    }


def _reached(table: Any, starts: tuple[str, ...]) -> list[int]:
    """The states in an order that depends on the grammar alone: Lark numbers them by the order of sets."""
    order = [table.start_states[start] for start in starts]
    seen = set(order)
    for state in order:
        for _, (kind, argument) in sorted(table.states[state].items()):
            if kind is Shift and argument not in seen:
                seen.add(argument)
                order.append(argument)
    return order


def _rule(rule: Rule) -> tuple[str, str, int, list[int] | None]:
    kept = []
    for index, symbol in enumerate(rule.expansion):
        if _is_inlined(symbol):
            kept.append(~index)
        elif rule.options.keep_all_tokens or not (symbol.is_term and symbol.filter_out):
            kept.append(index)
    length = len(rule.expansion)
    return str(rule.alias or rule.origin.name), intern(str(rule.origin.name)), length, None if kept == list(range(length)) else kept


def _is_inlined(symbol: Symbol) -> bool:
    return isinstance(symbol, NonTerminal) and symbol.name.startswith("_")


def _terminal(terminal: Any) -> tuple[str, str, str | None, int]:
    pattern = terminal.pattern
    fixed = pattern.value if pattern.type == "str" else None
    return intern(str(terminal.name)), str(pattern.to_regexp()), fixed and str(fixed), int(terminal.priority)
