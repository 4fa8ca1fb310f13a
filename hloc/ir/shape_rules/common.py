"""What the shape rules share: the site of an operation, comparing shapes, and checks that many ops make.

A rule is a function of a `Site` that returns the result shape, or raises a labelled HloError when the
operation breaks one of its invariants. Rules see operand shapes and attributes, never instructions, so that
the parser and the builder can ask before an instruction exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from hloc.errors import HloError
from hloc.ir.dtypes import COMPLEX, FLOAT, PREDICATE, SIGNED, UNSIGNED, DType
from hloc.ir.opcodes import OPS
from hloc.ir.shapes import UNBOUNDED, ArrayShape, BufferShape, Shape, TupleShape

if TYPE_CHECKING:
    from hloc.ir.computation import Computation
    from hloc.ir.instruction import Instruction

FLOATS = frozenset({FLOAT})
COMPLEXES = frozenset({COMPLEX})
UNSIGNEDS = frozenset({UNSIGNED})
PREDICATES = frozenset({PREDICATE})
INTEGERS = frozenset({SIGNED, UNSIGNED})
FLOAT_OR_COMPLEX = FLOATS | COMPLEXES
BITS = INTEGERS | {PREDICATE}
REALS = INTEGERS | FLOATS
SIGNED_NUMBERS = FLOAT_OR_COMPLEX | {SIGNED}
NUMBERS = REALS | COMPLEXES
ANY = NUMBERS | {PREDICATE}

_KIND_NAMES = {
    FLOATS: "a float",
    COMPLEXES: "complex",
    UNSIGNEDS: "an unsigned integer",
    PREDICATES: "pred",
    INTEGERS: "an integer",
    FLOAT_OR_COMPLEX: "a float or complex",
    BITS: "pred or an integer",
    REALS: "an integer or float",
    SIGNED_NUMBERS: "a signed integer, float or complex",
    NUMBERS: "an integer, float or complex",
    ANY: "an element type",
}


class Site:
    """One operation as a rule sees it. `declared` is the result shape as written, or None."""

    __slots__ = ("opcode", "shapes", "attributes", "declared", "operands")

    def __init__(
        self,
        opcode: str,
        shapes: Sequence[Shape],
        attributes: Mapping[str, Any],
        declared: Shape | None = None,
        operands: Sequence[Instruction] = (),
    ):
        self.opcode = opcode
        self.shapes = shapes
        self.attributes = attributes
        self.declared = declared
        self.operands = operands

    def get(self, attribute: str) -> Any:
        """The attribute's value, or its default in the op table."""
        value = self.attributes.get(attribute)
        if value is None:
            row = OPS[self.opcode].attributes.get(attribute)
            return None if row is None else row.default
        return value

    def error(self, label: str, message: str, hint: str | None = None) -> HloError:
        return HloError(f"{self.opcode}: {message}", label=label, hint=hint)

    def name(self, number: int) -> str:
        """`operand 1 (%b)`."""
        name = f" (%{self.operands[number].name})" if number < len(self.operands) else ""
        return f"operand {number}{name}"

    def array(self, number: int) -> ArrayShape:
        """The shape of an operand that must be an array."""
        shape = self.shapes[number]
        if not shape.is_array:
            raise self.error("ARRAY_C1", f"{self.name(number)} is {shape!r}, expected an array")
        return shape  # type: ignore[return-value]

    def typed(self, number: int, kinds: frozenset[str]) -> ArrayShape:
        """The shape of an operand that must be an array with elements of one of the kinds."""
        shape = self.array(number)
        if shape.dtype.kind not in kinds:
            raise self.error(
                "TYPE_C1",
                f"{self.name(number)} is {shape!r}, expected its element type to be {_KIND_NAMES[kinds]}",
            )
        return shape

    def scalar(self, number: int, kinds: frozenset[str] = ANY) -> ArrayShape:
        """The shape of an operand that must be a scalar of one of the kinds."""
        shape = self.typed(number, kinds)
        if shape.dims:
            raise self.error("SCALAR_C1", f"{self.name(number)} is {shape!r}, expected a scalar")
        return shape

    def scalar_of(self, number: int, dtype: DType) -> ArrayShape:
        """The shape of an operand that must be a scalar of that element type."""
        shape = self.array(number)
        if shape.dims or shape.dtype is not dtype:
            raise self.error("SCALAR_C1", f"{self.name(number)} is {shape!r}, expected {dtype.name}[]")
        return shape

    def token(self, number: int) -> None:
        if not self.shapes[number].is_token:
            raise self.error("TOKEN_C1", f"{self.name(number)} is {self.shapes[number]!r}, expected token[]")

    def tuple(self, number: int, least: int = 0) -> TupleShape:
        """The shape of an operand that must be a tuple of at least that many elements."""
        shape = self.shapes[number]
        if not isinstance(shape, TupleShape) or len(shape.elements) < least:
            size = f" of at least {least} elements" if least else ""
            raise self.error("TUPLE_C1", f"{self.name(number)} is {shape!r}, expected a tuple{size}")
        return shape

    def result(self) -> Shape:
        """The declared shape, for an op whose result does not follow from its operands."""
        if self.declared is None:
            raise self.error(
                "SHAPE_C2", "its result shape does not follow from its operands and must be written"
            )
        return self.declared

    def result_array(self) -> ArrayShape:
        shape = self.result()
        if not shape.is_array:
            raise self.error("SHAPE_C1", f"its result is {shape!r}, expected an array")
        return shape  # type: ignore[return-value]

    def result_tuple(self, size: int) -> TupleShape:
        shape = self.result()
        if not isinstance(shape, TupleShape) or len(shape.elements) != size:
            raise self.error("SHAPE_C1", f"its result is {shape!r}, expected a tuple of {size} elements")
        return shape

    def same_type(self, number: int, other: int = 0) -> None:
        """Both operands have the same element type."""
        here, there = self.array(number), self.array(other)
        if here.dtype is not there.dtype:
            raise self.error(
                "TYPE_C2",
                f"{self.name(number)} is {here!r}, {self.name(other)} is {there!r}: the element types differ",
                _mixed_hint(here.dtype, there.dtype),
            )

    def same_dims(self, number: int, other: int = 0) -> None:
        """Both operands have the same dimensions."""
        here, there = self.array(number), self.array(other)
        if not dims_agree(here.dims, there.dims):
            raise self.error(
                "DIMENSIONS_C5",
                f"{self.name(number)} is {here!r}, {self.name(other)} is {there!r}: the dimensions differ",
            )

    def dimensions(
        self, attribute: str, rank: int, *, count: int | None = None, increasing: bool = False
    ) -> tuple[int, ...]:
        """A list attribute whose entries are distinct dimensions of an array of that rank."""
        values = self.get(attribute)
        text = f"{attribute}={{{','.join(map(str, values))}}}"
        if count is not None and len(values) != count:
            raise self.error("DIMENSIONS_C4", f"{text} has {len(values)} entries, expected {count}")
        for value in values:
            if not 0 <= value < rank:
                raise self.error(
                    "DIMENSIONS_C1", f"{text}: {value} is not a dimension of an array of rank {rank}"
                )
        if len(set(values)) != len(values):
            raise self.error("DIMENSIONS_C2", f"{text} names a dimension twice")
        if increasing and any(a > b for a, b in zip(values, values[1:], strict=False)):
            raise self.error("DIMENSIONS_C3", f"{text} must be in increasing order")
        return values

    def dimension(self, attribute: str, rank: int) -> int:
        """The one entry of a list attribute that names a single dimension."""
        return self.dimensions(attribute, rank, count=1)[0]


def _mixed_hint(one: DType, other: DType) -> str | None:
    return "put a convert before it" if one.is_float and other.is_float else None


def make_array(dtype: DType, dims: Iterable[int], dynamic: Sequence[bool] = ()) -> ArrayShape:
    """An array shape without layout."""
    return ArrayShape(dtype, tuple(dims), None, tuple(dynamic) if any(dynamic) else ())


def one_or_tuple(shapes: Sequence[Shape], as_tuple: bool = False) -> Shape:
    """The shape of one result, or the tuple of several."""
    return TupleShape(tuple(shapes)) if as_tuple or len(shapes) != 1 else shapes[0]


def dynamic_flags(shape: ArrayShape) -> tuple[bool, ...]:
    return shape.dynamic or (False,) * len(shape.dims)


def sizes_agree(one: int, other: int) -> bool:
    """Equal, or one of them unbounded."""
    return one == other or UNBOUNDED in (one, other)


def dims_agree(one: Sequence[int], other: Sequence[int]) -> bool:
    return one == other or (len(one) == len(other) and all(map(sizes_agree, one, other)))


def element_count(dims: Iterable[int]) -> int:
    """Elements of an array of these dimensions, or UNBOUNDED."""
    sizes = tuple(dims)
    return UNBOUNDED if UNBOUNDED in sizes else prod(sizes)


def compatible(one: Shape, other: Shape) -> bool:
    """Whether two shapes differ at most in layouts and in which dimensions are dynamic, as XLA compares."""
    if one is other:
        return True
    pairs = [(one, other)]
    while pairs:
        here, there = pairs.pop()
        if isinstance(here, ArrayShape) and isinstance(there, ArrayShape):
            if here.dtype is not there.dtype or not dims_agree(here.dims, there.dims):
                return False
        elif isinstance(here, TupleShape) and isinstance(there, TupleShape):
            if len(here.elements) != len(there.elements):
                return False
            pairs.extend(zip(here.elements, there.elements, strict=True))
        elif isinstance(here, BufferShape) and isinstance(there, BufferShape):
            pairs.append((here.element, there.element))
        else:
            return False
    return True


def signature(site: Site, computation: Computation) -> tuple[list[Shape], Shape]:
    """Parameter shapes and result shape of a called computation, which must be whole."""
    if computation.root is None or any(parameter is None for parameter in computation.parameters):
        raise site.error("CALLED_C4", f"%{computation.name} lacks its root or a parameter")
    return [parameter.shape for parameter in computation.parameters], computation.root.shape


def check_parameters(site: Site, computation: Computation, expected: Sequence[Shape], role: str) -> Shape:
    """Let the computation take exactly these shapes; returns its result shape."""
    parameters, result = signature(site, computation)
    if len(parameters) != len(expected):
        raise site.error(
            "CALLED_C1",
            f"{role} %{computation.name} takes {len(parameters)} parameters, expected {len(expected)}",
        )
    for number, (have, want) in enumerate(zip(parameters, expected, strict=True)):
        if not compatible(have, want):
            raise site.error(
                "CALLED_C2",
                f"parameter {number} of {role} %{computation.name} is {have!r}, expected {want!r}",
            )
    return result


def check_returns(site: Site, computation: Computation, result: Shape, expected: Shape, role: str) -> None:
    if not compatible(result, expected):
        raise site.error("CALLED_C3", f"{role} %{computation.name} returns {result!r}, expected {expected!r}")


def scalar_shape(dtype: DType) -> ArrayShape:
    """A scalar of that type; one object a type."""
    shape = _SCALARS.get(dtype.name)
    if shape is None:
        shape = _SCALARS[dtype.name] = ArrayShape(dtype)
    return shape


_SCALARS: dict[str, ArrayShape] = {}


def check_reducer(
    site: Site, computation: Computation, dtypes: Sequence[DType], attribute: str = "to_apply"
) -> None:
    """Let the computation fold accumulators and values of these types: (T0.., T0..) -> T0 or (T0..)."""
    scalars = [scalar_shape(dtype) for dtype in dtypes]
    result = check_parameters(site, computation, [*scalars, *scalars], attribute)
    whole = scalars[0] if len(scalars) == 1 and not result.is_tuple else TupleShape(tuple(scalars))
    check_returns(site, computation, result, whole, attribute)
