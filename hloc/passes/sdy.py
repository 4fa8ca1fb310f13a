"""Reading the Shardy attributes that JAX leaves as text: meshes, and how values are cut along their axes."""

from __future__ import annotations

import re
from math import prod

from hloc.errors import HloError, Span
from hloc.records import record

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[@A-Za-z_][\w.]*|-?\d+|\S')


@record
class Mesh:
    """Axes (name, size) from the most major on; `devices[p]` is the device at position p, row-major."""

    axes: tuple[tuple[str, int], ...]
    devices: tuple[int, ...]

    @property
    def size(self) -> int:
        return prod(size for _, size in self.axes)


@record
class AxisPart:
    """An axis, or a part of it: index = position // stride % size."""

    stride: int
    size: int


@record
class ValueSharding:
    """The axis parts that cut each dimension, major to minor."""

    mesh: Mesh
    dims: tuple[tuple[AxisPart, ...], ...]

    def shards(self, dimension: int) -> int:
        return prod(part.size for part in self.dims[dimension])

    def shard_of(self, dimension: int, position: int) -> int:
        """Which shard of a dimension lies at a position of the mesh."""
        shard = 0
        for part in self.dims[dimension]:
            shard = shard * part.size + position // part.stride % part.size
        return shard

    def groups(self, dimension: int) -> tuple[tuple[int, ...], ...]:
        """The devices with the shards of a dimension, in order; a group for each place along other axes."""
        groups: dict[int, dict[int, int]] = {}
        for position in range(self.mesh.size):
            rest = position - sum(position // p.stride % p.size * p.stride for p in self.dims[dimension])
            groups.setdefault(rest, {})[self.shard_of(dimension, position)] = self.mesh.devices[position]
        return tuple(tuple(group[shard] for shard in sorted(group)) for group in groups.values())


class _Reader:
    """A cursor over the tokens of an attribute."""

    def __init__(self, text: str, span: Span | None):
        self.text = text
        self.span = span
        self.tokens = _TOKEN.findall(text)
        self.place = 0

    def peek(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self.place += 1
        return token

    def take(self, token: str) -> bool:
        if self.peek() == token:
            self.place += 1
            return True
        return False

    def expect(self, *tokens: str) -> None:
        for token in tokens:
            if not self.take(token):
                raise self.error(f"expected '{token}', got '{self.peek() or 'the end'}'")

    def error(self, what: str) -> HloError:
        return HloError(f"in the Shardy attribute {self.text}: {what}", self.span)

    def integer(self) -> int:
        token = self.next()
        if not token.lstrip("-").isdigit():
            raise self.error(f"expected a number, got '{token or 'the end'}'")
        return int(token)

    def axis_name(self) -> str:
        token = self.next()
        if not token.startswith('"'):
            raise self.error(f"expected an axis name, got '{token or 'the end'}'")
        return token[1:-1]


def read_meshes(text: str, span: Span | None = None) -> dict[str, Mesh]:
    """The meshes of a module's `xla.sdy.meshes`, by name: `{mesh = #sdy.mesh<["a"=2, "b"=2]>}`."""
    reader = _Reader(text, span)
    reader.expect("{")
    meshes = {}
    while not reader.take("}"):
        name = reader.next()
        reader.expect("=", "#", "sdy.mesh")
        meshes[name] = _mesh(reader)
        reader.take(",")
    return meshes


def _mesh(reader: _Reader) -> Mesh:
    """`<["a"=2, "b"=2], device_ids=[0, 2, 1, 3]>`"""
    reader.expect("<", "[")
    axes = []
    while not reader.take("]"):
        name = reader.axis_name()
        reader.expect("=")
        axes.append((name, reader.integer()))
        reader.take(",")
    devices = tuple(range(prod(size for _, size in axes)))
    if reader.take(","):
        reader.expect("device_ids", "=", "[")
        devices = ()
        while not reader.take("]"):
            devices += (reader.integer(),)
            reader.take(",")
    reader.expect(">")
    if len(devices) != prod(size for _, size in axes):
        raise reader.error("a mesh lists as many device ids as it has places")
    return Mesh(tuple(axes), devices)


def read_manual_axes(text: str, span: Span | None = None) -> set[str]:
    """`#sdy<manual_axes{"a", "b"}>`"""
    reader = _Reader(text, span)
    reader.expect("#", "sdy", "<", "manual_axes", "{")
    names = set()
    while not reader.take("}"):
        names.add(reader.axis_name())
        reader.take(",")
    return names


def read_shardings(
    text: str, meshes: dict[str, Mesh], manual: set[str], span: Span | None = None
) -> list[ValueSharding]:
    """A sharding a value of `#sdy.sharding_per_value<[<@mesh, [{"a"}, {}]>, ...]>`, by manual axes alone."""
    reader = _Reader(text, span)
    reader.expect("#", "sdy.sharding_per_value", "<", "[")
    values = []
    while not reader.take("]"):
        values.append(_value(reader, meshes, manual))
        reader.take(",")
    return values


def _value(reader: _Reader, meshes: dict[str, Mesh], manual: set[str]) -> ValueSharding:
    reader.expect("<")
    if reader.take("mesh"):
        mesh = _mesh(reader)
    else:
        name = reader.next().removeprefix("@")
        if name not in meshes:
            raise reader.error(f"the module has no mesh '{name}'")
        mesh = meshes[name]
    reader.expect(",", "[")
    dims = []
    while not reader.take("]"):
        dims.append(_dimension(reader, mesh, manual))
        reader.take(",")
    while reader.take(","):
        if reader.next() != "replicated":
            raise reader.error("only replicated axes may follow the dimensions")
        reader.expect("=")
        _dimension(reader, mesh, manual)
    reader.expect(">")
    return ValueSharding(mesh, tuple(dims))


def _dimension(reader: _Reader, mesh: Mesh, manual: set[str]) -> tuple[AxisPart, ...]:
    """`{"a", "b":(1)2, ?}p1`"""
    parts = []
    reader.expect("{")
    while not reader.take("}"):
        if not reader.take("?"):
            name = reader.axis_name()
            part = _axis(reader, mesh, name)
            if name in manual:
                parts.append(part)
        reader.take(",")
    if re.fullmatch(r"p\d+", reader.peek()):
        reader.next()
    return tuple(parts)


def _axis(reader: _Reader, mesh: Mesh, name: str) -> AxisPart:
    names = [axis for axis, _ in mesh.axes]
    if name not in names:
        raise reader.error(f"the mesh has no axis '{name}'")
    place = names.index(name)
    stride = prod(size for _, size in mesh.axes[place + 1 :])
    size = mesh.axes[place][1]
    if not reader.take(":"):
        return AxisPart(stride, size)
    reader.expect("(")
    before = reader.integer()
    reader.expect(")")
    part = reader.integer()
    if before < 1 or part < 1 or size % (before * part):
        raise reader.error(f"axis '{name}' of size {size} has no such part")
    return AxisPart(stride * (size // (before * part)), part)
