"""Ops that move elements: broadcast, transpose, reshape, slice, pad, concatenate, reverse, iota, copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import MappingProxyType

from hloc.codegen import bodies, scalar
from hloc.codegen.kernel import Element, Index, KernelContext, Register, element, index_constant, kernel
from hloc.codegen.llvm import Constant, Value, const, integer
from hloc.codegen.loops import delinearize, reshape_index
from hloc.ir.attributes import PadDim
from hloc.ir.dtypes import C128, S64, DType
from hloc.ir.instruction import Instruction
from hloc.records import record

_CHAIN = 8
"""Exclusive ors of a computation that is taken to make random bits."""

_ZERO = "hloc.zero"
"""A variable that is 0; LLVM takes it for one that others may change."""


@element("broadcast")
def broadcast(k: KernelContext, instruction: Instruction, operands: list[Element], index: Index) -> Register:
    return operands[0](tuple(index[dimension] for dimension in instruction.get("dimensions")))


@element("transpose")
def transpose(k: KernelContext, instruction: Instruction, operands: list[Element], index: Index) -> Register:
    permutation = instruction.get("dimensions")
    source: list[Value] = [index[0]] * len(index) if index else []
    for result_dimension, dimension in enumerate(permutation):
        source[dimension] = index[result_dimension]
    return operands[0](tuple(source))


@element("reshape")
def reshape(k: KernelContext, instruction: Instruction, operands: list[Element], index: Index) -> Register:
    from_dims = instruction.operands[0].shape.dims
    return operands[0](reshape_index(k.b, index, instruction.shape.dims, from_dims))


@element("bitcast")
def bitcast(k: KernelContext, instruction: Instruction, operands: list[Element], index: Index) -> Register:
    """The element at the same place in memory, wherever that is in the operand's own layout."""
    to, origin = instruction.shape, instruction.operands[0].shape
    if to.dtype is not origin.dtype:
        raise k.error(f"bitcast from {origin!r} to {to!r} changes the element type", instruction)
    order, origin_order = to.minor_to_major[::-1], origin.minor_to_major[::-1]
    physical = reshape_index(
        k.b,
        tuple(index[d] for d in order),
        [to.dims[d] for d in order],
        [origin.dims[d] for d in origin_order],
    )
    source: list[Value] = list(physical)
    for position, dimension in enumerate(origin_order):
        source[dimension] = physical[position]
    return operands[0](tuple(source))


@element("bitcast-convert")
def bitcast_convert(
    k: KernelContext, instruction: Instruction, operands: list[Element], index: Index
) -> Register:
    """The same bits; between types of unequal width, the last dimension counts words of the wider one."""
    before, after = instruction.operands[0].shape.dtype, instruction.shape.dtype
    if before is after:
        return operands[0](index)
    if before.bits == after.bits:
        return scalar.from_bits(k.b, after, scalar.to_bits(k.b, before, operands[0](index)))
    if before.bits > after.bits:
        return _low_word(k, before, after, operands[0](index[:-1]), index[-1])
    count = after.bits // before.bits
    words = [operands[0]((*index, index_constant(number))) for number in range(count)]
    return _joined_words(k, before, after, words)


def _low_word(k: KernelContext, before: DType, after: DType, value: Register, number: Value) -> Register:
    """Word `number` of a value, counted from its low bits."""
    b = k.b
    if before is C128:
        part = b.select(b.icmp_signed("==", number, index_constant(0)), *value)
        return scalar.from_bits(b, after, b.bitcast(part, "i64"))
    bits = scalar.to_bits(b, before, value)
    shift = b.mul(b.trunc(number, bits.type), const(bits.type, after.bits))
    return scalar.from_bits(b, after, b.trunc(b.lshr(bits, shift), f"i{max(8, after.bits)}"))


def _joined_words(k: KernelContext, before: DType, after: DType, words: list[Register]) -> Register:
    """A value from its words, the lowest first."""
    b = k.b
    parts = [scalar.to_bits(b, before, word) for word in words]
    if after is C128:
        return b.bitcast(parts[0], "double"), b.bitcast(parts[1], "double")
    type = f"i{max(8, after.bits)}"
    mask = const(type, (1 << before.bits) - 1)
    total = const(type, 0)
    for number, part in enumerate(parts):
        low = b.and_(b.zext(part, type), mask)
        total = b.or_(total, b.shl(low, const(type, number * before.bits)))
    return scalar.from_bits(b, after, total)


@element("slice")
def slice_(k: KernelContext, instruction: Instruction, operands: list[Element], index: Index) -> Register:
    dims = instruction.get("slice")
    return operands[0](tuple(_affine(k, i, d.start, d.stride) for i, d in zip(index, dims, strict=True)))


def _affine(k: KernelContext, index: Value, start: int, stride: int) -> Value:
    return k.b.add(k.b.mul(index, index_constant(stride)), index_constant(start))


@element("reverse")
def reverse(k: KernelContext, instruction: Instruction, operands: list[Element], index: Index) -> Register:
    source = list(index)
    for dimension in instruction.get("dimensions"):
        last = index_constant(instruction.shape.dims[dimension] - 1)
        source[dimension] = k.b.sub(last, index[dimension])
    return operands[0](tuple(source))


@element("iota")
def iota(k: KernelContext, instruction: Instruction, operands: list[Element], index: Index) -> Register:
    position = index[instruction.get("iota_dimension")]
    value = scalar.convert(k.b, position, S64, instruction.shape.dtype)
    return _apart(k, value) if _is_scrambled(instruction) else value


def _is_scrambled(iota: Instruction) -> bool:
    """Whether random bits are made of it, by long chains of additions and exclusive ors."""
    others = iota.computation or ()
    return sum(other.opcode == "xor" for other in others) >= _CHAIN


def _apart(k: KernelContext, value: Value) -> Value:
    """The same number, of which LLVM does not know that it counts a loop's rounds.

    It would look for cheaper ways to compute sums of such numbers, for a second where there are dozens.
    """
    if k.target.device is not None or isinstance(value, Constant) or value.type not in ("i32", "i64"):
        return value
    if _ZERO not in k.b.module.globals:
        k.b.module.global_variable(_ZERO, "i64", "0", linkage="dso_local hidden")
    return k.b.xor(value, k.b.load(value.type, Value("ptr", f"@{_ZERO}"), invariant=True))


# Pad and concatenate have a place for each source: loops over the places, or a choice for one element.


@element("concatenate")
def concatenate(
    k: KernelContext, instruction: Instruction, operands: list[Element], index: Index
) -> Register:
    (dimension,) = instruction.get("dimensions")
    sizes = [operand.shape.dims[dimension] for operand in instruction.operands]
    sources = [(operand, size) for operand, size in zip(operands, sizes, strict=True) if size]

    def choose(first: int, position: Value) -> Register:
        operand, size = sources[first]
        here = (*index[:dimension], position, *index[dimension + 1 :])
        if first == len(sources) - 1:
            return operand(here)
        inside = k.b.icmp_signed("<", position, index_constant(size))
        behind = k.b.sub(position, index_constant(size))
        return k.choose(inside, lambda: operand(here), lambda: choose(first + 1, behind))

    return choose(0, index[dimension])


@kernel("concatenate", element_operands="all", is_loop=True)
def concatenate_kernel(k: KernelContext, instruction: Instruction) -> None:
    """A part from each operand, row by row of the dimensions outside of the concatenated one."""
    (dimension,) = instruction.get("dimensions")
    order = instruction.shape.minor_to_major[::-1]

    def row(rows: Rows) -> None:
        starts = [0] * instruction.shape.rank
        for number, operand in enumerate(instruction.operands):
            _fill(k, operand.shape.dims, k.input(number), starts, rows=rows)
            starts[dimension] += operand.shape.dims[dimension]

    outer = {d: instruction.shape.dims[d] for d in order[: order.index(dimension)]}
    _by_rows(k, outer, row, lambda: None)


Rows = Mapping[int, Value]
"""The index along some dimensions of a box, of which only that row is filled."""


def _by_rows(
    k: KernelContext, sizes: Mapping[int, int], row: Callable[[Rows], None], finish: Callable[[], None]
) -> None:
    """Runs row(index) for all indices of dimensions of these sizes, each perhaps by another thread, then `finish`."""
    count = prod(sizes.values())

    def part(number: Value) -> None:
        row(dict(zip(sizes, delinearize(k.b, number, list(sizes.values())), strict=True)))

    if count > 1:
        k.in_parts(count, part, finish)
        return
    if count:
        row({})
    finish()


def _fill(
    k: KernelContext,
    dims: Sequence[int],
    source: Element,
    starts: Sequence[int],
    strides: Sequence[int] | None = None,
    rows: Rows = MappingProxyType({}),
) -> None:
    """Output elements starts + index * strides become source(index), over an index space of `dims`, or rows of it."""
    output = k.outputs[0]
    starts, strides = list(starts), strides or [1] * len(dims)

    def one(inner: Index) -> None:
        index = tuple(rows.get(d, i) for d, i in enumerate(inner))
        target = tuple(_affine(k, i, s, t) for i, s, t in zip(index, starts, strides, strict=True))
        output.store(target, source(index))

    sizes = [1 if d in rows else size for d, size in enumerate(dims)]
    k.loop_nest(sizes, one, output.shape.minor_to_major[::-1])


@element("pad")
def pad(k: KernelContext, instruction: Instruction, operands: list[Element], index: Index) -> Register:
    b = k.b
    inside: Value = integer("i1", 1)
    source: list[Value] = []
    dims = instruction.operands[0].shape.dims
    for position, padding, size in zip(index, instruction.get("padding"), dims, strict=True):
        place = b.sub(position, index_constant(padding.low)) if padding.low else position
        step = index_constant(padding.interior + 1)
        if padding.interior:
            inside = b.and_(inside, b.icmp_signed("==", b.srem(place, step), index_constant(0)))
        if padding.low > 0:
            inside = b.and_(inside, b.icmp_signed(">=", place, index_constant(0)))
        limit = index_constant((size - 1) * (padding.interior + 1) + 1)
        if padding.high > 0 or size == 0:
            inside = b.and_(inside, b.icmp_signed("<", place, limit))
        source.append(b.sdiv(place, step))
    return k.choose(inside, lambda: operands[0](tuple(source)), lambda: operands[1](()))


@record
class Placed:
    """Where a dimension's operand elements go: `count` from `first` on, to start, start + step, ..."""

    first: int
    count: int
    start: int
    step: int

    @staticmethod
    def of(padding: PadDim, size: int, out: int) -> Placed:
        step = padding.interior + 1
        first = max(0, -(padding.low // step))
        last = min(size - 1, (out - 1 - padding.low) // step)
        return Placed(first, max(0, last - first + 1), min(out, first * step + padding.low), step)

    def cut(self, begin: int, end: int) -> Placed:
        """Of the elements those of `begin` to before `end`, numbered from there."""
        first, last = max(self.first, begin), min(self.first + self.count, end)
        return Placed(first - begin, max(0, last - first), self.start + (first - self.first) * self.step, self.step)


@kernel("pad", element_operands="all", is_loop=True)
def pad_kernel(k: KernelContext, instruction: Instruction) -> None:
    """The padding value around the operand's box (everywhere, if there is some inside), then the operand.

    Of a concatenation that is fused each part goes to its place.
    """
    out = instruction.shape.dims
    sizes = instruction.operands[0].shape.dims
    paddings = zip(instruction.get("padding"), sizes, out, strict=True)
    placed = [Placed.of(padding, size, extent) for padding, size, extent in paddings]
    value = k.input(1)(())
    dimension, pieces = _pieces(k, instruction.operands[0], placed)

    def padded(boxes: Sequence[Box], rows: Rows = MappingProxyType({})) -> None:
        for starts, dims in boxes:
            _fill(k, dims, lambda index: value, starts, rows=rows)

    def moved(rows: Rows = MappingProxyType({})) -> None:
        _move(k, pieces, dimension, rows)

    order = instruction.shape.minor_to_major[::-1]
    if any(place.step > 1 for place in placed):
        padded([([0] * len(out), list(out))])
        moved()
        return
    outer = _outer(placed, out, order)

    def row(rows: Rows) -> None:
        padded(_frame(placed, out, order)[2 * len(outer) :], rows)
        moved(rows)

    _by_rows(
        k, {d: placed[d].count for d in outer}, row, lambda: padded(_frame(placed, out, order)[: 2 * len(outer)])
    )


@record
class Piece:
    """Elements of `source`, along each dimension those that are `placed`."""

    source: Element
    placed: Sequence[Placed]

    def fill(self, k: KernelContext, rows: Rows) -> None:
        """Moves them, or those of some rows, to where they go."""

        def moved(index: Index) -> Register:
            return self.source(tuple(_affine(k, i, p.first, 1) for i, p in zip(index, self.placed, strict=True)))

        starts, steps = [place.start for place in self.placed], [place.step for place in self.placed]
        _fill(k, [place.count for place in self.placed], moved, starts, steps, rows)


def _pieces(k: KernelContext, operand: Instruction, placed: list[Placed]) -> tuple[int, list[Piece]]:
    """The pieces that a padded operand has, and the dimension along which they lie: a concatenation is not made."""
    node, _ = bodies.source(operand, ())
    if node.opcode != "concatenate" or k.body.array(node) is not None:
        return 0, [Piece(k.input(0), placed)]
    (dimension,) = node.get("dimensions")
    pieces, begin = [], 0
    for part in node.operands:
        end = begin + part.shape.dims[dimension]
        cut = placed[dimension].cut(begin, end)
        if cut.count:
            pieces.append(Piece(k.body.element(k, part), [*placed[:dimension], cut, *placed[dimension + 1 :]]))
        begin = end
    return dimension, pieces


def _move(k: KernelContext, pieces: Sequence[Piece], dimension: int, rows: Rows) -> None:
    """Fills in pieces that lie along a dimension: in rows across it there is something of each, others are in one."""
    if dimension not in rows or len(pieces) == 1:
        for piece in pieces:
            piece.fill(k, rows)
        return
    first, *others = pieces
    count = index_constant(first.placed[dimension].count)
    behind = {**rows, dimension: k.b.sub(rows[dimension], count)}
    is_first = k.b.icmp_signed("<", rows[dimension], count)
    k.b.if_else(is_first, lambda: first.fill(k, rows), lambda: _move(k, others, dimension, behind))


def _outer(placed: list[Placed], out: Sequence[int], order: Sequence[int]) -> list[int]:
    """The outer dimensions, in memory order, up to the first one that has padding; not the innermost one."""
    outer: list[int] = []
    for dimension in order[:-1]:
        outer.append(dimension)
        if placed[dimension].count != out[dimension]:
            break
    return outer


Box = tuple[list[int], list[int]]
"""(starts, sizes)"""


def _frame(placed: list[Placed], out: Sequence[int], order: Sequence[int]) -> list[Box]:
    """Boxes that cover all but the operand's box: two a dimension, below it and above it."""
    starts, sizes, boxes = [0] * len(out), list(out), []
    for dimension in order:
        place = placed[dimension]
        end = place.start + place.count
        for start, size in ((0, place.start), (end, out[dimension] - end)):
            starts[dimension], sizes[dimension] = start, size
            boxes.append((list(starts), list(sizes)))
        starts[dimension], sizes[dimension] = place.start, place.count
    return boxes
