"""The machine that runs computations: plans, the loop over instructions, calls without recursion, and
devices.

A computation becomes a plan once: its instructions in order, each with its function, the slots of its
operands and the slots that nobody needs afterwards. Calls go through a list of suspended generators, so
programs may nest as deep as they like.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import cached_property

import numpy as np

from hloc.errors import HloError
from hloc.host.queues import HostQueues
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import Shape
from hloc.records import NamedTuple
from hloc.reference.context import Call, Device, Exchange
from hloc.reference.dynamic import fits, resized
from hloc.reference.table import FUNCTIONS, GENERATORS, LIFTED
from hloc.reference.values import Value, reads_dynamic

# Calls in progress at one time, and computations applied to elements within such computations (which recurse
# here).
_MOST_CALLS = 100_000
_MOST_NESTED = 40
_INITIAL_RANDOM_STATE = 0x7012395


class Step(NamedTuple):
    """One instruction of a plan; `dims` is None unless its value is an array."""

    instruction: Instruction
    function: Callable
    is_generator: bool
    operands: tuple[int, ...]
    result: int
    dead: tuple[int, ...]
    dims: tuple[int, ...] | None
    dtype: np.dtype | None


class Plan:
    """What running a computation up to `root` takes."""

    def __init__(self, computation: Computation, root: Instruction, lifted: bool):
        kept = _needed(root) if root is not computation.root else computation.instructions
        slots = {instruction: slot for slot, instruction in enumerate(kept)}
        self.computation = computation
        self.size = len(kept)
        self.root = slots[root]
        self.shape = root.shape
        self.parameters = [slots.get(parameter, -1) for parameter in computation.parameters]
        last = {operand: instruction for instruction in kept for operand in instruction.operands}
        self.steps = [
            _step(instruction, slots, last, root, lifted)
            for instruction in kept
            if instruction.opcode != "parameter"
        ]


def _needed(root: Instruction) -> list[Instruction]:
    """What an instruction depends on, and itself, in order."""
    found, pending = {root}, [root]
    while pending:
        for operand in pending.pop().operands:
            if operand not in found:
                found.add(operand)
                pending.append(operand)
    return [instruction for instruction in root.computation if instruction in found]


def _step(
    instruction: Instruction,
    slots: dict[Instruction, int],
    last: dict[Instruction, Instruction],
    root: Instruction,
    lifted: bool,
) -> Step:
    opcode, shape = instruction.opcode, instruction.shape
    dead = {
        slots[operand]
        for operand in instruction.operands
        if last[operand] is instruction and operand is not root
    }
    is_generator = not lifted and opcode in GENERATORS
    function = LIFTED[opcode] if lifted else GENERATORS[opcode] if is_generator else FUNCTIONS[opcode]
    is_array = shape.is_array and not lifted
    return Step(
        instruction,
        function,
        is_generator,
        tuple(slots[operand] for operand in instruction.operands),
        slots[instruction],
        tuple(sorted(dead)),
        shape.dims if is_array else None,
        shape.dtype.numpy if is_array else None,
    )


def _scalar_function(computation: Computation) -> bool:
    """Whether a computation can be lifted: scalars throughout, in ops that know how."""
    return all(
        (instruction.opcode in LIFTED or instruction.opcode == "parameter")
        and all(leaf.is_array and leaf.rank == 0 for _, leaf in instruction.shape.leaves())
        for instruction in computation
    )


class Plans:
    """The plans of a module, made when first asked for."""

    def __init__(self) -> None:
        self._whole: dict[tuple[Computation, Instruction], Plan] = {}
        self._lifted: dict[Instruction, Plan | None] = {}

    def whole(self, computation: Computation, root: Instruction | None = None) -> Plan:
        key = (computation, root or computation.root)
        plan = self._whole.get(key)
        if plan is None:
            plan = self._whole[key] = Plan(*key, lifted=False)
        return plan

    def lifted(self, computation: Computation, root: Instruction) -> Plan | None:
        """The plan for arrays, or None if the computation can't be lifted."""
        if root not in self._lifted:
            can = _scalar_function(computation)
            self._lifted[root] = Plan(computation, root, lifted=True) if can else None
        return self._lifted[root]


class Machine:
    """The run of one device; it is the Context that ops see."""

    def __init__(self, device: Device, plans: Plans, queues: HostQueues | None = None, seed: int = 0):
        self.device = device
        self.queues = queues
        self._seed = seed
        self.random_state = _INITIAL_RANDOM_STATE
        self._plans = plans
        self._nested = 0

    @cached_property
    def random(self) -> np.random.Generator:
        """Of this device and seed; made when it is first asked, as most programs and all folding do without."""
        return np.random.Generator(np.random.PCG64([self._seed, self.device.number]))

    def run(self, computation: Computation, arguments: list[Value]) -> Generator[Exchange, Value, Value]:
        """Runs a computation; yields when it must meet other devices."""
        return self.drive(self._body(self._plans.whole(computation), arguments))

    def drive(self, first: Generator) -> Generator[Exchange, Value, Value]:
        """Runs a generator that asks for calls, and those it calls, one inside the other."""
        stack, answer = [first], None
        while stack:
            try:
                request = stack[-1].send(answer)
            except StopIteration as end:
                stack.pop()
                answer = end.value
                continue
            answer = None
            if isinstance(request, Exchange):
                answer = yield request
            elif len(stack) >= _MOST_CALLS:
                raise HloError(f"more than {_MOST_CALLS} calls inside each other", request.caller.span)
            else:
                stack.append(self._body(self._plans.whole(request.computation), request.arguments))
        return answer

    def _body(self, plan: Plan, arguments: list[Value]) -> Generator[Call | Exchange, Value, Value]:
        values: list[Value | None] = [None] * plan.size
        for slot, argument in zip(plan.parameters, arguments, strict=True):
            if slot >= 0:
                values[slot] = argument
        del arguments
        for step in plan.steps:
            operands = [values[slot] for slot in step.operands]
            for slot in step.dead:
                values[slot] = None
            try:
                if step.is_generator:
                    value = yield from step.function(step.instruction, operands, self)
                else:
                    value = step.function(step.instruction, operands, self)
                values[step.result] = value if step.dims is None else _checked(value, step)
            except Exception as error:
                raise located(error, step.instruction) from cause(error)
        return values[plan.root]

    def apply(self, computation: Computation, arguments: list[Value]) -> Value:
        return self._alone(self._plans.whole(computation), arguments)

    def _alone(self, plan: Plan, arguments: list[Value]) -> Value:
        """Runs a plan that must not meet other devices; this is where one run recurses into another."""
        self._nested += 1
        try:
            if self._nested > _MOST_NESTED:
                message = f"computations applied to elements nest deeper than {_MOST_NESTED}"
                raise HloError(message, plan.computation.span)
            return finish(self.drive(self._body(plan, arguments)))
        finally:
            self._nested -= 1

    def lift(
        self, computation: Computation, arguments: list[np.ndarray], root: Instruction | None = None
    ) -> Value:
        plan = self._plans.lifted(computation, root or computation.root)
        shape = next((argument.shape for argument in arguments if argument.ndim), ())
        if plan is None:
            return self._lift_each(self._plans.whole(computation, root), arguments, shape)
        values: list[Value | None] = [None] * plan.size
        for slot, argument in zip(plan.parameters, arguments, strict=True):
            if slot >= 0:
                values[slot] = argument
        for step in plan.steps:
            try:
                value = step.function(step.instruction, [values[slot] for slot in step.operands], self)
            except Exception as error:
                raise located(error, step.instruction) from cause(error)
            for slot in step.dead:
                values[slot] = None
            values[step.result] = value
        return _spread(values[plan.root], shape)

    def _lift_each(self, plan: Plan, arguments: list[np.ndarray], shape: tuple[int, ...]) -> Value:
        """The plan once for every element: for computations that loop or branch."""
        results = _empty(plan.shape, shape)
        targets = results if isinstance(results, tuple) else (results,)
        spread = [np.broadcast_to(argument, shape) for argument in arguments]
        for index in np.ndindex(shape):
            value = self._alone(plan, [np.asarray(array[index]) for array in spread])
            for target, part in zip(targets, value if isinstance(value, tuple) else (value,)):
                target[index] = part
        return results


def _spread(value: Value, shape: tuple[int, ...]) -> Value:
    """A lifted result in the shape of the arguments: a constant one has none of its own."""
    if isinstance(value, tuple):
        return tuple(_spread(part, shape) for part in value)
    return value if np.shape(value) == shape else np.broadcast_to(value, shape)


def _empty(root: Shape, shape: tuple[int, ...]) -> Value:
    if root.is_tuple:
        return tuple(np.zeros(shape, element.dtype.numpy) for element in root.elements)
    return np.zeros(shape, root.dtype.numpy)


def _checked(value: Value, step: Step) -> Value:
    """The array that an instruction gave, held against the shape that it has."""
    value = np.asarray(value)
    if value.shape == step.dims and value.dtype == step.dtype:
        return value
    shape = step.instruction.shape
    if value.dtype == step.dtype and fits(value, shape):
        return value
    if value.dtype == step.dtype and value.ndim == shape.rank and reads_dynamic(step.instruction):
        return resized(
            value,
            [
                live if shape.is_dynamic_dim(d) else dim
                for d, (live, dim) in enumerate(zip(value.shape, shape.dims))
            ],
        )
    raise HloError(f"{step.instruction.opcode} gives {value.dtype}{list(value.shape)} here, not {shape!r}")


def located(error: Exception, instruction: Instruction) -> HloError:
    """An error at its instruction. What NumPy refuses (sizes, too little memory) is the program's fault."""
    if isinstance(error, HloError):
        error.span = error.span or instruction.span
        return error
    place = f"%{instruction.name} = {instruction.opcode}"
    if isinstance(error, MemoryError):
        return HloError(f"{place}: not enough memory for {instruction.shape!r}", instruction.span)
    return HloError(f"{place} can't be evaluated: {error}", instruction.span)


def cause(error: Exception) -> BaseException | None:
    """What to raise the located error from: an HloError is the same one, and keeps its own cause."""
    return error.__cause__ if isinstance(error, HloError) else error


def finish(run: Generator) -> Value:
    """The result of a run that must not meet other devices."""
    try:
        request = next(run)
    except StopIteration as end:
        return end.value
    raise HloError(
        f"{request.instruction.opcode} inside a computation that is applied to elements",
        request.instruction.span,
    )
