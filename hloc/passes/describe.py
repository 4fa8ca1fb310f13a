"""Passes and pipelines as text for people: what `hloc opt --list-passes` prints."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Mapping

from hloc.passes.pipeline import ORDER, PASSES, PIPELINES, find_pass, flattened
from hloc.passes.rows import FixedPoint, Pass

_PARTS = ("Requires", "Ensures", "Leaves")
_WIDTH = 100


def describe_passes(own: Mapping[str, Pass]) -> str:
    """Every pass with its options and its promises, and the pipelines with the reason of each row.

    `own` are passes that are not hloc's, by name.
    """
    lines = ["Passes:"]
    for row in PASSES.values():
        lines += _entry(row)
    if own:
        lines += ["", "Passes of others:"]
        for row in own.values():
            lines += [*_entry(row), f"    from      {row.origin}"]
    for name in PIPELINES:
        lines += ["", f"Pipeline {name}:", *_pipeline(name)]
    return "\n".join(lines)


def describe_pass(name: str, own: Mapping[str, Pass]) -> str:
    """One pass in full: its docstring, its options, its places in the pipelines and the rules about them.

    Raises HloError if there is no such pass.
    """
    row = find_pass(name, own)
    lines = [name, "", textwrap.indent(inspect.cleandoc(row.full_doc), "  ")]
    if row.defaults:
        follows = dict(row.options)
        lines += ["", f"  Options, as in --passes='{name}{{{next(iter(row.defaults))}=...}}':"]
        for option, default in row.defaults.items():
            source = f" (or as Options.{follows[option]} says)" if option in follows else ""
            lines.append(f"    {option} = {_value(default)}{source}")
    if row.origin:
        lines += ["", f"  From {row.origin}"]
    places = [f"    {pipeline}: {reason}" for pipeline in PIPELINES for reason in _reasons(name, pipeline)]
    if places:
        lines += ["", "  Its place in pipelines:", *places]
    rules = [f"    {a} before {b}: {why}" for a, b, why in ORDER if name in (a, b)]
    if rules:
        lines += ["", "  Order:", *rules]
    return "\n".join(lines)


def _entry(row: Pass) -> list[str]:
    lines = [f"  {row.name}: {row.doc or 'it does not say what it does.'}"]
    if row.defaults:
        options = ", ".join(f"{name}={_value(value)}" for name, value in row.defaults.items())
        lines.append(f"    options   {options}")
    for part, text in promises(row.full_doc).items():
        body = textwrap.fill(text, _WIDTH, initial_indent=" " * 14, subsequent_indent=" " * 14).strip()
        lines.append(f"    {part.lower():10}{body}")
    return lines


def promises(doc: str) -> dict[str, str]:
    """What follows `Requires:`, `Ensures:` and `Leaves:` in a pass's docstring, each on one line."""
    places = sorted((doc.index(f"{part}:"), part) for part in _PARTS if f"{part}:" in doc)
    ends = [*(place for place, _ in places), len(doc)][1:]
    return {
        part: " ".join(doc[place + len(part) + 1 : end].split()) for (place, part), end in zip(places, ends)
    }


def _value(value: object) -> str:
    return "(required)" if value is ... else repr(value)


def _reasons(name: str, pipeline: str) -> list[str]:
    return [why for inner, why in flattened(PIPELINES[pipeline]) if inner == name]


def _pipeline(name: str) -> Iterable[str]:
    width = max(map(len, PASSES))
    for row in PIPELINES[name]:
        if isinstance(row, FixedPoint):
            yield f"  until nothing changes ({row.reason}):"
            yield from (f"    {inner:{width}}  {why}" for inner, why in row.rows)
        else:
            yield f"  {row[0]:{width}}  {row[1]}"
