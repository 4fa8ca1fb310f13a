"""Orders of devices: counting up, reshaped and transposed (`IotaTile`), or listed one by one.

XLA keeps one canonical form of a counted order, and every text it prints shows that form; the functions
here make it, and keep it under the reshapes and transposes that shardings need.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from hloc.ir.attributes import IotaTile
from hloc.records import NamedTuple


class ListedTile(NamedTuple):
    """`[dims]id,id,...`: device ids written out, row-major over `dims`."""

    dims: tuple[int, ...]
    ids: tuple[int, ...]

    def devices(self) -> tuple[int, ...]:
        """The device ids, flattened row-major over `dims`."""
        return self.ids


Tile = IotaTile | ListedTile


def iota_tile(
    dims: Sequence[int], reshape_dims: Sequence[int] | None = None, permutation: Sequence[int] | None = None
) -> IotaTile:
    """The canonical form of `[dims]<=[reshape_dims]T(permutation)`, which `==` and the printer rely on.

    Dimensions of size 1 go, and neighbours that stay neighbours are joined, so an order that counts up is
    always `[n]T(0)`. ValueError where the permutation is none, or the two do not hold equally many devices.
    """
    sizes = list(reshape_dims) if reshape_dims is not None else [prod(dims)]
    order = list(permutation) if permutation is not None else list(range(len(sizes)))
    if sorted(order) != list(range(len(sizes))):
        raise ValueError(f"({_join(order)}) is not a permutation of {len(sizes)} dimensions")
    if prod(sizes) != prod(dims):
        raise ValueError(f"[{_join(dims)}] holds {prod(dims)} devices, [{_join(sizes)}] {prod(sizes)}")
    sizes, order = _canonical(sizes, order)
    return IotaTile(tuple(dims), tuple(sizes), tuple(order))


def _join(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _canonical(sizes: list[int], order: list[int]) -> tuple[list[int], list[int]]:
    """Drop sizes of 1 and join runs of consecutive dimensions, until nothing changes."""
    while True:
        kept = [dim for dim, size in enumerate(sizes) if size != 1]
        order = [kept.index(dim) for dim in order if sizes[dim] != 1]
        sizes = [sizes[dim] for dim in kept]
        joined = False
        start = 0
        for place in range(1, len(order)):
            if order[start] + (place - start) == order[place]:
                sizes[order[start]] *= sizes[order[place]]
                sizes[order[place]] = 1
                joined = True
            else:
                start = place
        if not joined:
            return (sizes, order) if sizes else ([1], [0])


def reshape_tile(tile: Tile, dims: Sequence[int]) -> Tile:
    """The same order of devices over other dimensions."""
    if isinstance(tile, IotaTile):
        return IotaTile(tuple(dims), tile.reshape_dims, tile.permutation)
    return ListedTile(tuple(dims), tile.ids)


def transpose_tile(tile: Tile, permutation: Sequence[int]) -> Tile:
    """Dimension i of the result is dimension permutation[i]. Counted orders stay so where sizes divide."""
    dims = tuple(tile.dims[dim] for dim in permutation)
    cut = [dim for dim in permutation if tile.dims[dim] != 1]
    if cut == sorted(cut):
        return reshape_tile(tile, dims)
    if isinstance(tile, IotaTile):
        pieces = _common_pieces(tile)
        if pieces is not None:
            sizes, groups = pieces
            return iota_tile(dims, sizes, [piece for dim in permutation for piece in groups[dim]])
    ids = np.array(tile.devices(), np.int64).reshape(tile.dims).transpose(permutation)
    return ListedTile(dims, tuple(ids.reshape(-1).tolist()))


def _common_pieces(tile: IotaTile) -> tuple[list[int], list[list[int]]] | None:
    """Cut `reshape_dims` until every dimension of the tile is a run of whole pieces.

    Returns (sizes of the cut reshape dimensions, for each tile dimension the pieces it consists of), or None
    where sizes do not divide each other.
    """
    cuts: list[list[int]] = [[] for _ in tile.reshape_dims]
    wanted: list[list[tuple[int, int]]] = []
    source = iter(tile.permutation)
    rest, dim = 1, -1
    for size in tile.dims:
        mine = []
        while size > 1:
            if rest == 1:
                dim = next(source)
                rest = tile.reshape_dims[dim]
            piece = min(size, rest)
            if size % piece or rest % piece:
                return None
            mine.append((dim, len(cuts[dim])))
            cuts[dim].append(piece)
            size, rest = size // piece, rest // piece
        wanted.append(mine)
    first = np.cumsum([0] + [len(pieces) for pieces in cuts]).tolist()
    return [size for pieces in cuts for size in pieces], [[first[d] + n for d, n in mine] for mine in wanted]


def sort_minor_groups(tile: Tile) -> Tile:
    """The order with the devices of each row of the last dimension ascending (they all hold the same)."""
    group = tile.dims[-1]
    if isinstance(tile, IotaTile):
        if tile.reshape_dims[tile.permutation[-1]] == group:
            return tile
        ordered = _minor_dims_ascending(tile, group)
        if ordered is not None:
            return ordered
    ids = np.sort(np.array(tile.devices(), np.int64).reshape(-1, group), axis=1)
    return ListedTile(tile.dims, tuple(ids.reshape(-1).tolist()))


def _minor_dims_ascending(tile: IotaTile, group: int) -> IotaTile | None:
    """As a counted order, if whole minor dimensions (the last of them perhaps cut) make up a group."""
    sizes, order = list(tile.reshape_dims), list(tile.permutation)
    taken = 0
    for dim in reversed(tile.permutation):
        taken += 1
        if sizes[dim] > group:
            if sizes[dim] % group:
                return None
            order = [d + (d > dim) for d in order]
            order.insert(order.index(dim) + 1, dim + 1)
            sizes[dim : dim + 1] = [sizes[dim] // group, group]
            break
        if group % sizes[dim]:
            return None
        group //= sizes[dim]
    order[-taken:] = sorted(order[-taken:])
    return iota_tile(tile.dims, sizes, order)
