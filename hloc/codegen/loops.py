"""Index arithmetic over layouts, and which dimensions one loop may run through together.

A loop over several dimensions counts once through all of them: `Flat`. The index along one of its
dimensions is a `Part`, a value whose text (a division and a remainder) is made only when somebody asks for
it. Addresses put neighbouring parts together again, so that arrays which are dense in the same order need
no division at all. A part that had to be made leaves a note in its Flat; the kernel is then emitted again
with a loop of its own for that dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod

from hloc.codegen.llvm import Builder, Value, integer
from hloc.ir.dtypes import DType

Index = tuple[Value, ...]
"""One i64 value a logical dimension."""


def index_constant(number: int) -> Value:
    """An i64 known now."""
    return integer("i64", number)


def clamped(b: Builder, value: Value, dtype: DType, limit: int) -> Value:
    """A start index of any integer type as an i64 in 0 .. limit: bounded in its own type, which takes fewer lanes."""
    if limit == 0:
        return index_constant(0)
    kind = "u" if dtype.is_unsigned else "s"
    if not dtype.is_unsigned:
        value = b.intrinsic("llvm.smax", value.type, [value, integer(value.type, 0)])
    if limit < 1 << (dtype.bits - dtype.is_signed):
        value = b.intrinsic(f"llvm.{kind}min", value.type, [value, integer(value.type, limit)])
    return b.zext(value, "i64") if value.type != "i64" else value


class Flat:
    """Counts 0 .. prod(sizes) - 1 through dimensions of these sizes, the last one fastest.

    `splits` receives the positions before which a loop of its own has to start, so that no part of `value` is
    computed.
    """

    __slots__ = ("builder", "value", "sizes", "splits")

    def __init__(self, builder: Builder, value: Value, sizes: Sequence[int]):
        self.builder = builder
        self.value = value
        self.sizes = tuple(sizes)
        self.splits: set[int] = set()

    def parts(self) -> list[Value]:
        """The index along each dimension."""
        if len(self.sizes) == 1:
            return [self.value]
        return [Part(self, position, position + 1) for position in range(len(self.sizes))]

    def extract(self, first: int, end: int) -> Value:
        """The combined index along dimensions first .. end - 1, computed at the builder's place."""
        self.splits.update(position for position in (first, end) if 0 < position < len(self.sizes))
        value = self.builder.udiv(self.value, index_constant(prod(self.sizes[end:])))
        if first == 0:
            return value
        return self.builder.urem(value, index_constant(prod(self.sizes[first:end])))


class Part(Value):
    """The combined index along dimensions `first` .. `end` - 1 of a Flat."""

    __slots__ = ("flat", "first", "end")

    def __init__(self, flat: Flat, first: int, end: int):
        self.type = "i64"
        self.flat = flat
        self.first = first
        self.end = end

    @property
    def text(self) -> str:  # type: ignore[override]
        return self.settled().text

    def settled(self) -> Value:
        return self.flat.extract(self.first, self.end)

    @property
    def size(self) -> int:
        return prod(self.flat.sizes[self.first : self.end])


class Merged(Value):
    """The combined index along dimensions of `sizes`, none of them 1, whose indices are the `parts`."""

    __slots__ = ("value", "parts", "sizes")

    def __init__(self, builder: Builder, parts: Sequence[Value], sizes: Sequence[int]):
        self.type = "i64"
        self.value = linear(builder, tuple(parts), sizes, row_major_strides(sizes))
        self.parts = list(parts)
        self.sizes = list(sizes)

    @property
    def text(self) -> str:  # type: ignore[override]
        return self.value.text

    def settled(self) -> Value:
        return self.value.settled()


def _whole(value: Value) -> Value:
    """A part that is all of its Flat is the Flat's own value."""
    if isinstance(value, Merged):
        value = value.value
    while isinstance(value, Part) and value.first == 0 and value.end == len(value.flat.sizes):
        value = value.flat.value
    return value


def index_key(index: Index) -> str:
    """A text that tells indices apart and asks no part for its text."""
    keys = []
    for value in index:
        value = _whole(value)
        if isinstance(value, Part):
            keys.append(f"{index_key((value.flat.value,))}/{value.flat.sizes}:{value.first}:{value.end}")
        else:
            keys.append(value.text)
    return ",".join(keys)


def _same(a: Flat, b: Flat) -> bool:
    return a is b or (a.sizes == b.sizes and index_key((a.value,)) == index_key((b.value,)))


def _joined(major: tuple[Value, int], minor: tuple[Value, int]) -> tuple[Value, int] | None:
    """Two terms of a sum (index, stride) as one, if they are neighbouring parts in dense order."""
    (high, high_stride), (low, low_stride) = major, minor
    if not (isinstance(high, Part) and isinstance(low, Part)):
        return None
    if high.end != low.first or high_stride != low_stride * low.size:
        return None
    if not _same(high.flat, low.flat):
        return None
    return _whole(Part(high.flat, high.first, low.end)), low_stride


def linear(builder: Builder, index: Index, dims: Sequence[int], strides: Sequence[int]) -> Value:
    """The sum of index times stride; a Part again where that is all it comes to."""
    terms: list[tuple[Value, int]] = []
    for dimension in sorted(range(len(dims)), key=lambda d: -strides[d]):
        if dims[dimension] == 1:
            continue
        term = (_whole(index[dimension]), strides[dimension])
        while terms and (joined := _joined(terms[-1], term)) is not None:
            terms.pop()
            term = joined
        terms.append(term)
    if len(terms) == 1 and terms[0][1] == 1:
        return terms[0][0]
    total = index_constant(0)
    for value, stride in terms:
        total = builder.add(total, builder.mul(value, index_constant(stride)))
    return total


def row_major_strides(dims: Sequence[int]) -> tuple[int, ...]:
    """Elements from one index to the next of a dense array, the last dimension fastest."""
    strides, step = [0] * len(dims), 1
    for dimension in reversed(range(len(dims))):
        strides[dimension] = step
        step *= dims[dimension]
    return tuple(strides)


def delinearize(builder: Builder, value: Value, dims: Sequence[int]) -> list[Value]:
    """The index whose row-major position among `dims` is `value`; divisions only where they are needed."""
    wide = [dimension for dimension, size in enumerate(dims) if size != 1]
    index = [index_constant(0)] * len(dims)
    if isinstance(value, Merged) and value.sizes == [dims[d] for d in wide]:
        values = value.parts
    elif isinstance(value, Part) and (parts := _aligned_parts(value, [dims[d] for d in wide])) is not None:
        values = parts
    elif wide:
        values = Flat(builder, value, [dims[d] for d in wide]).parts()
    for dimension, part in zip(wide, values if wide else (), strict=True):
        index[dimension] = part
    return index


def _aligned_parts(value: Part, sizes: list[int]) -> list[Value] | None:
    """Parts of the same Flat for the given sizes, where each is a run of the Flat's dimensions."""
    parts: list[Value] = []
    position = value.first
    for size in sizes:
        end, run = position, 1
        while end < value.end and run < size:
            run *= value.flat.sizes[end]
            end += 1
        if run != size:
            return None
        parts.append(Part(value.flat, position, end))
        position = end
    return parts if position == value.end else None


def reshape_runs(from_dims: Sequence[int], to_dims: Sequence[int]) -> list[tuple[range, range]]:
    """Shortest runs of dimensions, pair by pair, that hold equally many elements; sizes must not be 0."""
    runs: list[tuple[range, range]] = []
    f = t = 0
    while f < len(from_dims) or t < len(to_dims):
        f0, t0 = f, t
        f_count = t_count = 1
        while f == f0 or t == t0 or f_count != t_count:
            if (f_count <= t_count and f < len(from_dims)) or t == len(to_dims):
                if f == len(from_dims):
                    break
                f_count *= from_dims[f]
                f += 1
            else:
                t_count *= to_dims[t]
                t += 1
        runs.append((range(f0, f), range(t0, t)))
    return runs


def reshape_index(builder: Builder, index: Index, to_dims: Sequence[int], from_dims: Sequence[int]) -> Index:
    """The index of the same row-major element among `from_dims`, given its index among `to_dims`."""
    if 0 in from_dims:
        return tuple(index_constant(0) for _ in from_dims)
    result: list[Value] = [index_constant(0)] * len(from_dims)
    for from_run, to_run in reshape_runs(from_dims, to_dims):
        sizes = [to_dims[d] for d in to_run]
        wide = [d for d in to_run if to_dims[d] != 1]
        if len(wide) == 1:
            value = index[wide[0]]
        else:
            value = linear(builder, tuple(index[d] for d in to_run), sizes, row_major_strides(sizes))
        parts = delinearize(builder, value, [from_dims[d] for d in from_run])
        for dimension, part in zip(from_run, parts, strict=True):
            result[dimension] = part
    return tuple(result)


def merged_index(builder: Builder, index: Index, from_dims: Sequence[int], to_dims: Sequence[int]) -> Index:
    """An index among `from_dims`, runs of which are `to_dims`, among these; `reshape_index` gives it back."""
    result = [index_constant(0)] * len(to_dims)
    for from_run, to_run in reshape_runs(from_dims, to_dims):
        wide = [d for d in from_run if from_dims[d] != 1]
        for dimension in (d for d in to_run if to_dims[d] != 1):
            parts, sizes = [index[d] for d in wide], [from_dims[d] for d in wide]
            result[dimension] = Merged(builder, parts, sizes) if len(wide) > 1 else parts[0]
    return tuple(result)


def loop_groups(sizes: Sequence[int], starts: set[int]) -> list[list[int]]:
    """Positions of the dimensions wider than 1, in runs that one loop takes; a run ends before each start."""
    groups: list[list[int]] = []
    cut = True
    for position, size in enumerate(sizes):
        cut = cut or position in starts
        if size == 1:
            continue
        if cut:
            groups.append([])
        groups[-1].append(position)
        cut = False
    return groups


@contextmanager
def tile_loop(
    builder: Builder, size: int, tile: int, numbers: tuple[Value, Value] | None = None
) -> Iterator[tuple[Value, Value]]:
    """A loop over the tiles of 0 .. size - 1: (start, number of indices), the last one perhaps smaller.

    Over those of the `numbers` (first, end) alone, if these are given.
    """
    with builder.for_loop(*numbers or (0, -(-size // tile))) as number:
        start = builder.mul(number, index_constant(tile))
        left = builder.sub(index_constant(size), start)
        whole = index_constant(tile)
        small = builder.icmp_signed("<", left, whole) if size % tile else integer("i1", 0)
        yield start, builder.select(small, left, whole)
