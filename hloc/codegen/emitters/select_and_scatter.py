"""select-and-scatter: each window's chosen element receives its source element."""

from __future__ import annotations

from hloc.codegen import scalar
from hloc.codegen.arrays import Register, flattened, grouped
from hloc.codegen.kernel import Index, KernelContext, kernel
from hloc.codegen.llvm import Value, integer
from hloc.codegen.routines import i64
from hloc.codegen.windows import WindowSpace
from hloc.ir.instruction import Instruction


@kernel("select-and-scatter", element_operands="all")
def select_and_scatter(k: KernelContext, instruction: Instruction) -> None:
    output = k.outputs[0]
    initial = k.input(2)(())
    k.loop_nest(
        output.shape.dims, lambda index: output.store(index, initial), output.shape.minor_to_major[::-1]
    )
    source = instruction.operands[1].shape
    if 0 in output.shape.dims:
        return

    def window(index: Index, carried: list[Register]) -> list[Register]:
        found, place = _select(k, instruction, index)
        with k.b.if_then(found):
            folded = k.apply(instruction.attributes["scatter"], [output.load(place), k.input(1)(index)])
            output.store(place, folded[0])
        return carried

    k.reduce_loop(source.dims, [], window)


def _select(k: KernelContext, instruction: Instruction, index: Index) -> tuple[Value, Index]:
    """Whether a window has any element, and the place of the one chosen.

    The chosen one stays as long as select(chosen, next) holds; the first is chosen to begin with.
    """
    b, operand, shape = k.b, k.input(0), instruction.operands[0].shape
    windows = instruction.get("window").dims
    nothing: list[Register] = [scalar.zero(shape.dtype)]

    def better(place: list[Value], inside: list[Value], carried: list[Value]) -> list[Value]:
        found, *rest = carried
        chosen, value = grouped(rest[len(place) :], nothing)[0], operand(tuple(place))
        stays = b.and_(found, k.apply(instruction.attributes["select"], [chosen, value])[0])
        next_values = [*place, *flattened([value])]
        return [
            integer("i1", 1),
            *(b.select(stays, old, new) for old, new in zip(rest, next_values, strict=True)),
        ]

    start = [integer("i1", 0), *([i64(0)] * len(windows)), *flattened(nothing)]
    sizes, outputs = shape.dims, instruction.operands[1].shape.dims
    found, *rest = WindowSpace(windows, sizes, outputs).fold(b, index, start, better)
    return found, tuple(rest[: len(windows)])
