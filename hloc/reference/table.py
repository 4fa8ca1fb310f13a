"""Opcode to function, for all opcodes.

`FUNCTIONS` are plain functions of (instruction, operand values, context); `GENERATORS` are generators that
ask for calls and exchanges; `LIFTED` is what an op of scalars does when its operands are arrays of equal
shape instead. Parameters have no function: they are given.
"""

from __future__ import annotations

from collections.abc import Callable

from hloc.ir.instruction import Instruction
from hloc.reference import (
    collectives,
    control,
    convert,
    convolution,
    custom_calls,
    data_movement,
    dot,
    dynamic,
    elementwise,
    fft,
    indexing,
    linalg,
    normalization,
    reduce,
    rng,
    sort,
    special,
    window,
)
from hloc.reference.context import Context
from hloc.reference.values import Value

FUNCTIONS: dict[str, Callable[..., Value]] = {
    **collectives.TABLE,
    **control.TABLE,
    **convert.TABLE,
    **convolution.TABLE,
    **custom_calls.TABLE,
    **data_movement.TABLE,
    **dot.TABLE,
    **dynamic.TABLE,
    **elementwise.TABLE,
    **fft.TABLE,
    **indexing.TABLE,
    **linalg.TABLE,
    **normalization.TABLE,
    **reduce.TABLE,
    **rng.TABLE,
    **sort.TABLE,
    **special.TABLE,
    **window.TABLE,
}

GENERATORS: dict[str, Callable] = {**control.GENERATORS, **collectives.GENERATORS}


def _lift_callee(instruction: Instruction, operands: list[Value], context: Context) -> Value:
    return context.lift(instruction.called[0], operands)


LIFTED: dict[str, Callable[..., Value]] = {
    **elementwise.TABLE,
    **special.TABLE,
    **convert.TABLE,
    **{name: FUNCTIONS[name] for name in ("constant", "get-tuple-element", "map", "tuple")},
    # Of a scalar, these can only give the scalar, or its bits.
    "bitcast": convert.bitcast_convert,
    **dict.fromkeys(("broadcast", "copy", "opt-barrier", "reshape", "transpose"), data_movement.pass_on),
    **dict.fromkeys(("call", "fusion"), _lift_callee),
}
