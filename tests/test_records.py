"""Frozen records: what they share with dataclasses, and what is their own."""

from __future__ import annotations

import copy
import pickle

import pytest

from hloc.records import NamedTuple, record, remembered, replace


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


class Pair(NamedTuple):
    """A named tuple with a default."""

    x: int
    y: int = 2

    @property
    def sum(self) -> int:
        return self.x + self.y


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


def test_objects_are_alike_however_many_there_are() -> None:
    """Those that are made before and after the method that makes them is compiled."""

    @record
    class Many:
        x: int
        y: int = 2

    class Tuples(NamedTuple):
        x: int
        y: int = 2

    for cls in (Many, Tuples):
        assert {cls(1, 2) for _ in range(20)} == {cls(1)}
        assert (cls(3, y=4).x, cls(3, 4).y) == (3, 4)


def test_named_tuples_are_those_of_typing() -> None:
    pair = Pair(1)
    assert pair == (1, 2) and isinstance(pair, tuple) and pair.sum == 3
    assert repr(pair) == "Pair(x=1, y=2)"
    assert pair._replace(x=5) == Pair(5, 2) and pair._asdict() == {"x": 1, "y": 2}
    assert pickle.loads(pickle.dumps(pair)) == copy.deepcopy(pair) == pair
    assert type(pickle.loads(pickle.dumps(pair))) is Pair
    match pair:
        case Pair(1, y):
            assert y == 2
    with pytest.raises(AttributeError):
        pair.x = 5
    with pytest.raises(AttributeError):
        pair.z = 5


@pytest.mark.parametrize("arguments", [((), {}), ((1, 2, 3), {}), ((1,), {"z": 1})])
def test_wrong_fields_of_named_tuples_are_refused(arguments: tuple[tuple, dict]) -> None:
    with pytest.raises(TypeError, match="__new__"):
        Pair(*arguments[0], **arguments[1])


def test_what_is_remembered_is_worked_out_once() -> None:
    asked = []

    @record
    class Circle:
        radius: int

        @remembered
        def area(self) -> int:
            """Roughly."""
            asked.append(self.radius)
            return 3 * self.radius**2

    one, two = Circle(1), Circle(2)
    assert (one.area, two.area, one.area, two.area) == (3, 12, 3, 12)
    assert asked == [1, 2] and one == Circle(1)
    assert Circle.area.__doc__ == "Roughly."
