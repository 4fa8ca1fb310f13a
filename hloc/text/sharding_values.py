"""Callbacks of the grammar's rules for shardings and meshes: tokens to the classes of hloc.ir.sharding."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from hloc.ir.attributes import IotaTile, MeshAxes, Metadata, ReplicaGroups
from hloc.ir.sharding import (
    AxisRef,
    DimSharding,
    Domain,
    MaximalSharding,
    Mesh,
    NamedSharding,
    ShardGroup,
    Sharding,
    TupleSharding,
    WholeSharding,
    mesh_of,
    named_sharding,
    tiled_sharding,
    whole_named,
)
from hloc.text.attribute_values import Iota
from hloc.text.strings import int_of, string_of
from hloc.text.tokens import Fault, Token, fault_at

# Orders of devices may be written out one by one.
MOST_DEVICES = 2**24

# The one of these words that comes first decides, as in XLA.
_WHOLE = ("replicated", "maximal", "manual", "unknown", "unreduced")


class ShardingValues:
    """One method a rule, called with the rule's children."""

    def sharding(self, children: list[Any]) -> Sharding:
        start, *parts = children[:-1]
        return _Parts(start, parts).sharding()

    def named_sharding(self, children: list[Any]) -> NamedSharding:
        return children[1]

    def tuple_sharding(self, children: list[Any]) -> TupleSharding:
        elements = tuple(child for child in children if isinstance(child, Sharding))
        if any(isinstance(element, TupleSharding) for element in elements):
            raise fault_at(children[0], "a tuple sharding lists the shardings of the leaves, without nesting")
        return TupleSharding(elements)

    def sharding_word(self, children: list[Token]) -> tuple[str, Any]:
        return children[0].value, True

    def sharding_device(self, children: list[Token]) -> tuple[str, Any]:
        return "ids", (int_of(children[0]),)

    def sharding_devices(self, children: list[Any]) -> tuple[str, Any]:
        return "listed", (children[0], children[1])

    def sharding_iota(self, children: list[Iota]) -> tuple[str, Any]:
        return "iota", children[0]

    def sharding_metadata(self, children: list[Any]) -> tuple[str, Any]:
        value = children[0]
        return "metadata", (value.value,) if isinstance(value, Token) else value

    def metadata_list(self, children: list[Any]) -> tuple[Metadata, ...]:
        return tuple(child.value if isinstance(child, Token) else child for child in children)

    def sharding_last_dims(self, children: list[Token]) -> tuple[str, Any]:
        return "last_tile_dims", tuple(child.value for child in children)

    def subgroup(self, children: list[Token]) -> Token:
        return children[0]

    def sharding_group(self, children: list[Token]) -> tuple[str, Any]:
        word, number = children
        return "group", ShardGroup(word.value.removeprefix("shard_"), int_of(number))

    def domain(self, children: list[Any]) -> Domain:
        start, *parts, _ = [child for child in children if getattr(child, "type", "") != "COMMA"]
        fields: dict[str, Any] = {}
        for key, value in zip(parts[::2], parts[1::2]):
            if key.value not in ("kind", "entry", "exit") or key.value in fields:
                raise fault_at(key, f"expected kind=, entry= and exit= once each, got {key.value}=")
            if isinstance(value, Sharding) == (key.value == "kind"):
                raise fault_at(key, f"{key.value} of a domain is a {'string' if key.value == 'kind' else 'sharding'}")
            fields[key.value] = value
        if len(fields) < 3:
            raise fault_at(start, "a domain has kind=, entry= and exit=")
        if string_of(fields["kind"]) != "sharding":
            raise fault_at(fields["kind"], f'expected domain kind "sharding", got {fields["kind"].value}')
        return Domain("sharding", fields["entry"], fields["exit"])

    # Named shardings.

    def maximal_named(self, children: list[Any]) -> NamedSharding:
        _, device, *metadata = children
        return NamedSharding(Mesh(maximal_device=int_of(device)), metadata=_metadata_of(metadata))

    def whole_named(self, children: list[Any]) -> NamedSharding:
        (start, mesh), word, *metadata = children
        return _checked(start, whole_named, mesh, word.value, _metadata_of(metadata))

    def mesh_word(self, children: list[Token]) -> Token:
        return children[0]

    def named(self, children: list[Any]) -> NamedSharding:
        (start, mesh), *parts = children
        dims = [part for part in parts if isinstance(part, DimSharding)]
        words: dict[str, Any] = {}
        for name, value in (part for part in parts if not isinstance(part, DimSharding)):
            if name in words:
                raise fault_at(start, f"a sharding has {name} twice")
            words[name] = value
        return _checked(start, named_sharding, mesh, dims, **words)

    def mesh(self, children: list[Any]) -> tuple[Token, Mesh]:
        start, *axes = children
        device_ids = None if not axes or isinstance(axes[-1], tuple) else axes.pop().ids
        if any(size < 1 for _, size in axes):
            raise fault_at(start, "an axis of a mesh has one device at least")
        return start, _checked(start, mesh_of, axes, device_ids)

    def mesh_axis(self, children: list[Token]) -> tuple[str, int]:
        return string_of(children[0]), int_of(children[1])

    def device_ids(self, children: list[Any]) -> _DeviceIds:
        return _DeviceIds(children[1] if len(children) > 1 else ())

    def device_iota(self, children: list[Any]) -> _DeviceIds:
        start, dims, *permutation = children
        order = permutation[0] if permutation else tuple(range(len(dims)))
        if sorted(order) != list(range(len(dims))):
            raise fault_at(start, f"expected a permutation of {len(dims)} dimensions behind T")
        return _DeviceIds(IotaTile((), dims, order))

    def axes_part(self, children: list[Any]) -> tuple[str, Any]:
        return children[0].value, children[1]

    def axes(self, children: list[AxisRef]) -> tuple[AxisRef, ...]:
        return tuple(children)

    def dim_axes(self, children: list[Any]) -> DimSharding:
        is_open = bool(children) and isinstance(children[-1], Token)
        axes = children[:-1] if is_open else children
        early = next((child for child in axes if isinstance(child, Token)), None)
        if early is not None:
            raise fault_at(early, "expected '?' behind all axes of a dimension")
        return DimSharding(tuple(axes), is_open)

    def axis(self, children: list[Token]) -> AxisRef:
        name, *sub = children
        return AxisRef(string_of(name), (int_of(sub[0]), int_of(sub[1])) if sub else None)

    def mesh_groups(self, children: list[Any]) -> ReplicaGroups:
        (start, mesh), axes = children
        _checked(start, named_sharding, mesh, (DimSharding(axes),))
        return ReplicaGroups(mesh=MeshAxes(mesh.axes, tuple((a.name, a.sub) for a in axes), mesh.device_ids))


class _DeviceIds:
    def __init__(self, ids: tuple[int, ...] | IotaTile):
        self.ids = ids


class _Parts:
    """What stands between the braces of one sharding that names no mesh."""

    def __init__(self, start: Token, parts: list[tuple[str, Any]]):
        self.start = start
        self.parts: dict[str, Any] = dict(parts)

    def sharding(self) -> Sharding:
        parts = self.parts
        metadata, group = parts.get("metadata", ()), parts.get("group")
        kind = next((word for word in _WHOLE if word in parts), None)
        if kind is None:
            return self._tiled(metadata, group)
        if kind == "maximal":
            if len(parts.get("ids", ())) != 1:
                raise fault_at(self.start, "a maximal sharding has one device")
            return MaximalSharding(parts["ids"][0], metadata, group)
        if "listed" in parts or "iota" in parts or "ids" in parts:
            raise fault_at(self.start, f"a {kind} sharding has no devices")
        return WholeSharding(kind, metadata, group)

    def _tiled(self, metadata: tuple[Metadata, ...], group: ShardGroup | None) -> Sharding:
        parts = self.parts
        subgroups = parts.get("last_tile_dims", ())
        if "last_tile_dim_replicate" in parts:
            if subgroups:
                raise fault_at(self.start, "a sharding has last_tile_dims or last_tile_dim_replicate, not both")
            subgroups = ("replicated",)
        more = {"subgroups": subgroups, "metadata": metadata, "group": group}
        if "iota" in parts:
            iota = parts["iota"]
            _positive(self.start, iota.dims)
            _positive(self.start, iota.reshape_dims)
            order = {"reshape_dims": iota.reshape_dims, "permutation": iota.permutation}
            return _checked(self.start, tiled_sharding, iota.dims, **order, **more)
        if "listed" not in parts:
            raise fault_at(self.start, "expected a kind of sharding or its devices")
        dims, ids = parts["listed"]
        _positive(self.start, dims)
        return _checked(self.start, tiled_sharding, dims, ids=ids, **more)


def _positive(start: Token, dims: tuple[int, ...]) -> None:
    if any(size < 1 for size in dims):
        raise fault_at(start, "the dimensions of a sharding are at least 1")
    if prod(dims) > MOST_DEVICES:
        raise fault_at(start, f"a sharding over more than {MOST_DEVICES} devices")


def _metadata_of(parts: list[tuple[str, Any]]) -> tuple[Metadata, ...]:
    return parts[0][1] if parts else ()


def _checked(start: Token, make: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    """The result of `make`, whose ValueError is a fault of the text."""
    try:
        return make(*arguments, **more)
    except ValueError as error:
        raise Fault(str(error), start.start, start.end) from None
