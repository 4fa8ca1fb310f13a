"""Writes `scan` as a `while`."""

from __future__ import annotations

from hloc.ir.computation import Computation
from hloc.ir.dtypes import PRED, S32
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.ir.shapes import TupleShape, array
from hloc.passes.emit import Emit, dense, replace, row_major


def run(module: Module) -> bool:
    """Replaces a scan by a loop over its dimension that calls the scan's computation once a step.

    A scan without steps has its carries and empty outputs.

    Requires: nothing.
    Ensures: no scan.
    Leaves: a call in each loop's body, for call_inliner.
    """
    scans = [i for computation in call_order(module.entry) for i in computation if i.opcode == "scan"]
    for instruction in scans:
        _expand(_Scan(instruction))
    if scans:
        module.order_computations()
    return bool(scans)


class _Scan:
    """The parts of a scan. The loop's state is (step, carries..., outputs..., inputs...)."""

    def __init__(self, instruction: Instruction):
        self.instruction = instruction
        self.body: Computation = instruction.attributes["to_apply"]
        carries = instruction.attributes["num_carries"]
        inputs = len(instruction.operands) - carries
        self.dimension = instruction.attributes["dimensions"][0]
        self.inputs = instruction.operands[:inputs]
        self.carries = instruction.operands[inputs:]
        results = instruction.shape.elements if instruction.shape.is_tuple else (instruction.shape,)
        self.outputs = [dense(shape) for shape in results[: len(results) - carries]]
        arrays = [operand.shape for operand in self.inputs] + self.outputs
        self.length = arrays[0].dims[self.dimension]
        shapes = [row_major(operand.shape) for operand in self.carries]
        shapes += [*self.outputs, *(dense(operand.shape) for operand in self.inputs)]
        self.state = TupleShape((array(S32), *shapes))


def _expand(scan: _Scan) -> None:
    emit = Emit.at(scan.instruction)
    outputs = [emit.full(0, shape) for shape in scan.outputs]
    # Without steps there is nothing of the inputs that a body could slice.
    results = _loop(scan, emit, outputs) if scan.length else [*outputs, *scan.carries]
    replace(scan.instruction, emit.tuple(results) if scan.instruction.shape.is_tuple else results[0])


def _loop(scan: _Scan, emit: Emit, outputs: list[Instruction]) -> list[Instruction]:
    """The while; returns whole outputs and last carries."""
    module = scan.instruction.computation.module
    condition = module.add_computation(_condition(scan))
    body = module.add_computation(_body(scan))
    start = emit.tuple([emit.scalar(0, S32), *scan.carries, *outputs, *scan.inputs])
    loop = emit.op("while", scan.state, [start], condition=condition, body=body)
    carries = range(1, 1 + len(scan.carries))
    outs = range(carries.stop, carries.stop + len(scan.outputs))
    return [emit.element(loop, index) for index in (*outs, *carries)]


def _condition(scan: _Scan) -> Computation:
    computation = Computation(f"{scan.instruction.name}.condition")
    emit = Emit(computation, like=scan.instruction)
    state = emit.parameter(0, scan.state, "state")
    step = emit.element(state, 0)
    computation.root = emit.op("compare", array(PRED), (step, emit.scalar(scan.length, S32)), direction="LT")
    return computation


def _body(scan: _Scan) -> Computation:
    computation = Computation(f"{scan.instruction.name}.body")
    emit = Emit(computation, like=scan.instruction)
    state = emit.parameter(0, scan.state, "state")
    values = [emit.element(state, index) for index in range(len(scan.state.elements))]
    step = values[0]
    carries = values[1 : 1 + len(scan.carries)]
    outputs = values[1 + len(carries) : 1 + len(carries) + len(scan.outputs)]
    inputs = values[1 + len(carries) + len(outputs) :]
    place = emit.map("subtract", emit.scalar(scan.length - 1, S32), step) if _is_reverse(scan) else step
    parts = [_taken(emit, value, scan.dimension, place) for value in inputs]
    result = emit.op("call", scan.body.root.shape, [*parts, *carries], to_apply=scan.body)
    shapes = result.shape.elements if result.shape.is_tuple else None
    new = [emit.element(result, i) for i in range(len(shapes))] if shapes is not None else [result]
    stored = [_put(emit, o, n, scan.dimension, place) for o, n in zip(outputs, new, strict=False)]
    following = emit.map("add", step, emit.scalar(1, S32))
    computation.root = emit.tuple([following, *new[len(outputs) :], *stored, *inputs])
    return computation


def _is_reverse(scan: _Scan) -> bool:
    return scan.instruction.get("is_reverse")


def _starts(emit: Emit, rank: int, dimension: int, place: Instruction) -> list[Instruction]:
    zero = emit.scalar(0, S32)
    return [place if d == dimension else zero for d in range(rank)]


def _taken(emit: Emit, value: Instruction, dimension: int, place: Instruction) -> Instruction:
    """The part of `value` at a place of the dimension, without the dimension."""
    dims = value.shape.dims
    sizes = [1 if d == dimension else size for d, size in enumerate(dims)]
    part = emit.dynamic_slice(value, _starts(emit, len(dims), dimension, place), sizes)
    return emit.reshape(part, [size for d, size in enumerate(dims) if d != dimension])


def _put(
    emit: Emit, output: Instruction, part: Instruction, dimension: int, place: Instruction
) -> Instruction:
    dims = output.shape.dims
    sizes = [1 if d == dimension else size for d, size in enumerate(dims)]
    update = emit.reshape(part, sizes)
    return emit.dynamic_update_slice(output, update, _starts(emit, len(dims), dimension, place))
