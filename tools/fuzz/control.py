"""Recipes: control flow, tuples and tokens."""

from __future__ import annotations

from collections.abc import Callable

from hloc.ir import dtypes
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import Shape, TupleShape
from tools.fuzz.maker import Maker

Recipe = Callable[[Maker], Instruction]


class Control:
    """Recipes whose computations are made of other recipes, `step(m)`."""

    def __init__(self, step: Callable[[Maker], None]):
        self.step = step
        self.recipes: dict[Recipe, float] = {
            self.call: 1.5, self.while_: 2, self.conditional: 1.5, self.branches: 1, barrier: 0.7, token: 0.4,
            nested_tuple: 1, self.fusion: 0.7, self.asynchronous: 0.4, copy_pair: 0.3,
        }  # fmt: skip

    def _steps(self, m: Maker) -> None:
        for _ in range(m.draw.integer(1, 3)):
            self.step(m)

    def _operands(self, m: Maker) -> list[Instruction]:
        return [self._operand(m) for _ in range(m.draw.integer(1, 3))]

    def _operand(self, m: Maker) -> Instruction:
        """An array, or now and then a tuple of them, which may have tuples inside."""
        if m.draw.chance(0.85):
            return m.operand()
        return m.b.tuple(*(self._operand(m) for _ in range(m.draw.integer(0, 3))))

    def call(self, m: Maker, opcode: str = "call", **attributes) -> Instruction:
        operands = self._operands(m)

        def body(parameters: list[Instruction]) -> Instruction:
            self._steps(m)
            results = [m.draw.choice(m.pool[-3:]) for _ in range(m.draw.choice((1, 1, 1, 2, 3)))]
            return results[0] if len(results) == 1 else m.b.tuple(results[0], m.b.tuple(*results[1:]))

        attribute = "calls" if opcode in ("fusion", "async-start") else "to_apply"
        callee = m.computation("callee", [o.shape for o in operands], body)
        return m.b.op(opcode, *operands, **{attribute: callee}, **attributes)

    def fusion(self, m: Maker) -> Instruction:
        m.portable = False  # XLA takes fusions only after its own passes
        return self.call(m, "fusion", kind="kLoop")

    def asynchronous(self, m: Maker) -> Instruction:
        m.portable = False  # XLA has its own rules on what may run asynchronously
        start = self.call(m, "async-start")
        if m.draw.chance(0.3):
            start = m.b.op("async-update", start)
        return m.b.op("async-done", start)

    def while_(self, m: Maker) -> Instruction:
        """A counter and some values; the body changes those of which it makes one of the same shape."""
        values = self._operands(m)
        state = m.b.tuple(m.s32(0), *values)
        trips = m.draw.integer(0, 4)
        bound = m.value(dtypes.S32, (), "whole") if m.draw.chance(0.2) else None
        if bound is not None:
            state = m.b.tuple(m.b.op("minimum", bound, m.s32(4)), *values)
        condition = m.computation(
            "condition",
            [state.shape],
            lambda p: m.b.compare(m.b.get_tuple_element(p[0], 0), m.s32(trips), "LT"),
        )
        body = m.computation("body", [state.shape], lambda p: self._while_body(m, p[0], state.shape))
        return m.b.op("while", state, condition=condition, body=body)

    def _while_body(self, m: Maker, state: Instruction, shape: TupleShape) -> Instruction:
        old = m.pool[:]
        m.pool[:] = old[1:]
        self._steps(m)
        fresh = [v for v in m.pool if v not in old]
        rest = [self._like(m, element, [*fresh, *old[1:]]) for element in shape.elements[1:]]
        return m.b.tuple(m.b.add(old[0], m.s32(1)), *rest)

    def _like(self, m: Maker, shape: Shape, values: list[Instruction]) -> Instruction:
        """A value of a shape: some of the values there are, or new leaves."""
        if isinstance(shape, TupleShape):
            return m.b.tuple(*(self._like(m, element, values) for element in shape.elements))
        fitting = [v for v in values if v.shape.is_array and v.shape.compatible(shape)]
        return m.draw.choice(fitting[-2:] + fitting[:1]) if fitting else m.leaf(shape.dtype, shape.dims)

    def conditional(self, m: Maker) -> Instruction:
        first, second = self._operand(m), self._operand(m)
        target = m.draw.choice((first, second)).shape
        names = ("on_true", "on_false")
        computations = [
            m.computation(name, [o.shape], lambda p: self._branch(m, target))
            for name, o in zip(names, (first, second), strict=True)
        ]
        return m.b.op(
            "conditional",
            *(m.scalar(dtypes.PRED), first, second),
            true_computation=computations[0],
            false_computation=computations[1],
        )

    def branches(self, m: Maker) -> Instruction:
        count = m.draw.integer(1, 4)
        operands = [self._operand(m) for _ in range(count)]
        target = operands[0].shape
        computations = [
            m.computation("branch", [o.shape], lambda p: self._branch(m, target)) for o in operands
        ]
        index = m.index(dtypes.S32, count)
        return m.b.op("conditional", index, *operands, branch_computations=tuple(computations))

    def _branch(self, m: Maker, target: Shape) -> Instruction:
        self._steps(m)
        return self._like(m, target, m.pool)


def barrier(m: Maker) -> Instruction:
    return m.b.op("opt-barrier", m.operand())


def token(m: Maker) -> Instruction:
    return m.b.op("add-dependency", m.operand(), m.b.op("after-all"))


def nested_tuple(m: Maker) -> Instruction:
    """Tuples in tuples, over a barrier, and one element taken out."""
    values = [m.operand() for _ in range(3)]
    whole = m.b.tuple(values[0], m.b.tuple(*values[1:]))
    if m.draw.chance(0.5):
        whole = m.b.op("opt-barrier", whole)
    return m.b.get_tuple_element(m.b.get_tuple_element(whole, 1), m.draw.integer(0, 1))


def copy_pair(m: Maker) -> Instruction:
    m.portable = False
    return m.b.op("copy-done", m.b.op("copy-start", m.operand()))
