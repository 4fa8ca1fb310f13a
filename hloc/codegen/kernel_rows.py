"""The tables of ops: which are made native element by element, and which by loops of their own.

ELEMENTS: a function that gives one result element at an index from its operands' elements; such ops fuse freely.
KERNELS: a function that writes the op's own loops; it may take some operands as Elements (then their producers fuse
into it), others as arrays in memory. An op's emitter is loaded when the op is first looked up; `emitters/__init__.py`
says where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from hloc.codegen.arrays import Element, Register
from hloc.codegen.emitters import ELEMENT_HOMES, KERNEL_HOMES
from hloc.codegen.loops import Index
from hloc.ir.instruction import Instruction
from hloc.lazy import Table
from hloc.records import record

if TYPE_CHECKING:
    from hloc.codegen.attention_plan import AttentionPlan
    from hloc.codegen.bodies import Leaf
    from hloc.codegen.epilogue import Epilogue
    from hloc.codegen.kernel import KernelContext
    from hloc.codegen.row_stages import RowStages
    from hloc.ir.computation import Computation

ElementFunction = Callable[["KernelContext", Instruction, list[Element], Index], Register]
Pairs = tuple[tuple[int, int], ...]

ELEMENTS: Table[ElementFunction] = Table(ELEMENT_HOMES)
"""opcode -> fn(k, instruction, operands, index): the result's element at `index`."""


@record
class KernelRow:
    """One op with loops of its own.

    `emit(k, instruction)` writes the code. `element_operands(instruction)` gives the numbers of the operands
    that `emit` takes through `k.input` (all others are arrays in memory, for `k.input_array`),
    `scratch(instruction)` the bytes of temporary memory that it needs (in a fusion, `fused_scratch(instruction,
    epilogue)`, if the row has one), `in_place(instruction)` the pairs
    (operand number, output number) that may share memory. The code of an op that `fails` leaves its outcome
    in `k.status`. An op of which `takes_epilogue(instruction)` stores its results through `k.store`, and
    `written_once(instruction, epilogue)` are the roots of whose elements it writes each once, at the end.
    Where all threads have the scratch of an op in common, `common_scratch(instruction, is_fused)` holds. One with
    several `turns(instruction)` is written by `k.in_turns`.
    The arrays of a `strided` one may be seen through ops that leave them where they lie (see `strided.py`). The
    code of one that `is_loop` is a single loop nest; what comes before it may be done again by each thread.
    """

    emit: Callable[[KernelContext, Instruction], None]
    element_operands: Callable[[Instruction], Iterable[int]]
    scratch: Callable[[Instruction], int]
    in_place: Callable[[Instruction], Pairs]
    fails: bool
    takes_epilogue: Callable[[Instruction], bool]
    fused_scratch: Callable[[Instruction, Epilogue | None], int] | None
    strided: bool
    written_once: Callable[[Instruction, Epilogue], Sequence[int]]
    is_loop: bool
    common_scratch: Callable[[Instruction, bool], bool]
    turns: Callable[[Instruction], int]


KERNELS: Table[KernelRow] = Table(KERNEL_HOMES)
"""opcode -> row, of CPUs."""


class AttentionWay(Protocol):
    """How a kind of target computes the attention of a plan."""

    @property
    def scratch_bytes(self) -> int:
        """Bytes of temporary memory."""
        ...

    def write(self, k: KernelContext) -> None:
        """The kernel's code on a CPU."""
        ...


@record
class Kernels:
    """What can be one kernel on a kind of target, besides loop nests over elements.

    `own` are the ops with loops of their own. `rows` gives the bytes of temporary memory that a fused computation
    which goes by rows needs, None if there can be none; `attention` the way to compute an attention, if there is one,
    and `gradient` that of a fused computation whose roots are gradients of one.
    """

    own: Mapping[str, KernelRow]
    rows: Callable[[RowStages], int] | None
    attention: Callable[[AttentionPlan], AttentionWay | None] | None
    gradient: Callable[[Computation, Sequence[Leaf]], AttentionWay | None] | None = None


def element(*opcodes: str) -> Callable[[ElementFunction], ElementFunction]:
    """Decorator: the function is the ELEMENTS entry of these opcodes."""

    def enter(function: ElementFunction) -> ElementFunction:
        for opcode in opcodes:
            ELEMENTS.enter(opcode, function)
        return function

    return enter


def kernel(
    *opcodes: str,
    element_operands: str | Callable[[Instruction], Iterable[int]] = "none",
    scratch: Callable[[Instruction], int] = lambda instruction: 0,
    in_place: Callable[[Instruction], Pairs] = lambda instruction: (),
    fails: bool = False,
    takes_epilogue: Callable[[Instruction], bool] = lambda instruction: False,
    fused_scratch: Callable[[Instruction, Epilogue | None], int] | None = None,
    strided: bool = False,
    written_once: Callable[[Instruction, Epilogue], Sequence[int]] = lambda instruction, epilogue: (),
    is_loop: bool = False,
    common_scratch: Callable[[Instruction, bool], bool] = lambda instruction, is_fused: False,
    turns: Callable[[Instruction], int] = lambda instruction: 1,
    table: Table[KernelRow] = KERNELS,
) -> Callable[[Callable[[KernelContext, Instruction], None]], Callable[[KernelContext, Instruction], None]]:
    """Decorator: the function is the entry of these opcodes in KERNELS, or another table. See KernelRow for the rest.

    `element_operands` may also be "all" or "none". The two operands of a pair of `in_place` have the same
    shape and layout; `k.is_in_place(operand, output)` tells the emitter whether they do share memory.
    """

    def numbers(instruction: Instruction) -> Iterable[int]:
        if callable(element_operands):
            return element_operands(instruction)
        return range(len(instruction.operands)) if element_operands == "all" else ()

    def enter(function: Callable[[KernelContext, Instruction], None]):
        ways = takes_epilogue, fused_scratch, strided, written_once, is_loop, common_scratch, turns
        row = KernelRow(function, numbers, scratch, in_place, fails, *ways)
        for opcode in opcodes:
            table.enter(opcode, row)
        return function

    return enter
