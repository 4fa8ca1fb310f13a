"""Frozen records and named tuples: what `dataclass(frozen=True)` and `typing.NamedTuple` make, at a tenth the price.

`dataclasses` compiles six methods of each class whenever the program starts, a millisecond a class; `typing` compiles
the type of each field. Here the methods are shared, and the one that makes an object, which must be fast, is compiled
when a class turns out to have more than a few objects.
"""

from __future__ import annotations

from _collections import _tuplegetter
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, dataclass_transform

_Class = TypeVar("_Class", bound=type)
_Record = TypeVar("_Record")

_FEW = 6
"""Objects that a class makes slowly, before it is worth compiling what makes them fast."""


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


def of_fields(cls: type[_Record], fields: dict[str, Any]) -> _Record:
    """A record of these fields by name, all others at their defaults. Nothing checks that the class has them."""
    made = object.__new__(cls)
    made.__dict__.update(fields)
    return made


def _methods(cls: type) -> dict[str, Callable]:
    names = cls.__match_args__
    values: Callable[[Any], Any] = attrgetter(*names) if names else lambda self: ()

    made = 0

    def first_init(self: Any, *args: object, **kwargs: object) -> None:
        nonlocal made
        made += 1
        if made > _FEW or kwargs or len(args) != len(names):
            cls.__init__ = _initializer(cls)
            cls.__init__(self, *args, **kwargs)
            return
        for name, value in zip(names, args):
            object.__setattr__(self, name, value)

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
    body = [f"assign(self, {name!r}, {name})" for name in names] or ["pass"]
    return _compiled("__init__", "self", names, defaults, body, assign=object.__setattr__)


def _compiled(
    method: str, first: str, names: tuple[str, ...], defaults: dict[str, Any], body: list[str], **known: object
) -> Callable:
    """A method of the fields `names`; its lines know `known`."""
    parameters = [first, *(f"{name}=defaults[{name!r}]" if name in defaults else name for name in names)]
    space: dict[str, Any] = {"defaults": defaults, **known}
    exec(f"def {method}({', '.join(parameters)}):\n    " + "\n    ".join(body), space)
    return space[method]


class remembered:
    """Decorator: a method without arguments as an attribute, which a record works out when it is asked for first."""

    def __init__(self, method: Callable[[Any], Any]):
        self._method = method
        self.__doc__ = method.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, owner: Any, cls: type | None = None) -> Any:
        if owner is None:
            return self
        value = owner.__dict__[self._name] = self._method(owner)
        return value


class _TupleMaker(type):
    """Makes plain classes of tuples out of classes with annotations."""

    def __new__(meta, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> type:
        if not bases:
            return super().__new__(meta, name, bases, space)
        names = tuple(space.get("__annotations__", ()))
        defaults = {field: space.pop(field) for field in names if field in space}
        getters = {field: _tuplegetter(index, "") for index, field in enumerate(names)}
        own = {"__slots__": (), "_fields": names, "_field_defaults": defaults, "__match_args__": names}
        cls = type(name, (tuple,), {**_TUPLE_METHODS, **space, **own, **getters})
        if "__new__" not in space:
            cls.__new__ = staticmethod(_first_new(cls, names, defaults))
        return cls


if TYPE_CHECKING:
    from typing import NamedTuple
else:

    class NamedTuple(metaclass=_TupleMaker):
        """A class that derives from this is one of tuples with named fields, as with `typing.NamedTuple`."""


def _first_new(cls: type, names: tuple[str, ...], defaults: dict[str, Any]) -> Callable:
    made = 0

    def first_new(given: type, *args: object, **kwargs: object) -> Any:
        nonlocal made
        made += 1
        if made > _FEW or kwargs or len(args) != len(names):
            body = [f"return new(_cls, ({''.join(f'{name}, ' for name in names)}))"]
            cls.__new__ = staticmethod(_compiled("__new__", "_cls", names, defaults, body, new=tuple.__new__))
            return cls.__new__(given, *args, **kwargs)
        return tuple.__new__(given, args)

    return first_new


def _tuple_text(self: Any) -> str:
    fields = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields, self))
    return f"{type(self).__name__}({fields})"


def _values(self: Any) -> tuple:
    return tuple(self)


def _as_dict(self: Any) -> dict[str, Any]:
    """Values by field."""
    return dict(zip(self._fields, self))


def _replaced(self: Any, **changes: Any) -> Any:
    """The tuple with some fields changed."""
    return type(self)(**_as_dict(self) | changes)


_TUPLE_METHODS = {"__repr__": _tuple_text, "__getnewargs__": _values, "_asdict": _as_dict, "_replace": _replaced}
