"""A module's text in two: functions that need only a few of LLVM's passes, and the rest.

A function says by the attribute "hloc-passes"="few" that its loops work on vectors already, or that it has none. It
goes with the rest all the same if something is inlined into it that does not say so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from hloc.records import record

_FEW = '"hloc-passes"="few"'
_FUNCTION = re.compile(r"^define .*?^}\n", re.MULTILINE | re.DOTALL)
_HEAD = re.compile(r'define (?:internal )?(?P<rest>[^@]*@(?P<name>"[^"]*"|[\w$.-]+)\(.*\)) (?P<group>#\d+) \{')
_USED = re.compile(r'@("[^"]*"|[\w$.-]+)')
_GROUP = re.compile(r"^attributes (#\d+) = \{(.*)\}$", re.MULTILINE)
_CALLED = re.compile(r"\) (#\d+)\n")
_INLINED = re.compile(r'call [^@\n]*@("[^"]*"|[\w$.-]+)\([^\n]*\) alwaysinline$', re.MULTILINE)
_VARIANT = re.compile(r"_ZGV[^(]*\(([^)]*)\)")
_SHARED = re.compile(r"(?:private|internal) unnamed_addr constant ")
_GLOBAL = re.compile(r"dso_local hidden global (\w+) ")


@record
class _Function:
    """A function: its text, what it names, and whether it is done with few passes or inlined where it is called."""

    text: str
    signature: str
    uses: frozenset[str]
    is_few: bool
    is_inlined: bool


def split(text: str) -> tuple[str, str]:
    """The texts of the functions that need few passes, and of the rest; each is empty if there are none.

    What both name is defined in one of them, or in both if it is inlined or constant. All are the rest if few passes
    would do for the smaller part only: two modules take longer than one of their size.
    """
    if _FEW not in text:
        return "", text
    groups = dict(_GROUP.findall(text))
    chunks = list(_FUNCTION.finditer(text))
    inlined = frozenset(_INLINED.findall(text))
    functions = dict(_function(chunk[0], groups, inlined) for chunk in chunks)
    few = [name for name, function in functions.items() if _stays_few(name, functions)]
    rest = [name for name, function in functions.items() if not function.is_inlined and name not in set(few)]
    if 2 * sum([len(functions[name].text) for name in few]) <= sum([len(functions[name].text) for name in rest]):
        return "", text
    head, tail = text[: chunks[0].start()].splitlines(), text[chunks[-1].end() :]
    sides = [_members(own, functions) for own in (few, rest)]
    uses = [set().union(*[functions[name].uses for name in side]) for side in sides]
    few_text = _text(sides[0], *uses, functions, _few_head(head, uses[0], not rest), tail)
    if not rest:
        return few_text, ""
    return few_text, _text(sides[1], *uses[::-1], functions, _rest_head(head, uses[1], functions), tail)


def _function(text: str, groups: dict[str, str], inlined: frozenset[str]) -> tuple[str, _Function]:
    found = _HEAD.match(text)
    assert found is not None
    attributes = groups[found["group"]]
    called = {name for group in set(_CALLED.findall(text)) for name in _VARIANT.findall(groups[group])}
    uses = {*_USED.findall(text), *called}
    uses.discard(found["name"])
    signature = f"{found['rest']} {found['group']}"
    is_inlined = "alwaysinline" in attributes or found["name"] in inlined
    return found["name"], _Function(text, signature, frozenset(uses), _FEW in attributes, is_inlined)


def _inlined(names: Iterable[str], functions: dict[str, _Function]) -> list[str]:
    """What is inlined into functions, and into what is inlined."""
    found: dict[str, None] = {}
    pending = list(names)
    while pending:
        for used in sorted(functions[pending.pop()].uses):
            if used in functions and functions[used].is_inlined and used not in found:
                found[used] = None
                pending.append(used)
    return list(found)


def _stays_few(name: str, functions: dict[str, _Function]) -> bool:
    if functions[name].is_inlined or not functions[name].is_few:
        return False
    return all(functions[inner].is_few for inner in _inlined([name], functions))


def _members(own: list[str], functions: dict[str, _Function]) -> list[str]:
    """Functions and what is inlined into them, in the order of the text."""
    members = {*own, *_inlined(own, functions)}
    return [name for name in functions if name in members]


def _text(
    members: list[str],
    uses: set[str],
    other_uses: set[str],
    functions: dict[str, _Function],
    head: Iterable[str],
    tail: str,
) -> str:
    """One of the texts, with declarations of what it `uses` beside its members."""
    absent = [name for name in functions if name in uses and name not in set(members)]
    lines = [*head, *[f"declare {functions[name].signature}" for name in absent], ""]
    for name in members:
        body = functions[name].text
        if name in other_uses and not functions[name].is_inlined:
            body = body.replace("define internal ", "define hidden ", 1)
        lines.append(body)
    return "\n".join(lines) + tail


def _few_head(head: list[str], uses: set[str], is_all: bool) -> Iterator[str]:
    for line in head:
        name, _, value = line.partition(" = ")
        found = _GLOBAL.match(value)
        if not line.startswith("@") or _SHARED.match(value) and name[1:] in uses:
            yield line
        elif found and name[1:] in uses:
            yield line if is_all else f"{name} = external hidden global {found[1]}"


def _rest_head(head: list[str], uses: set[str], functions: dict[str, _Function]) -> Iterator[str]:
    for line in head:
        name, _, value = line.partition(" = ")
        if not line.startswith("@") or name[1:] in uses or _GLOBAL.match(value):
            yield line
    # LLVM finds variants for vectors by their names alone, after it removed what nothing calls.
    kept = [f"ptr @{name}" for name in functions if name in uses and not functions[name].is_inlined]
    if kept:
        yield f'@llvm.compiler.used = appending global [{len(kept)} x ptr] [{", ".join(kept)}], section "llvm.metadata"'
