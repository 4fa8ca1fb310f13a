"""Runs the LALR automaton that Lark made of the grammar: tokens in, the value of the start rule out.

Rules call methods of one object with their children, each as soon as it is complete, so the order is that of the
text, innermost first, and nothing is recursive. What is left out of the children is as in Lark: fixed terminals
unless the rule or the terminal is named for keeping, and rules whose names begin with an underscore give way to
their own children.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from hloc.text.tokens import Token

Actions = dict[str, int]


class TokenSource(Protocol):
    """Gives the next token for a parser state; one of type END behind the last."""

    def next(self, state: int, stack: list[int]) -> Token: ...


class Unexpected(Exception):
    """A token that the parser cannot take; `expected` are the terminals that it can, `values` what was read before."""

    def __init__(self, token: Token, expected: list[str], values: list[Any]):
        super().__init__(f"unexpected {token}")
        self.token = token
        self.expected = expected
        self.values = values


END = "$END"


class Engine:
    """The automaton; it holds no state of a run."""

    def __init__(self, tables: dict[str, Any], callbacks: object):
        self.states: list[Actions] = tables["states"]
        self.starts: dict[str, int] = tables["starts"]
        self.ends: dict[str, int] = tables["ends"]
        self.rules = [_reduction(callbacks, *rule) for rule in tables["rules"]]

    def parse(self, source: TokenSource, start: str) -> Any:
        """The value of rule `start` for all of the source. Raises Unexpected, and what callbacks raise."""
        states, rules, end = self.states, self.rules, self.ends[start]
        state = self.starts[start]
        stack, values = [state], []
        while True:
            token = source.next(state, stack)
            kind = token.type
            while (action := states[state].get(kind)) is not None and action < 0:
                make, origin, length = rules[~action]
                if length:
                    children = values[-length:]
                    del stack[-length:], values[-length:]
                else:
                    children = []
                state = states[stack[-1]][origin]
                stack.append(state)
                values.append(make(children))
            if action is None:
                if kind == END and state == end:
                    return values[-1]
                takes = [symbol for symbol in states[state] if symbol.isupper() and self.takes(stack, symbol)]
                raise Unexpected(token, takes, values)
            state = action
            stack.append(state)
            values.append(token)

    def takes(self, stack: list[int], terminal: str) -> bool:
        """Whether a terminal would be shifted, after the reductions that it calls for.

        The actions of one state alone don't tell: LALR states share the lookaheads of all their contexts.
        """
        depth, state = len(stack), stack[-1]
        pushed: list[int] = []
        while (action := self.states[state].get(terminal)) is not None and action < 0:
            _, origin, length = self.rules[~action]
            above = min(length, len(pushed))
            del pushed[len(pushed) - above :]
            depth -= length - above
            state = self.states[pushed[-1] if pushed else stack[depth - 1]][origin]
            pushed.append(state)
        return action is not None


def _reduction(
    callbacks: object, name: str, origin: str, length: int, kept: list[int] | None
) -> tuple[Callable[[list[Any]], Any], str, int]:
    """(function of the children, rule, length of the expansion)."""
    call = _same if origin.startswith("_") else getattr(callbacks, name)
    if kept is None:
        make = call
    elif all(index >= 0 for index in kept):
        make = _picked(call, kept)
    else:
        make = _spliced(call, kept)
    return make, origin, length


def _same(children: list[Any]) -> list[Any]:
    return children


def _picked(call: Callable[[list[Any]], Any], kept: list[int]) -> Callable[[list[Any]], Any]:
    return lambda children: call([children[index] for index in kept])


def _spliced(call: Callable[[list[Any]], Any], kept: list[int]) -> Callable[[list[Any]], Any]:
    """Children of inlined rules in their place. A first one is extended, not copied, so a list grows in linear time."""
    first = ~kept[0] if kept[0] < 0 else None
    rest = kept[1:] if first is not None else kept

    def make(children: list[Any]) -> Any:
        result = children[first] if first is not None else []
        for index in rest:
            if index < 0:
                result += children[~index]
            else:
                result.append(children[index])
        return call(result)

    return make
