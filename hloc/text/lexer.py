"""Cuts HLO text into the terminals of grammar/hlo.lark, guided by the state of the parser.

What a piece of text is depends on what the parser can take there: `manual` is a word in a sharding and may be a
name elsewhere. So the lexer looks at the actions of the parser's current state. It tries the grammar's coarse
terminals first and falls back to the fine ones wherever something is out of the ordinary.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lark.parsers.lalr_analysis import Shift

from hloc.ir.dtypes import BY_NAME
from hloc.ir.opcodes import COMMON, OPS
from hloc.text.grammar import Grammar
from hloc.text.tokens import Fault, Token

# Attributes of the module header and of computations, by kind as in the op table.
HEADER_KINDS = {
    "is_scheduled": "bool",
    "entry_computation_layout": "entry_layout",
    "input_output_alias": "aliases",
    "buffer_donor": "donors",
    "alias_passthrough_params": "bool",
    "replica_count": "int",
    "num_partitions": "int",
    "frontend_attributes": "dictionary",
    "allow_spmd_sharding_propagation_to_parameters": "bools",
    "allow_spmd_sharding_propagation_to_output": "bools",
    "origin_recovery_table": "recovery",
    "backend_config": "config",
    "debug_attributes": "raw",
    "execution_thread": "string",
}
KIND_OF_NAME: dict[str, str] = {
    **{attribute.name: attribute.kind for op in OPS.values() for attribute in op.attributes.values()},
    **{name: attribute.kind for name, attribute in COMMON.items()},
    **HEADER_KINDS,
    "slice_sizes": "lists",  # of gather a list, of collective-permute a list of lists: the rule takes both
}

# Words that are never names, whatever the state.
RESERVED = frozenset(
    ("true", "false", "inf", "HloModule", "ENTRY", "ROOT", "FileNames", "FunctionNames", "FileLocations", "StackFrames",
     "maximal", "replicated", "manual", "unreduced", "unknown", "last_tile_dim_replicate", "shard_as", "shard_like")
)  # fmt: skip

# What a bare name cannot be; `%true` is a name.
NO_NAMES = RESERVED | BY_NAME.keys()

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*=?\Z")
_COARSE = ("INSTRUCTIONS", "COMPUTATION_OPEN", "ARRAYS", "ARRAY", "METADATA", "NAME_ROWS", "LOCATION_ROWS", "FRAME_ROWS")


class Scanner:
    """The grammar's terminals, compiled: made once, shared by all lexers."""

    def __init__(self, grammar: Grammar):
        self.states = grammar.states
        self.key_types = {name: f"{kind.upper()}_KEY" for name, kind in KIND_OF_NAME.items()}
        self.words: dict[str, list[str]] = {}
        self.marks: dict[str, list[str]] = {}
        patterns = []
        for terminal in grammar.terminals.values():
            pattern = terminal.pattern
            if terminal.name in ("WHITESPACE", "COMMENT", *_COARSE):
                continue
            if pattern.type == "re":
                patterns.append((terminal.priority, terminal.name, pattern.to_regexp()))
            else:
                table = self.words if _WORD.match(pattern.value) else self.marks
                table.setdefault(pattern.value, []).append(terminal.name)
        self.plain_marks = {mark: names[0] for mark, names in self.marks.items() if mark in ",()}[]=" and len(names) == 1}
        patterns.sort(key=lambda row: -row[0])
        marks = "|".join(re.escape(mark) for mark in sorted(self.marks, key=len, reverse=True) if len(mark) > 1)
        fine = "|".join([f"(?P<MARK>{marks})"] + [f"(?P<{name}>{text})" for _, name, text in patterns])
        self.fine = re.compile(fine, re.ASCII).match
        ignored = f"(?:{grammar.pattern('WHITESPACE')}|{grammar.pattern('COMMENT')})*+"
        self.skip = re.compile(ignored).match
        self.layout_open = re.compile(rf"\{{{ignored}[0-9:\-]").match
        self.call_open = re.compile(rf"{ignored}\(").match
        self.buffer_open = re.compile(rf"{ignored}\({ignored}[a-z0-9]+{ignored}\[").match
        self.braces = re.compile(r'"(?:[^"\\]|\\.)*+"|[{}]', re.DOTALL).finditer
        self.brackets = re.compile(rf"[(){{}}]|{grammar.pattern('COMMENT')}").finditer
        self.scalar = re.compile(rf"{grammar.pattern('DECIMAL')}|[A-Za-z0-9_.+\-]+", re.ASCII).match
        self.coarse = {name: re.compile(grammar.pattern(name), re.ASCII).match for name in _COARSE}
        self._coarse_of: dict[Any, tuple[str, ...]] = {}

    def coarse_of(self, state: Any) -> tuple[str, ...]:
        """The coarse terminals that a parser state takes."""
        found = self._coarse_of.get(state)
        if found is None:
            actions = self.states[state]
            found = self._coarse_of[state] = tuple(name for name in _COARSE if name in actions)
        return found

    def takes(self, stack: list[Any], terminal: str) -> bool:
        """Whether the parser shifts a terminal, after the reductions that it calls for.

        The actions of one state alone don't tell: LALR states share the lookaheads of all their contexts.
        """
        depth, pushed, state = len(stack), [], stack[-1]
        while True:
            action = self.states[state].get(terminal)
            if action is None:
                return False
            kind, rule = action
            if kind is Shift:
                return True
            for _ in rule.expansion:
                if pushed:
                    pushed.pop()
                else:
                    depth -= 1
            state = self.states[pushed[-1] if pushed else stack[depth - 1]][rule.origin.name][1]
            pushed.append(state)


class Lexer:
    """The tokens of text[start:end], for one run of the parser. `pieces` reads coarse terminals, if it is given."""

    def __init__(self, scanner: Scanner, text: str, start: int = 0, end: int | None = None, pieces: Any = None):
        self.scanner = scanner
        self.text = text
        self.position = start
        self.end = len(text) if end is None else end
        self.pieces = pieces

    def lex(self, parser: Any) -> Iterator[Token]:
        """The tokens, one by one; `parser.state_stack` must be up to date whenever the next one is asked for."""
        scanner, stack, pieces = self.scanner, parser.state_stack, self.pieces
        states, skip = scanner.states, scanner.skip
        while True:
            state = stack[-1]
            if pieces is not None:
                token = None
                for kind in scanner.coarse_of(state):
                    token = pieces.read(self, kind)
                    if token is not None:
                        break
                if token is not None:
                    yield token
                    continue
            start = skip(self.text, self.position, self.end).end()
            if start >= self.end:
                return
            token = self._fine(start, states[state], stack)
            self.position = token.end
            yield token

    def _fine(self, start: int, actions: dict[str, Any], stack: list[Any]) -> Token:
        scanner, text = self.scanner, self.text
        if "LITERAL" in actions and scanner.takes(stack, "LITERAL"):
            if not ("LAYOUT_OPEN" in actions and scanner.layout_open(text, start, self.end)):
                return self._literal(start)
        first = text[start]
        if first in scanner.plain_marks and not (first == "," and "DEVICE_IDS" in actions):
            return Token(scanner.plain_marks[first], first, start, start + 1)
        if first == "{":
            return self._brace(start, actions)
        found = scanner.fine(text, start, self.end)
        if found is None:
            return self._mark(start, actions)
        kind, end = found.lastgroup, found.end()
        value = text[start:end]
        if kind == "IDENT":
            kind = self._word(value, end, actions)
        elif kind == "KEY":
            kind = self._key(value, actions)
            value = value[:-1]
        elif kind == "NAME":
            value = value[1:] if value[0] == "%" else value[:-1]
        elif kind == "MARK":
            kind = scanner.marks[value][0]
        elif kind == "DEVICE_IDS" and kind not in actions:
            return Token("COMMA", ",", start, start + 1)
        return Token(kind, value, start, end)

    def _word(self, value: str, end: int, actions: dict[str, Any]) -> str:
        """Which terminal a bare word is here: a keyword, an element type, else IDENT."""
        if value in BY_NAME:
            return "TYPE"
        for name in self.scanner.words.get(value, ()):
            if name == "CONSTANT" and not self.scanner.call_open(self.text, end, self.end):
                continue
            if name == "BUFFER" and not self.scanner.buffer_open(self.text, end, self.end):
                continue
            if name in actions or value in RESERVED:
                return name
        return "IDENT"

    def _key(self, value: str, actions: dict[str, Any]) -> str:
        """Which terminal `name=` is here: one of the grammar's own, a key of the op table's kinds, else KEY."""
        for name in self.scanner.words.get(value, ()):
            if name in actions:
                return name
        name = self.scanner.key_types.get(value[:-1], "KEY")
        return name if name in actions else "KEY"

    def _mark(self, start: int, actions: dict[str, Any]) -> Token:
        """A sign of punctuation, or what no terminal begins with."""
        text = self.text
        value = text[start]
        names = self.scanner.marks.get(value)
        if names is None:
            if value in "\"'":
                raise Fault("unterminated string", start, start + 1)
            if text.startswith("/*", start):
                raise Fault("unterminated comment", start, start + 2)
            raise Fault(f"unexpected character {value!r}", start, start + 1)
        kind = next((name for name in names if name in actions), names[0])
        return Token(kind, value, start, start + 1)

    def _brace(self, start: int, actions: dict[str, Any]) -> Token:
        if "LAYOUT_OPEN" in actions and self.scanner.layout_open(self.text, start, self.end):
            return Token("LAYOUT_OPEN", "{", start, start + 1)
        if "DICT" in actions and "LBRACE" not in actions:
            end = self._matching_brace(start)
            return Token("DICT", self.text[start:end], start, end)
        return Token("LBRACE", "{", start, start + 1)

    def _matching_brace(self, start: int) -> int:
        """The end of the braces that open at `start`; braces within strings don't count."""
        depth = 0
        for found in self.scanner.braces(self.text, start, self.end):
            char = found[0]
            if char == "{":
                depth += 1
            elif char == "}":
                depth -= 1
                if depth == 0:
                    return found.end()
        raise Fault("expected a '}' that closes this brace, got the end of the text", start, start + 1)

    def _literal(self, start: int) -> Token:
        """A number or word, or brackets with all that they hold. What it means depends on the shape before it."""
        text = self.text
        if text[start] not in "{(":
            found = self.scanner.scalar(text, start, self.end)
            if found is None:
                raise Fault(f"expected a literal, got {text[start]!r}", start, start + 1)
            return Token("LITERAL", found[0], start, found.end())
        end = self._simple_array(start) or self._matching_bracket(start)
        return Token("LITERAL", text[start:end], start, end)

    def _simple_array(self, start: int) -> int:
        """The end of `{...}` in `constant({...})` when it holds no parentheses and comments; else 0."""
        text = self.text
        close = text.find(")", start, self.end)
        if close < 0 or text.find("(", start, close) >= 0 or text.find("/", start, close) >= 0:
            return 0
        end = text.rfind("}", start, close) + 1
        inside = text.count("{", start, end) == text.count("}", start, end)
        return end if end and inside and not text[end:close].strip() else 0

    def _matching_bracket(self, start: int) -> int:
        depth = 0
        for found in self.scanner.brackets(self.text, start, self.end):
            char = found[0]
            if char in "({":
                depth += 1
            elif char in ")}":
                depth -= 1
                if depth == 0:
                    return found.end()
        raise Fault(f"unterminated literal: nothing closes {self.text[start]!r}", start, start + 1)
