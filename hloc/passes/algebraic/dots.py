"""Rules of dot: transposes folded into its dimension numbers, and what is no product of matrices at all."""

from __future__ import annotations

from collections.abc import Iterable

from hloc.ir.attributes import SliceDim
from hloc.ir.dtypes import F32, DType
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import array
from hloc.passes.algebraic.facts import holds_all
from hloc.passes.algebraic.rules import rule
from hloc.passes.emit import Emit, binary_computation
from hloc.passes.patterns import bind, one_use, op

SIDES = ("lhs", "rhs")
x = bind("x")


def _named(dot: Instruction, part: str) -> list[tuple[int, ...]]:
    """The `batch` or `contracting` dimensions of both sides."""
    return [dot.get(f"{side}_{part}_dims") for side in SIDES]


def _free(dot: Instruction) -> list[list[int]]:
    """The dimensions of both sides that are neither, in order."""
    taken = [{*batch, *steps} for batch, steps in zip(_named(dot, "batch"), _named(dot, "contracting"))]
    return [[d for d in range(o.shape.rank) if d not in t] for o, t in zip(dot.operands, taken)]


def _numbers(batch: Iterable[Iterable[int]], steps: Iterable[Iterable[int]]) -> dict[str, tuple[int, ...]]:
    """The four attributes of a dot."""
    parts = (("batch", batch), ("contracting", steps))
    return {f"{side}_{part}_dims": tuple(d) for part, both in parts for side, d in zip(SIDES, both)}


def _others(dot: Instruction) -> dict[str, object]:
    """The attributes that are not dimension numbers."""
    return {name: value for name, value in dot.attributes.items() if not name.endswith("_dims")}


@rule("dot")
def fold_transpose_into_dot(instruction: Instruction) -> Instruction | None:
    """dot(transpose(x), y) = dot(x, y) with the dimensions renamed, if those that x keeps stay in order"""
    attributes = dict(instruction.attributes)
    operands = list(instruction.operands)
    folded = False
    for number, side in enumerate(SIDES):
        operand = operands[number]
        if operand.opcode != "transpose":
            continue
        order = operand.attributes["dimensions"]
        kept = [order[d] for d in _free(instruction)[number]]
        if kept == sorted(kept):
            for name in (f"{side}_batch_dims", f"{side}_contracting_dims"):
                attributes[name] = tuple(order[d] for d in instruction.get(name))
            operands[number] = operand.operands[0]
            folded = True
    return Emit.at(instruction).op("dot", instruction.shape, operands, **attributes) if folded else None


@rule(op("transpose", one_use(bind("x", op("dot")))))
def fold_transpose_of_dot(instruction: Instruction, x: Instruction) -> Instruction | None:
    """transpose(dot(a, b)) = dot(b, a), if it puts what b keeps before what a keeps, or only moves batches"""
    order, batch, free = instruction.attributes["dimensions"], _named(x, "batch"), _free(x)
    first, count = len(batch[0]), len(free[0])
    middle = first + count
    moved, rest = order[:first], list(order[first:])
    swapped = [*range(middle, x.shape.rank), *range(first, middle)]
    if sorted(moved) != list(range(first)) or rest not in (swapped, sorted(rest)):
        return None
    batch = [[dims[d] for d in moved] for dims in batch]
    operands, steps = x.operands, _named(x, "contracting")
    if rest == swapped:
        batch, operands, steps = batch[::-1], operands[::-1], steps[::-1]
        if "operand_precision" in x.attributes:
            return None
    return Emit.at(instruction).op("dot", instruction.shape, operands, **_others(x), **_numbers(batch, steps))


@rule("dot")
def drop_unit_dims_of_dot(instruction: Instruction) -> Instruction | None:
    """dot(x, y) = reshape(dot(reshape(x), reshape(y))) without batch and contracting dimensions of size 1"""
    batch, steps = _named(instruction, "batch"), _named(instruction, "contracting")
    named = [(*own_batch, *own_steps) for own_batch, own_steps in zip(batch, steps)]
    kept = [_without_units(operand.shape.dims, dims) for operand, dims in zip(instruction.operands, named)]
    if len(kept[0]) == instruction.operands[0].shape.rank:
        return None
    emit = Emit.at(instruction)
    values = [emit.reshape(o, [o.shape.dims[d] for d in k]) for o, k in zip(instruction.operands, kept)]
    renamed = [[[k.index(d) for d in dims if d in k] for dims, k in zip(both, kept)] for both in (batch, steps)]
    dims = [size for d, size in enumerate(instruction.shape.dims) if d >= len(batch[0]) or size != 1]
    shape = array(instruction.shape.dtype, *dims)
    inner = emit.op("dot", shape, values, **_others(instruction), **_numbers(*renamed))
    return emit.reshape(inner, instruction.shape.dims)


def _without_units(sizes: tuple[int, ...], named: tuple[int, ...]) -> list[int]:
    """The dimensions but for those of size 1 that are named."""
    return [d for d, size in enumerate(sizes) if size != 1 or d not in named]


@rule("dot")
def dot_to_multiply(instruction: Instruction) -> Instruction | None:
    """dot(x, y) = broadcast(x) * broadcast(y) without contracting dimensions

    A product -0 stays what it is, which a sum beginning with 0 would not; XLA has it so by default.
    """
    dtype = instruction.shape.dtype
    if instruction.get("lhs_contracting_dims") or not _both_fit(instruction, dtype):
        return None
    emit = Emit.at(instruction)
    values, start = [], len(instruction.get("lhs_batch_dims"))
    for operand, batch, free in zip(instruction.operands, _named(instruction, "batch"), _free(instruction)):
        places = {d: number for number, d in enumerate(batch)}
        places |= {d: start + number for number, d in enumerate(free)}
        start += len(free)
        placed = [places[d] for d in range(operand.shape.rank)]
        values.append(emit.broadcast(emit.convert(operand, dtype), instruction.shape.dims, placed))
    return emit.map("multiply", *values)


def _both_fit(dot: Instruction, dtype: DType) -> bool:
    """Whether a type has every value of both operands, so that they may be converted first."""
    return all(o.shape.dtype is dtype or holds_all(dtype, o.shape.dtype) for o in dot.operands)


@rule("dot")
def dot_to_reduce(instruction: Instruction) -> Instruction | None:
    """dot(x, y) = reduce(x * y) where neither side keeps a dimension

    There is nothing to use twice, and a reduce takes what comes before and after it into its loop, as XLA has
    it by default. Narrow floats are summed in f32 and rounded once, as in a dot.
    """
    dtype = instruction.shape.dtype
    if any(_free(instruction)) or not instruction.get("lhs_contracting_dims"):
        return None
    wide = F32 if dtype.is_float and dtype.bits < 32 else dtype
    if not (wide.is_float or wide.is_integer) or not _both_fit(instruction, wide):
        return None
    emit = Emit.at(instruction)
    (left, right), batch, steps = instruction.operands, _named(instruction, "batch"), _named(instruction, "contracting")
    order = [right_d for _, right_d in sorted(zip((*batch[0], *steps[0]), (*batch[1], *steps[1])))]
    if sorted(batch[0]) != list(batch[0]) or order != sorted(order):
        return None
    product = emit.map("multiply", emit.convert(left, wide), emit.convert(right, wide))
    adding = binary_computation(instruction, "add", wide)
    total = emit.reduce(product, emit.scalar(0, wide), sorted(steps[0]), adding)
    return emit.convert(total, dtype)


@rule(op("slice", one_use(bind("x", op("dot")))))
def slice_dot(instruction: Instruction, x: Instruction) -> Instruction | None:
    """slice(dot(a, b)) = dot(slice(a), slice(b)), if it saves half of the work and moves less than it saves"""
    ranges = list(instruction.attributes["slice"])
    if 2 * instruction.shape.count > x.shape.count or any(r.stride != 1 for r in ranges):
        return None
    batch, free = _named(x, "batch"), _free(x)
    first = len(batch[0])
    own = (ranges[first : first + len(free[0])], ranges[first + len(free[0]) :])
    emit = Emit.at(instruction)
    values = []
    for operand, side_batch, side_free, side_ranges in zip(x.operands, batch, free, own):
        wanted = dict(zip((*side_batch, *side_free), (*ranges[:first], *side_ranges)))
        cut = [wanted.get(d, SliceDim(0, size)) for d, size in enumerate(operand.shape.dims)]
        values.append(emit.slice(operand, cut))
    return emit.op("dot", instruction.shape, values, **x.attributes)
