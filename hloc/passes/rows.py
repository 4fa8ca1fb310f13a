"""What the tables of passes and pipelines are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cached_property
from importlib import import_module

from hloc.errors import HloError
from hloc.ir.module import Module
from hloc.lazy import lazy
from hloc.options import Options
from hloc.records import record

ast = lazy("ast")


class having:
    """Whether a module has an instruction of one of these ops."""

    def __init__(self, *opcodes: str):
        self.opcodes = frozenset(opcodes)

    def __call__(self, module: Module) -> bool:
        return any(instruction.opcode in self.opcodes for instruction in module.instructions())


def _any(module: Module) -> bool:
    return True


@record
class Pass:
    """A pass by name, loaded when it first runs.

    `home` is where it stands below `hloc.passes`, if not in the module of its name: a module with `run`, or
    `module:Class` for a dataclass with `run`, its fields the pass's options. `options` tells which field
    follows which field of `Options`. A module that the pass does not concern has nothing that it could change.
    `origin` is where a pass that is not hloc's own comes from.
    """

    name: str
    home: str = ""
    options: tuple[tuple[str, str], ...] = ()
    concerns: Callable[[Module], bool] = _any
    origin: str | None = None

    @cached_property
    def kind(self) -> object:
        """The module or the class."""
        module, _, inner = (self.home or self.name).partition(":")
        found = import_module(f"hloc.passes.{module}")
        return getattr(found, inner) if inner else found

    @property
    def doc(self) -> str:
        """What it does, in one line."""
        return (self.kind.__doc__ or "").strip().partition("\n")[0]

    @property
    def full_doc(self) -> str:
        """What it does, requires, ensures and leaves."""
        return (self.kind if isinstance(self.kind, type) else self.kind.run).__doc__ or ""

    def make(self, options: Options, given: dict[str, object]) -> object:
        """The object to run. `given` are options of this pass alone, from the text that asks for it."""
        if not isinstance(self.kind, type):
            return self.kind
        values = {name: getattr(options, source) for name, source in self.options}
        return self.kind(**{**values, **given})

    @property
    def defaults(self) -> dict[str, object]:
        """The pass's own options, with what they are if nobody says; `...` where somebody has to."""
        if not is_dataclass(self.kind):
            return {}
        return {field.name: _default(field) for field in fields(self.kind) if field.init}

    def options_in(self, text: str) -> dict[str, object]:
        """The values in `x=1,y=2`, by the names of the pass's options; HloError if one is unknown, or no number."""
        given: dict[str, object] = {}
        defaults = self.defaults
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            if name not in defaults:
                known = ", ".join(defaults) or "none"
                raise HloError(f"pass {self.name} has no option {name}: it has {known}")
            try:
                given[name] = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                raise HloError(f"option {name} of pass {self.name}: {value!r} is not a number") from None
        return given


def _default(field: Field) -> object:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return ... if field.default is MISSING else field.default


@record
class FixedPoint:
    """Rows to repeat until none of them changes anything."""

    rows: tuple[tuple[str, str], ...]
    reason: str
    limit: int = 8


Row = tuple[str, str] | FixedPoint
"""A pass's name and the reason for its place, or a fixed point."""
