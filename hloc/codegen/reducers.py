"""Computations that fold two values into one: which of them are a known operation, and how to apply one.

A known operation may be regrouped (XLA's reducers are associative by definition), so that loops vectorize.
Any other computation is applied in order.
"""

from __future__ import annotations

from collections.abc import Sequence

from hloc.codegen import scalar
from hloc.codegen.arrays import Register
from hloc.codegen.choices import Choice
from hloc.codegen.kernel import KernelContext
from hloc.codegen.llvm import Builder, Value
from hloc.codegen.scalar_types import canonical
from hloc.ir.computation import Computation
from hloc.ir.dtypes import F32, PRED, DType
from hloc.ir.instruction import Instruction
from hloc.records import record, replace

KNOWN = ("add", "multiply", "maximum", "minimum", "and", "or", "xor")

_OF_PRED = {"add": "or", "maximum": "or", "multiply": "and", "minimum": "and"}


@record
class Reducer:
    """A way to fold values of element types `dtypes`: a computation, or the known operation that it is.

    `sums` are the types in which running values are kept: f32 for sums and products of narrower floats. `choice` says
    that values and places are folded which grow, by a computation that chooses one of two. Of `numbers` the greater
    one is wanted, and anything if one is NaN.
    """

    computation: Computation
    dtypes: tuple[DType, ...]
    operation: str | None
    choice: Choice | None = None
    numbers: bool = False

    @staticmethod
    def of_reduce(reduce: Instruction) -> Reducer:
        """That of a reduce of arrays."""
        dtypes = [operand.shape.dtype for operand in reduce.operands[: len(reduce.operands) // 2]]
        return replace(Reducer.of(reduce.attributes["to_apply"], dtypes), choice=Choice.of(reduce))

    @staticmethod
    def of(computation: Computation, dtypes: Sequence[DType]) -> Reducer:
        """The reducer of a computation of 2N scalars that gives N."""
        operation = known_operation(computation) if len(dtypes) == 1 else None
        if operation is not None and dtypes[0] is PRED:
            operation = _OF_PRED.get(operation, operation)
        if operation not in (None, "add") and dtypes[0].is_complex:
            operation = None
        return Reducer(computation, tuple(dtypes), operation)

    @property
    def sums(self) -> tuple[DType, ...]:
        (first, *_) = self.dtypes
        if self.operation is not None and first.is_float and first.bits < 32:
            return (F32,)
        return self.dtypes

    @property
    def is_float_sum(self) -> bool:
        """Whether regrouping changes how the result is rounded."""
        return self.operation in ("add", "multiply") and not self.dtypes[0].is_integer

    def widen(self, b: Builder, values: Sequence[Register]) -> list[Register]:
        """Elements as running values."""
        return [scalar.convert(b, v, d, s) for v, d, s in zip(values, self.dtypes, self.sums, strict=True)]

    def narrow(self, b: Builder, values: Sequence[Register]) -> list[Register]:
        """Running values as elements. Those of sub-byte types have wrapped at 8 bits only."""
        narrow = [scalar.convert(b, v, s, d) for v, d, s in zip(values, self.dtypes, self.sums, strict=True)]
        return [canonical(b, d, v) if d.is_subbyte else v for v, d in zip(narrow, self.dtypes, strict=True)]

    def apply(
        self, k: KernelContext, running: Sequence[Register], values: Sequence[Register], regroup: bool = True
    ) -> list[Register]:
        """Running values folded with others of their types.

        With `regroup`, LLVM may change the order in which a known operation takes the values of a loop.
        """
        if self.operation is None:
            return k.apply(self.computation, [*running, *values])
        if self.numbers:
            return [k.b.greater_number(running[0], values[0])]
        before = k.b.fast
        if regroup:
            k.b.fast = " ".join(dict.fromkeys([*before.split(), "reassoc"]))
        result = combine(k.b, self.operation, self.sums[0], running[0], values[0])
        k.b.fast = before
        return [result]

    def identity(self) -> list[Register]:
        """The running value that changes no other; only for a known operation."""
        return [identity(self.operation, self.sums[0])]


def known_operation(computation: Computation) -> str | None:
    """The opcode of a computation that is one known operation of its parameters, perhaps with conversions."""
    if len(computation.parameters) != 2:
        return None
    root = _converted(computation.root)
    if root.opcode not in KNOWN:
        return None
    wide = root.shape.dtype
    narrow = computation.parameters[0].shape.dtype
    if wide is not narrow and not (wide.is_float and narrow.is_float and wide.bits > narrow.bits):
        return None
    operands = [_converted(operand) for operand in root.operands]
    if {id(operand) for operand in operands} != {id(parameter) for parameter in computation.parameters}:
        return None
    return root.opcode


def _converted(instruction: Instruction) -> Instruction:
    """Seen through one conversion."""
    return instruction.operands[0] if instruction.opcode == "convert" else instruction


def combine(b: Builder, operation: str, dtype: DType, x: Register, y: Register) -> Register:
    """A known operation of two values of `dtype`."""
    if dtype.is_complex:
        return b.fadd(x[0], y[0]), b.fadd(x[1], y[1])
    if dtype.is_float:
        return _combine_floats(b, operation, x, y)
    simple = {"add": b.add, "multiply": b.mul, "and": b.and_, "or": b.or_, "xor": b.xor}
    if operation in simple:
        return simple[operation](x, y)
    name = ("s" if dtype.is_signed else "u") + operation[:3]
    return b.intrinsic(f"llvm.{name}", x.type, [x, y])


def _combine_floats(b: Builder, operation: str, x: Value, y: Value) -> Value:
    if operation == "add":
        return b.fadd(x, y)
    if operation == "multiply":
        return b.fmul(x, y)
    return b.intrinsic(f"llvm.{operation}", x.type, [x, y])


def identity(operation: str, dtype: DType) -> Register:
    """The value that a known operation leaves any other unchanged with."""
    if operation == "add":
        return scalar.constant(dtype, -0.0 if dtype.is_float else 0)
    if operation == "multiply":
        return scalar.constant(dtype, 1)
    if operation in ("or", "xor"):
        return scalar.constant(dtype, 0)
    if operation == "and":
        return scalar.constant(dtype, True if dtype is PRED else -1 if dtype.is_signed else extreme(dtype, least=False))
    return scalar.constant(dtype, extreme(dtype, least=operation == "maximum"))


def extreme(dtype: DType, least: bool) -> float | int:
    """The least or greatest value of a real type, infinite if it has infinities."""
    if dtype.is_float:
        return float("-inf") if least else float("inf")
    if dtype.is_signed:
        return -(1 << (dtype.bits - 1)) if least else (1 << (dtype.bits - 1)) - 1
    return 0 if least else (1 << dtype.bits) - 1
