"""Passes that are not hloc's own: from Python files, from installed packages, or objects of the calling program.

See `hloc.passes.api` for how to write one. Nothing is looked for unless it is asked for: files and objects by
`Options.load`, installed packages (entry points of the group `hloc.passes`) when a name is not known otherwise.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType, SimpleNamespace

from hloc.errors import HloError
from hloc.passes.rows import FixedPoint, Pass, Row
from hloc.records import record

GROUP = "hloc.passes"
_MARK = "__hloc_pass__"


@record
class Mark:
    """What `compiler_pass` notes of a function or a class: the pass's name, and its place in pipelines."""

    name: str
    after: str | None
    before: str | None


@record
class OwnPass(Pass):
    """A pass that is not hloc's: the function or class itself, and the place that it asks for."""

    found: object = None
    after: str | None = None
    before: str | None = None

    @property
    def kind(self) -> object:
        if isinstance(self.found, type) or hasattr(self.found, "run"):
            return self.found
        return SimpleNamespace(run=self.found, __doc__=self.found.__doc__)


def compiler_pass(
    target: Callable | type | None = None,
    *,
    name: str | None = None,
    after: str | None = None,
    before: str | None = None,
) -> Callable:
    """Decorator: makes a pass of a function `run(module) -> bool`, or of a dataclass with such a method.

    `name` is the function's or the class's own unless given. `after` and `before` name the pass next to which this
    one runs in a named pipeline: at the first place of that name, in each round if it is in a fixed point.
    """
    if after is not None and before is not None:
        raise TypeError("a pass has one place: give after or before, not both")

    def mark(inner: Callable | type) -> Callable | type:
        setattr(inner, _MARK, Mark(name or inner.__name__, after, before))
        return inner

    return mark if target is None else mark(target)


def load_all(sources: Sequence[object]) -> dict[str, OwnPass]:
    """The passes that `Options.load` names, in order: paths of files, names of entry points, or objects.

    Raises HloError for what cannot be loaded, has no pass, or whose name is taken.
    """
    found: dict[str, OwnPass] = {}
    for source in sources:
        for own in _load(source):
            if own.name in found:
                other = found[own.name].origin
                raise HloError(f"two passes are named {own.name}: one from {other}, one from {own.origin}")
            found[own.name] = own
    return found


def _load(source: object) -> list[OwnPass]:
    if isinstance(source, os.PathLike) or (isinstance(source, str) and _is_path(source)):
        return _of_file(Path(source))
    if isinstance(source, str):
        own = installed().get(source)
        if own is None:
            raise HloError(f"there is no file {source}, nor an installed pass of that name")
        return [own()]
    return [_own(source, getattr(source, "__module__", "") or "this program")]


def _is_path(text: str) -> bool:
    return text.endswith(".py") or os.sep in text or os.path.exists(text)


def _of_file(path: Path) -> list[OwnPass]:
    """The passes of a file: all that `compiler_pass` has marked there, in order."""
    found = _marked(_module_of(path), str(path))
    if not found:
        raise HloError(f"{path} has no pass: mark a function or a class with hloc.passes.api.compiler_pass")
    return found


def _module_of(path: Path) -> ModuleType:
    """The file as a module, run anew each time: it may have been edited since."""
    if not path.is_file():
        raise HloError(f"there is no file {path} to load passes from")
    module = ModuleType(f"hloc_loaded:{path.resolve()}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look there for the types of their fields
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    except Exception as error:
        raise _unloadable(str(path), error) from error
    return module


def _unloadable(what: str, error: Exception) -> HloError:
    place = place_of(error)
    at = f" at {place}" if place else ""
    return HloError(f"cannot load passes from {what}: {type(error).__name__}{at}: {error}")


def place_of(error: BaseException) -> str:
    """`file:line` of the innermost frame of an error; empty if it has none."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _marked(module: ModuleType, origin: str) -> list[OwnPass]:
    own = (value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__)
    return [_own(value, origin) for value in own if isinstance(getattr(value, _MARK, None), Mark)]


def _own(value: object, origin: str, name: str | None = None) -> OwnPass:
    """The pass that a marked object is; an object without a mark has no place of its own in a pipeline."""
    mark = getattr(value, _MARK, None) or Mark(getattr(value, "__name__", type(value).__name__), None, None)
    if not hasattr(value, "run") and (isinstance(value, type) or not callable(value)):
        raise HloError(f"{value!r} is no pass: it is no function, and has no run")
    return OwnPass(name or mark.name, found=value, after=mark.after, before=mark.before, origin=origin)


def installed() -> dict[str, Callable[[], OwnPass]]:
    """What makes the passes of installed packages, by the names of their entry points, in the order of names."""
    points: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        points.setdefault(point.name, []).append(point)
    return {name: lambda same=same: _installed(same) for name, same in points.items()}


def all_installed() -> tuple[dict[str, OwnPass], list[str]]:
    """The passes of installed packages themselves, and what is to be said of those that do not load."""
    found, faults = {}, []
    for name, make in installed().items():
        try:
            found[name] = make()
        except HloError as error:
            faults.append(error.message)
    return found, faults


def _installed(points: list[EntryPoint]) -> OwnPass:
    values = {point.value for point in points}
    point = points[0]
    if len(values) > 1:
        raise HloError(f"several packages have a pass {point.name}: {', '.join(sorted(values))}")
    try:
        value = point.load()
    except Exception as error:
        raise _unloadable(f"the entry point {point.name} = {point.value}", error) from error
    return _own(value, point.name, point.name)


def place(rows: Sequence[Row], own: Iterable[OwnPass], pipeline: str) -> list[Row]:
    """The rows of a pipeline with passes at the places that they ask for, in the order in which they were loaded.

    HloError for one that asks for no place, or for one that the pipeline does not have.
    """
    result = list(rows)
    last: dict[str, str] = {}
    for new in own:
        anchor = new.after or new.before
        if anchor is None:
            hint = "give it after= or before=, or name it in a list of passes"
            raise HloError(f"pass {new.name} of {new.origin} asks for no place in pipeline {pipeline}", hint=hint)
        behind = new.after is not None
        row = (new.name, f"{'after' if behind else 'before'} {anchor}, as {new.origin} asks")
        if not _insert(result, row, last.get(anchor, anchor) if behind else anchor, behind):
            what = f"pass {new.name} of {new.origin} wants to run {'after' if behind else 'before'} {anchor}"
            raise HloError(f"{what}, which pipeline {pipeline} does not have")
        if behind:
            last[anchor] = new.name
    return result


def _insert(rows: list[Row], row: tuple[str, str], anchor: str, behind: bool) -> bool:
    """Put a row next to the first one of a name, in a fixed point or outside; whether there is one."""
    for number, old in enumerate(rows):
        if isinstance(old, FixedPoint):
            inner: list[Row] = list(old.rows)
            if _insert(inner, row, anchor, behind):
                rows[number] = FixedPoint(tuple(inner), old.reason, old.limit)
                return True
        elif old[0] == anchor:
            rows.insert(number + behind, row)
            return True
    return False
