"""Frozen records: what they share with dataclasses, and what is their own."""

from __future__ import annotations

import copy
import pickle

import pytest

from hloc.records import record, replace


@record
class Point:
    """A record with a default."""

    x: int
    y: int = 2

    @property
    def sum(self) -> int:
        return self.x + self.y


@record
class Named(Point):
    """A record that derives from another one."""

    name: str = "p"


@record
class Own:
    """A record with methods of its own."""

    x: int

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return "own"


@record
class Empty:
    """A record without fields."""


def test_fields_by_place_name_and_default() -> None:
    assert (Point(1).x, Point(1).y, Point(y=3, x=1).sum) == (1, 2, 4)
    assert (Named(1, 3, "q").x, Named(1).name) == (1, "p")
    assert repr(Named(1)) == "Named(x=1, y=2, name='p')"


@pytest.mark.parametrize("arguments", [((), {}), ((1, 2, 3), {}), ((1,), {"z": 1})])
def test_wrong_arguments_are_refused(arguments: tuple[tuple, dict]) -> None:
    with pytest.raises(TypeError, match="__init__"):
        Point(*arguments[0], **arguments[1])


def test_equality_is_of_one_class() -> None:
    assert Point(1) == Point(1, 2) and hash(Point(1)) == hash(Point(1, 2))
    assert Point(1) != Point(2)
    assert Point(1) != Named(1) and Point(1) != (1, 2)
    assert Empty() == Empty() and len({Point(1), Point(1), Named(1)}) == 2


def test_own_methods_stay() -> None:
    own = Own(1)
    assert own == own and own != Own(1) and repr(own) == "own" and hash(own) == object.__hash__(own)


def test_fields_cannot_be_changed() -> None:
    point = Point(1)
    with pytest.raises(AttributeError, match="frozen"):
        point.x = 2
    with pytest.raises(AttributeError, match="frozen"):
        del point.x
    assert replace(point, x=5) == Point(5, 2) and point.x == 1


def test_patterns_and_copies() -> None:
    match Named(1, 2, "q"):
        case Named(x, _, name):
            assert (x, name) == (1, "q")
    assert copy.deepcopy(Named(1)) == pickle.loads(pickle.dumps(Named(1))) == Named(1)
