"""Building modules in Python: shapes are inferred, names and ids given, computations put in order.

    b = Builder("softmax")
    x = b.parameter(array(F32, 4, 8), name="x")
    weights = b.exponential(b.subtract(x, b.broadcast(b.reduce(x, "maximum", (1,)), x.shape, (0,))))
    total = b.reduce(weights, "add", (1,))
    module = b.build(b.divide(weights, b.broadcast(total, x.shape, (0,))))

Every opcode is a method under its name with underscores (`and_`, `or_`, `not_` and `while_` with one more):
operands in order, attributes by name. Passes, which change computations that exist, use `make`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hloc.ir.attributes import PadDim, SliceDim
from hloc.ir.computation import Computation
from hloc.ir.dtypes import PRED, S32, SIGNED, UNSIGNED, DType
from hloc.ir.instruction import Instruction
from hloc.ir.literals import Literal
from hloc.ir.module import Module
from hloc.ir.opcodes import OPS
from hloc.ir.shape_inference import infer_shape
from hloc.ir.shapes import ArrayShape, Shape

Number = bool | int | float | complex
_TAKES_INDICES = ("dynamic-slice", "dynamic-update-slice")
Body = Computation | Callable[..., Instruction]


def make(
    computation: Computation,
    opcode: str,
    operands: Sequence[Instruction],
    attributes: Mapping[str, Any] | None = None,
    *,
    shape: Shape | None = None,
    before: Instruction | None = None,
    like: Instruction | None = None,
    name: str = "",
) -> Instruction:
    """Add an instruction to a computation, at its end or before another instruction.

    The result shape is inferred; `shape` is needed where it does not follow from the operands, and where
    given it is taken, layout included. `like` is the instruction that the new one stands for: metadata
    and place in the text are its. Raises HloError where the operation breaks an invariant of its op.
    """
    rows = OPS[opcode].attributes
    own = {
        key: value
        for key, value in (attributes or {}).items()
        if key not in rows or value != rows[key].default
    }
    inferred = infer_shape(opcode, [operand.shape for operand in operands], own, shape)
    instruction = Instruction(
        opcode,
        (inferred if shape is None else shape).with_default_layout(),
        list(operands),
        own,
        name=name,
        annotations=_inherited(like),
        span=None if like is None else like.span,
    )
    return computation.add(instruction, before)


def make_constant(
    computation: Computation,
    literal: Literal,
    *,
    before: Instruction | None = None,
    like: Instruction | None = None,
    name: str = "",
) -> Instruction:
    """Add a constant."""
    shape = literal.shape
    return make(
        computation, "constant", [], {"literal": literal}, shape=shape, before=before, like=like, name=name
    )


def _inherited(like: Instruction | None) -> dict[str, Any]:
    return {} if like is None or like.metadata is None else {"metadata": like.metadata}


class Builder:
    """Builds the entry of a new module, or with `computation` another computation of an existing one."""

    def __init__(self, name: str, *, module: Module | None = None):
        self.module = Module(name) if module is None else module
        self.computation = Computation("main" if module is None else name)
        self.module.add_computation(self.computation, entry=module is None)

    def op(
        self,
        opcode: str,
        *operands: Instruction | Number,
        shape: Shape | None = None,
        name: str = "",
        **attributes: Any,
    ) -> Instruction:
        """Any op, by its name in the text.

        Numbers become constants: of the other operands' type and shape in elementwise ops, s32 indices.
        """
        taken = self._instructions(opcode, operands)
        values = {
            key: tuple(value) if isinstance(value, list) else value for key, value in attributes.items()
        }
        return make(self.computation, opcode, taken, values, shape=shape, name=name)

    def __getattr__(self, name: str) -> Callable[..., Instruction]:
        opcode = name.rstrip("_").replace("_", "-")
        if opcode not in OPS:
            raise AttributeError(f"HLO has no op {opcode}")

        def add_op(*operands: Instruction | Number, **keywords: Any) -> Instruction:
            return self.op(opcode, *operands, **keywords)

        return add_op

    def _instructions(self, opcode: str, operands: Sequence[Instruction | Number]) -> list[Instruction]:
        arrays = [
            operand for operand in operands if isinstance(operand, Instruction) and operand.shape.is_array
        ]
        return [o if isinstance(o, Instruction) else self._number(opcode, o, arrays) for o in operands]

    def _number(self, opcode: str, value: Number, arrays: Sequence[Instruction]) -> Instruction:
        if opcode in _TAKES_INDICES:
            return self.constant(value, S32)
        is_elementwise = OPS[opcode].is_elementwise
        if not arrays or not (is_elementwise or opcode == "pad"):
            raise TypeError(f"{opcode} of the number {value!r}: it has no element type; use constant()")
        # The first operand of a select is its predicate.
        model = _array_of(arrays[-1])
        scalar = self.constant(value, model.dtype)
        return self.broadcast(scalar, model) if is_elementwise and model.dims else scalar

    # Leaves

    def parameter(self, shape: Shape, *, name: str = "") -> Instruction:
        """The next parameter."""
        number = len(self.computation.parameters)
        return self.op("parameter", shape=shape, name=name or f"p{number}", number=number)

    def constant(self, value: object, dtype: DType | None = None, *, name: str = "") -> Instruction:
        """A constant of a Literal or of anything that NumPy makes an array of.

        Without `dtype`, Python integers are s32, floats f32, complex numbers c64; arrays keep their type.
        """
        literal = value if isinstance(value, Literal) else Literal.of(*_with_default_type(value, dtype))
        return make_constant(self.computation, literal, name=name)

    def iota(self, shape: ArrayShape, dimension: int = 0) -> Instruction:
        return self.op("iota", shape=shape, iota_dimension=dimension)

    # Shapes and element types

    def convert(self, operand: Instruction, dtype: DType) -> Instruction:
        return self.op("convert", operand, shape=_array_of(operand).with_dtype(dtype))

    def bitcast_convert(self, operand: Instruction, dtype: DType) -> Instruction:
        target = infer_shape("bitcast-convert", [operand.shape], {}, ArrayShape(dtype))
        return self.op("bitcast-convert", operand, shape=target)

    def broadcast(
        self, operand: Instruction, shape: Shape | Sequence[int], dimensions: Sequence[int] = ()
    ) -> Instruction:
        """Operand dimension i becomes dimension dimensions[i] of the shape, whose type does not matter."""
        dims = shape.dims if isinstance(shape, ArrayShape) else tuple(shape)  # type: ignore[arg-type]
        dynamic = shape.dynamic if isinstance(shape, ArrayShape) else ()
        target = ArrayShape(_array_of(operand).dtype, dims, None, dynamic)
        return self.op("broadcast", operand, shape=target, dimensions=tuple(dimensions))

    def reshape(self, operand: Instruction, dims: Sequence[int]) -> Instruction:
        return self.op("reshape", operand, shape=ArrayShape(_array_of(operand).dtype, tuple(dims)))

    def slice(
        self, operand: Instruction, starts: Sequence[int], limits: Sequence[int], strides: Sequence[int] = ()
    ) -> Instruction:
        steps = strides or (1,) * len(starts)
        return self.op("slice", operand, slice=tuple(map(SliceDim, starts, limits, steps)))

    def pad(
        self, operand: Instruction, value: Instruction | Number, padding: Sequence[Sequence[int]]
    ) -> Instruction:
        """`padding` has (low, high) or (low, high, interior) for each dimension."""
        return self.op("pad", operand, value, padding=tuple(PadDim(*entry) for entry in padding))

    def concatenate(self, operands: Sequence[Instruction], dimension: int) -> Instruction:
        return self.op("concatenate", *operands, dimensions=(dimension,))

    def tuple(self, *operands: Instruction) -> Instruction:
        return self.op("tuple", *operands)

    def get_tuple_element(self, operand: Instruction, index: int) -> Instruction:
        return self.op("get-tuple-element", operand, index=index)

    # Products and folds

    def dot(
        self, lhs: Instruction, rhs: Instruction, dtype: DType | None = None, **attributes: Any
    ) -> Instruction:
        """A dot with the attributes of HLO; without any, of lhs's last dimension and rhs's first."""
        if not attributes:
            attributes = {"lhs_contracting_dims": (_array_of(lhs).rank - 1,), "rhs_contracting_dims": (0,)}
        shape = infer_shape("dot", [lhs.shape, rhs.shape], attributes)
        target = shape if dtype is None else shape.with_dtype(dtype)  # type: ignore[attr-defined]
        return self.op("dot", lhs, rhs, shape=target, **attributes)

    def reducer(self, opcode: str, dtype: DType) -> Computation:
        """The computation of two scalars that applies a binary op; one an op and type."""
        name = f"{opcode}_{dtype.name}"
        found = self.module.computations.get(name)
        if found is not None:
            return found
        return self.function(name, [ArrayShape(dtype)] * 2, lambda f, x, y: f.op(opcode, x, y))

    def reduce(
        self,
        operand: Instruction,
        folding: str | Body,
        dimensions: Sequence[int] | None = None,
        init: Instruction | Number | None = None,
    ) -> Instruction:
        """Fold dimensions (all by default) by a binary op ("add"), which has a start, or a computation."""
        shape = _array_of(operand)
        if isinstance(folding, str):
            init = _neutral(folding, shape.dtype) if init is None else init
            folding = self.reducer(folding, shape.dtype)
        if init is None:
            raise TypeError("reduce by a computation needs an initial value")
        start = init if isinstance(init, Instruction) else self.constant(init, shape.dtype)
        body = self._body(folding, "reducer", [ArrayShape(shape.dtype)] * 2)
        over = range(shape.rank) if dimensions is None else dimensions
        return self.op("reduce", operand, start, dimensions=tuple(over), to_apply=body)

    # Computations

    def function(self, name: str, shapes: Sequence[Shape], body: Callable[..., Instruction]) -> Computation:
        """A computation with such parameters; `body(builder, *parameters)` returns its root."""
        inner = Builder(name, module=self.module)
        inner.computation.root = body(inner, *(inner.parameter(shape) for shape in shapes))
        return inner.computation

    def _body(self, body: Body, name: str, shapes: Sequence[Shape]) -> Computation:
        return body if isinstance(body, Computation) else self.function(name, shapes, body)

    def call(self, body: Body, *operands: Instruction) -> Instruction:
        callee = self._body(body, "callee", [operand.shape for operand in operands])
        return self.op("call", *operands, to_apply=callee)

    def while_(self, state: Instruction, condition: Body, body: Body) -> Instruction:
        """`condition` and `body` are computations, or Python functions (builder, state) -> Instruction."""
        return self.op(
            "while",
            state,
            condition=self._body(condition, "condition", [state.shape]),
            body=self._body(body, "body", [state.shape]),
        )

    def cond(
        self, predicate: Instruction, on_true: Body, on_false: Body, *operands: Instruction
    ) -> Instruction:
        """Either branch, on an operand of its own or on the one operand given for both."""
        first, second = operands if len(operands) == 2 else operands * 2
        return self.op(
            "conditional",
            predicate,
            first,
            second,
            true_computation=self._body(on_true, "on_true", [first.shape]),
            false_computation=self._body(on_false, "on_false", [second.shape]),
        )

    def compare(
        self, lhs: Instruction, rhs: Instruction | Number, direction: str, **attributes: Any
    ) -> Instruction:
        return self.op("compare", lhs, rhs, direction=direction, **attributes)

    def build(self, root: Instruction | Sequence[Instruction]) -> Module:
        """Finish the module with that entry root; a sequence becomes a tuple. The module is not verified."""
        self.computation.root = root if isinstance(root, Instruction) else self.tuple(*root)
        self.module.order_computations()
        return self.module


def _array_of(operand: Instruction) -> ArrayShape:
    if not isinstance(operand.shape, ArrayShape):
        raise TypeError(f"%{operand.name} is {operand.shape!r}, not an array")
    return operand.shape


def _with_default_type(value: object, dtype: DType | None) -> tuple[object, DType | None]:
    if dtype is not None or isinstance(value, np.ndarray | np.generic):
        return value, dtype
    array = np.asarray(value)
    narrow = {"i": np.int32, "f": np.float32, "c": np.complex64}.get(array.dtype.kind)
    return (array if narrow is None else array.astype(narrow)), None


def _neutral(opcode: str, dtype: DType) -> object:
    """The initial value that changes nothing when an op folds values of a type."""
    if opcode in ("add", "or", "xor"):
        return dtype.numpy.type(0)
    if opcode == "multiply":
        return dtype.numpy.type(1)
    if opcode == "and":
        return dtype.numpy.type(True) if dtype is PRED else np.array(-1).astype(dtype.numpy)
    if opcode not in ("maximum", "minimum"):
        raise TypeError(f"{opcode} has no neutral value; give an initial one")
    low, high = _limits(dtype)
    return low if opcode == "maximum" else high


def _limits(dtype: DType) -> tuple[object, object]:
    """The least and the greatest value of a type."""
    if dtype is PRED:
        return False, True
    if dtype.kind in (SIGNED, UNSIGNED):
        top = 2 ** (dtype.bits - (dtype.kind is SIGNED)) - 1
        return (-top - 1 if dtype.kind is SIGNED else 0), top
    infinity = np.array(np.inf).astype(dtype.numpy)
    if np.isinf(infinity.astype(np.float64)):
        return -np.inf, np.inf
    raise TypeError(f"{dtype.name} has no infinity; give an initial value")
