"""scatter: updates folded into an array at computed places, with the same result at every run.

Where the order of updates does not matter, each has a thread of its own: because no two of them meet, or because the
combiner is an operation that gives the same in any order, which is then done atomically. Else updates are brought into
the order of their places, those of one place in their own order, and a thread for each place folds its run.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from hloc.codegen import scalar
from hloc.codegen.arrays import Register
from hloc.codegen.emitters.scatter import Places, operand_count
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.emitters import gpu_kernel
from hloc.codegen.gpu.grids import each_element
from hloc.codegen.gpu.ordered_updates import OrderedUpdates
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.gpu.update_parts import parts_of
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value, integer
from hloc.codegen.reducers import known_operation
from hloc.ir.instruction import Instruction

_ATOMIC = {"add": "add", "and": "and", "or": "or", "xor": "xor"}


def _scratch(instruction: Instruction) -> int:
    if not _is_ordered(instruction):
        return 0
    updates = OrderedUpdates(instruction)
    parts = parts_of(updates)
    return max(updates.scratch_bytes, parts.scratch_bytes if parts is not None else 0)


def _is_ordered(instruction: Instruction) -> bool:
    """Whether updates of one place have to be folded in order."""
    return not (_none_meet(instruction) or _is_order_free(instruction) or Places(instruction).none_fits)


def _none_meet(instruction: Instruction) -> bool:
    """Whether no two updates come to one place: so the text promises, or there is one window only."""
    return instruction.get("unique_indices") or prod(Places(instruction).outer) == 1


def _is_order_free(instruction: Instruction) -> bool:
    """Whether an atomic operation gives the same in any order; there are such of 32 and 64 bits."""
    dtype = instruction.operands[0].shape.dtype
    operation = known_operation(instruction.attributes["to_apply"])
    if operand_count(instruction) > 1 or dtype.is_complex or dtype.bits not in (32, 64):
        return False
    return operation is not None and (dtype.is_integer or operation not in ("add", "multiply"))


@gpu_kernel(
    "scatter",
    element_operands=lambda i: range(operand_count(i), len(i.operands)),
    in_place=lambda i: [(number, number) for number in range(operand_count(i))],
    scratch=_scratch,
)
def scatter(g: GpuStep, instruction: Instruction) -> None:
    places = Places(instruction)
    for number in range(places.count):
        g.copy(number, number)
    if places.none_fits:
        return
    if _is_ordered(instruction):
        updates = OrderedUpdates(instruction)
        updates.sort(g)
        (parts_of(updates) or updates).fold(g)
        return
    is_atomic = not _none_meet(instruction)

    def update(k: GpuContext, indices: list[Index]) -> None:
        for index in indices:
            at, window = (tuple(index[d] for d in dims) for dims in (places.outer_dims, places.window_dims))
            start, inside = places.start(k, at)
            with k.b.if_then(inside):
                place, values = places.place(k, start, window), places.values(k, at, window)
                if is_atomic:
                    _fold_atomically(k, instruction, place, values[0])
                else:
                    _fold(k, instruction, place, values)

    each_element(g, places.updates, update, "updates")


def _fold(k: GpuContext, instruction: Instruction, place: Index, values: Sequence[Register]) -> None:
    old = [output.load(place) for output in k.outputs]
    for output, value in zip(k.outputs, k.apply(instruction.attributes["to_apply"], [*old, *values]), strict=True):
        output.store(place, value)


def _fold_atomically(k: GpuContext, instruction: Instruction, place: Index, value: Register) -> None:
    """Folds one value, by an instruction of the machine or by exchanges until nobody came in between."""
    b, output = k.b, k.outputs[0]
    dtype, address = output.shape.dtype, output.address(place)
    operation = known_operation(instruction.attributes["to_apply"])
    if dtype.is_integer and operation in ("maximum", "minimum"):
        k.gpu.atomic(("" if dtype.is_signed else "u") + operation[:3], address, value)
        return
    if dtype.is_integer and operation in _ATOMIC:
        k.gpu.atomic(_ATOMIC[operation], address, value)
        return
    bits = f"i{dtype.bits}"

    def exchange(carried: list[Value]) -> list[Value]:
        old = scalar.from_bits(b, dtype, carried[0])
        (new,) = k.apply(instruction.attributes["to_apply"], [old, value])
        found = k.gpu.compare_exchange(address, carried[0], scalar.to_bits(b, dtype, new))
        return [found, b.icmp_signed("!=", found, carried[0])]

    initial = [k.gpu.load_volatile(bits, address), integer("i1", 1)]
    b.while_loop(initial, lambda carried: carried[1], exchange, "exchange")
