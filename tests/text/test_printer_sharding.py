"""Canonical shardings and device orders, and what is refused. XLA's prints: roundtrip/sharding.hlo."""

from __future__ import annotations

import numpy as np
import pytest

from hloc.ir.device_order import ListedTile, iota_tile, sort_minor_groups, transpose_tile
from hloc.ir.dtypes import F32
from hloc.ir.shapes import TupleShape, array
from hloc.ir.sharding import (
    AxisRef,
    DimSharding,
    Mesh,
    NamedSharding,
    TiledSharding,
    TupleSharding,
    WholeSharding,
    mesh_of,
    named_sharding,
    tiled_sharding,
    whole_named,
)
from hloc.text.print_sharding import print_sharding


def devices(tile: object) -> np.ndarray:
    return np.array(tile.devices()).reshape(tile.dims)


@pytest.mark.parametrize("seed", range(40))
def test_counted_orders_stay_the_same_devices(seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = random.choice([1, 2, 2, 3, 4, 6], random.integers(1, 5)).tolist()
    order = random.permutation(len(sizes)).tolist()
    written = np.arange(np.prod(sizes)).reshape(sizes).transpose(order)
    tile = iota_tile(written.shape, sizes, order)
    assert (devices(tile) == written).all()
    assert iota_tile(tile.dims, tile.reshape_dims, tile.permutation) == tile
    turn = random.permutation(written.ndim).tolist()
    assert (devices(transpose_tile(tile, turn)) == written.transpose(turn)).all()
    groups = sort_minor_groups(tile)
    assert (devices(groups) == np.sort(written, axis=-1)).all()


def test_one_order_has_one_form() -> None:
    assert iota_tile([2, 4], [2, 4], [0, 1]) == iota_tile([2, 4])
    assert iota_tile([4, 2], [2, 2, 2], [2, 0, 1]) == iota_tile([4, 2], [4, 2], [1, 0])
    assert iota_tile([8, 1], [1, 8], [1, 0]).reshape_dims == (8,)


def test_replicated_subgroups_are_joined_and_sorted() -> None:
    sharding = tiled_sharding([2, 1, 2, 2], subgroups=["replicated", "manual"])
    assert print_sharding(sharding) == (
        "{devices=[2,1,2,2]<=[2,2,2]T(0,2,1) last_tile_dims={manual, replicated}}"
    )
    listed = tiled_sharding([2, 1, 2], ids=[3, 2, 1, 0], subgroups=["replicated"])
    assert listed == TiledSharding(ListedTile((2, 1, 2), (2, 3, 0, 1)), ("replicated",))


def test_nothing_cut_is_a_whole_sharding() -> None:
    assert tiled_sharding([1, 1, 4], subgroups=["replicated"]) == WholeSharding("replicated")
    assert tiled_sharding([1, 1, 2, 2], subgroups=["manual", "manual"]) == WholeSharding("manual")


def test_one_sharding_of_a_tuple_is_one_for_each_leaf() -> None:
    shape = TupleShape((array(F32, 2), TupleShape((array(F32, 3),))))
    whole = WholeSharding("manual")
    assert whole.for_shape(shape) == TupleSharding((whole, whole))
    assert whole.for_shape(array(F32, 2)) is whole


def test_all_axes_without_dimensions_is_a_word() -> None:
    mesh = mesh_of([("a", 2), ("b", 4)])
    all_axes = (AxisRef("a"), AxisRef("b"))
    assert named_sharding(mesh, manual=all_axes) == whole_named(mesh, "manual")
    assert print_sharding(NamedSharding(mesh, manual=all_axes)) == "{mesh['a'=2,'b'=4], manual}"
    assert print_sharding(NamedSharding(Mesh(maximal_device=3))) == "{maximal_mesh[device_id=3]}"


MESH = mesh_of([("a", 2), ("b", 8)])


@pytest.mark.parametrize(
    ("dims", "words", "message"),
    [
        ([("c", None)], {}, "the mesh has no axis 'c' (its axes: 'a', 'b')"),
        ([("a", None), ("a", None)], {}, "axis 'a' is used twice"),
        ([("b", (1, 4)), ("b", (2, 2))], {}, "axis 'b' is used twice"),
        ([("b", (1, 2)), ("b", (2, 2))], {}, "neighbouring parts of axis 'b' are to be written as one"),
        ([("b", (1, 8))], {}, "axis 'b' of size 8 has no part :(1)8"),
        ([("b", (3, 2))], {}, "axis 'b' of size 8 has no part :(3)2"),
        ([], {"manual": [("b", None), ("a", None)]}, "manual axes are to be in the order of the mesh"),
    ],
)
def test_axes_that_make_no_sharding(dims: list, words: dict, message: str) -> None:
    axes = [DimSharding(tuple(AxisRef(*axis) for axis in dims))]
    given = {word: [AxisRef(*axis) for axis in listed] for word, listed in words.items()}
    with pytest.raises(ValueError) as caught:
        named_sharding(MESH, axes, **given)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mesh_of([("a", 2), ("a", 2)]), "the mesh has two axes 'a'"),
        (lambda: mesh_of([("a", 2)], [1, 2]), "device_ids must be a permutation of 0 to 1"),
        (lambda: mesh_of([("a", 2)], [0, 1]), "device_ids that count up are left out"),
        (lambda: iota_tile([2, 2], [4], [1]), "(1) is not a permutation of 1 dimensions"),
        (lambda: iota_tile([2, 2], [8]), "[2,2] holds 4 devices, [8] 8"),
        (lambda: tiled_sharding([2, 2], ids=[0, 1, 2]), "[2,2] takes 4 device ids, not 3"),
        (lambda: tiled_sharding([1], ids=[3]), "a tiled sharding has more than one device"),
        (lambda: tiled_sharding([2], subgroups=["manual", "manual"]), "2 last tile dims of 1 dimensions"),
    ],
)
def test_orders_that_are_none(make: object, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == message
