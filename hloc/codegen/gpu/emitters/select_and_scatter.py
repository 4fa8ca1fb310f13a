"""select-and-scatter: each window's chosen element receives its source element.

A first launch finds the element that each window chooses. In a second one every element looks at the windows that may
hold it, in order, so that the result is always the same.
"""

from __future__ import annotations

from hloc.codegen.arrays import ArrayRef, Register, flattened, grouped
from hloc.codegen.gpu.emitters import gpu_kernel
from hloc.codegen.gpu.fold_plan import THREADS
from hloc.codegen.gpu.grids import blocks_for, each_element
from hloc.codegen.gpu.spread import over_elements
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index, KernelContext
from hloc.codegen.llvm import Value, integer
from hloc.codegen.loops import linear, row_major_strides
from hloc.codegen.windows import WindowSpace, chosen
from hloc.ir.dtypes import S32, S64, DType
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape


def _places(instruction: Instruction) -> ArrayShape:
    """The array of what each window chooses: a row-major number of an element, or -1."""
    source = instruction.operands[1].shape
    dtype: DType = S32 if instruction.shape.count < 1 << 31 else S64
    return ArrayShape(dtype, source.dims, source.layout)


@gpu_kernel(
    "select-and-scatter",
    element_operands="all",
    scratch=lambda instruction: _places(instruction).byte_size,
    takes_epilogue=lambda instruction: True,
)
def select_and_scatter(g: GpuStep, instruction: Instruction) -> None:
    places, dims = _places(instruction), instruction.operands[0].shape.dims
    shape = instruction.shape.with_default_layout()
    type = f"i{places.dtype.bits}"
    space = WindowSpace(instruction.get("window").dims, dims, places.dims)

    def number(k: KernelContext, index: Index) -> Value:
        return k.b.trunc(linear(k.b, index, dims, row_major_strides(dims)), type)

    def choose(k: KernelContext, indices: list[Index]) -> None:
        array = ArrayRef(k.b, places, k.scratch)
        for index in indices:
            found, place = chosen(k, instruction, index)
            array.store(index, k.b.select(found, number(k, place), integer(type, -1)))

    def gather(k: KernelContext, indices: list[Index]) -> None:
        array = ArrayRef(k.b, places, k.scratch)
        for index in indices:
            k.store(index, [_received(k, instruction, space, index, number(k, index), array)])

    each_element(g, places, choose, "choose")
    if shape.count:
        with g.launch(blocks_for(shape.count), THREADS, name="gather") as k:
            over_elements(k, k.global_index(), shape, 1, lambda indices: gather(k, indices), by_rows=True)


def _received(
    k: KernelContext, instruction: Instruction, space: WindowSpace, index: Index, mine: Value, places: ArrayRef
) -> Register:
    """The initial value, with the source elements of all windows that chose an element."""
    b, window = k.b, []
    initial = [k.input(2)(())]

    def level(d: int, carried: list[Value]) -> list[Value]:
        if d < len(index):
            first, end = space.holders(b, index[d], d)

            def along(at: Value, carried: list[Value]) -> list[Value]:
                window.append(at)
                values = level(d + 1, carried)
                window.pop()
                return values

            return b.for_loop_carrying(first, end, carried, along, unroll=False)
        here = tuple(window)

        def receive() -> list[Value]:
            (running,) = grouped(carried, initial)
            return flattened(k.apply(instruction.attributes["scatter"], [running, k.input(1)(here)]))

        is_mine = b.icmp_signed("==", places.load(here), mine)
        return b.if_else(is_mine, receive, lambda: carried)

    return grouped(level(0, flattened(initial)), initial)[0]
