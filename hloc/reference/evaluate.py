"""The reference evaluator: what a module means, op by op on NumPy. Slow, and right by definition.

`evaluate` runs a module, `evaluate_replicated` runs it on several simulated devices, `fold` runs one
instruction on literals. Arguments and results are arrays with the types' own NumPy dtypes, in logical order;
a result of a bounded dynamic shape has its live sizes. All faults are HloErrors, at the instruction where
known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hloc.errors import ArgumentError, HloError
from hloc.host.queues import HostQueues
from hloc.ir.instruction import Instruction
from hloc.ir.literals import Literal
from hloc.ir.module import Module
from hloc.ir.opcodes import COLLECTIVE
from hloc.ir.shapes import ArrayShape, Shape
from hloc.reference.context import Device
from hloc.reference.devices import run_together
from hloc.reference.dynamic import fits
from hloc.reference.machine import Machine, Plans, cause, finish, located
from hloc.reference.table import FUNCTIONS, GENERATORS
from hloc.reference.values import TOKEN, Value, leaves_of, literal_value


def evaluate(
    module: Module, arguments: Sequence[object], *, queues: HostQueues | None = None, seed: int = 0
) -> list[np.ndarray]:
    """The leaves of the result, depth first, tokens left out.

    `arguments` are the leaves of the entry's parameters in order, or nested tuples of them. A module that
    communicates runs on all its devices with the same arguments, and the first one's result is given.
    `queues` is the host for infeed and its like, `seed` the seed of the `rng` op.
    """
    return list(leaves_of(evaluate_structured(module, arguments, queues=queues, seed=seed)))


def evaluate_structured(
    module: Module, arguments: Sequence[object], *, queues: HostQueues | None = None, seed: int = 0
) -> Value:
    """Like `evaluate`, in the structure of the entry's root: an array, or nested tuples of them."""
    count = module.replica_count * module.num_partitions if _communicates(module) else 1
    replicas = module.replica_count if count > 1 else 1
    hosts = None if queues is None else [queues] * count
    return _run(module, [arguments] * count, replicas, count // replicas, hosts, seed)[0]


def evaluate_replicated(
    module: Module,
    arguments: Sequence[Sequence[object]],
    *,
    replica_count: int | None = None,
    num_partitions: int | None = None,
    queues: Sequence[HostQueues] | None = None,
    seed: int = 0,
) -> list[list[np.ndarray]]:
    """The result leaves of every device.

    Device `replica * num_partitions + partition` takes `arguments[device]`. The counts are the module's own
    unless given. Raises HloError when devices wait for each other in vain.
    """
    replicas = module.replica_count if replica_count is None else replica_count
    partitions = module.num_partitions if num_partitions is None else num_partitions
    if len(arguments) != replicas * partitions:
        raise ArgumentError(
            f"expected the arguments of {replicas * partitions} devices, got {len(arguments)}"
        )
    results = _run(module, arguments, replicas, partitions, queues, seed)
    return [list(leaves_of(result)) for result in results]


def fold(instruction: Instruction, operands: Sequence[Literal]) -> Literal:
    """What an instruction gives for constant operands.

    Raises HloError where there is no such constant: it needs other devices or a host, has tokens, or a
    dynamic shape.
    """
    machine = Machine(Device(), Plans())
    values = [literal_value(operand) for operand in operands]
    with np.errstate(all="ignore"):
        try:
            if instruction.opcode in GENERATORS:
                value = finish(machine.drive(GENERATORS[instruction.opcode](instruction, values, machine)))
            else:
                value = FUNCTIONS[instruction.opcode](instruction, values, machine)
        except Exception as error:
            raise located(error, instruction) from cause(error)
    return _literal(value, instruction.shape, instruction)


def _literal(value: Value, shape: Shape, instruction: Instruction) -> Literal:
    if shape.is_tuple:
        parts = tuple(
            _literal(part, element, instruction) for part, element in zip(value, shape.elements, strict=True)
        )
        return Literal(shape, parts)
    if not isinstance(shape, ArrayShape) or not shape.is_array or shape.is_dynamic:
        raise HloError(f"a value of shape {shape!r} is no constant", instruction.span)
    return Literal(shape, np.array(value, order="C"))


def _communicates(module: Module) -> bool:
    return any(
        i.op.has(COLLECTIVE) or i.opcode in ("partition-id", "replica-id") for i in module.instructions()
    )


def _run(
    module: Module,
    arguments: Sequence[Sequence[object]],
    replicas: int,
    partitions: int,
    queues: Sequence[HostQueues] | None,
    seed: int,
) -> list[Value]:
    plans = Plans()
    devices = [Device(r, p, replicas, partitions) for r in range(replicas) for p in range(partitions)]
    hosts = queues or [None] * len(devices)
    machines = [Machine(device, plans, host, seed) for device, host in zip(devices, hosts, strict=True)]
    given = [entry_arguments(module, each) for each in arguments]
    with np.errstate(all="ignore"):
        runs = [machine.run(module.entry, values) for machine, values in zip(machines, given)]
        results = run_together(runs, machines)
    return [_own(result) for result in results]


def entry_arguments(module: Module, arguments: Sequence[object]) -> list[Value]:
    """The values of the entry's parameters. ArgumentError if count, type or sizes don't fit."""
    flat = list(_flatten(arguments))
    shapes = [parameter.shape for parameter in module.entry.parameters]
    wanted = sum(leaf.is_array for shape in shapes for _, leaf in shape.leaves())
    if len(flat) != wanted:
        raise ArgumentError(f"expected {wanted} arrays, got {len(flat)}")
    leaves = iter(flat)
    return [
        _build(shape, leaves, f"argument {i} (%{parameter.name})", parameter)
        for i, (shape, parameter) in enumerate(zip(shapes, module.entry.parameters))
    ]


def _flatten(arguments: Sequence[object]):
    for argument in arguments:
        if isinstance(argument, tuple):
            yield from _flatten(argument)
        elif argument is not TOKEN:
            yield argument


def _build(shape: Shape, leaves, name: str, parameter: Instruction) -> Value:
    if shape.is_tuple:
        return tuple(
            _build(element, leaves, f"{name}.{i}", parameter) for i, element in enumerate(shape.elements)
        )
    leaf = next(shape.leaves())[1]
    return _leaf(next(leaves), leaf, name, parameter) if leaf.is_array else TOKEN


def _leaf(value: object, shape: ArrayShape, name: str, parameter: Instruction) -> np.ndarray:
    array = value if isinstance(value, np.ndarray) else np.asarray(value)
    if isinstance(value, bool | int | float | complex | list):
        array = array.astype(shape.dtype.numpy)
    if array.dtype != shape.dtype.numpy or not fits(array, shape):
        raise ArgumentError(
            f"{name}: expected {shape!r}, got {array.dtype}{list(array.shape)}", parameter.span
        )
    return array


def _own(value: Value) -> Value:
    """The result in memory of its own: it may be made of arguments, constants or repeating views."""
    if isinstance(value, tuple):
        return tuple(_own(part) for part in value)
    return np.array(value, order="C") if isinstance(value, np.ndarray) else value
