"""Cuts HLO text into the terminals of grammar/hlo.lark, guided by the state of the parser.

What a piece of text is depends on what the parser can take there: `manual` is a word in a sharding and may be a
name elsewhere. So the lexer looks at the actions of the parser's current state. It tries the grammar's coarse
terminals first and falls back to the fine ones wherever something is out of the ordinary.
"""

from __future__ import annotations

import re
from typing import Any

from hloc.ir.dtypes import BY_NAME
from hloc.ir.opcodes import COMMON, OPS
from hloc.text.engine import END, Actions, Engine
from hloc.text.patterns import Patterns
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

_COARSE = ("INSTRUCTIONS", "COMPUTATIONS", "COMPUTATION_OPEN", "ATTRIBUTES", "ARRAYS", "ARRAY", "METADATA", "NAME_ROWS", "LOCATION_ROWS", "FRAME_ROWS")


class Scanner:
    """The grammar's terminals, compiled: made once, shared by all lexers."""

    def __init__(self, tables: dict[str, Any], engine: Engine, pattern: Patterns):
        self.engine = engine
        self.pattern = pattern
        self.key_types = {name: f"{kind.upper()}_KEY" for name, kind in KIND_OF_NAME.items()}
        self.words: dict[str, list[str]] = {}
        self.marks: dict[str, list[str]] = {}
        self.coarse: dict[str, re.Pattern[str]] = {}
        is_word = pattern(r"[A-Za-z_][A-Za-z0-9_.\-]*=?\Z").match
        patterns = {name: text for name, text, _, _ in tables["terminals"]}
        fine = []
        for name, text, fixed, priority in tables["terminals"]:
            if fixed is not None:
                (self.words if is_word(fixed) else self.marks).setdefault(fixed, []).append(name)
            elif name in _COARSE:
                self.coarse[name] = pattern(text, re.ASCII)
            elif name not in ("WHITESPACE", "COMMENT"):
                fine.append((-priority, f"(?P<{name}>{text})"))
        marks = [mark for mark in self.marks if len(mark) > 1]
        fine.append((-100, f"(?P<MARK>{'|'.join(map(re.escape, sorted(marks, key=len, reverse=True)))})"))
        self.fine = pattern("|".join(text for _, text in sorted(fine)), re.ASCII).match
        self.plain_marks = {m: names[0] for m, names in self.marks.items() if m in ",()}[]=" and len(names) == 1}
        comment = patterns["COMMENT"]
        ignored = f"(?:{patterns['WHITESPACE']}|{comment})*+"
        self.skip = pattern(ignored).match
        self.layout_open = pattern(rf"\{{{ignored}[0-9:\-]").match
        self.call_open = pattern(rf"{ignored}\(").match
        self.buffer_open = pattern(rf"{ignored}\({ignored}(?:[a-z0-9]+{ignored}\[|\(|b{ignored}\()").match
        self.braces = pattern(r'"(?:[^"\\]|\\.)*+"|["{}]', re.DOTALL).finditer
        self.brackets = pattern(rf"[(){{}}]|{comment}").finditer
        self.scalar = pattern(rf"{patterns['DECIMAL']}|[A-Za-z0-9_.+\-]+", re.ASCII).match
        self.coarse_of = [tuple(name for name in _COARSE if name in actions) for actions in engine.states]


class Lexer:
    """The tokens of text[start:end], for one run of the parser. `pieces` reads coarse terminals, if it is given."""

    def __init__(self, scanner: Scanner, text: str, start: int = 0, end: int | None = None, pieces: Any = None):
        self.scanner = scanner
        self.text = text
        self.position = start
        self.end = len(text) if end is None else end
        self.pieces = pieces

    def next(self, state: int, stack: list[int]) -> Token:
        """The next token, as the parser in that state would have it."""
        scanner = self.scanner
        start = self.position = scanner.skip(self.text, self.position, self.end).end()
        if start >= self.end:
            return Token(END, "", start, start)
        if self.pieces is not None:
            for kind in scanner.coarse_of[state]:
                if kind == "INSTRUCTIONS" and not scanner.engine.takes(stack, kind):
                    continue
                token = self.pieces.read(self, kind)
                if token is not None:
                    return token
        token = self._fine(start, scanner.engine.states[state], stack)
        self.position = token.end
        return token

    def _fine(self, start: int, actions: Actions, stack: list[int]) -> Token:
        scanner, text = self.scanner, self.text
        if "LITERAL" in actions and scanner.engine.takes(stack, "LITERAL"):
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

    def _word(self, value: str, end: int, actions: Actions) -> str:
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

    def _key(self, value: str, actions: Actions) -> str:
        """Which terminal `name=` is here: one of the grammar's own, a key of the op table's kinds, else KEY."""
        for name in self.scanner.words.get(value, ()):
            if name in actions:
                return name
        name = self.scanner.key_types.get(value[:-1], "KEY")
        return name if name in actions else "KEY"

    def _mark(self, start: int, actions: Actions) -> Token:
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

    def _brace(self, start: int, actions: Actions) -> Token:
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
            elif char == '"':
                raise Fault("unterminated string", found.start(), found.end())
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
        alone = text.find("[", start, end) < 0  # else the shape of another part of a tuple follows
        return end if end and inside and alone and not text[end:close].strip() else 0

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
