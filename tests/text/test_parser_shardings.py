"""Shardings as text: rows SH and SD of the language."""

from __future__ import annotations

import pytest
from parsing import root

from hloc.errors import HloError
from hloc.ir.attributes import IotaTile, Metadata
from hloc.ir.device_order import ListedTile
from hloc.ir.sharding import (
    AxisRef,
    DimSharding,
    Domain,
    MaximalSharding,
    Mesh,
    NamedSharding,
    ShardGroup,
    TiledSharding,
    TupleSharding,
    WholeSharding,
)

AB = Mesh((("a", 2), ("b", 4)))


def sharding(text: str, shape: str = "f32[8,4]"):
    return root(f"  ROOT p = {shape} parameter(0), sharding={text}").annotations["sharding"]


@pytest.mark.parametrize("text, value", [
    ("{replicated}", WholeSharding("replicated")),
    ("{manual}", WholeSharding("manual")),
    ("{unknown}", WholeSharding("unknown")),
    ("{unreduced}", WholeSharding("unreduced")),
    ("{maximal device=3}", MaximalSharding(3)),
    ("{device=3 maximal}", MaximalSharding(3)),
    ("{devices=[2,2]0,1,3,2}", TiledSharding(ListedTile((2, 2), (0, 1, 3, 2)))),
    ("{devices=[2,2]<=[4]}", TiledSharding(IotaTile((2, 2), (4,), (0,)))),
    ("{devices=[2,4]<=[4,2]T(1,0)}", TiledSharding(IotaTile((2, 4), (4, 2), (1, 0)))),
    ("{devices=[2,1,2]<=[4] last_tile_dim_replicate}", TiledSharding(IotaTile((2, 1, 2), (4,), (0,)), ("replicated",))),
    ("{devices=[2,1,2,2]<=[8] last_tile_dims={manual, replicated}}",
     TiledSharding(IotaTile((2, 1, 2, 2), (8,), (0,)), ("manual", "replicated"))),
    ('{replicated metadata={op_name="x"}}', WholeSharding("replicated", (Metadata(op_name="x"),))),
    ('{replicated metadata={{op_name="x"}, {source_line=3}}}',
     WholeSharding("replicated", (Metadata(op_name="x"), Metadata(source_line=3)))),
    ("{replicated shard_as 1}", WholeSharding("replicated", group=ShardGroup("as", 1))),
    ("{manual shard_like 2}", WholeSharding("manual", group=ShardGroup("like", 2))),
    ("{}", TupleSharding()),
    ("{mesh['a'=2,\"b\"=4], [{'a'}, {'b', ?}]}",
     NamedSharding(AB, (DimSharding((AxisRef("a"),)), DimSharding((AxisRef("b"),), True)))),
    ("{mesh['a'=2,'b'=4], [{'b':(2)2}, {?}], replicated={'a'}, unreduced={'b':(1)2}}",
     NamedSharding(AB, (DimSharding((AxisRef("b", (2, 2)),)), DimSharding((), True)), (AxisRef("a"),),
                   (AxisRef("b", (1, 2)),))),
    ("{mesh['a'=2,'b'=4], manual}", NamedSharding(AB, manual=(AxisRef("a"), AxisRef("b")))),
    ("{mesh['a'=2,'b'=4], replicated, metadata={op_name=\"x\"}}", NamedSharding(AB, metadata=(Metadata(op_name="x"),))),
    ("{mesh['a'=2,'b'=2], device_ids=(0,2,1,3), [{'a'}, {'b'}], manual={}}",
     NamedSharding(Mesh((("a", 2), ("b", 2)), (0, 2, 1, 3)), (DimSharding((AxisRef("a"),)), DimSharding((AxisRef("b"),))))),
    ("{mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)), replicated}",
     NamedSharding(Mesh((("a", 2), ("b", 2)), IotaTile((2, 2), (2, 2), (1, 0))))),
    ("{maximal_mesh[device_id=3]}", NamedSharding(Mesh(maximal_device=3))),
])  # fmt: skip
def test_shardings(text: str, value: object) -> None:
    assert sharding(text) == value


def test_shardings_of_tuples() -> None:
    shape = "(f32[4], (s32[], f32[2]))"
    whole = WholeSharding("replicated")
    assert sharding("{{replicated},{manual},{maximal device=1}}", shape) == TupleSharding(
        (whole, WholeSharding("manual"), MaximalSharding(1))
    )
    assert sharding("{replicated}", shape) == TupleSharding((whole, whole, whole))


def test_domains() -> None:
    for text in ('{kind="sharding", entry={maximal device=0}, exit={replicated}}',
                 "{exit={replicated} kind='sharding' entry={maximal device=0}}"):  # fmt: skip
        domain = root(f"  p = f32[4] parameter(0)\n  ROOT r = f32[4] domain(p), domain={text}").get("domain")
        assert domain == Domain("sharding", MaximalSharding(0), WholeSharding("replicated"))


@pytest.mark.parametrize("text, message", [
    ("{replicatd}", "got 'replicatd'"),
    ("{maximal}", "a maximal sharding has one device"),
    ("{replicated devices=[2]<=[2]}", "a replicated sharding has no devices"),
    ("{last_tile_dim_replicate}", "expected a kind of sharding or its devices"),
    ("{devices=[2,2]0,1,2}", r"\[2,2\] takes 4 device ids, not 3"),
    ("{devices=[2,2]<=[2,2]}", r"expected the order T\(...\)"),
    ("{devices=[2,2]<=[4]T(0)}", "a single dimension has no order"),
    ("{devices=[2,2]<=[2,2]T(0,0)}", r"\(0,0\) is not a permutation"),
    ("{devices=[2,0]<=[4]}", "the dimensions of a sharding are at least 1"),
    ("{devices=[99999,99999]<=[99999,99999]T(1,0)}", "a sharding over more than"),
    ("{{{replicated}}}", "without nesting"),
    ("{mesh['a'=2], [{'zz'}, {}]}", r"the mesh has no axis 'zz' \(its axes: 'a'\)"),
    ("{mesh['a'=2], [{?, 'a'}, {}]}", "expected '\\?' behind all axes"),
    ("{mesh['a'=2,'a'=2], [{}, {}]}", "the mesh has two axes 'a'"),
    ("{mesh['a'=0], [{}, {}]}", "an axis of a mesh has one device at least"),
    ("{mesh['a'=2], [{}, {}], manual={'a'}, manual={}}", "a sharding has manual twice"),
    ("{mesh['a'=2,'b'=2], device_ids=([2,2]T(0,2)), replicated}", "expected a permutation of 2 dimensions"),
])  # fmt: skip
def test_wrong_shardings(text: str, message: str) -> None:
    with pytest.raises(HloError, match=message):
        sharding(text)
