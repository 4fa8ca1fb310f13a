"""Frozen records: what `@dataclass(frozen=True)` makes, for a tenth of its price.

`dataclasses` compiles six methods of each class whenever the program starts, a millisecond a class. Here the methods
are shared, and `__init__`, the one that must be fast, is compiled when the first object of its class is made.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NoReturn, TypeVar, dataclass_transform

_Class = TypeVar("_Class", bound=type)
_Record = TypeVar("_Record")


@dataclass_transform(frozen_default=True)
def record(cls: _Class) -> _Class:
    """Decorator: the class's annotations are the fields of its objects, after those of the record it derives from.

    Objects are equal if they are of one class with equal fields, and hash alike then; assigning to a field raises
    AttributeError. A method that the class itself defines stays. Default values are not copied.
    """
    inherited = getattr(cls, "__match_args__", ())
    own = cls.__dict__.get("__annotations__", ())
    cls.__match_args__ = (*inherited, *(name for name in own if name not in inherited))
    own_methods = set(cls.__dict__)
    for name, method in _methods(cls).items():
        if name not in own_methods:
            setattr(cls, name, method)
    return cls


def replace(old: _Record, **changes: Any) -> _Record:
    """A record with some fields changed."""
    return type(old)(**{name: getattr(old, name) for name in old.__match_args__} | changes)


def _methods(cls: type) -> dict[str, Callable]:
    names = cls.__match_args__
    values: Callable[[Any], Any] = attrgetter(*names) if names else lambda self: ()

    def first_init(self: Any, *args: object, **kwargs: object) -> None:
        cls.__init__ = _initializer(cls)
        cls.__init__(self, *args, **kwargs)

    def equal(self: Any, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self is other or values(self) == values(other)

    def hashed(self: Any) -> int:
        return hash(values(self))

    return {
        "__init__": first_init,
        "__eq__": equal,
        "__hash__": hashed,
        "__repr__": _text,
        "__setattr__": _refuse,
        "__delattr__": _refuse,
    }


def _text(self: Any) -> str:
    fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
    return f"{type(self).__qualname__}({fields})"


def _refuse(self: Any, name: str, *value: object) -> NoReturn:
    raise AttributeError(f"{type(self).__name__} is frozen: its {name} stays as it is")


def _initializer(cls: type) -> Callable[..., None]:
    """`__init__(self, a, b=default)`, written out, so that Python itself binds the arguments."""
    names = cls.__match_args__
    defaults = {name: getattr(cls, name) for name in names if hasattr(cls, name)}
    parameters = ["self", *(f"{name}=defaults[{name!r}]" if name in defaults else name for name in names)]
    body = [f"assign(self, {name!r}, {name})" for name in names] or ["pass"]
    space: dict[str, Any] = {"assign": object.__setattr__, "defaults": defaults}
    exec(f"def __init__({', '.join(parameters)}):\n    " + "\n    ".join(body), space)
    return space["__init__"]
